//! The drivers: each waits for a wake, takes a snapshot, asks the core, runs what it says
//! through ports, and reports what it saw. None of them decides anything.

pub(super) mod certs;
pub(super) mod dns;
pub(super) mod firewall;
pub(super) mod heartbeat;
mod hosts;
pub(super) mod ingress;
pub(super) mod membership;
pub(super) mod mesh;
pub(super) mod network;
pub(super) mod published;
pub(super) mod runtime;
pub(super) mod scheduler;
mod starts;
pub(super) mod usage;

use std::sync::Arc;
use std::time::Duration;

use jaco_core::access::Author;
use jaco_core::cluster::node::{Isolation, MeshEnd};
use jaco_core::cluster::{Applied, ClusterState, Command};
use jaco_core::id::{ClusterId, NodeName};
use jaco_core::node::bridges::Bridge;
use jaco_core::ports::{
    BridgeNetworks, CertificateAuthority, Clock, Consensus, ConsensusError, ContainerLogs,
    ContainerRuntime, DnsResponder, Firewall, HostLookup, HostNetwork, IngressProxy, Mesh, Meter,
    RuntimeError, Sealer, SystemProbe, WebProbe,
};
use tokio::sync::{RwLock, watch};

use super::config::Config;

/// Everything that the drivers of a member share.
pub(super) struct Member {
    pub(super) config: Arc<Config>,
    pub(super) name: NodeName,
    pub(super) cluster: ClusterId,
    /// Hex SHA-256 of its certificate's public key.
    pub(super) key_hash: String,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) system: Arc<dyn SystemProbe>,
    pub(super) consensus: Arc<dyn Consensus>,
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) logs: Arc<dyn ContainerLogs>,
    pub(super) bridges: Arc<dyn BridgeNetworks>,
    pub(super) ingress: Arc<dyn IngressProxy>,
    pub(super) authority: Arc<dyn CertificateAuthority>,
    pub(super) lookup: Arc<dyn HostLookup>,
    pub(super) web: Arc<dyn WebProbe>,
    pub(super) sealer: Arc<dyn Sealer>,
    /// What ingress and DNS have taken in.
    pub(super) published: published::Published,
    pub(super) mesh: Arc<dyn Mesh>,
    pub(super) host: Arc<dyn HostNetwork>,
    pub(super) firewall: Arc<dyn Firewall>,
    /// What the network drivers know of this host.
    pub(super) facts: watch::Sender<HostFacts>,
    /// The newest index whose isolation was verified; none while there is no isolation.
    pub(super) isolated_at: watch::Sender<Option<u64>>,
    pub(super) dns: Arc<dyn DnsResponder>,
    pub(super) meter: Arc<dyn Meter>,
    pub(super) hosts: hosts::Hosts,
    /// Held for reading while a container starts on its bridges, for writing while bridges
    /// that nothing needs are removed.
    pub(super) bridge_use: RwLock<()>,
}

/// What a node reports beside its engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HostFacts {
    /// Its end of the mesh while it is up.
    mesh: Option<MeshEnd>,
    isolation: Isolation,
}

impl HostFacts {
    fn are_known(&self) -> bool {
        self.mesh.is_some() && self.isolation != Isolation::Pending
    }
}

/// How long a container's start waits for the packet filter to know of it.
const ISOLATION_LIMIT: Duration = Duration::from_secs(10);

/// How often everything is looked at even though nothing woke a driver.
const SAFETY_TICK: Duration = Duration::from_secs(30);

/// Logs why a command was not committed, or not taken.
fn told(written: &Result<Applied, ConsensusError>) {
    match written {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a system command was refused"),
        Err(error) => tracing::debug!(%error, "a system command was not committed"),
    }
}

impl Member {
    fn state(&self) -> Arc<ClusterState> {
        self.consensus.snapshot()
    }

    /// Commits on the system's own behalf. A failure is not retried here: the driver looks
    /// again at its next wake and finds the same to do.
    async fn report(&self, command: Command) {
        told(&self.consensus.write(&self.author(), command).await);
    }

    /// The same for what only a leader decides. After a failure it may still be committed.
    async fn decree(&self, command: Command) {
        told(&self.consensus.write_leading(&self.author(), command).await);
    }

    fn author(&self) -> Author {
        Author::Member(self.name.clone())
    }

    /// Makes a bridge, and lets it answer for what is behind the mesh.
    async fn ensure_bridge(&self, bridge: &Bridge) -> Result<(), RuntimeError> {
        self.bridges.ensure(bridge).await?;
        let prepared = self.host.prepare_bridge(&bridge.interface).await;
        prepared.map_err(|error| RuntimeError::Refused(error.to_string()))
    }

    fn show_mesh(&self, mesh: Option<MeshEnd>) {
        self.show(|facts| facts.mesh = mesh);
    }

    fn show_isolation(&self, isolation: Isolation) {
        self.show(|facts| facts.isolation = isolation);
    }

    fn show(&self, change: impl FnOnce(&mut HostFacts)) {
        self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
    }

    /// Waits until the packet filter keeps apart what the state names now. No container starts
    /// before that.
    pub(super) async fn isolated(&self) -> Result<(), RuntimeError> {
        let index = self.state().index;
        let mut verified = self.isolated_at.subscribe();
        let there = verified.wait_for(|at| at.is_some_and(|at| at >= index));
        match tokio::time::timeout(ISOLATION_LIMIT, there).await {
            Ok(_) => Ok(()),
            Err(_) => Err(RuntimeError::Refused(
                "the packet filter does not isolate containers on this node".to_owned(),
            )),
        }
    }

    /// Waits for a newer state than `index`, but not longer than `limit`.
    async fn woken(&self, index: u64, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.consensus.applied_after(index)).await;
    }

    /// Waits until the local state holds what was committed before: only then may a node act
    /// on what the state does not say.
    pub(super) async fn recovered(&self) {
        while self.consensus.catch_up().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
