//! Commands: the only way to change the state. Plain data; time and random values are in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::addresses::Pool;
use super::certs::{AccountKey, CertStep};
use super::deployment::{Cause, Observation};
use super::mesh_pool::MeshPool;
use super::node::{NodeCondition, NodeReport};
use super::rollout::RolloutStatus;
use super::usage::Measured;
use crate::access::{Author, Rights};
use crate::error::Error;
use crate::id::{ClusterId, DeploymentName, Domain, Identity, NodeName, ReplicaId, ServiceName};
use crate::manifest::Bundle;
use crate::manifest::spec::{DeploymentSpec, Resources};
use crate::time::Timestamp;

/// What the leader appends to the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The leader's clock.
    pub at: Timestamp,
    /// On whose behalf, as audit events call it; a token is called by the name that it has in the
    /// state.
    pub identity: Identity,
    /// Who proposed it; absent in entries of versions that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// The change.
    pub command: Command,
}

/// A proposal with its place in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Index in the log.
    pub index: u64,
    /// What was proposed.
    pub proposal: Proposal,
}

/// One change of the replicated state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// First entry of a cluster.
    ClusterInit(Box<ClusterInit>),
    /// A new leader presents itself, once per term.
    #[allow(missing_docs)]
    Lead {
        node: NodeName,
        term: u64,
        ipam_pool: Pool,
        mesh_pool: MeshPool,
        audit_retention: usize,
    },
    /// Makes a single-use join token.
    #[allow(missing_docs)]
    JoinTokenIssue {
        hash: String,
        node: Option<NodeName>,
        sans: Vec<String>,
        ttl: Duration,
    },
    /// Admits a node whose certificate was just signed.
    #[allow(missing_docs)]
    NodeJoin { token_hash: String, node: NewNode },
    /// What a node says of itself.
    #[allow(missing_docs)]
    NodeReport { node: NodeName, report: NodeReport },
    /// What a node and its replicas used lately.
    #[allow(missing_docs)]
    NodeUsage {
        node: NodeName,
        used: Resources,
        /// How often the node says so.
        interval: Duration,
        replicas: Vec<Measured>,
    },
    /// A node's packet filter was changed by others, and has been put right.
    #[allow(missing_docs)]
    IsolationRepaired { node: NodeName, diff: Vec<String> },
    /// What the leader found about a node.
    #[allow(missing_docs)]
    NodeCondition {
        node: NodeName,
        condition: NodeCondition,
    },
    /// At `index` nothing was left on a node of what it should not run.
    #[allow(missing_docs)]
    Swept { node: NodeName, index: u64 },
    /// Empties a node, or lets it take replicas again.
    #[allow(missing_docs)]
    NodeDrain { node: NodeName, drain: bool },
    /// Gives a node labels, or takes them back.
    #[allow(missing_docs)]
    NodeLabel {
        node: NodeName,
        set: BTreeMap<String, String>,
        remove: BTreeSet<String>,
    },
    /// Takes a node out of the membership.
    #[allow(missing_docs)]
    NodeRemove { node: NodeName, force: bool },
    /// Makes an operator token.
    #[allow(missing_docs)]
    TokenIssue {
        hash: String,
        name: Identity,
        #[serde(flatten)]
        rights: Rights,
        /// How long it can be used; for ever when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl: Option<Duration>,
    },
    /// Revokes every token of a name.
    #[allow(missing_docs)]
    TokenRevoke { name: Identity, force: bool },
    /// Makes a revision current. `privileged` says that the caller may run privileged services; it
    /// counts in entries without an author only.
    #[allow(missing_docs)]
    Apply {
        bundle: Arc<Bundle>,
        spec: Arc<DeploymentSpec>,
        privileged: bool,
    },
    /// Notes that somebody is shown the secrets of a deployment.
    #[allow(missing_docs)]
    ShowSecrets { deployment: DeploymentName },
    /// Notes that a node was shown tokens that do not count, and from where.
    #[allow(missing_docs)]
    LoginFailed {
        node: NodeName,
        /// Absent for many addresses together.
        address: Option<IpAddr>,
        count: u32,
    },
    /// Stops everything of a deployment and forgets it.
    #[allow(missing_docs)]
    Delete { deployment: DeploymentName },
    /// Makes an older revision current again, as a new one; the previous one when `to` is absent.
    #[allow(missing_docs)]
    Rollback {
        deployment: DeploymentName,
        to: Option<u64>,
    },
    /// Changes a replica count, as a new revision.
    #[allow(missing_docs)]
    Scale {
        deployment: DeploymentName,
        service: ServiceName,
        replicas: u32,
    },
    /// Replaces the replicas of one service, or of all, one after the other.
    #[allow(missing_docs)]
    Restart {
        deployment: DeploymentName,
        service: Option<ServiceName>,
    },
    /// What the scheduler decided on the state at index `after`, in one entry. What was decided on
    /// a ground that has changed since is void.
    #[allow(missing_docs)]
    Schedule { after: u64, steps: Vec<Step> },
    /// A node serves the routes and names of the state at `index`.
    #[allow(missing_docs)]
    Published { node: NodeName, index: u64 },
    /// What was done for a domain's certificate, decided when `after` steps had been taken.
    #[allow(missing_docs)]
    Certificate {
        domain: Domain,
        after: u64,
        step: CertStep,
    },
    /// An operator wants a domain's certificate ordered now.
    #[allow(missing_docs)]
    CertificateRenew { domain: Domain },
    /// A certificate authority made an account.
    #[allow(missing_docs)]
    AcmeAccount {
        account: AccountKey,
        credentials_sealed: String,
    },
    /// A certificate authority does not know these credentials any more.
    #[allow(missing_docs)]
    AcmeAccountGone {
        account: AccountKey,
        credentials_sealed: String,
    },
    /// What a node saw of its replicas.
    #[allow(missing_docs)]
    Observe {
        node: NodeName,
        observations: Vec<Observed>,
    },
}

