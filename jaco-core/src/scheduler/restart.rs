//! When a failed replica is started again in place (spec 05, Health and restarts).

use std::time::Duration;

use crate::cluster::deployment::{Phase, Replica, ReplicaState};
use crate::manifest::spec::{ServiceKind, ServiceSpec};
use crate::time::Timestamp;

/// Consecutive failures after which a service's replica is given up until the next apply.
pub const BUDGET: u32 = 3;

/// The generation to restart as, when a restart is due.
pub fn due(replica: &Replica, service: &ServiceSpec, now: Timestamp) -> Option<u64> {
    let fallen = has_ended(replica) && !replica.is_done(service);
    if replica.phase != Phase::Active || !fallen || is_exhausted(replica, service) {
        return None;
    }
    let wait = wait(replica.failures());
    let since = replica.restarts.last_at.unwrap_or_default();
    (now >= since + wait).then_some(replica.generation + 1)
}

/// True when its container does not do its work any more, be it because that is done.
fn has_ended(replica: &Replica) -> bool {
    use ReplicaState::{Completed, Degraded, Failed};
    matches!(replica.state(), Failed | Degraded | Completed)
}

/// True when a replica failed and will not be started again by itself.
pub fn is_exhausted(replica: &Replica, service: &ServiceSpec) -> bool {
    match service.kind {
        ServiceKind::Service => replica.failures() >= BUDGET,
        // A job that fails after a long run has failed all the same.
        ServiceKind::Job => replica.restarts.total >= service.restart.max_attempts,
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
        .filter(|replica| has_ended(replica))
        .filter_map(|replica| {
            replica
                .restarts
                .last_at
                .map(|at| at + wait(replica.failures()))
        })
        .filter(|due| *due > now)
        .min()
}
