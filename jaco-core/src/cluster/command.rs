//! Commands: the only way to change the state. Plain data; time and random values are in them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::addresses::Pool;
use super::certs::{AccountKey, CertStep};
use super::deployment::{Cause, Observation};
use super::mesh_pool::MeshPool;
use super::node::{NodeCondition, NodeReport};
use super::rollout::RolloutStatus;
use crate::error::Error;
use crate::id::{ClusterId, DeploymentName, Domain, Identity, NodeName, ReplicaId, ServiceName};
use crate::manifest::Bundle;
use crate::manifest::spec::DeploymentSpec;
use crate::time::Timestamp;

/// What the leader appends to the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The leader's clock.
    pub at: Timestamp,
    /// On whose behalf.
    pub identity: Identity,
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
    /// A node's packet filter was changed by others, and has been put right.
    #[allow(missing_docs)]
    IsolationRepaired { node: NodeName, diff: Vec<String> },
    /// What the leader found about a node.
    #[allow(missing_docs)]
    NodeCondition {
        node: NodeName,
        condition: NodeCondition,
    },
    /// Empties a node, or lets it take replicas again.
    #[allow(missing_docs)]
    NodeDrain { node: NodeName, drain: bool },
    /// Takes a node out of the membership.
    #[allow(missing_docs)]
    NodeRemove { node: NodeName, force: bool },
    /// Makes an operator token.
    #[allow(missing_docs)]
    TokenIssue {
        hash: String,
        name: Identity,
        allow_privileged: bool,
    },
    /// Revokes every token of a name.
    #[allow(missing_docs)]
    TokenRevoke { name: Identity, force: bool },
    /// Makes a revision current. `privileged` says that the caller may run privileged services.
    #[allow(missing_docs)]
    Apply {
        bundle: Arc<Bundle>,
        spec: Arc<DeploymentSpec>,
        privileged: bool,
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
    /// What the scheduler decided, in one entry.
    Schedule(Vec<Step>),
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
    /// Drop a deleted deployment that has no replica left.
    #[allow(missing_docs)]
    Finish { deployment: DeploymentName },
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
