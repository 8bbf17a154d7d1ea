//! Rollouts: one per service whose spec changed, in the state so that a new leader goes on
//! with it (spec 05, Rolling updates).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::deployment::{Cause, Deployment, Phase, Replica};
use crate::id::ServiceName;
use crate::manifest::spec::{DeploymentSpec, ServiceKind};
use crate::time::Timestamp;

/// The way of one service from one spec to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The last revision that was rolled out whole; where a rollback leads.
    pub from: u64,
    /// How it stands.
    pub status: RolloutStatus,
    /// When it began. Replicas that were placed since belong to it.
    pub started_at: Timestamp,
    /// True when it replaces what was placed before it began, changed or not.
    pub restarts: bool,
    /// True when it takes back one that failed; it is not taken back itself.
    pub is_rollback: bool,
    /// Ports that nothing listened on before it began either: they hold up no step.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub silent_ports: BTreeSet<u16>,
    /// Why it is paused, or why the one before it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// A rollout's state (spec 03, States).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum RolloutStatus {
    InProgress,
    Completed,
    Paused,
    RolledBack,
    Aborted,
}

impl Rollout {
    /// True while steps are taken.
    pub fn is_moving(&self) -> bool {
        self.status == RolloutStatus::InProgress
    }

    /// True for a replica that is to be replaced although its spec is the present one.
    pub fn renews(&self, replica: &Replica) -> bool {
        self.restarts && self.is_moving() && replica.placed_at < self.started_at
    }
}

/// Begins a rollout for each service whose running replicas differ from the present revision,
/// and drops the ended ones of services that do not need one. `before` was current until now.
/// Returns the rollouts that moved until now: the new revision supersedes them.
pub(super) fn begin(
    deployment: &mut Deployment,
    before: u64,
    now: Timestamp,
) -> Vec<(ServiceName, Rollout)> {
    let spec = std::sync::Arc::clone(deployment.spec());
    let moving = deployment.rollouts.values().find(|r| r.is_moving());
    let from = moving.map_or(before, |rollout| rollout.from);
    let outdated = |name: &ServiceName| is_outdated(deployment, &spec, name);
    let services = spec.services.keys().filter(|name| outdated(name));
    let rollout = Rollout {
        from,
        status: RolloutStatus::InProgress,
        started_at: now,
        restarts: false,
        is_rollback: false,
        silent_ports: BTreeSet::new(),
        cause: None,
    };
    let rollout = |name| Rollout {
        silent_ports: silent_ports(deployment, name),
        ..rollout.clone()
    };
    let begun: Vec<_> = services.map(|name| (name.clone(), rollout(name))).collect();
    let superseded = abort(deployment);
    deployment.rollouts = superseded.iter().cloned().collect();
    deployment.rollouts.extend(begun);
    superseded
}

/// Ends the rollouts that move, and returns them as they end.
pub(super) fn abort(deployment: &mut Deployment) -> Vec<(ServiceName, Rollout)> {
    let moving = deployment
        .rollouts
        .iter_mut()
        .filter(|(_, r)| r.is_moving());
    let end = |(name, rollout): (&ServiceName, &mut Rollout)| {
        rollout.status = RolloutStatus::Aborted;
        (name.clone(), rollout.clone())
    };
    moving.map(end).collect()
}

/// Begins to replace the replicas of these services, changed or not. The present revision was just
/// made from the one before it.
pub(super) fn restart(deployment: &mut Deployment, services: &[ServiceName], now: Timestamp) {
    let from = deployment.current;
    for service in services {
        let rollout = Rollout {
            from,
            status: RolloutStatus::InProgress,
            started_at: now,
            restarts: true,
            is_rollback: false,
            silent_ports: silent_ports(deployment, service),
            cause: None,
        };
        deployment.rollouts.insert(service.clone(), rollout);
    }
}

/// The ports that no serving replica of a service listens on.
fn silent_ports(deployment: &Deployment, service: &ServiceName) -> BTreeSet<u16> {
    let replicas = deployment.replicas_of(service);
    let serving = replicas.filter(|replica| replica.is_serving());
    let silent = serving.map(|replica| replica.observed.silent_ports());
    silent.reduce(|all, one| &all & &one).unwrap_or_default()
}

fn is_outdated(deployment: &Deployment, spec: &DeploymentSpec, name: &ServiceName) -> bool {
    let wanted = &spec.services[name];
    let stale = |replica: &&std::sync::Arc<Replica>| {
        replica.phase == Phase::Active && replica.spec_hash != wanted.spec_hash
    };
    wanted.kind == ServiceKind::Service && deployment.replicas_of(name).any(|r| stale(&r))
}
