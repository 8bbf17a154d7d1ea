//! The bed: several real hosts on one machine.
//!
//! A host is a network namespace with a Docker Engine and a `jacod` of its own; a bridge in
//! one more namespace joins them, and a real image registry listens there. Needs root and
//! Linux; installs the Debian packages that it runs on.
//!
//! ```no_run
//! use jaco_testkit::bed::Bed;
//!
//! # fn main() -> anyhow::Result<()> {
//! let bed = Bed::builder().name("doc").hosts(3).build()?;
//! bed.form_cluster()?;
//! bed.partition(&[1], &[2, 3])?;
//! let status = bed.host(2).jaco_json(&["cluster", "status"])?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants (`tests/bed_selftest.rs`): whatever a bed makes carries its name; dropping it,
//! or the start of the next bed after a crash, removes all of it; one bed at a time holds
//! the machine, others wait for it. A thread must therefore not build a second bed while it
//! has one. A failing test prints the daemons' last lines; with `JACO_BED_KEEP=1` it also
//! leaves its bed for `jaco-lab`.

mod acme;
mod capture;
mod cgroup;
mod cleanup;
mod cluster;
mod daemon;
mod engine;
mod faults;
mod host;
pub mod http;
pub mod images;
mod layout;
mod manager;
mod namespace;
mod poll;
mod process;
mod registry;
mod state;
mod watch;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

pub use acme::Acme;
pub use capture::{Capture, Packet};
pub use cleanup::{Remains, destroy};
pub use cluster::cluster_status;
pub use daemon::{Daemon, truncate_tail};
pub use engine::Engine;
pub use host::Host;
pub use layout::{BEDS, Layout};
pub use namespace::Namespace;
pub use poll::{SOON, poll_ok, poll_until};
pub use registry::Registry;
pub use state::State;
pub use watch::StatusWatch;

use faults::Blocked;
use namespace::{ip, stderr_of};

/// The packages' script, compiled in so that it is found from any working directory.
const INSTALL: &str = include_str!("../../../packaging/install-deps.sh");

/// Set in the environment, it leaves the bed of a failed test running.
const KEEP_FAILED: &str = "JACO_BED_KEEP";
/// How many lines of each daemon's log a failed test prints.
const LOG_LINES: usize = 60;

/// Several hosts joined by a switch; removed on drop unless kept.
#[derive(Debug)]
pub struct Bed {
    state: State,
    hosts: Vec<Host>,
    registry: Registry,
    acme: Acme,
    blocked: Mutex<Blocked>,
    /// Held as long as the bed lives; a bed that was attached to holds none.
    lock: Option<File>,
}

/// What a bed is to be like; see [`Bed::builder`].
#[derive(Clone, Debug)]
pub struct BedBuilder {
    name: String,
    hosts: usize,
    subnet: [u8; 3],
    engine_flags: Vec<String>,
    binaries: Option<PathBuf>,
}

impl Bed {
    /// Starts describing a bed: by default three hosts in 10.99.0.0/24 named `bed`.
    pub fn builder() -> BedBuilder {
        BedBuilder {
            name: "bed".to_owned(),
            hosts: 3,
            subnet: [10, 99, 0],
            engine_flags: Vec::new(),
            binaries: None,
        }
    }

    /// Goes on with a bed that was kept; dropping it leaves the bed running.
    pub fn attach(name: &str) -> Result<Self> {
        let state = State::load(name)?;
        ensure!(state.kept, "bed {name:?} belongs to a running program");
        Ok(Self::describe(state, None))
    }

    /// Removes every trace of the bed called `name`, however its program ended.
    pub fn destroy(name: &str) -> Result<()> {
        destroy(name)
    }

    /// Leaves the bed running after this program; [`Bed::destroy`] removes it.
    pub fn keep(mut self) -> Result<()> {
        self.state.kept = true;
        self.state.save()
    }

    /// The bed's name.
    pub fn name(&self) -> &str {
        &self.state.layout.name
    }

    /// All hosts in order.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Host `index`, counted from 1 as in its name `node-<index>`; panics if there is none.
    pub fn host(&self, index: usize) -> &Host {
        assert!(
            (1..=self.hosts.len()).contains(&index),
            "the bed has no host {index}"
        );
        &self.hosts[index - 1]
    }

    /// The image registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The certificate authority; start it before use.
    pub fn acme(&self) -> &Acme {
        &self.acme
    }

