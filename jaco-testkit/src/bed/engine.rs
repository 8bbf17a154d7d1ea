//! One host's Docker Engine.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::layout::Layout;
use super::namespace::{Namespace, stderr_of};
use super::poll::poll_until;
use super::process::{Incarnation, Process, owner_of, path_with_sbin, send};

const START: Duration = Duration::from_secs(60);
/// The engine gives its containers 15 seconds to stop.
const STOP: Duration = Duration::from_secs(40);

/// A `dockerd` with a containerd, storage, bridge and firewall of its own.
#[derive(Debug)]
pub struct Engine {
    bed: String,
    directory: PathBuf,
    namespace: Namespace,
    registry: String,
    cgroup: String,
    flags: Vec<String>,
    process: Process,
}

impl Engine {
    /// Describes the engine of host `index`, whose files are in `directory`.
    pub fn new(layout: &Layout, index: usize, directory: &Path, flags: &[String]) -> Self {
        Self {
            bed: layout.name.clone(),
            directory: directory.to_owned(),
            namespace: Namespace::named(layout.host_namespace(index)),
            registry: layout.registry(),
            cgroup: layout.host_namespace(index),
            flags: flags.to_vec(),
            process: Process::new(&layout.name, "dockerd", directory),
        }
    }

    /// The socket of its API.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    /// Starts the engine and waits until its API answers.
    pub fn start(&self) -> Result<()> {
        ensure!(self.pid().is_none(), "the engine runs already");
        self.clear_after_crash(self.containerd())?;
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(self.directory.join("docker"))
            .arg("--exec-root")
            .arg(self.directory.join("exec"))
            .arg("--pidfile")
            .arg(self.directory.join("docker.pid"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(["--insecure-registry", &self.registry])
            .args(["--cgroup-parent", &format!("/{}", self.cgroup)])
            .args(&self.flags);
        self.process.start(&self.namespace, command)?;
        let mut alive = true;
        let ready = poll_until(START, "the engine answers", || {
            alive = self.process.pid().is_some();
            !alive || self.answers()
        });
        ready
            .and_then(|()| {
                ensure!(alive, "the engine ended at once");
                Ok(())
            })
            .with_context(|| format!("{}:\n{}", self.cgroup, self.process.log_tail(15)))
    }

    /// True while the API answers.
    pub fn answers(&self) -> bool {
        self.ping()
            .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// The pid, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process.pid()
    }

    /// The last `count` lines of its output.
    pub fn log_tail(&self, count: usize) -> String {
        self.process.log_tail(count)
    }

    /// Reaps the ended process; used when a bed goes.
    pub(super) fn reap(&self) {
        self.process.reap();
    }

    /// Stops the engine, and with it its containers.
    pub fn stop(&self) -> Result<()> {
        self.process.stop(STOP)
    }

    /// Ends the engine with SIGKILL; containers go on until it starts again.
    pub fn kill(&self) -> Result<()> {
        let containerd = self.containerd();
        self.process.kill()?;
        self.clear_after_crash(containerd)
    }

    /// Runs the docker command against this engine.
    pub fn docker(&self, arguments: &[&str]) -> Result<Output> {
        let packaged = Path::new("/usr/bin/docker");
        let program = if packaged.exists() {
            packaged
        } else {
            Path::new("docker")
        };
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.directory.join("docker-config"))
            .env("PATH", path_with_sbin())
            .args(arguments);
        self.namespace.output(&mut command)
    }

    /// Like [`Self::docker`], but a failure is an error; returns the trimmed output.
    pub fn docker_text(&self, arguments: &[&str]) -> Result<String> {
        let output = self.docker(arguments)?;
        ensure!(
            output.status.success(),
            "docker {arguments:?}: {}",
            stderr_of(&output)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// This engine's containerd, while it runs.
    fn containerd(&self) -> Option<Incarnation> {
        let text = fs::read_to_string(self.containerd_pid_file()).ok()?;
        let pid = text.trim().parse().ok()?;
        let ours = owner_of(pid).as_deref() == Some(self.bed.as_str());
        ours.then(|| Incarnation::of(pid)).flatten()
    }

    /// Ends the containerd that a killed engine left, and removes both pid files.
    ///
    /// The next engine trusts these files as long as the pid exists, be it a zombie's or
    /// recycled, and then waits in vain for a containerd that is not there.
    fn clear_after_crash(&self, containerd: Option<Incarnation>) -> Result<()> {
        if let Some(left) = containerd {
            send(left.pid(), Signal::SIGKILL)?;
            poll_until(STOP, "containerd ends", || !left.is_running())?;
        }
        for file in [
            self.containerd_pid_file(),
            self.directory.join("docker.pid"),
        ] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).context("cannot remove a pid file");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn containerd_pid_file(&self) -> PathBuf {
        self.directory.join("exec/containerd/containerd.pid")
    }

    fn ping(&self) -> Result<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
