//! Deployments: their revisions, and the replicas that should exist with what was seen of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::command::Skip;
use super::rollout::Rollout;
use crate::error::ErrorCode;
use crate::id::{
    DeploymentName, Identity, NetworkName, NodeName, ReplicaId, ServiceName, SpecHash,
};
use crate::manifest::Bundle;
use crate::manifest::host_access::Granted;
use crate::manifest::spec::{DeploymentSpec, Resources, ServiceKind, ServiceSpec};
use crate::time::Timestamp;

/// How many revisions are kept for `history` and `rollback` (spec 09).
pub const KEPT_REVISIONS: usize = 10;

/// Running for this long forgives earlier failures (spec 05).
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// One deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its name.
    pub name: DeploymentName,
    /// The revision that should run.
    pub current: u64,
    /// The newest [`KEPT_REVISIONS`], and any older one that a replica still runs.
    pub revisions: OrdMap<u64, Arc<Revision>>,
    /// Set by `delete`; the record goes when the last replica is gone.
    pub deleting: bool,
    /// The last replica number given out, per service; of a global one, whose replicas have none,
    /// the last generation of those that are gone. Never goes back.
    pub counters: BTreeMap<ServiceName, u64>,
    /// The latest rollout of each service whose spec changed.
    pub rollouts: BTreeMap<ServiceName, Rollout>,
    /// When each service was last held at its floor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<ServiceName, Timestamp>,
    /// Index of the newest entry, plans aside, that changed it: what was planned for it on a state
    /// before that is void.
    #[serde(default)]
    pub ground: u64,
    /// Replicas that should exist, including those on their way out.
    pub replicas: OrdMap<ReplicaId, Arc<Replica>>,
}

/// One applied pair of manifests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Counts from 1 within the deployment.
    pub number: u64,
    /// When it was applied.
    pub at: Timestamp,
    /// By whom.
    pub identity: Identity,
    /// What the command was: `apply`, `rollback to 3`, `scale web=5`, `restart web`.
    pub cause: String,
    /// The resolved manifests as they were sent.
    pub bundle: Arc<Bundle>,
    /// What they mean, with later scaling applied.
    pub spec: Arc<DeploymentSpec>,
    /// The rights that it was let in with.
    #[serde(default)]
    pub granted: Granted,
}

/// One replica: where it should run, and what its node last said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Names the container.
    pub id: ReplicaId,
    /// Its deployment.
    pub deployment: DeploymentName,
    /// Its service.
    pub service: ServiceName,
    /// The number in its id; 0 for a global replica.
    pub number: u64,
    /// The one node that runs it.
    pub node: NodeName,
    /// A revision whose spec for the service has this replica's hash.
    pub revision: u64,
    /// What its container must be.
    pub spec_hash: SpecHash,
    /// Counts replacements of its container in place.
    pub generation: u64,
    /// One address per network.
    pub addresses: BTreeMap<NetworkName, Ipv4Addr>,
    /// What it takes from its node.
    pub reserved: Resources,
    /// Where it is on its way.
    pub phase: Phase,
    /// Set once another node is to hold a replica in its stead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub move_to: Option<NodeName>,
    /// The node that alone had failed the replica in whose stead this one came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fled_from: Option<NodeName>,
    /// What it used lately, weighted like its node's average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Resources>,
    /// When it was last told why it stays on a node under pressure, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skips: BTreeMap<Skip, Timestamp>,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// Restarts in place.
    pub restarts: Restarts,
    /// What its node last reported.
    pub observed: Observation,
    /// Since when that is so, by the leader's clock: the clocks of nodes differ.
    #[serde(default)]
    pub seen_at: Timestamp,
}

/// What should happen to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It should run.
    Active,
    /// It runs on, but nobody is to send it anything any more. It is stopped once every live
    /// node has published a state as new as `index` (spec 05, Drain barrier).
    #[allow(missing_docs)]
    Draining { index: u64, since: Timestamp },
    /// It should be stopped and its container removed; then it is forgotten.
    Stopping,
}

/// Consecutive failed runs (spec 05, Health and restarts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Failures since it was last running for ten seconds.
    pub consecutive: u32,
    /// In all.
    pub total: u32,
    /// The last one.
    pub last_at: Option<Timestamp>,
}

