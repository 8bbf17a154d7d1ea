//! The cheap test that lets a plan skip a deployment that needs nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::placement::standing;
use crate::cluster::deployment::{Deployment, Replica};
use crate::cluster::node::{Node, NodeStatus};
use crate::cluster::state::ClusterState;
use crate::id::{NodeName, ServiceName};
use crate::manifest::spec::{NetworkMode, Placement, ServiceSpec};

/// The nodes, looked at once a plan.
pub(super) struct Nodes<'a> {
    state: &'a ClusterState,
    unready: Vec<&'a NodeName>,
}

impl<'a> Nodes<'a> {
    pub(super) fn of(state: &'a ClusterState) -> Self {
        let unready = state.nodes.values().filter(|node| !is_ready(node));
        Self {
            state,
            unready: unready.map(|node| &node.name).collect(),
        }
    }

    /// Most nodes are ready, so that the few others are looked through first.
    fn is_ready(&self, node: &NodeName) -> bool {
        self.unready.binary_search(&node).is_err()
    }
}

fn is_ready(node: &Node) -> bool {
    node.status() == NodeStatus::Ready
}

/// True when every replica is wanted, current, running and where it may be, and none is missing.
pub(super) fn is_settled(nodes: &Nodes<'_>, deployment: &Deployment) -> bool {
    if deployment.deleting || deployment.rollouts.values().any(|r| r.is_moving()) {
        return false;
    }
    let spec = deployment.spec();
    let mut counts: BTreeMap<&ServiceName, usize> = BTreeMap::new();
    let mut seats = BTreeSet::new();
    for replica in deployment.replicas.values() {
        let service = spec.services.get(&replica.service);
        if !service.is_some_and(|service| is_at_rest(nodes, deployment, replica, service)) {
            return false;
        }
        let global = service.is_some_and(|service| service.placement == Placement::Global);
        if global && !seats.insert((&replica.service, &replica.node)) {
            // A service that became global has one replica too many there.
            return false;
        }
        *counts.entry(&replica.service).or_default() += 1;
    }
    spec.services.iter().all(|(name, service)| {
        counts.get(name).copied().unwrap_or(0) == wanted(nodes.state, service)
    })
}

fn is_at_rest(
    nodes: &Nodes<'_>,
    deployment: &Deployment,
    replica: &Replica,
    service: &ServiceSpec,
) -> bool {
    if replica.move_to.is_some() || replica.revision != deployment.current {
        return false;
    }
    let done = replica.is_done(service);
    if done && service.placement != Placement::Global {
        return true;
    }
    (done || replica.is_serving())
        && nodes.is_ready(&replica.node)
        && may_stand(nodes.state, &replica.node, service)
}

/// Services without rules of placement, which are most, cost no lookup.
fn may_stand(state: &ClusterState, node: &NodeName, service: &ServiceSpec) -> bool {
    let plain = service.constraints.is_empty()
        && matches!(service.placement, Placement::Spread | Placement::Pack)
        && !matches!(service.network_mode, NetworkMode::Service(_));
    plain
        || !matches!(service.network_mode, NetworkMode::Service(_))
            && state
                .nodes
                .get(node)
                .is_some_and(|node| standing(state, node, service).is_none())
}

/// How many replicas a service should have.
pub(super) fn wanted(state: &ClusterState, service: &ServiceSpec) -> usize {
    match service.placement {
        Placement::Global => {
            let nodes = state.nodes.values();
            nodes
                .filter(|node| standing(state, node, service).is_none())
                .count()
        }
        _ => service.replicas as usize,
    }
}
