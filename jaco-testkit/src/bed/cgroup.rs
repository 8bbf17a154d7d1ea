//! Control groups: mounting them on a bare machine, and finding a bed's containers in them.
//!
//! Each engine runs its containers below a group named after its host, so that a container
//! whose engine and shim are gone is still found.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::layout::belongs_to;

const ROOT: &str = "/sys/fs/cgroup";
/// The version-1 controllers that tell what a group uses.
const MEASURED: [&str; 2] = ["cpuacct", "memory"];

/// Mounts the control groups where nothing has done so; does nothing elsewhere.
///
/// A machine without an init has no mount here, and the engine then refuses to start. The
/// version-1 controllers are mounted one by one because engine 20.10 has no other use for
/// them.
pub(super) fn ensure_mounted() -> Result<()> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() || root.join("devices/tasks").exists() {
        return Ok(());
    }
    let table = fs::read_to_string("/proc/cgroups").context("the kernel has no control groups")?;
    let enabled: Vec<&str> = enabled_controllers(&table).collect();
    if enabled.is_empty() {
        return mount_one("cgroup2", root, "").context("cannot mount cgroup2");
    }
    mount_one("tmpfs", root, "mode=755").context("cannot mount a tmpfs for control groups")?;
    for controller in enabled {
        let target = root.join(controller);
        fs::create_dir_all(&target)?;
        mount_one("cgroup", &target, controller)
            .with_context(|| format!("cannot mount controller {controller}"))?;
    }
    Ok(())
}

/// Puts the group called `name` in the place of the root, for this thread and those that it
/// starts.
pub(super) fn take_for_root(name: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let root = Path::new(ROOT);
    let hierarchies = match root.join("cgroup.controllers").exists() {
        true => vec![root.to_owned()],
        false => MEASURED.map(|controller| root.join(controller)).to_vec(),
    };
    for hierarchy in hierarchies {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group)?;
        let bound = mount(
            Some(&group),
            &hierarchy,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        );
        bound.with_context(|| format!("cannot bind {}", group.display()))?;
    }
    Ok(())
}

/// The control groups of the bed called `name`, in every mounted hierarchy.
pub(super) fn groups_of(name: &str) -> Vec<PathBuf> {
    let mut hierarchies = vec![PathBuf::from(ROOT)];
    hierarchies.extend(folders(Path::new(ROOT)));
    hierarchies
        .iter()
        .flat_map(|hierarchy| folders(hierarchy))
        .filter(|group| {
            let last = group.file_name().and_then(|last| last.to_str());
            last.is_some_and(|last| belongs_to(name, last))
        })
        .collect()
}

/// The processes in `group` and below.
pub(super) fn members(group: &Path) -> Vec<i32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for child in folders(group) {
        pids.extend(members(&child));
    }
    pids
}

/// Removes `group` and all below it; they must be empty of processes.
pub(super) fn remove(group: &Path) -> Result<()> {
    for child in folders(group) {
        remove(&child)?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", group.display()))
        }
        _ => Ok(()),
    }
}

fn mount_one(kind: &str, target: &Path, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), target, Some(kind), flags, Some(options))?;
    Ok(())
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Names from `/proc/cgroups` whose last column is 1 (a comment line leads the table).
fn enabled_controllers(table: &str) -> impl Iterator<Item = &str> {
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let name = columns.next()?;
            (columns.next_back() == Some("1")).then_some(name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enabled_controllers_are_mounted() {
        let table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
                     cpu\t1\t3\t1\nrdma\t0\t1\t0\ndevices\t5\t2\t1\n";
        assert_eq!(
            enabled_controllers(table).collect::<Vec<_>>(),
            ["cpu", "devices"]
        );
    }
}
