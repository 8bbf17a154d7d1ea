//! What a rollout makes of a service's replicas: which of them have proved themselves, whether
//! it is done, and whether it has failed (spec 05, Rolling updates).

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::command::Step;
use crate::cluster::deployment::{Cause, Deployment, Replica, ReplicaState};
use crate::cluster::rollout::{Rollout, RolloutStatus};
use crate::id::ServiceName;
use crate::manifest::spec::{
    FailureAction, Healthcheck, Placement, ServiceKind, ServiceSpec, UpdateConfig, UpdateOrder,
};
use crate::time::Timestamp;

/// A step takes no longer than this, unless its health check does.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// The engine's defaults for a health check that does not say.
const INTERVAL: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;

/// One service's rollout while it moves, or how replicas are replaced when there is none.
#[derive(Clone, Copy)]
pub(super) struct Update<'a> {
    rollout: Option<&'a Rollout>,
    spec: &'a ServiceSpec,
    now: Timestamp,
}

impl<'a> Update<'a> {
    pub(super) fn of(
        deployment: &'a Deployment,
        name: &ServiceName,
        spec: &'a ServiceSpec,
        now: Timestamp,
    ) -> Self {
        Self {
            rollout: deployment.rollouts.get(name),
            spec,
            now,
        }
    }

