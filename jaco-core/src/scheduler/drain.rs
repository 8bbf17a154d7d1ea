//! Emptying a node: what is still to leave it, and when that is given up (spec 05, Drain of a
//! node).

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::command::Step;
use crate::cluster::deployment::Replica;
use crate::cluster::state::ClusterState;
use crate::id::NodeName;
use crate::manifest::spec::ServiceSpec;
use crate::time::Timestamp;

/// No replica takes longer than this to leave.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The replicas that have yet to leave a node; those with data stay, and a job that is done has
/// nothing to leave.
pub fn remaining<'a>(
    state: &'a ClusterState,
    node: &'a NodeName,
) -> impl Iterator<Item = &'a Arc<Replica>> {
    let deployments = state.deployments.values();
    deployments.flat_map(move |deployment| {
        let movable = |replica: &&Arc<Replica>| {
            let service = deployment.service_of(replica);
            let stays = |service: &ServiceSpec| replica.is_done(service) || service.is_stateful();
            replica.node == *node && !service.is_some_and(stays)
        };
        deployment.replicas.values().filter(movable)
    })
}

/// The nodes that are given up now.
pub(super) fn timeouts(state: &ClusterState, now: Timestamp) -> Vec<Step> {
    let late = state.nodes.values().filter(|node| {
        let over = |at| now >= at && remaining(state, &node.name).next().is_some();
        gives_up_at(node).is_some_and(over)
    });
    let node = |node: &Arc<crate::cluster::node::Node>| node.name.clone();
    late.map(|late| Step::DrainTimeout { node: node(late) })
        .collect()
}

/// When a node that is being emptied is given up.
pub(super) fn gives_up_at(node: &crate::cluster::node::Node) -> Option<Timestamp> {
    let drain = node.drain.filter(|drain| !drain.timed_out)?;
    Some(drain.progressed_at + PATIENCE)
}