/// What a node saw of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Which generation was seen; an older one says nothing about the present container.
    pub generation: u64,
    /// The state.
    pub state: ReplicaState,
    /// The engine's id of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// When the container started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it entered `state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

impl Observation {
    /// The routed and published ports that nothing listens on, as far as is known.
    pub fn silent_ports(&self) -> BTreeSet<u16> {
        let cause = self.cause.as_ref();
        let cause = cause.filter(|cause| cause.code == Some(ErrorCode::PortNotListening));
        let ports = cause.and_then(|cause| cause.details.get(SILENT_PORTS));
        let ports = ports.into_iter().flat_map(|ports| ports.split(", "));
        ports.filter_map(|port| port.parse().ok()).collect()
    }
}

/// The detail of `port_not_listening` that names the ports.
pub(crate) const SILENT_PORTS: &str = "ports";

/// A status detail: `{code, message, details}` of spec 03, with an optional code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    pub message: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// A replica's observed state (spec 03, States).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ReplicaState {
    #[default]
    Pending,
    Pulling,
    Starting,
    Running,
    Degraded,
    Updating,
    Draining,
    Completed,
    Failed,
    Stopped,
}

impl ReplicaState {
    /// The lower snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplicaState::Pending => "pending",
            ReplicaState::Pulling => "pulling",
            ReplicaState::Starting => "starting",
            ReplicaState::Running => "running",
            ReplicaState::Degraded => "degraded",
            ReplicaState::Updating => "updating",
            ReplicaState::Draining => "draining",
            ReplicaState::Completed => "completed",
            ReplicaState::Failed => "failed",
            ReplicaState::Stopped => "stopped",
        }
    }
}

impl Deployment {
    /// The revision that should run.
    pub fn revision(&self) -> &Arc<Revision> {
        self.revisions
            .get(&self.current)
            .expect("the current revision is never pruned")
    }

    /// What should run now.
    pub fn spec(&self) -> &Arc<DeploymentSpec> {
        &self.revision().spec
    }

    /// What a replica's container is, by the revision that it was made from.
    pub fn service_of(&self, replica: &Replica) -> Option<&ServiceSpec> {
        self.revisions
            .get(&replica.revision)?
            .spec
            .services
            .get(&replica.service)
    }

    /// The revision before the current one, if it is kept.
    pub fn previous(&self) -> Option<u64> {
        self.revisions
            .keys()
            .rev()
            .copied()
            .find(|number| *number < self.current)
    }

    /// The replicas of one service.
    pub fn replicas_of<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> impl Iterator<Item = &'a Arc<Replica>> {
        self.replicas
            .values()
            .filter(move |replica| replica.service == *service)
    }
}

impl Replica {
    /// Its state as users and routing see it: an old generation's report does not count.
    pub fn state(&self) -> ReplicaState {
        match self.phase {
            Phase::Draining { .. } => ReplicaState::Draining,
            Phase::Stopping if self.observed.state != ReplicaState::Stopped => {
                ReplicaState::Draining
            }
            _ if self.observed.generation != self.generation => ReplicaState::Pending,
            _ => self.observed.state,
        }
    }

    /// True when its node has said that nothing of it is left.
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopping && self.observed.state == ReplicaState::Stopped
    }

    /// True when its node has said that it is done.
    pub fn has_completed(&self) -> bool {
        self.phase == Phase::Active && self.state() == ReplicaState::Completed
    }

    /// True for a job that is done. It stays so, whatever becomes of its container and its node.
    /// A service never is: what was done as a job has yet to run when it became one.
    pub fn is_done(&self, service: &ServiceSpec) -> bool {
        service.kind == ServiceKind::Job && self.has_completed()
    }

    /// True when ingress and DNS may name it.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Active && self.state() == ReplicaState::Running
    }

    /// Failed runs in a row before the present one. A run of [`FORGIVEN_AFTER`] starts the
    /// count anew.
    pub fn failures(&self) -> u32 {
        let ran_for = match (self.observed.started_at, self.observed.since) {
            (Some(started), Some(since)) => since.since(started),
            _ => Duration::ZERO,
        };
        if ran_for >= FORGIVEN_AFTER {
            0
        } else {
            self.restarts.consecutive
        }
    }

    /// Its address on its first network, in key order; what ingress dials.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.addresses.values().next().copied()
    }
}
