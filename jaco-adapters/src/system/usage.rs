//! What this host uses, from the files of its kernel.

use std::path::PathBuf;

use jaco_core::node::usage::{self, Counters};
use jaco_core::ports::SystemProbe;

/// The host's counters. Where the daemon sees a control group of its own in the place of the root,
/// as in a container that is a host, that group is the host; else it is what `/proc` says.
#[derive(Clone, Debug)]
pub struct HostUsage {
    root: PathBuf,
}

impl HostUsage {
    /// Reads below `root`, which is `/` but in tests.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    fn cgroup_v2(&self) -> Option<Counters> {
        // The root group has no `memory.current`.
        let memory = self.read("sys/fs/cgroup/memory.current")?;
        let stat = self.read("sys/fs/cgroup/memory.stat")?;
        usage::cgroup_v2(&self.read("sys/fs/cgroup/cpu.stat")?, &memory, &stat)
    }

    fn cgroup_v1(&self) -> Option<Counters> {
        let memory = "sys/fs/cgroup/memory";
        if self.root.join(memory).join("release_agent").exists() {
            // The root group: its figures have cache in them that is not use.
            return None;
        }
        let spent = self.read("sys/fs/cgroup/cpuacct/cpuacct.usage")?;
        let held = self.read(&format!("{memory}/memory.usage_in_bytes"))?;
        usage::cgroup_v1(&spent, &held, &self.read(&format!("{memory}/memory.stat"))?)
    }

    fn proc(&self) -> Option<Counters> {
        usage::proc(&self.read("proc/stat")?, &self.read("proc/meminfo")?)
    }
}

impl SystemProbe for HostUsage {
    fn real_path(&self, path: &str) -> String {
        let mut there = std::path::Path::new(path);
        let mut missing = Vec::new();
        loop {
            if let Ok(real) = there.canonicalize() {
                let whole = missing
                    .iter()
                    .rev()
                    .fold(real, |path, name| path.join(name));
                return whole.to_string_lossy().into_owned();
            }
            let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else {
                return path.to_owned();
            };
            missing.push(name.to_owned());
            there = parent;
        }
    }

    fn counters(&self) -> Option<Counters> {
        self.cgroup_v2()
            .or_else(|| self.cgroup_v1())
            .or_else(|| self.proc())
    }
}
