//! What this host has spent and holds (spec 05, Rebalancing under pressure).

use crate::node::usage::Counters;

/// Reads the counters of the host that containers run on. Cheap; never waits.
pub trait SystemProbe: Send + Sync + 'static {
    /// The counters now; `None` when the kernel tells nothing of them.
    fn counters(&self) -> Option<Counters>;
}