    fn config(&self) -> &'a UpdateConfig {
        match self.rollout {
            Some(rollout) if rollout.is_rollback => &self.spec.rollback,
            _ => &self.spec.update,
        }
    }

    /// True while a rollout takes steps.
    pub(super) fn is_moving(&self) -> bool {
        self.moving().is_some()
    }

    fn moving(&self) -> Option<&'a Rollout> {
        self.rollout.filter(|rollout| rollout.is_moving())
    }

    /// True for a replica that is to make way for another one.
    pub(super) fn replaces(&self, replica: &Replica) -> bool {
        replica.spec_hash != self.spec.spec_hash || self.rollout.is_some_and(|r| r.renews(replica))
    }

    /// True while stale replicas are left as they are.
    pub(super) fn is_paused(&self) -> bool {
        let paused = |rollout: &&Rollout| rollout.status == RolloutStatus::Paused;
        self.rollout.filter(paused).is_some()
    }

    /// How many replicas are replaced at a time; zero in the file means all.
    pub(super) fn parallelism(&self, wanted: usize) -> usize {
        match self.config().parallelism as usize {
            _ if self.spec.kind == ServiceKind::Job => wanted.max(1),
            0 => wanted.max(1),
            some => some,
        }
    }

    /// True when the new replica runs before the old one is stopped. Data, a fixed host and a
    /// job allow no second replica beside the first.
    pub(super) fn starts_first(&self) -> bool {
        let possible = !self.spec.is_stateful()
            && self.spec.kind == ServiceKind::Service
            && matches!(self.spec.placement, Placement::Spread | Placement::Pack);
        match self.config().order {
            Some(order) => order == UpdateOrder::StartFirst && possible,
            None => possible,
        }
    }

    /// True when a replica has proved itself, so that the next step may follow.
    pub(super) fn has_settled(&self, replica: &Replica) -> bool {
        match replica.state() {
            ReplicaState::Completed => replica.is_done(self.spec),
            ReplicaState::Running if !self.is_mute(replica) => self.settles_at(replica) <= self.now,
            _ => self.is_tolerated() && self.failure(replica).is_some(),
        }
    }

    /// True for a replica that runs and does not listen where the ones before it did.
    fn is_mute(&self, replica: &Replica) -> bool {
        self.moving().is_some_and(|rollout| {
            let silent = replica.observed.silent_ports();
            !silent.is_subset(&rollout.silent_ports)
        })
    }

    /// When a running replica has run for `monitor`.
    pub(super) fn settles_at(&self, replica: &Replica) -> Timestamp {
        match self.moving() {
            Some(_) => replica.seen_at + self.config().monitor,
            None => replica.seen_at,
        }
    }

    /// True when the pause between two steps is over.
    pub(super) fn may_step(&self, current: &[&Arc<Replica>]) -> bool {
        self.next_step(current).is_none_or(|at| at <= self.now)
    }

    /// When the pause after the last step ends.
    pub(super) fn next_step(&self, current: &[&Arc<Replica>]) -> Option<Timestamp> {
        let delay = self.config().delay;
        let rollout = self.moving().filter(|_| delay > Duration::ZERO)?;
        let new = current.iter().filter(|r| r.placed_at >= rollout.started_at);
        new.map(|replica| self.settles_at(replica) + delay).max()
    }

    fn is_tolerated(&self) -> bool {
        self.config().failure_action == FailureAction::Continue
    }

    /// Until when a replica of this rollout must run, and one that runs must listen. Fetching
    /// its image does not count.
    pub(super) fn deadline(&self, replica: &Replica) -> Timestamp {
        let begun = match replica.state() {
            ReplicaState::Starting | ReplicaState::Running => replica.seen_at,
            _ => replica.placed_at,
        };
        begun + step_limit(self.spec)
    }

    /// Why a replica that this rollout placed has failed it.
    fn failure(&self, replica: &Replica) -> Option<Cause> {
        let rollout = self.moving()?;
        if replica.placed_at < rollout.started_at {
            return None;
        }
        let late = match replica.state() {
            ReplicaState::Failed | ReplicaState::Degraded => false,
            ReplicaState::Completed | ReplicaState::Pulling => return None,
            ReplicaState::Running if !self.is_mute(replica) => return None,
            _ if self.now < self.deadline(replica) => return None,
            // What it lacks says its cause.
            ReplicaState::Running => false,
            _ => true,
        };
        let mut cause = replica.observed.cause.clone().unwrap_or(Cause {
            code: None,
            message: format!("{} after its time", replica.state().as_str()),
            details: std::collections::BTreeMap::new(),
        });
        let words = if late { " is not running in time" } else { "" };
        cause.message = format!("{}{words}: {}", replica.id, cause.message);
        Some(cause)
    }

    /// The step that ends the rollout now: failed, or done. `is_done` says that every replica
    /// is current and settled, and none is on its way out.
    pub(super) fn end(
        &self,
        deployment: &Deployment,
        name: &ServiceName,
        current: &[&Arc<Replica>],
        is_done: bool,
    ) -> Option<Step> {
        let rollout = self.moving()?;
        let end = |status, cause| Step::EndRollout {
            deployment: deployment.name.clone(),
            service: name.clone(),
            started_at: rollout.started_at,
            status,
            cause,
        };
        let failures: Vec<Cause> = current.iter().filter_map(|r| self.failure(r)).collect();
        let allowed =
            u64::from(self.config().max_failure_ratio_millis) * u64::from(self.spec.replicas);
        if failures.len() as u64 * 1_000 > allowed && !self.is_tolerated() {
            let cause = failures.into_iter().next()?;
            let kept = deployment.revisions.contains_key(&rollout.from);
            let back = self.config().failure_action == FailureAction::Rollback
                && !rollout.is_rollback
                && !rollout.restarts
                && kept;
            return Some(match back {
                true => Step::RollBack {
                    deployment: deployment.name.clone(),
                    service: name.clone(),
                    started_at: rollout.started_at,
                    cause,
                },
                false => end(RolloutStatus::Paused, Some(cause)),
            });
        }
        let status = match rollout.is_rollback {
            true => RolloutStatus::RolledBack,
            false => RolloutStatus::Completed,
        };
        is_done.then(|| end(status, None))
    }
}

/// The health check's own start period plus its retries, when that is longer.
fn step_limit(spec: &ServiceSpec) -> Duration {
    let Some(Healthcheck::Test {
        interval,
        start_period,
        retries,
        ..
    }) = &spec.container.healthcheck
    else {
        return STEP_LIMIT;
    };
    let tries = retries.unwrap_or(RETRIES).saturating_add(1);
    let checks = interval.unwrap_or(INTERVAL).saturating_mul(tries);
    STEP_LIMIT.max(start_period.unwrap_or_default().saturating_add(checks))
}
