//! `plan`: from what is wanted and what was seen to the next steps (spec 05).
//!
//! Invariants (`tests/plan_props.rs`): applying a plan and planning again gives nothing until
//! something is observed; a stale replica is stopped only while every other replica of its
//! service runs; a stateful replica is never placed away from its data.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::placement::{Cluster, Demand, place};
use super::restart;
use crate::cluster::command::Step;
use crate::cluster::deployment::{Deployment, Phase, Replica, ReplicaState};
use crate::cluster::node::NodeStatus;
use crate::cluster::state::ClusterState;
use crate::id::{DeploymentName, NodeName, ServiceName};
use crate::manifest::spec::{DeploymentSpec, Placement, ServiceSpec};
use crate::time::Timestamp;

/// The next steps; empty when there is nothing to do until the state or the clock moves on.
pub fn plan(state: &ClusterState, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut cluster: Option<Cluster> = None;
    for deployment in state.deployments.values() {
        if is_settled(state, deployment) {
            continue;
        }
        let cluster = cluster.get_or_insert_with(|| Cluster::of(state));
        plan_deployment(state, deployment, cluster, now, &mut steps);
    }
    steps
}

/// The cheap test that lets a plan skip what needs nothing: every replica is wanted, current,
/// running and on a node that is there, and none is missing.
fn is_settled(state: &ClusterState, deployment: &Deployment) -> bool {
    if deployment.deleting {
        return false;
    }
    let spec = deployment.spec();
    let mut active = 0usize;
    for replica in deployment.replicas.values() {
        let current = replica.phase == Phase::Active
            && replica.revision == deployment.current
            && replica.state() == ReplicaState::Running
            && replica.restarts.consecutive == 0;
        let node = state.nodes.get(&replica.node);
        if !current || !node.is_some_and(|node| node.status() == NodeStatus::Ready) {
            return false;
        }
        active += 1;
    }
    let ready = || {
        state
            .nodes
            .values()
            .filter(|node| node.status() == NodeStatus::Ready)
            .count()
    };
    let wanted = spec
        .services
        .values()
        .map(|service| match service.placement {
            Placement::Global => ready(),
            _ => service.replicas as usize,
        });
    wanted.sum::<usize>() == active
}

fn plan_deployment(
    state: &ClusterState,
    deployment: &Deployment,
    cluster: &mut Cluster,
    now: Timestamp,
    steps: &mut Vec<Step>,
) {
    if deployment.deleting {
        plan_delete(state, deployment, steps);
        return;
    }
    let spec = deployment.spec();
    cluster.enter(deployment);
    let undeclared: BTreeSet<&ServiceName> = deployment
        .replicas
        .values()
        .map(|replica| &replica.service)
        .filter(|service| !spec.services.contains_key(*service))
        .collect();
    for service in undeclared {
        remove_all(state, deployment, deployment.replicas_of(service), steps);
    }
    for (name, service) in in_placement_order(spec) {
        let view = ServiceView::of(state, deployment, name, service);
        plan_service(&view, cluster, now, steps);
    }
}

/// A service that shares the network of another is placed after it.
fn in_placement_order(spec: &DeploymentSpec) -> Vec<(&ServiceName, &ServiceSpec)> {
    use crate::manifest::spec::NetworkMode;
    let follows = |service: &ServiceSpec| matches!(service.network_mode, NetworkMode::Service(_));
    let mut services: Vec<_> = spec.services.iter().collect();
    services.sort_by_key(|(_, service)| follows(service));
    services
}

/// Everything that the decision for one service looks at.
struct ServiceView<'a> {
    state: &'a ClusterState,
    deployment: &'a Deployment,
    name: &'a ServiceName,
    spec: &'a ServiceSpec,
    /// Active replicas of the present spec on nodes that may keep them.
    current: Vec<&'a Arc<Replica>>,
    /// Active replicas of an older spec.
    stale: Vec<&'a Arc<Replica>>,
    /// Active replicas on nodes that are gone or down.
    lost: Vec<&'a Arc<Replica>>,
    /// Replicas on their way out.
    stopping: Vec<&'a Arc<Replica>>,
}

impl<'a> ServiceView<'a> {
    fn of(
        state: &'a ClusterState,
        deployment: &'a Deployment,
        name: &'a ServiceName,
        spec: &'a ServiceSpec,
    ) -> Self {
        let mut view = Self {
            state,
            deployment,
            name,
            spec,
            current: Vec::new(),
            stale: Vec::new(),
            lost: Vec::new(),
            stopping: Vec::new(),
        };
        for replica in deployment.replicas.values().filter(|r| r.service == *name) {
            let list = match replica.phase {
                Phase::Stopping => &mut view.stopping,
                Phase::Active if is_lost(state, &replica.node) => &mut view.lost,
                Phase::Active if replica.spec_hash != spec.spec_hash => &mut view.stale,
                Phase::Active => &mut view.current,
            };
            list.push(replica);
        }
        view
    }

    fn wanted(&self, cluster: &Cluster) -> usize {
        match self.spec.placement {
            Placement::Global => cluster.eligible(self.state, self.spec).len(),
            _ => self.spec.replicas as usize,
        }
    }
}

fn is_lost(state: &ClusterState, node: &NodeName) -> bool {
    state.nodes.get(node).is_none_or(|node| {
        matches!(
            node.status(),
            NodeStatus::Unreachable | NodeStatus::DockerUnreachable
        )
    })
}

