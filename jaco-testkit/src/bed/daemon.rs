//! One host's `jacod`: its configuration and its process.

use std::env;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::cgroup;
use super::manager::Manager;
use super::namespace::Namespace;
use super::poll::poll_until;
use super::process::Process;
use super::state::State;

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);
/// The environment variable that says where `jaco` and `jacod` are.
const BINARIES: &str = "JACO_BIN_DIR";

/// A `jacod` with all its files below the host's directory.
#[derive(Debug)]
pub struct Daemon {
    directory: PathBuf,
    namespace: Namespace,
    binaries: Option<PathBuf>,
    config: Map<String, Value>,
    process: Process,
    manager: OnceLock<Manager>,
    enclosed: AtomicBool,
}

impl Daemon {
    /// Describes the daemon of host `index`, whose files are in `directory`.
    pub(super) fn new(state: &State, index: usize, directory: &Path, docker_socket: &Path) -> Self {
        let layout = &state.layout;
        let address = layout.host_address(index);
        let config = json!({
            "data_dir": directory.join("data"),
            "hostname": format!("node-{index}"),
            "listen_addr": format!("{address}:7000"),
            "cluster_addr": format!("{address}:7001"),
            "advertise_addr": address,
            "unix_socket": directory.join("jaco.sock"),
            "http_addr": "0.0.0.0:80",
            "docker_host": format!("unix://{}", docker_socket.display()),
        });
        let Value::Object(config) = config else {
            unreachable!("built as an object above")
        };
        Self {
            directory: directory.to_owned(),
            namespace: Namespace::named(layout.host_namespace(index)),
            binaries: state.binaries.clone(),
            config,
            process: Process::new(&layout.name, "jacod", directory),
            manager: OnceLock::new(),
            enclosed: AtomicBool::new(false),
        }
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("jacod.yaml")
    }

    /// The socket of its API.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("jaco.sock")
    }

    /// The data directory; the log is in `raft/` below it.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The key that seals the state, outside the data directory.
    pub fn state_key(&self) -> PathBuf {
        self.directory.join("state.key")
    }

    /// Its output, over all starts.
    pub fn log(&self) -> PathBuf {
        self.process.log()
    }

    /// Finds `jaco` or `jacod`: in the folder that the bed was given, else in
    /// `$JACO_BIN_DIR`, else where cargo puts this build.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        binary(name, self.binaries.as_deref())
    }

    /// Writes the configuration: the bed's values, then `extra`, which wins; `null` removes a
    /// key so that the daemon's default holds.
    pub fn write_config(&self, extra: &[(&str, Value)]) -> Result<()> {
        let mut config = self.config.clone();
        for (key, value) in extra {
            config.insert((*key).to_owned(), value.clone());
        }
        config.retain(|_, value| !value.is_null());
        // YAML contains JSON.
        fs::write(
            self.config_file(),
            serde_json::to_vec_pretty(&Value::Object(config))?,
        )?;
        Ok(())
    }

    /// Starts `jacod` and waits until it accepts connections on its unix socket.
    pub fn start(&self) -> Result<()> {
        if !self.config_file().exists() {
            self.write_config(&[])?;
        }
        let mut command = Command::new(self.binary("jacod")?);
        command
            .arg("--config")
            .arg(self.config_file())
            .env("JACO_STATE_KEY", self.state_key())
            .env("RUST_BACKTRACE", "1");
        if let Some(manager) = self.manager.get() {
            command = manager.hand_over(&command)?;
        }
        let enclosed = self.enclosed.load(Ordering::Relaxed);
        self.process.start_after(&self.namespace, command, || {
            if enclosed {
                cgroup::take_for_root(self.namespace.name())?;
            }
            Ok(())
        })?;
        let mut alive = true;
        let ready = poll_until(START, "jacod accepts connections", || {
            alive = self.process.pid().is_some();
            !alive || UnixStream::connect(self.socket()).is_ok()
        });
        ready
            .and_then(|()| {
                ensure!(alive, "jacod ended at once");
                Ok(())
            })
            .with_context(|| format!("{}:\n{}", self.namespace.name(), self.process.log_tail(15)))
    }

    /// From its next start on its sockets are kept for it while it is away, as systemd does.
    /// Ends with this program.
    pub fn manage(&self) -> Result<()> {
        if self.manager.get().is_none() {
            let _ = self.manager.set(Manager::start(&self.directory)?);
        }
        Ok(())
    }

    /// From its next start on it sees the control group of its host's containers in the place of
    /// the root, as in a container that is a host: what they use is what the host uses.
    pub fn enclose(&self) {
        self.enclosed.store(true, Ordering::Relaxed);
    }

    /// How many sockets are kept under a name.
    pub fn kept_sockets(&self, name: &str) -> usize {
        self.manager.get().map_or(0, |manager| manager.count(name))
    }

    /// The pid, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process.pid()
    }

    /// Reaps the ended process; used when a bed goes.
    pub(super) fn reap(&self) {
        self.process.reap();
    }

    /// SIGTERM, then waits for the end.
    pub fn stop(&self) -> Result<()> {
        self.process.stop(STOP)
    }

    /// SIGKILL: a crash.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// The last `count` lines of its output.
    pub fn log_tail(&self, count: usize) -> String {
        self.process.log_tail(count)
    }

    /// Freezes the daemon (SIGSTOP): connections stay open, nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(nix::sys::signal::Signal::SIGSTOP)
    }

    /// Lets a frozen daemon go on.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(nix::sys::signal::Signal::SIGCONT)
    }
}

/// Cuts `bytes` off the end of a file, as a power loss does to unsynced writes.
pub fn truncate_tail(path: &Path, bytes: u64) -> Result<()> {
    let file = File::options()
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(bytes))?;
    Ok(())
}

fn binary(name: &str, given: Option<&Path>) -> Result<PathBuf> {
    let given = given
        .map(Path::to_owned)
        .or_else(|| env::var_os(BINARIES).map(PathBuf::from));
    let tried: Vec<PathBuf> = match given {
        Some(folder) => vec![folder],
        None => build_folders()?,
    };
    let found = tried
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!("no {name} in {tried:?}; run `cargo build -p jaco-bin` or set {BINARIES}")
    })
}

/// Beside the program, above it (tests run from `deps/`), then the workspace's target folder.
fn build_folders() -> Result<Vec<PathBuf>> {
    let program = env::current_exe().context("cannot tell where this program is")?;
    let mut folders: Vec<PathBuf> = program
        .ancestors()
        .skip(1)
        .take(2)
        .map(Path::to_owned)
        .collect();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"));
    folders.extend(["debug", "release"].map(|profile| workspace.join("target").join(profile)));
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_longer_than_the_file_empties_it() {
        let path = env::temp_dir().join(format!("jaco-truncate-{}", std::process::id()));
        fs::write(&path, b"0123456789").unwrap();
        truncate_tail(&path, 4).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"012345");
        truncate_tail(&path, 100).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        fs::remove_file(&path).unwrap();
    }
}
