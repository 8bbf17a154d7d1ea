//! The drain barrier: a replica is stopped only when nobody sends it anything any more (spec
//! 05, Drain barrier).

use std::time::Duration;

use crate::cluster::deployment::{Phase, Replica};
use crate::cluster::node::NodeCondition;
use crate::cluster::state::ClusterState;
use crate::id::NodeName;
use crate::time::Timestamp;

/// A node that says nothing for so long is not waited for.
pub const SILENCE: Duration = Duration::from_secs(2);

/// True when a draining replica may be stopped: every node that is heard of has published a
/// state in which it is out of routing, or had its time to.
pub(super) fn is_met(state: &ClusterState, replica: &Replica, now: Timestamp) -> bool {
    let Phase::Draining { index, since } = replica.phase else {
        return false;
    };
    let mut live = state
        .nodes
        .values()
        .filter(|node| node.condition == NodeCondition::Reachable && node.report.is_some());
    now >= since + SILENCE || live.all(|node| node.published >= index)
}

/// The index that a node has yet to tell the cluster it has published, when something waits
/// for that.
pub fn owed(state: &ClusterState, node: &NodeName) -> Option<u64> {
    let published = state.nodes.get(node)?.published;
    let waits = |replica: &std::sync::Arc<Replica>| match replica.phase {
        Phase::Draining { index, .. } => Some(index),
        Phase::Active | Phase::Stopping => None,
    };
    let newest = state.replicas().filter_map(waits).max()?;
    (newest > published).then_some(newest)
}
