//! What the API offers its callers: the one port that is driven from outside.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::RuntimeError;
use super::consensus::ConsensusStatus;
use super::container_logs::{LogLines, LogOptions};
use crate::access::Caller;
use crate::cluster::{ClusterState, Command, Outcome};
use crate::error::Error;
use crate::id::{NodeName, ReplicaId};
use crate::manifest::Bundle;
use crate::time::Timestamp;
use crate::view::changes::Applied;
use crate::view::check::NetworkCheck;

/// A daemon as the API sees it. Every method that can fail, but [`ControlPlane::form`] and
/// [`ControlPlane::join`], answers `cluster_uninitialized` before the daemon is a member.
#[async_trait]
pub trait ControlPlane: Send + Sync + 'static {
    /// This daemon's hostname.
    fn node(&self) -> NodeName;

    /// Forms a cluster of this one node.
    async fn form(&self, name: String) -> Result<Formed, Error>;

    /// Makes this daemon a member of the cluster that the credential is for.
    async fn join(&self, request: JoinRequest) -> Result<(), Error>;

    /// Admits another host: checks its token and signs its certificate.
    async fn admit(&self, request: AdmissionRequest) -> Result<Admission, Error>;

    /// Makes a join token; the answer is shown once.
    async fn invite(&self, caller: &Caller, invitation: Invitation) -> Result<Invited, Error>;

    /// Commits a command and gives its outcome.
    async fn write(&self, caller: &Caller, command: Command) -> Result<Outcome, Error>;

    /// Checks manifests and, unless `dry_run`, commits them.
    async fn deploy(
        &self,
        caller: &Caller,
        bundle: Bundle,
        dry_run: bool,
    ) -> Result<Applied, Error>;

    /// The state: the local copy, or one that holds all that was committed before the call.
    async fn state(&self, consistent: bool) -> Result<Arc<ClusterState>, Error>;

    /// What this daemon knows of the raft group; empty before it is a member.
    fn consensus(&self) -> ConsensusStatus;

    /// Waits until the state is newer than `index`.
    async fn changed_after(&self, index: u64);

    /// The log of one replica, wherever it runs.
    async fn logs(
        &self,
        replica: &ReplicaId,
        options: &LogOptions,
    ) -> Result<Box<dyn LogLines>, RuntimeError>;

    /// Has every node try its network. A node that cannot be asked has a row that failed.
    async fn check_network(&self) -> Result<NetworkCheck, Error>;
}

/// A cluster that was just formed. Shown once.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Formed {
    pub cluster_id: String,
    pub token: String,
    pub state_key_path: String,
}

/// How to join.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct JoinRequest {
    /// `host:port` of a member's API.
    pub peer: String,
    pub token: String,
    /// PEM; pins the CA in place of the token's hash.
    pub ca_cert: Option<String>,
}

/// What a host that wants in presents.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AdmissionRequest {
    /// Who presents it; absent when it did not come over the network.
    pub from: Option<IpAddr>,
    pub secret: String,
    pub hostname: NodeName,
    pub csr: String,
    pub api_address: String,
    pub cluster_address: String,
}

/// What a host that was let in needs.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Admission {
    pub cluster_id: String,
    pub member: u64,
    /// Its certificate, then the CA's; PEM.
    pub chain: String,
    pub state_key: Vec<u8>,
}

/// A join token as asked for.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Invitation {
    pub node: Option<NodeName>,
    pub sans: Vec<String>,
    pub ttl: std::time::Duration,
}

/// A join token as given.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Invited {
    pub token: String,
    /// `host:port` of this node's API.
    pub peer: String,
    pub expires_at: Timestamp,
}