impl Command {
    /// Whether plans made before are void: the next one counts on all replicas and all nodes.
    pub(crate) fn moves_ground(&self) -> bool {
        matches!(
            self,
            Self::Schedule { .. }
                | Self::Lead { .. }
                | Self::NodeReport { .. }
                | Self::NodeCondition { .. }
                | Self::NodeDrain { .. }
                | Self::NodeLabel { .. }
                | Self::NodeRemove { .. }
        )
    }
}

/// What `cluster init` brings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClusterInit {
    pub id: ClusterId,
    pub name: String,
    pub ca_cert: String,
    pub ca_key_sealed: String,
    pub ipam_pool: Pool,
    pub mesh_pool: MeshPool,
    pub node: NewNode,
    /// Hash of the first operator token.
    pub token_hash: String,
}

/// A node as it enters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NewNode {
    pub name: NodeName,
    pub api_address: String,
    pub cluster_address: String,
    pub serial: String,
    /// Hex SHA-256 of the certificate's public key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key_hash: String,
}

/// One decision of the scheduler. Each names what it was decided on, so that a stale one does
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Make a new replica of the service's present spec on a node.
    #[allow(missing_docs)]
    Place {
        deployment: DeploymentName,
        service: ServiceName,
        revision: u64,
        node: NodeName,
    },
    /// Have another replica on a node take the place of one, to even out the load.
    #[allow(missing_docs)]
    Move {
        deployment: DeploymentName,
        replica: ReplicaId,
        to: NodeName,
        /// What made it so, when it was pressure.
        load: Option<Load>,
    },
    /// Tell why a replica stays on a node under pressure.
    #[allow(missing_docs)]
    Skip {
        deployment: DeploymentName,
        replica: ReplicaId,
        reason: Skip,
    },
    /// Stop a replica that its node alone has failed, and make another one on a node instead.
    #[allow(missing_docs)]
    Relocate {
        deployment: DeploymentName,
        replica: ReplicaId,
        to: NodeName,
    },
    /// Take a replica out of routing, to be stopped afterwards.
    #[allow(missing_docs)]
    Drain {
        deployment: DeploymentName,
        replica: ReplicaId,
    },
    /// Stop a replica and remove its container.
    #[allow(missing_docs)]
    Stop {
        deployment: DeploymentName,
        replica: ReplicaId,
    },
    /// Replace a failed replica's container in place.
    #[allow(missing_docs)]
    Restart {
        deployment: DeploymentName,
        replica: ReplicaId,
        generation: u64,
    },
    /// Drop the record of a replica whose container is gone, or whose node is.
    #[allow(missing_docs)]
    Forget {
        deployment: DeploymentName,
        replica: ReplicaId,
    },
    /// End or hold the rollout of a service that began at `started_at`.
    #[allow(missing_docs)]
    EndRollout {
        deployment: DeploymentName,
        service: ServiceName,
        started_at: Timestamp,
        status: RolloutStatus,
        cause: Option<Cause>,
    },
    /// Take every service of a deployment back to the revision before a failed rollout.
    #[allow(missing_docs)]
    RollBack {
        deployment: DeploymentName,
        service: ServiceName,
        started_at: Timestamp,
        cause: Cause,
    },
    /// Give up emptying a node: no replica left for too long.
    #[allow(missing_docs)]
    DrainTimeout { node: NodeName },
    /// Hold a service of which too little would run (spec 05, Rolling updates).
    #[allow(missing_docs)]
    Hold {
        deployment: DeploymentName,
        service: ServiceName,
        /// How many would still run.
        running: usize,
        /// How many must.
        floor: usize,
    },
    /// Drop a deleted deployment that has no replica left.
    #[allow(missing_docs)]
    Finish { deployment: DeploymentName },
}

