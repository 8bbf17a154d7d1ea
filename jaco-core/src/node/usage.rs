//! CPU and memory in use: what the kernel's files say, and what a node reports of it (spec 05,
//! Rebalancing under pressure).
//!
//! All readers are total: a file that reads otherwise than expected gives nothing, never a panic
//! (`tests/usage_props.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::containers::Desired;
use crate::cluster::Command;
use crate::cluster::usage::Measured;
use crate::id::{NodeName, ReplicaId};
use crate::manifest::spec::Resources;
use crate::time::Timestamp;

/// One tick of `/proc/stat`, in microseconds: the kernel shows 100 a second on all platforms.
const TICK_MICROS: u64 = 10_000;

/// Counters of a host or of a container, as read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// CPU time spent since the start, over all cores, in microseconds.
    pub cpu_micros: u64,
    /// Memory in use that cannot be given back at once, in bytes.
    pub memory_bytes: u64,
}

impl Counters {
    /// The use between `earlier` and now. Nothing when no time has passed, or when the CPU
    /// counter went back: the container is then another one.
    pub fn since(&self, earlier: &Self, passed: Duration) -> Option<Resources> {
        let spent = self.cpu_micros.checked_sub(earlier.cpu_micros)?;
        let millis = (u128::from(spent) * 1000).checked_div(passed.as_micros())?;
        Some(Resources {
            cpu_millis: u64::try_from(millis).unwrap_or(u64::MAX),
            memory_bytes: self.memory_bytes,
        })
    }
}

/// What a node read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sample {
    pub at: Timestamp,
    pub host: Counters,
    /// By the engine's id: a container that was made anew is another one.
    pub containers: BTreeMap<String, Counters>,
}

/// The containers of a node that are worth measuring: those that serve.
pub fn measured(desired: &BTreeMap<ReplicaId, Desired>) -> Vec<&str> {
    let serving = desired
        .values()
        .filter(|wanted| wanted.replica.is_serving());
    let ids = serving.filter_map(|wanted| wanted.replica.observed.container_id.as_deref());
    ids.collect()
}

/// What a node has to say of the time between two samples; nothing when no time has passed.
pub fn report(
    node: &NodeName,
    desired: &BTreeMap<ReplicaId, Desired>,
    [earlier, later]: [&Sample; 2],
    interval: Duration,
) -> Option<Command> {
    let passed = later.at.since(earlier.at);
    let used = later.host.since(&earlier.host, passed)?;
    let replicas = desired.values().filter_map(|wanted| {
        let replica = &wanted.replica;
        let id = replica.observed.container_id.as_ref()?;
        let (before, now) = (earlier.containers.get(id)?, later.containers.get(id)?);
        Some(Measured {
            deployment: replica.deployment.clone(),
            replica: replica.id.clone(),
            used: now.since(before, passed)?,
        })
    });
    Some(Command::NodeUsage {
        node: node.clone(),
        used,
        interval,
        replicas: replicas.collect(),
    })
}

/// From cgroup v2: `cpu.stat`, `memory.current` and `memory.stat`.
pub fn cgroup_v2(cpu_stat: &str, memory_current: &str, memory_stat: &str) -> Option<Counters> {
    Some(Counters {
        cpu_micros: keyed(cpu_stat, "usage_usec")?,
        memory_bytes: without_cache(memory_current, memory_stat, "inactive_file")?,
    })
}

/// From cgroup v1: `cpuacct.usage`, `memory.usage_in_bytes` and `memory.stat`.
pub fn cgroup_v1(cpuacct: &str, memory_usage: &str, memory_stat: &str) -> Option<Counters> {
    let nanos: u64 = cpuacct.trim().parse().ok()?;
    Some(Counters {
        cpu_micros: nanos / 1000,
        memory_bytes: without_cache(memory_usage, memory_stat, "total_inactive_file")?,
    })
}

/// From `/proc/stat` and `/proc/meminfo`.
pub fn proc(stat: &str, meminfo: &str) -> Option<Counters> {
    let total = keyed(meminfo, "MemTotal:")?;
    let available = keyed(meminfo, "MemAvailable:")?;
    Some(Counters {
        cpu_micros: busy_ticks(stat)?.checked_mul(TICK_MICROS)?,
        memory_bytes: total.checked_sub(available)?.checked_mul(1024)?,
    })
}

/// User, nice, system, irq, softirq and steal: idle and iowait are not use, and guest time is
/// in user time already.
fn busy_ticks(stat: &str) -> Option<u64> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = all
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    [user, nice, system, irq, softirq, steal]
        .into_iter()
        .try_fold(0_u64, u64::checked_add)
}

/// Page cache that the kernel drops when asked is not use.
fn without_cache(usage: &str, stat: &str, key: &str) -> Option<u64> {
    let usage: u64 = usage.trim().parse().ok()?;
    Some(usage.saturating_sub(keyed(stat, key)?))
}

/// The first number after `key` at the beginning of a line.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == key).then(|| words.next()?.parse().ok())?
    })
}
