//! What a node reports of its replicas: one observation each, from the engine and from its own
//! work in progress.

use std::collections::BTreeMap;
use std::time::Duration;

use super::containers::Desired;
use super::gates;
use super::health::{self, Probes};
use super::pulls::{Failure, PullBook};
use crate::cluster::command::Observed;
use crate::cluster::deployment::{Cause, Observation, Phase, Replica, ReplicaState};
use crate::error::ErrorCode;
use crate::id::ReplicaId;
use crate::ports::container_runtime::{ObservedContainer, PullProgress, RuntimeError};
use crate::time::Timestamp;

/// What the node is doing for a replica right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Fetching its image.
    Pulling(PullProgress),
    /// Making and starting its container.
    Starting,
    /// Stopping and removing its container.
    Removing,
}

/// Everything besides the state that an observation is made from.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// Containers by replica.
    pub containers: BTreeMap<ReplicaId, ObservedContainer>,
    /// Work in progress.
    pub work: BTreeMap<ReplicaId, Work>,
    /// Probes by container id.
    pub probes: BTreeMap<String, Probes>,
    /// Pulls that failed.
    pub pulls: PullBook,
    /// The last start of each replica that the engine refused.
    pub refused: BTreeMap<ReplicaId, Refusal>,
}

/// A start that the engine refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of a deployment that was deleted and comes again has the name and the generation of
    /// the one before it.
    placed_at: Timestamp,
    generation: u64,
    error: RuntimeError,
}

impl Local {
    /// Remembers that the engine refused a replica's start.
    pub fn note_refusal(&mut self, replica: &Replica, error: RuntimeError) {
        let refusal = Refusal {
            placed_at: replica.placed_at,
            generation: replica.generation,
            error,
        };
        self.refused.insert(replica.id.clone(), refusal);
    }

    /// Why the engine refused this very container.
    fn refusal(&self, replica: &Replica) -> Option<&RuntimeError> {
        let refusal = self.refused.get(&replica.id)?;
        let same =
            (refusal.placed_at, refusal.generation) == (replica.placed_at, replica.generation);
        same.then_some(&refusal.error)
    }
}

/// The observations that differ from what the state holds.
pub fn changes(
    desired: &BTreeMap<ReplicaId, Desired>,
    local: &Local,
    now: Timestamp,
) -> Vec<Observed> {
    let changed = desired.values().filter_map(|wanted| {
        let observation = observe(wanted, local, now)?;
        (observation != wanted.replica.observed).then(|| Observed {
            deployment: wanted.replica.deployment.clone(),
            replica: wanted.replica.id.clone(),
            observation,
        })
    });
    changed.collect()
}

/// What the node sees of one replica; `None` when there is nothing new to say.
fn observe(wanted: &Desired, local: &Local, now: Timestamp) -> Option<Observation> {
    let replica = &wanted.replica;
    let container = local.containers.get(&replica.id);
    let work = local.work.get(&replica.id);
    if replica.phase == Phase::Stopping {
        let gone = container.is_none() && work.is_none();
        return gone.then(|| plain(replica, ReplicaState::Stopped, None, now));
    }
    if replica.has_completed() {
        return None;
    }
    match work {
        Some(Work::Pulling(progress)) => {
            return Some(plain(
                replica,
                ReplicaState::Pulling,
                pulling(progress),
                now,
            ));
        }
        Some(Work::Starting) => return Some(plain(replica, ReplicaState::Starting, None, now)),
        Some(Work::Removing) => return None,
        None => {}
    }
    let service = wanted.service()?;
    if let Some(container) = container {
        let ours = container.generation == replica.generation
            && container.spec_hash == replica.spec_hash.as_str();
        let ports = health::probed_ports(wanted.deployment.spec(), replica);
        let none = Probes::new();
        let probes = local.probes.get(&container.id).unwrap_or(&none);
        return ours.then(|| health::assess(replica, service, container, &ports, probes, now));
    }
    if let Some(error) = local.refusal(replica) {
        return Some(plain(
            replica,
            ReplicaState::Failed,
            Some(refused(error)),
            now,
        ));
    }
    let image = &service.container.image;
    let cause = match local.pulls.held(image, replica.revision, now) {
        Some(failure) => Some(pull_failed(image, failure)),
        None => gated(wanted),
    };
    Some(plain(replica, ReplicaState::Pending, cause, now))
}

