//! Removing a bed, also one whose program crashed.
//!
//! Nothing is remembered: what belongs to a bed is found by namespace, control group,
//! environment and directory, so removal works from any state and may be repeated.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use super::cgroup;
use super::layout::{BEDS, Layout, belongs_to, check_name};
use super::namespace::{NAMESPACES, Namespace, identity};
use super::poll::{poll_ok, poll_until};
use super::process::{all_pids, owner_of, send, stat};
use super::state::State;

const DEADLINE: Duration = Duration::from_secs(20);

/// Everything that a bed of this name still has on the machine; empty after [`destroy`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Namespaces under `/run/netns`.
    pub namespaces: Vec<String>,
    /// Processes by namespace, control group and environment.
    pub processes: BTreeSet<i32>,
    /// Mount points below the bed's directory.
    pub mounts: Vec<PathBuf>,
    /// Control groups of its containers.
    pub control_groups: Vec<PathBuf>,
    /// The bed's directory, if it exists.
    pub directory: Option<PathBuf>,
}

impl Remains {
    /// Looks for what the bed called `name` has on the machine now.
    pub fn of(name: &str) -> Self {
        let directory = Layout::directory_of(name);
        Self {
            namespaces: namespaces(name),
            processes: processes(name),
            mounts: mounts_below(&directory),
            control_groups: cgroup::groups_of(name),
            directory: directory.exists().then_some(directory),
        }
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Removes every trace of the bed called `name`; nothing to remove is fine.
pub fn destroy(name: &str) -> Result<()> {
    check_name(name)?;
    let directory = Layout::directory_of(name);
    let shim_sockets = shim_sockets(&directory);
    poll_until(
        DEADLINE,
        &format!("the processes of bed {name} end"),
        || {
            let alive = processes(name);
            for pid in &alive {
                // A process that cannot be signalled is still there at the next look.
                let _ = send(*pid, Signal::SIGKILL);
            }
            alive.is_empty()
        },
    )?;
    for mount in mounts_below(&directory) {
        umount2(&mount, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    for namespace in namespaces(name) {
        Namespace::named(namespace).remove()?;
    }
    // The kernel empties a group a moment after its last process is reaped.
    poll_ok(DEADLINE, "the control groups are removed", || {
        cgroup::groups_of(name)
            .iter()
            .try_for_each(|group| cgroup::remove(group))
    })?;
    for socket in shim_sockets {
        let _ = fs::remove_file(socket);
    }
    poll_ok(
        DEADLINE,
        "the directory is removed",
        || match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        },
    )
}

/// Removes the beds that a crashed program left; beds kept on purpose stay.
pub(super) fn destroy_leftovers() -> Result<()> {
    let Ok(entries) = fs::read_dir(BEDS) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_bed = entry.file_type()?.is_dir() && check_name(&name).is_ok();
        let kept = State::load(&name).is_ok_and(|state| state.kept);
        if is_bed && !kept {
            destroy(&name)?;
        }
    }
    Ok(())
}

fn namespaces(name: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMESPACES) else {
        return Vec::new();
    };
    let mut found: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|namespace| belongs_to(name, namespace))
        .collect();
    found.sort();
    found
}

fn processes(name: &str) -> BTreeSet<i32> {
    let identities: Vec<_> = namespaces(name)
        .into_iter()
        .filter_map(|namespace| Namespace::named(namespace).identity().ok())
        .collect();
    let is_member = |pid: i32| {
        identity(Path::new(&format!("/proc/{pid}/ns/net")))
            .is_ok_and(|identity| identities.contains(&identity))
    };
    let mut found: BTreeSet<i32> = all_pids()
        .into_iter()
        .filter(|pid| is_member(*pid) || owner_of(*pid).as_deref() == Some(name))
        .collect();
    for group in cgroup::groups_of(name) {
        found.extend(cgroup::members(&group));
    }
    // `jaco-lab down` may be typed in a shell that lives inside the bed.
    for pid in own_ancestry() {
        found.remove(&pid);
    }
    found
}

fn own_ancestry() -> Vec<i32> {
    let mut line = Vec::new();
    let mut next = i32::try_from(std::process::id()).ok();
    while let Some(pid) = next.filter(|pid| *pid > 0) {
        line.push(pid);
        next = parent_of(pid);
    }
    line
}

fn parent_of(pid: i32) -> Option<i32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// Innermost first, so that they can be unmounted in order.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(directory))
        .collect();
    found.reverse();
    found
}

/// containerd keeps its shims' sockets in one folder for the whole machine, under names that
/// only the running task's `address` file tells.
fn shim_sockets(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for index in 1.. {
        let host = directory.join(index.to_string());
        if !host.exists() {
            break;
        }
        let tasks = host.join("exec/containerd/daemon/io.containerd.runtime.v2.task/moby");
        let Ok(entries) = fs::read_dir(tasks) else {
            continue;
        };
        for entry in entries.filter_map(|entry| entry.ok()) {
            let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
            if let Some(path) = address.strip_prefix("unix://") {
                found.push(PathBuf::from(path));
            }
        }
    }
    found
}
