//! What this host has spent and holds (spec 05, Rebalancing under pressure), and where its paths
//! lead (spec 10).

use crate::node::usage::Counters;

/// Reads what the kernel of the host that containers run on tells. Cheap; never waits.
pub trait SystemProbe: Send + Sync + 'static {
    /// The counters now; `None` when the kernel tells nothing of them.
    fn counters(&self) -> Option<Counters>;

    /// Where a path of the host leads once its symbolic links are followed; as much of it as
    /// exists.
    fn real_path(&self, path: &str) -> String;
}