impl Step {
    /// Whose step it is; none for one of a node.
    pub fn deployment(&self) -> Option<&DeploymentName> {
        match self {
            Self::Place { deployment, .. }
            | Self::Move { deployment, .. }
            | Self::Skip { deployment, .. }
            | Self::Relocate { deployment, .. }
            | Self::Drain { deployment, .. }
            | Self::Stop { deployment, .. }
            | Self::Restart { deployment, .. }
            | Self::Forget { deployment, .. }
            | Self::EndRollout { deployment, .. }
            | Self::RollBack { deployment, .. }
            | Self::Hold { deployment, .. }
            | Self::Finish { deployment } => Some(deployment),
            Self::DrainTimeout { .. } => None,
        }
    }
}

/// The numbers of a move under pressure: shares of what the nodes have, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Load {
    pub source: u64,
    pub target: u64,
    /// What the source gets rid of, in its scarcer dimension.
    pub relief: u64,
    /// The target once it has the replica.
    pub target_after: u64,
    pub footprint: Resources,
}

/// Why a replica stays on a node under pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// Its data is there.
    Stateful,
    /// Its service says where it runs.
    Bound,
    /// It was placed or moved a moment ago.
    PlacedRecently,
    /// Nobody knows yet what it uses.
    NotMeasured,
    /// Its move would not help.
    LittleRelief,
    /// No other node may take it.
    NoTarget,
    /// Every node that may take it would be too full.
    TargetsFull,
    /// Every node that may take it has just been given another one.
    TargetsBusy,
}

impl Skip {
    /// The lower snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Skip::Stateful => "stateful",
            Skip::Bound => "bound",
            Skip::PlacedRecently => "placed_recently",
            Skip::NotMeasured => "not_measured",
            Skip::LittleRelief => "little_relief",
            Skip::NoTarget => "no_target",
            Skip::TargetsFull => "targets_full",
            Skip::TargetsBusy => "targets_busy",
        }
    }
}

/// One observation of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Observed {
    pub deployment: DeploymentName,
    pub replica: ReplicaId,
    pub observation: Observation,
}

/// What applying an entry gave: an outcome, or a refusal that changed nothing.
pub type Applied = Result<Outcome, Error>;

/// What a committed command gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done, nothing to say.
    Done,
    /// A node was admitted under this number.
    #[allow(missing_docs)]
    Admitted { member: u64 },
    /// A revision is current. `changed` is false when it was already.
    #[allow(missing_docs)]
    Revision {
        deployment: DeploymentName,
        revision: u64,
        changed: bool,
    },
}
