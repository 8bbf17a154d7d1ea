//! One host of a bed, as a test sees it.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::daemon::Daemon;
use super::engine::Engine;
use super::http::{self, Request, Response};
use super::images;
use super::layout::{Layout, OWNER};
use super::namespace::{Namespace, ip, stderr_of};
use super::process::path_with_sbin;
use super::state::State;

/// A network namespace with an engine and a `jacod`; all methods take `&self`, so that
/// several threads of a test can use one host.
#[derive(Debug)]
pub struct Host {
    layout: Layout,
    index: usize,
    directory: PathBuf,
    namespace: Namespace,
    engine: Engine,
    daemon: Daemon,
}

impl Host {
    pub(super) fn new(state: &State, index: usize) -> Self {
        let layout = &state.layout;
        let directory = layout.directory().join(index.to_string());
        let engine = Engine::new(layout, index, &directory, &state.engine_flags);
        Self {
            daemon: Daemon::new(state, index, &directory, &engine.socket()),
            namespace: Namespace::named(layout.host_namespace(index)),
            layout: layout.clone(),
            index,
            directory,
            engine,
        }
    }

    /// Makes the namespace and joins it to the switch.
    pub(super) fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.directory)?;
        self.namespace.create()?;
        let (host, switch) = (self.namespace.name(), self.layout.switch_namespace());
        let (port, address) = (self.port(), self.address());
        ip(&[
            format!("link add {port} netns {switch} type veth peer name eth0 netns {host}"),
            format!("-n {switch} link set {port} master switch up"),
            format!("-n {host} addr add {address}/24 dev eth0"),
            format!("-n {host} link set eth0 up"),
        ])?;
        self.namespace.sysctl("net/ipv4/ip_forward", "1")
    }

    /// Counted from 1.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The hostname that its `jacod` is given: `node-<index>`.
    pub fn name(&self) -> String {
        format!("node-{}", self.index)
    }

    /// Its address on the switch.
    pub fn address(&self) -> Ipv4Addr {
        self.layout.host_address(self.index)
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Its `jacod`.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Runs code inside the namespace; see [`Namespace::enter`].
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace.enter(work)
    }

    /// Runs a command inside with the host's environment, and collects its output.
    pub fn run(&self, command: &mut Command) -> Result<Output> {
        self.namespace.output(command.envs(self.environment()))
    }

    /// What makes `jaco` and `docker` talk to this host, and a shell find them.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let binaries = self
            .daemon
            .binary("jaco")
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned));
        let path = match binaries {
            Some(folder) => format!("{}:{}", folder.display(), path_with_sbin()),
            None => path_with_sbin(),
        };
        vec![
            ("JACO_SOCKET", self.daemon.socket().display().to_string()),
            (
                "DOCKER_HOST",
                format!("unix://{}", self.engine.socket().display()),
            ),
            ("PATH", path),
            (OWNER, self.layout.name.clone()),
        ]
    }

    /// Starts the stopped or killed engine and waits until it answers.
    pub fn start_engine(&self) -> Result<()> {
        self.engine.start()
    }

    /// Stops the engine and its containers.
    pub fn stop_engine(&self) -> Result<()> {
        self.engine.stop()
    }

    /// Ends the engine with SIGKILL.
    pub fn kill_engine(&self) -> Result<()> {
        self.engine.kill()
    }

    /// Runs `docker` against this host's engine.
    pub fn docker(&self, arguments: &[&str]) -> Result<Output> {
        self.engine.docker(arguments)
    }

    /// Like [`Self::docker`], but a failure is an error; returns the trimmed output.
    pub fn docker_text(&self, arguments: &[&str]) -> Result<String> {
        self.engine.docker_text(arguments)
    }

    /// Loads an image (`web:1`) into the engine without the registry.
    pub fn load_image(&self, name: &str) -> Result<()> {
        images::load(&self.engine, &self.layout.registry(), name)
    }

    /// Writes `jacod.yaml`; see [`Daemon::write_config`].
    pub fn write_config(&self, extra: &[(&str, Value)]) -> Result<()> {
        self.daemon.write_config(extra)
    }

    /// The IPv4 addresses that a name has for a container of this host; none if it has none.
    pub fn addresses_of(&self, container: &str, name: &str) -> Result<BTreeSet<Ipv4Addr>> {
        let output = self.docker(&["exec", container, "nslookup", "-type=a", name])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("Address: "));
        Ok(lines
            .filter_map(|address| address.trim().parse().ok())
            .collect())
    }

    /// Starts `jacod`; writes a configuration first if there is none.
    pub fn start_daemon(&self) -> Result<()> {
        self.daemon.start()
    }

    /// SIGTERM, then waits for the end of `jacod`.
    pub fn stop_daemon(&self) -> Result<()> {
        self.daemon.stop()
    }

    /// Ends `jacod` with SIGKILL.
    pub fn kill_daemon(&self) -> Result<()> {
        self.daemon.kill()
    }

    /// Runs the command line on this host.
    pub fn jaco(&self, arguments: &[&str]) -> Result<Output> {
        self.run(Command::new(self.daemon.binary("jaco")?).args(arguments))
    }

    /// Like [`Self::jaco`], but a failure is an error; returns the trimmed output.
    pub fn jaco_text(&self, arguments: &[&str]) -> Result<String> {
        let output = self.jaco(arguments)?;
        let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(
            output.status.success(),
            "jaco {arguments:?} on {}: {}\n{stdout}{}",
            self.name(),
            output.status,
            stderr_of(&output)
        );
        Ok(stdout)
    }

    /// Runs the command line with `-o json`; a failure is an error.
    pub fn jaco_json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.jaco_text(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("jaco {arguments:?}: not JSON: {text}"))
    }

    /// GET from inside this host: `address` is where to connect (`10.99.0.2:80`), `host` the
    /// header.
    pub fn http_get(&self, host: &str, address: &str, path: &str) -> Result<Response> {
        self.http(address, &Request::get(host, path))
    }

    /// Sends a request from inside this host.
    pub fn http(&self, address: &str, request: &Request) -> Result<Response> {
        self.namespace.enter(|| http::send(address, request))?
    }

    /// Pulls the host's cable: no carrier until [`Self::link_up`].
    pub fn link_down(&self) -> Result<()> {
        self.set_link("down")
    }

    /// Puts the cable back.
    pub fn link_up(&self) -> Result<()> {
        self.set_link("up")
    }

    /// The name of the switch's port for this host.
    pub(super) fn port(&self) -> String {
        format!("port{}", self.index)
    }

    /// Reaps ended children; used when a bed goes.
    pub(super) fn reap(&self) {
        self.engine.reap();
        self.daemon.reap();
    }

    fn set_link(&self, state: &str) -> Result<()> {
        let switch = self.layout.switch_namespace();
        ip(&[format!("-n {switch} link set {} {state}", self.port())])
    }
}
