//! Network namespaces: making them, joining them by links, and running code inside.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{panic, thread};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps its handles.
pub(super) const NAMESPACES: &str = "/run/netns";

/// A named network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Names a namespace; it need not exist.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Makes the namespace with its loopback up.
    pub fn create(&self) -> Result<()> {
        ip(&[
            format!("netns add {}", self.name),
            format!("-n {} link set lo up", self.name),
        ])
    }

    /// Removes the name; the kernel frees the namespace when its last process has gone.
    pub fn remove(&self) -> Result<()> {
        ip(&[format!("netns del {}", self.name)])
    }

    /// The name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The handle under `/run/netns`.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }

    /// What `/proc/<pid>/ns/net` of a member shows: device and inode.
    pub fn identity(&self) -> Result<(u64, u64)> {
        identity(&self.path())
    }

    /// Runs `work` on a thread of its own inside the namespace.
    ///
    /// Sockets opened there stay in the namespace, also after they are handed out; processes
    /// started there are born in it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let handle = File::open(self.path())
            .with_context(|| format!("cannot open namespace {}", self.name))?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || -> Result<T> {
                setns(&handle, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter namespace {}", self.name))?;
                Ok(work())
            });
            inside
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }

    /// Runs a command inside and collects its output, whatever its status.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        let program = command.get_program().to_owned();
        self.enter(|| command.output())?
            .with_context(|| format!("cannot run {program:?}"))
    }

    /// Feeds a script to `nft -f -` inside.
    pub fn nft(&self, script: &str) -> Result<()> {
        let mut command = Command::new("nft");
        self.enter(|| feed(command.args(["-f", "-"]), script))?
    }

    /// Sets a `/proc/sys` value (slashes, not dots) inside.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("cannot set {key} in {}", self.name))
    }
}

/// Device and inode of a namespace handle.
pub(super) fn identity(path: &Path) -> Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Runs each line as one `ip` command and stops at the first that fails.
pub(super) fn ip(lines: &[String]) -> Result<()> {
    for line in lines {
        let output = Command::new("ip")
            .args(line.split_whitespace())
            .output()
            .context("cannot run ip (package iproute2)")?;
        ensure!(output.status.success(), "ip {line}: {}", stderr_of(&output));
    }
    Ok(())
}

/// The trimmed error stream of a finished command.
pub(super) fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Runs a command with `input` on its standard input; a non-zero exit is an error.
pub(super) fn feed(command: &mut Command, input: &str) -> Result<()> {
    let program = command.get_program().to_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program:?}"))?;
    let mut stdin = child.stdin.take().expect("stdin was piped above");
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program:?}: {}", stderr_of(&output));
    }
    Ok(())
}
