//! Long-running processes of a bed: starting, finding and ending them.
//!
//! A process is known by a pid file beside its log, so that a later program can go on with
//! it; with the pid goes its start time, so that a recycled pid is never taken for it. Its
//! environment carries the bed's name, for whoever cleans up without that file.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::layout::OWNER;
use super::namespace::Namespace;
use super::poll::poll_until;

/// What the caller's environment must not tell a bed: a proxy that is not reachable from
/// inside, and settings that would win over the bed's.
const FOREIGN: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "JACO_CONFIG",
    "JACO_DATA_DIR",
];

/// One long-running process of a bed, running or not.
#[derive(Debug)]
pub(super) struct Process {
    bed: String,
    name: &'static str,
    directory: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// Describes a process whose pid file and log are `<directory>/<name>.{pid,log}`.
    pub(super) fn new(bed: &str, name: &'static str, directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self {
            bed: bed.to_owned(),
            name,
            directory,
            child: Mutex::new(None),
        }
    }

    /// Where its output is appended, over all its starts.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join(self.name).with_extension("log")
    }

    /// Starts `command` inside `namespace`; it is an error if the process runs already.
    pub(super) fn start(&self, namespace: &Namespace, command: Command) -> Result<()> {
        self.start_after(namespace, command, || Ok(()))
    }

    /// The same, after `prepare` has run on the thread that the process is born of.
    pub(super) fn start_after(
        &self,
        namespace: &Namespace,
        mut command: Command,
        prepare: impl FnOnce() -> Result<()> + Send,
    ) -> Result<()> {
        if let Some(pid) = self.pid() {
            bail!("{} already runs as {pid}", self.name);
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        command
            .env(OWNER, &self.bed)
            .env("PATH", path_with_sbin())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        for variable in FOREIGN {
            command.env_remove(variable);
        }
        let program = command.get_program().to_owned();
        let child = namespace
            .enter(|| prepare().and_then(|()| Ok(command.spawn()?)))?
            .with_context(|| format!("cannot start {program:?}"))?;
        let pid = i32::try_from(child.id()).expect("the kernel's pids fit");
        let incarnation = Incarnation::of(pid).context("a child vanished before it was reaped")?;
        fs::write(self.pid_file(), serde_json::to_vec(&incarnation)?)?;
        *self.lock() = Some(child);
        Ok(())
    }

    /// The pid, while the process runs.
    pub(super) fn pid(&self) -> Option<i32> {
        let record = fs::read_to_string(self.pid_file()).ok()?;
        let incarnation: Incarnation = serde_json::from_str(&record).ok()?;
        if incarnation.is_running() {
            return Some(incarnation.pid);
        }
        self.reap();
        None
    }

    /// Takes an ended child off the process table; works without the pid file.
    pub(super) fn reap(&self) {
        let mut child = self.lock();
        let ended = |child: &mut Child| child.try_wait().is_ok_and(|status| status.is_some());
        if child.as_mut().is_some_and(ended) {
            *child = None;
        }
    }

    /// Ends the process with SIGKILL and waits until it is gone; fine if it does not run.
    pub(super) fn kill(&self) -> Result<()> {
        self.end(Signal::SIGKILL, Duration::from_secs(10))
    }

    /// Asks the process to end (SIGTERM) and waits; still running at the deadline is an error.
    pub(super) fn stop(&self, deadline: Duration) -> Result<()> {
        self.end(Signal::SIGTERM, deadline)
    }

    /// Sends a signal to the running process.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .pid()
            .with_context(|| format!("{} does not run", self.name))?;
        send(pid, signal)
    }

    /// The last `count` lines of its log, for error messages; requests of visitors would fill
    /// them all.
    pub(super) fn log_tail(&self, count: usize) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let is_request = |line: &&str| line.contains(r#""message":"request""#);
        let lines: Vec<&str> = text.lines().filter(|line| !is_request(line)).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    fn end(&self, signal: Signal, deadline: Duration) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        send(pid, signal)?;
        poll_until(deadline, &format!("{} ({pid}) ends", self.name), || {
            self.pid().is_none()
        })
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.join(self.name).with_extension("pid")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One life of a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Incarnation {
    pid: i32,
    /// In ticks since boot.
    started: u64,
}

impl Incarnation {
    /// What `pid` is now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let started = stat(pid)?.get(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// The pid.
    pub(super) fn pid(self) -> i32 {
        self.pid
    }

    /// False once the process can hold nothing any more: no file, no lock, no socket.
    ///
    /// A process loses its memory first, its files later, and its main thread may be a zombie
    /// while others still end; so only a zombie without further threads is over.
    pub(super) fn is_running(self) -> bool {
        if Self::of(self.pid) != Some(self) {
            return false;
        }
        let zombie = stat(self.pid).is_none_or(|fields| fields[0] == "Z" || fields[0] == "X");
        !zombie || thread_count(self.pid) > 1
    }
}

/// The fields of `/proc/<pid>/stat` from the third, the state, on: the second is the name and
/// may hold spaces.
pub(super) fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(')')?;
    Some(after_name.split_whitespace().map(str::to_owned).collect())
}

fn thread_count(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task"))
        .map(Iterator::count)
        .unwrap_or(0)
}

/// Sends a signal; a process that is gone already is no error.
pub(super) fn send(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot send {signal} to {pid}")),
    }
}

/// The bed that a live process was started by; none for zombies, which have no environment.
pub(super) fn owner_of(pid: i32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{OWNER}=");
    environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(prefix.as_bytes()))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Every pid of the machine.
pub(super) fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The caller's search path with the system folders, which a plain user's shell leaves out.
pub(super) fn path_with_sbin() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}