fn plan_service(
    view: &ServiceView<'_>,
    cluster: &mut Cluster,
    now: Timestamp,
    steps: &mut Vec<Step>,
) {
    let deployment = &view.deployment.name;
    forget_stopped(view.state, deployment, &view.stopping, steps);
    let mut kept_lost = 0;
    for replica in &view.lost {
        // A replica with data waits for its node; an empty volume elsewhere is data loss.
        if view.spec.is_stateful() && view.state.nodes.contains_key(&replica.node) {
            kept_lost += 1;
        } else {
            steps.push(forget(deployment, replica));
            cluster.take_back(replica);
        }
    }
    let wanted = view.wanted(cluster);
    let have = view.current.len() + view.stale.len() + kept_lost;
    if have > wanted {
        remove_surplus(view, have - wanted, steps);
    } else if let Some(replica) = next_stale(view) {
        steps.push(stop(deployment, replica));
    }
    for replica in &view.current {
        if let Some(generation) = restart::due(replica, view.spec, now) {
            let (deployment, replica) = (deployment.clone(), replica.id.clone());
            steps.push(Step::Restart {
                deployment,
                replica,
                generation,
            });
        }
    }
    // A replica on its way out holds its slot until its container is gone: stop-first.
    let held = have
        + view
            .stopping
            .iter()
            .filter(|r| !is_gone(view.state, r))
            .count();
    if held < wanted {
        place_missing(view, wanted - held, cluster, steps);
    }
}

fn place_missing(
    view: &ServiceView<'_>,
    missing: usize,
    cluster: &mut Cluster,
    steps: &mut Vec<Step>,
) {
    let demand = Demand {
        state: view.state,
        deployment: view.deployment,
        name: view.name,
        service: view.spec,
        count: missing,
    };
    for node in place(&demand, cluster) {
        steps.push(Step::Place {
            deployment: view.deployment.name.clone(),
            service: view.name.clone(),
            revision: view.deployment.current,
            node,
        });
    }
}

/// The one stale replica to stop now. One that does not serve costs nothing, so it never waits;
/// one that serves waits until all others of the service do.
fn next_stale<'a>(view: &ServiceView<'a>) -> Option<&'a Arc<Replica>> {
    if !view.stopping.is_empty() {
        return None;
    }
    let down = view.stale.iter().find(|replica| !replica.is_serving());
    if let Some(replica) = down {
        return Some(replica);
    }
    let settled = |replica: &&Arc<Replica>| {
        matches!(
            replica.state(),
            ReplicaState::Running | ReplicaState::Completed
        )
    };
    let missing = view.current.len() + view.stale.len() < view.spec.replicas as usize
        && view.spec.placement != Placement::Global;
    if missing || !view.current.iter().all(|replica| settled(&replica)) {
        return None;
    }
    view.stale.first().copied()
}

/// Stale before current, not serving before serving, the newest number first.
fn remove_surplus(view: &ServiceView<'_>, surplus: usize, steps: &mut Vec<Step>) {
    let mut order: Vec<(bool, &Arc<Replica>)> = view
        .stale
        .iter()
        .map(|r| (true, *r))
        .chain(view.current.iter().map(|r| (false, *r)))
        .collect();
    order.sort_by_key(|(stale, replica)| {
        (
            !stale,
            replica.is_serving(),
            std::cmp::Reverse(replica.number),
        )
    });
    for (_, replica) in order.into_iter().take(surplus) {
        steps.push(stop(&view.deployment.name, replica));
    }
}

fn plan_delete(state: &ClusterState, deployment: &Deployment, steps: &mut Vec<Step>) {
    if deployment.replicas.is_empty() {
        steps.push(Step::Finish {
            deployment: deployment.name.clone(),
        });
        return;
    }
    remove_all(state, deployment, deployment.replicas.values(), steps);
}

fn remove_all<'a>(
    state: &ClusterState,
    deployment: &Deployment,
    replicas: impl Iterator<Item = &'a Arc<Replica>>,
    steps: &mut Vec<Step>,
) {
    for replica in replicas {
        if is_gone(state, replica) {
            steps.push(forget(&deployment.name, replica));
        } else if replica.phase == Phase::Active {
            steps.push(stop(&deployment.name, replica));
        }
    }
}

fn forget_stopped(
    state: &ClusterState,
    deployment: &DeploymentName,
    stopping: &[&Arc<Replica>],
    steps: &mut Vec<Step>,
) {
    let gone = stopping.iter().filter(|replica| is_gone(state, replica));
    steps.extend(gone.map(|replica| forget(deployment, replica)));
}

/// True when nothing of the replica is left, or nobody is left to say so.
fn is_gone(state: &ClusterState, replica: &Replica) -> bool {
    let stopped =
        replica.phase == Phase::Stopping && replica.observed.state == ReplicaState::Stopped;
    stopped || is_lost(state, &replica.node)
}

fn stop(deployment: &DeploymentName, replica: &Replica) -> Step {
    Step::Stop {
        deployment: deployment.clone(),
        replica: replica.id.clone(),
    }
}

fn forget(deployment: &DeploymentName, replica: &Replica) -> Step {
    Step::Forget {
        deployment: deployment.clone(),
        replica: replica.id.clone(),
    }
}