    /// The full reference of one of the bed's images: `web:1` → `10.99.0.254:5000/web:1`.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.address())
    }

    /// The namespace of the switch and the registry.
    pub fn switch(&self) -> Namespace {
        Namespace::named(self.state.layout.switch_namespace())
    }

    /// Cuts the hosts in `left` from those in `right`, both ways; adds to earlier cuts. The
    /// registry stays reachable from both sides.
    pub fn partition(&self, left: &[usize], right: &[usize]) -> Result<()> {
        self.block_pairs(left, right, true)
    }

    /// Drops what goes from `from` to `to`, and lets the other direction pass.
    pub fn block(&self, from: &[usize], to: &[usize]) -> Result<()> {
        self.block_pairs(from, to, false)
    }

    /// Ends all partitions and blocks.
    pub fn heal(&self) -> Result<()> {
        let mut blocked = self.blocked();
        blocked.clear();
        blocked.enforce(&self.switch())
    }

    fn block_pairs(&self, left: &[usize], right: &[usize], both_ways: bool) -> Result<()> {
        let mut blocked = self.blocked();
        for from in left {
            for to in right.iter().filter(|to| *to != from) {
                let (from, to) = (self.host(*from).port(), self.host(*to).port());
                blocked.add(from.clone(), to.clone());
                if both_ways {
                    blocked.add(to, from);
                }
            }
        }
        blocked.enforce(&self.switch())
    }

    fn blocked(&self) -> MutexGuard<'_, Blocked> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(state: State, lock: Option<File>) -> Self {
        let layout = &state.layout;
        let hosts = (1..=layout.hosts)
            .map(|index| Host::new(&state, index))
            .collect();
        let registry = Registry::new(layout);
        let acme = Acme::new(layout);
        Self {
            state,
            hosts,
            registry,
            acme,
            blocked: Mutex::default(),
            lock,
        }
    }

    /// For a failed test: what the daemons and the engines said last.
    fn show_logs(&self) {
        let hosts = self.hosts.iter();
        for host in hosts.filter(|host| host.daemon().log().exists()) {
            let name = host.name();
            eprintln!("--- jacod on {name}\n{}", host.daemon().log_tail(LOG_LINES));
            eprintln!(
                "--- dockerd on {name}\n{}",
                host.engine().log_tail(LOG_LINES)
            );
        }
    }

    fn start(&self) -> Result<()> {
        let layout = &self.state.layout;
        fs::create_dir_all(layout.directory())?;
        self.state.save()?;
        let switch = self.switch();
        let (name, address) = (switch.name(), layout.switch_address());
        switch.create()?;
        ip(&[
            format!("-n {name} link add switch type bridge"),
            format!("-n {name} addr add {address}/24 dev switch"),
            format!("-n {name} link set switch up"),
        ])?;
        for host in &self.hosts {
            host.create()?;
        }
        let filled = self.registry.fill_from_cache()?;
        thread::scope(|scope| {
            let registry = scope.spawn(|| self.registry.start());
            let engines: Vec<_> = self
                .hosts
                .iter()
                .map(|host| scope.spawn(|| host.start_engine()))
                .collect();
            engines
                .into_iter()
                .chain([registry])
                .try_for_each(|starting| starting.join().expect("starting does not panic"))
        })?;
        if !filled {
            let engine = self.hosts[0].engine();
            images::build(engine, self.registry.address(), &self.registry.storage())?;
        }
        Ok(())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.lock.is_none() || self.state.kept {
            return;
        }
        if thread::panicking() {
            self.show_logs();
            if env::var_os(KEEP_FAILED).is_some() {
                self.state.kept = true;
                let kept = self.state.save().is_ok();
                eprintln!("kept: {kept}; see `jaco-lab status --name {}`", self.name());
                return;
            }
        }
        if let Err(error) = destroy(self.name()) {
            eprintln!("bed {} is not wholly removed: {error:#}", self.name());
        }
        self.hosts.iter().for_each(Host::reap);
        self.registry.reap();
        self.acme.reap();
    }
}

impl BedBuilder {
    /// Names the bed (lower-case letters and digits); a kept bed of that name is replaced.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// How many hosts.
    #[must_use]
    pub fn hosts(mut self, hosts: usize) -> Self {
        self.hosts = hosts;
        self
    }

    /// The first three octets of the hosts' /24. Keep off 10.244 and 10.245, JACO's pools,
    /// and 172.17, the engine's.
    #[must_use]
    pub fn subnet(mut self, subnet: [u8; 3]) -> Self {
        self.subnet = subnet;
        self
    }

    /// Adds an argument to every engine's start, as `--live-restore`.
    #[must_use]
    pub fn engine_flag(mut self, flag: &str) -> Self {
        self.engine_flags.push(flag.to_owned());
        self
    }

    /// Takes `jaco` and `jacod` from this folder.
    #[must_use]
    pub fn binaries(mut self, folder: &Path) -> Self {
        self.binaries = Some(folder.to_owned());
        self
    }

    /// Installs what is missing, waits for the machine, removes what a crash left, and starts
    /// switch, registry and engines. No `jacod` runs yet.
    pub fn build(self) -> Result<Bed> {
        let layout = Layout::new(&self.name, self.subnet, self.hosts)?;
        if !nix::unistd::geteuid().is_root() {
            bail!("a bed needs root: it makes network namespaces and runs engines");
        }
        let lock = lock_machine()?;
        install()?;
        cgroup::ensure_mounted()?;
        cleanup::destroy_leftovers()?;
        destroy(&layout.name)?;
        let state = State {
            layout,
            engine_flags: self.engine_flags,
            binaries: self.binaries,
            kept: false,
        };
        let bed = Bed::describe(state, Some(lock));
        bed.start()
            .with_context(|| format!("cannot start bed {}", bed.name()))?;
        Ok(bed)
    }
}

/// Waits for the one lock that a bed holds while it lives; a crash frees it.
fn lock_machine() -> Result<File> {
    fs::create_dir_all(BEDS)?;
    let path = Layout::directory_of("lock");
    let path = path.with_extension("file");
    let lock = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    if lock.try_lock().is_err() {
        eprintln!("another bed is in use; waiting for it");
        lock.lock()?;
    }
    Ok(lock)
}

fn install() -> Result<()> {
    let output = Command::new("sh")
        .args(["-c", INSTALL, "install-deps.sh", "bed"])
        .output()
        .context("cannot run sh")?;
    ensure!(
        output.status.success(),
        "cannot install packages: {}",
        stderr_of(&output)
    );
    Ok(())
}
