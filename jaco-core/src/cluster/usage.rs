//! How much of a node is in use: the average that the leader keeps, and the pressure that it
//! makes (spec 05, Rebalancing under pressure). Whole numbers only, so that every copy of the state
//! comes to the same.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::node::Node;
use crate::id::{DeploymentName, ReplicaId};
use crate::manifest::spec::Resources;
use crate::time::Timestamp;

/// How far back the average reaches.
const WINDOW: Duration = Duration::from_secs(300);

/// A sample that is older than so many intervals does not count.
const STALE_AFTER: u32 = 3;

/// A node above this share of what it has, in thousandths, is under pressure.
pub const TRIGGER: u64 = 850;

/// What a node uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUsage {
    /// Weighted towards now, over five minutes.
    pub average: Resources,
    /// When it was last reported.
    pub at: Timestamp,
    /// How often the node reports.
    pub interval: Duration,
    /// Reports in a row that left the average above [`TRIGGER`].
    pub over: u32,
}

/// What one replica used lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Measured {
    pub deployment: DeploymentName,
    pub replica: ReplicaId,
    pub used: Resources,
}

/// A dimension of [`Resources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dimension {
    Cpu,
    Memory,
}

impl NodeUsage {
    /// True when it was reported lately.
    pub fn counts(&self, now: Timestamp) -> bool {
        now <= self.at + self.interval * STALE_AFTER
    }
}

/// The average after one more sample that covers `passed`: a first-order step, so that a sample
/// weighs the more the longer it took.
pub(super) fn blend(average: Resources, sample: Resources, passed: Duration) -> Resources {
    let (window, passed) = (WINDOW.as_millis(), passed.as_millis());
    let step = |old: u64, new: u64| {
        let sum = u128::from(old) * window + u128::from(new) * passed;
        u64::try_from(sum / (window + passed)).unwrap_or(u64::MAX)
    };
    Resources {
        cpu_millis: step(average.cpu_millis, sample.cpu_millis),
        memory_bytes: step(average.memory_bytes, sample.memory_bytes),
    }
}

/// The share of `capacity` that `used` is, in thousandths, and the dimension where it is largest.
/// What a node does not have is not scarce there.
pub fn share(used: Resources, capacity: Resources) -> (u64, Dimension) {
    let of = |used: u64, all: u64| {
        let share = (u128::from(used) * 1_000).checked_div(u128::from(all));
        u64::try_from(share.unwrap_or(0)).unwrap_or(u64::MAX)
    };
    let cpu = of(used.cpu_millis, capacity.cpu_millis);
    let memory = of(used.memory_bytes, capacity.memory_bytes);
    match cpu >= memory {
        true => (cpu, Dimension::Cpu),
        false => (memory, Dimension::Memory),
    }
}

/// A node's average pressure, in thousandths, when it has an engine and was heard of lately.
pub fn pressure(node: &Node, now: Timestamp) -> Option<(u64, Dimension)> {
    let usage = node.usage.filter(|usage| usage.counts(now))?;
    Some(share(usage.average, node.engine()?.capacity))
}