fn plain(
    replica: &Replica,
    state: ReplicaState,
    cause: Option<Cause>,
    now: Timestamp,
) -> Observation {
    let before = &replica.observed;
    let same = before.state == state && before.generation == replica.generation;
    Observation {
        generation: replica.generation,
        state,
        container_id: None,
        started_at: None,
        since: if same { before.since } else { Some(now) },
        cause,
    }
}

fn pulling(progress: &PullProgress) -> Option<Cause> {
    (progress.layers > 0).then(|| Cause {
        code: None,
        message: format!(
            "{} of {} layers, {} of {} bytes",
            progress.layers_done, progress.layers, progress.bytes_done, progress.bytes
        ),
        details: BTreeMap::new(),
    })
}

fn refused(error: &RuntimeError) -> Cause {
    Cause {
        code: Some(error.code()),
        message: error.to_string(),
        details: BTreeMap::from([("reason".to_owned(), error.to_string())]),
    }
}

fn pull_failed(image: &str, failure: &Failure) -> Cause {
    Cause {
        code: Some(ErrorCode::ImagePullFailed),
        message: format!(
            "pulling \"{image}\" failed (attempt {}): {}",
            failure.attempt, failure.reason
        ),
        details: BTreeMap::from([
            ("attempt".to_owned(), failure.attempt.to_string()),
            (
                "next_retry_at".to_owned(),
                failure.next_retry_at.to_string(),
            ),
            ("reason".to_owned(), failure.reason.clone()),
        ]),
    }
}

fn gated(wanted: &Desired) -> Option<Cause> {
    let gates = gates::gates(&wanted.deployment, &wanted.replica);
    let closed: Vec<String> = gates
        .iter()
        .filter(|gate| !gate.satisfied)
        .map(|gate| format!("\"{}\" ({})", gate.service, gate.state))
        .collect();
    (!closed.is_empty()).then(|| Cause {
        code: None,
        message: format!("waits for {}", closed.join(", ")),
        details: BTreeMap::new(),
    })
}

/// How soon the node looks at its containers again though nothing wakes it; `None` when only the
/// safety tick remains.
pub fn next_look(
    desired: &BTreeMap<ReplicaId, Desired>,
    local: &Local,
    now: Timestamp,
) -> Option<Duration> {
    let starts = |wanted: &Desired| wanted.replica.state() == ReplicaState::Starting;
    if !local.work.is_empty() || desired.values().any(starts) {
        return Some(health::PROBE_INTERVAL);
    }
    let retry = local.pulls.next_retry();
    let retry = retry.map(|at| at.since(now).max(health::PROBE_INTERVAL));
    let silent = |wanted: &Desired| !wanted.replica.observed.silent_ports().is_empty();
    let silent = desired.values().any(silent);
    let ask_again = silent.then_some(health::ASK_SILENT_AGAIN);
    retry.into_iter().chain(ask_again).min()
}

/// True when nothing local holds a start back: no failed pull that still waits, and no refusal
/// of this very generation, which only the scheduler may try again.
pub fn may_start(wanted: &Desired, local: &Local, now: Timestamp) -> bool {
    let replica = &wanted.replica;
    if local.refusal(replica).is_some() {
        return false;
    }
    let image = wanted
        .service()
        .map(|service| service.container.image.as_str());
    image.is_some_and(|image| local.pulls.held(image, replica.revision, now).is_none())
}
