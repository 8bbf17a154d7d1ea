//! How rollouts end: completed, paused, or taken back with the whole deployment.

use std::sync::Arc;

use super::deploy;
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
    let system = Identity::new("system");
    let mut tried = state.clone();
    audit(
        &mut tried,
        EventType::RolloutAborted,
        name,
        service,
        Some(cause),
    );
    let done = deploy::rollback(&mut tried, &system, name, Some(from));
    if let (Ok(_), Some(deployment)) = (done, tried.deployments.get_mut(name)) {
        for rollout in Arc::make_mut(deployment).rollouts.values_mut() {
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
