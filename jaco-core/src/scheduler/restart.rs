//! When a failed replica is started again in place (spec 05, Health and restarts).

use std::time::Duration;

use crate::cluster::deployment::{Phase, Replica, ReplicaState};
use crate::manifest::spec::{ServiceKind, ServiceSpec};
use crate::time::Timestamp;

/// Running for this long forgives earlier failures.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// Consecutive failures after which a service's replica is given up until the next apply.
pub const BUDGET: u32 = 3;

/// The generation to restart as, when a restart is due.
pub fn due(replica: &Replica, service: &ServiceSpec, now: Timestamp) -> Option<u64> {
    let failed = matches!(
        replica.state(),
        ReplicaState::Failed | ReplicaState::Degraded
    );
    if replica.phase != Phase::Active || !failed || is_exhausted(replica, service) {
        return None;
    }
    let wait = wait(consecutive(replica));
    let since = replica.restarts.last_at.unwrap_or_default();
    (now >= since + wait).then_some(replica.generation + 1)
}

/// True when a replica failed and will not be started again by itself.
pub fn is_exhausted(replica: &Replica, service: &ServiceSpec) -> bool {
    let budget = match service.kind {
        ServiceKind::Service => BUDGET,
        ServiceKind::Job => service.restart.max_attempts,
    };
    consecutive(replica) >= budget
}

/// Restarts that count: none, when the replica ran long enough before this failure.
fn consecutive(replica: &Replica) -> u32 {
    let seen = &replica.observed;
    let ran_for = match (seen.started_at, seen.since) {
        (Some(started), Some(since)) => since.since(started),
        _ => Duration::ZERO,
    };
    if ran_for >= FORGIVEN_AFTER {
        0
    } else {
        replica.restarts.consecutive
    }
}

/// At once, then 1 s, 2 s, 4 s, …
fn wait(consecutive: u32) -> Duration {
    match consecutive {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 1).min(6)),
    }
}

/// When the next restart of any replica falls due, for the driver's timer.
pub fn next_due<'a>(
    replicas: impl Iterator<Item = &'a Replica>,
    now: Timestamp,
) -> Option<Timestamp> {
    replicas
        .filter(|replica| {
            matches!(
                replica.state(),
                ReplicaState::Failed | ReplicaState::Degraded
            )
        })
        .filter_map(|replica| {
            replica
                .restarts
                .last_at
                .map(|at| at + wait(replica.restarts.consecutive))
        })
        .filter(|due| *due > now)
        .min()
}
