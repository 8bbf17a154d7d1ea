//! `plan`: from what is wanted and what was seen to the next steps (spec 05).
//!
//! Invariants (`tests/plan_props.rs`): applying a plan and planning again gives nothing until
//! something is observed, but what follows the end of a rollout, and the one move that rest
//! allows; what serves does not fall below its floor; a stateful replica is never placed away from
//! its data.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::barrier;
use super::placement::Cluster;
use super::planner::Planner;
use super::service::{self, ServiceView};
use crate::cluster::command::Step;
use crate::cluster::deployment::{Deployment, Phase, Replica};
use crate::cluster::node::NodeStatus;
use crate::cluster::state::ClusterState;
use crate::id::{NetworkName, NodeName, ServiceName};
use crate::manifest::spec::{DeploymentSpec, NetworkMode, ServiceSpec};
use crate::time::Timestamp;

/// The next steps; empty when there is nothing to do until the state or the clock moves on.
pub fn plan(state: &ClusterState, now: Timestamp) -> Vec<Step> {
    Planner::default().plan(state, now)
}

/// One deployment's turn within a plan: what it looks at, and what it has decided so far.
pub(super) struct Turn<'a, 'p> {
    pub(super) state: &'a ClusterState,
    pub(super) deployment: &'a Arc<Deployment>,
    pub(super) now: Timestamp,
    pub(super) cluster: &'p mut Cluster,
    /// Addresses left in the networks that were asked for.
    addresses: BTreeMap<&'a NetworkName, usize>,
    pub(super) steps: &'p mut Vec<Step>,
}

impl<'a> Turn<'a, '_> {
    /// Sends a replica away: one that serves leaves routing first, and on a lost node there is
    /// nobody to stop one.
    pub(super) fn retire(&mut self, replica: &Replica) {
        if is_lost(self.state, &replica.node) {
            self.forget(replica);
            return;
        }
        if !replica.is_serving() {
            self.stop(replica);
            return;
        }
        let (deployment, replica) = (self.deployment.name.clone(), replica.id.clone());
        self.steps.push(Step::Drain {
            deployment,
            replica,
        });
    }

    pub(super) fn stop(&mut self, replica: &Replica) {
        let (deployment, replica) = (self.deployment.name.clone(), replica.id.clone());
        self.steps.push(Step::Stop {
            deployment,
            replica,
        });
    }

    pub(super) fn forget(&mut self, replica: &Replica) {
        let (deployment, replica) = (self.deployment.name.clone(), replica.id.clone());
        self.steps.push(Step::Forget {
            deployment,
            replica,
        });
    }

    pub(super) fn restart(&mut self, replica: &Replica, generation: u64) {
        let (deployment, replica) = (self.deployment.name.clone(), replica.id.clone());
        self.steps.push(Step::Restart {
            deployment,
            replica,
            generation,
        });
    }

    /// Gives a replica another node, which was booked for it.
    pub(super) fn relocate(&mut self, replica: &Replica, service: &'a ServiceSpec, to: NodeName) {
        self.take_addresses(service);
        let (deployment, replica) = (self.deployment.name.clone(), replica.id.clone());
        self.steps.push(Step::Relocate {
            deployment,
            replica,
            to,
        });
    }

    /// Places a replica on a node that was booked for it.
    pub(super) fn place(&mut self, name: &ServiceName, service: &'a ServiceSpec, node: NodeName) {
        self.take_addresses(service);
        self.steps.push(Step::Place {
            deployment: self.deployment.name.clone(),
            service: name.clone(),
            revision: self.deployment.current,
            node,
        });
    }

    fn take_addresses(&mut self, service: &'a ServiceSpec) {
        for network in service.networks.keys() {
            if let Some(free) = self.addresses.get_mut(network) {
                *free = free.saturating_sub(1);
            }
        }
    }

    /// How many replicas the networks of a service can still address. A step without an address
    /// would do nothing and be planned for ever.
    pub(super) fn addressable(&mut self, service: &'a ServiceSpec) -> usize {
        let (state, deployment, now) = (self.state, self.deployment, self.now);
        let free = |network: &NetworkName| state.free_addresses(&deployment.name, network, now);
        let networks = service.networks.keys();
        networks
            .map(|network| {
                let left = self.addresses.entry(network);
                *left.or_insert_with(|| free(network))
            })
            .min()
            .unwrap_or(usize::MAX)
    }
}

/// Steps after which a plan places nothing more: the rest follows once these are applied, so that
/// no entry of the log grows without bound (spec 10).
pub(super) const MAX_STEPS: usize = 1_000;

/// Decides for one deployment.
pub(super) fn plan_deployment(
    state: &ClusterState,
    deployment: &Arc<Deployment>,
    now: Timestamp,
    cluster: &mut Cluster,
    steps: &mut Vec<Step>,
) {
    let turn = &mut Turn {
        state,
        deployment,
        now,
        cluster,
        addresses: BTreeMap::new(),
        steps,
    };
    if deployment.deleting {
        plan_delete(turn);
        return;
    }
    turn.cluster.enter(deployment);
    let spec = deployment.spec();
    let mut by_service: BTreeMap<&ServiceName, Vec<&Arc<Replica>>> = BTreeMap::new();
    for replica in deployment.replicas.values() {
        by_service
            .entry(&replica.service)
            .or_default()
            .push(replica);
    }
    for (name, replicas) in &by_service {
        if !spec.services.contains_key(*name) {
            remove_all(turn, replicas.iter().copied());
        }
    }
    for (name, service) in in_placement_order(spec) {
        let replicas = by_service.remove(name).unwrap_or_default();
        let view = ServiceView::of(turn, name, service, replicas);
        service::plan(&view, turn);
    }
}

/// A service that shares the network of another is placed after it.
fn in_placement_order(spec: &DeploymentSpec) -> Vec<(&ServiceName, &ServiceSpec)> {
    let follows = |service: &ServiceSpec| matches!(service.network_mode, NetworkMode::Service(_));
    let mut services: Vec<_> = spec.services.iter().collect();
    services.sort_by_key(|(_, service)| follows(service));
    services
}

fn plan_delete(turn: &mut Turn<'_, '_>) {
    let deployment = turn.deployment;
    remove_all(turn, deployment.replicas.values());
    if deployment
        .replicas
        .values()
        .all(|replica| is_gone(turn.state, replica))
    {
        turn.steps.push(Step::Finish {
            deployment: deployment.name.clone(),
        });
    }
}

fn remove_all<'a>(turn: &mut Turn<'_, '_>, replicas: impl Iterator<Item = &'a Arc<Replica>>) {
    for replica in replicas {
        if is_gone(turn.state, replica) {
            turn.forget(replica);
        } else if replica.phase == Phase::Active {
            turn.retire(replica);
        } else if barrier::is_met(turn.state, replica, turn.now) {
            turn.stop(replica);
        }
    }
}

/// True when nothing of the replica is left, or nobody is left to say so.
pub(super) fn is_gone(state: &ClusterState, replica: &Replica) -> bool {
    replica.is_stopped() || is_lost(state, &replica.node)
}

/// True when nothing that runs on a node can be seen or changed.
pub(super) fn is_lost(state: &ClusterState, node: &NodeName) -> bool {
    state.nodes.get(node).is_none_or(|node| {
        matches!(
            node.status(),
            NodeStatus::Unreachable | NodeStatus::DockerUnreachable
        )
    })
}
