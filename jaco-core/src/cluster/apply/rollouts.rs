//! How rollouts end: completed, paused, or taken back with the whole deployment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::deploy;
use crate::access::entry::Behalf;
use crate::cluster::audit::{EventType, record};
use crate::cluster::deployment::{Cause, Deployment};
use crate::cluster::rollout::{Rollout, RolloutStatus};
use crate::cluster::state::ClusterState;
use crate::id::{DeploymentName, Identity, ServiceName};
use crate::time::Timestamp;

/// True when applying the same files again is more than nothing: a rollout waits for it.
pub(super) fn wants_retry(deployment: &Deployment) -> bool {
    let paused = |rollout: &Rollout| rollout.status == RolloutStatus::Paused;
    deployment.rollouts.values().any(paused)
}

/// The very rollout that a step was decided on, while it moves.
fn moving<'a>(
    state: &'a mut ClusterState,
    name: &DeploymentName,
    service: &ServiceName,
    started_at: Timestamp,
) -> Option<&'a mut Rollout> {
    let deployment = Arc::make_mut(state.deployments.get_mut(name)?);
    let rollout = deployment.rollouts.get_mut(service)?;
    (rollout.is_moving() && rollout.started_at == started_at).then_some(rollout)
}

pub(super) fn end(
    state: &mut ClusterState,
    name: &DeploymentName,
    service: &ServiceName,
    started_at: Timestamp,
    status: RolloutStatus,
    cause: Option<&Cause>,
) {
    let Some(rollout) = moving(state, name, service, started_at) else {
        return;
    };
    rollout.status = status;
    if cause.is_some() {
        rollout.cause = cause.cloned();
    }
    let event = match status {
        RolloutStatus::Completed | RolloutStatus::RolledBack => EventType::RolloutCompleted,
        _ => EventType::RolloutAborted,
    };
    audit(state, event, name, service, cause);
}

/// Makes the revision before the rollout current again, for all services. When the cluster does
/// not allow that revision any more, the rollout is paused instead.
pub(super) fn roll_back(
    state: &mut ClusterState,
    name: &DeploymentName,
    service: &ServiceName,
    started_at: Timestamp,
    cause: &Cause,
) {
    let Some(rollout) = moving(state, name, service, started_at) else {
        return;
    };
    let from = rollout.from;
    let scheduler = Behalf::scheduler();
    let mut tried = state.clone();
    if let Some(failed) = moving(&mut tried, name, service, started_at) {
        failed.cause = Some(cause.clone());
    }
    let done = deploy::rollback(&mut tried, &scheduler, name, Some(from));
    if let (Ok(_), Some(deployment)) = (done, tried.deployments.get_mut(name)) {
        let rollouts = Arc::make_mut(deployment).rollouts.values_mut();
        for rollout in rollouts.filter(|rollout| rollout.is_moving()) {
            rollout.is_rollback = true;
            rollout.cause = Some(cause.clone());
        }
        *state = tried;
        return;
    }
    end(
        state,
        name,
        service,
        started_at,
        RolloutStatus::Paused,
        Some(cause),
    );
}

/// Tells of rollouts that ended because another revision, or the deployment's end, came in their
/// place: what failed them, if that is why.
pub(super) fn superseded(
    state: &mut ClusterState,
    name: &DeploymentName,
    ended: &[(ServiceName, Rollout)],
) {
    for (service, rollout) in ended {
        // The cause of a rollback is that of the rollout before it.
        let own = rollout.cause.clone().filter(|_| !rollout.is_rollback);
        let cause = own.unwrap_or_else(|| Cause {
            code: None,
            message: "superseded".to_owned(),
            details: BTreeMap::new(),
        });
        audit(
            state,
            EventType::RolloutAborted,
            name,
            service,
            Some(&cause),
        );
    }
}

/// Holds a service of which too little would run; its rollout waits for the next apply.
pub(super) fn hold(
    state: &mut ClusterState,
    name: &DeploymentName,
    service: &ServiceName,
    running: usize,
    floor: usize,
) {
    let now = state.clock;
    let Some(deployment) = state.deployments.get_mut(name) else {
        return;
    };
    let deployment = Arc::make_mut(deployment);
    deployment.held.insert(service.clone(), now);
    let cause = Cause {
        code: None,
        message: format!("{running} would run, and at least {floor} must"),
        details: BTreeMap::new(),
    };
    let rollout = deployment.rollouts.get_mut(service);
    if let Some(rollout) = rollout.filter(|rollout| rollout.is_moving()) {
        rollout.status = RolloutStatus::Paused;
        rollout.cause = Some(cause.clone());
    }
    let event = EventType::RolloutInvariantHold;
    audit(state, event, name, service, Some(&cause));
}

fn audit(
    state: &mut ClusterState,
    event: EventType,
    name: &DeploymentName,
    service: &ServiceName,
    cause: Option<&Cause>,
) {
    let reason = cause.map_or("", |cause| &cause.message);
    let payload: &[(&str, &dyn std::fmt::Display)] = &[
        ("deployment", name),
        ("service", service),
        ("reason", &reason),
    ];
    let used = if reason.is_empty() {
        &payload[..2]
    } else {
        payload
    };
    record(state, &Identity::new("system"), event, used);
}
