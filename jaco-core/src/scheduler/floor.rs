//! The floor of a service, checked beside the planner and with none of its code: what runs never
//! falls below `replicas - parallelism` by a decision of the scheduler (spec 05, Rolling updates).
//!
//! Invariant (`tests/floor_props.rs`): whatever is planned, applying what passes takes no service
//! below its floor.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::command::Step;
use crate::cluster::deployment::{Deployment, Phase, Replica, ReplicaState};
use crate::cluster::node::NodeCondition;
use crate::cluster::rollout::RolloutStatus;
use crate::cluster::state::ClusterState;
use crate::id::{DeploymentName, ReplicaId, ServiceName};
use crate::manifest::spec::{Placement, ServiceKind, ServiceSpec};
use crate::time::Timestamp;

/// A service that is held again within this time is not told of again.
const TOLD_FOR: Duration = Duration::from_secs(600);

/// The steps without those that would take a service below its floor; a [`Step::Hold`] tells of
/// each such service.
pub fn guard(state: &ClusterState, steps: Vec<Step>, now: Timestamp) -> Vec<Step> {
    let mut taken: BTreeMap<(&DeploymentName, &ServiceName), Vec<&ReplicaId>> = BTreeMap::new();
    for step in &steps {
        let Some((name, id)) = takes(step) else {
            continue;
        };
        let deployment = state.deployments.get(name);
        if let Some(replica) = deployment.and_then(|deployment| deployment.replicas.get(id)) {
            taken.entry((name, &replica.service)).or_default().push(id);
        }
    }
    let mut holds = Vec::new();
    for ((name, service), gone) in &taken {
        if let Some((running, floor)) = breach(state, name, service, gone) {
            let hold = Step::Hold {
                deployment: (*name).clone(),
                service: (*service).clone(),
                running,
                floor,
            };
            let ids: Vec<ReplicaId> = gone.iter().map(|id| (*id).clone()).collect();
            holds.push((hold, ids, is_news(state, name, service, now)));
        }
    }
    let mut passed = steps;
    for (hold, held, is_news) in holds {
        passed.retain(|step| takes(step).is_none_or(|(_, id)| !held.contains(id)));
        passed.extend(is_news.then_some(hold));
    }
    passed
}

/// The replica that a step stops or takes out of routing.
fn takes(step: &Step) -> Option<(&DeploymentName, &ReplicaId)> {
    match step {
        Step::Drain {
            deployment,
            replica,
        }
        | Step::Stop {
            deployment,
            replica,
        }
        | Step::Relocate {
            deployment,
            replica,
            ..
        } => Some((deployment, replica)),
        _ => None,
    }
}

/// How many would run without `gone`, and how many must, when these are too few. What did not run
/// costs nothing when it goes.
fn breach(
    state: &ClusterState,
    name: &DeploymentName,
    service: &ServiceName,
    gone: &[&ReplicaId],
) -> Option<(usize, usize)> {
    let deployment = state.deployments.get(name)?;
    let spec = deployment.spec().services.get(service)?;
    if deployment.deleting || !has_floor(spec) {
        return None;
    }
    let replicas = deployment.replicas.values();
    let running = replicas.filter(|r| r.service == *service && runs(state, r));
    let (taken, kept): (Vec<_>, Vec<_>) = running.partition(|r| gone.contains(&&r.id));
    let floor = floor(deployment, service, spec);
    (!taken.is_empty() && kept.len() < floor).then_some((kept.len(), floor))
}

/// A service that runs on every node follows the nodes, and a job ends.
fn has_floor(spec: &ServiceSpec) -> bool {
    spec.placement != Placement::Global && spec.kind == ServiceKind::Service
}

fn floor(deployment: &Deployment, service: &ServiceName, spec: &ServiceSpec) -> usize {
    let rollout = deployment.rollouts.get(service);
    let rolls_back = rollout
        .is_some_and(|rollout| rollout.is_rollback && rollout.status == RolloutStatus::InProgress);
    let parallelism = match rolls_back {
        true => spec.rollback.parallelism,
        false => spec.update.parallelism,
    };
    match parallelism {
        // Zero in the file means all at once.
        0 => 0,
        some => spec.replicas.saturating_sub(some) as usize,
    }
}

/// True for a replica that does its work and is not on its way out, on a node that is there.
fn runs(state: &ClusterState, replica: &Replica) -> bool {
    let node = state.nodes.get(&replica.node);
    let there = node
        .is_some_and(|node| node.condition == NodeCondition::Reachable && node.engine().is_some());
    let seen = &replica.observed;
    there
        && replica.phase == Phase::Active
        && seen.generation == replica.generation
        && seen.state == ReplicaState::Running
}

fn is_news(
    state: &ClusterState,
    name: &DeploymentName,
    service: &ServiceName,
    now: Timestamp,
) -> bool {
    let deployment = state.deployments.get(name);
    let told = deployment.and_then(|deployment| deployment.held.get(service));
    told.is_none_or(|told| now >= *told + TOLD_FOR)
}
