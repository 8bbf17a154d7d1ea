//! The drivers: each waits for a wake, takes a snapshot, asks the core, runs what it says
//! through ports, and reports what it saw. None of them decides anything.

pub(super) mod heartbeat;
pub(super) mod ingress;
pub(super) mod membership;
pub(super) mod mesh;
pub(super) mod network;
pub(super) mod runtime;
pub(super) mod scheduler;
mod starts;

use std::sync::Arc;
use std::time::Duration;

use jaco_core::cluster::node::MeshEnd;
use jaco_core::cluster::{ClusterState, Command};
use jaco_core::id::{ClusterId, Identity, NodeName};
use jaco_core::node::bridges::Bridge;
use jaco_core::ports::{
    BridgeNetworks, Clock, Consensus, ContainerLogs, ContainerRuntime, HostNetwork, IngressProxy,
    Mesh, RuntimeError,
};
use tokio::sync::{RwLock, watch};

use super::config::Config;

/// Everything that the drivers of a member share.
pub(super) struct Member {
    pub(super) config: Arc<Config>,
    pub(super) name: NodeName,
    pub(super) cluster: ClusterId,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) consensus: Arc<dyn Consensus>,
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) logs: Arc<dyn ContainerLogs>,
    pub(super) bridges: Arc<dyn BridgeNetworks>,
    pub(super) ingress: Arc<dyn IngressProxy>,
    pub(super) mesh: Arc<dyn Mesh>,
    pub(super) host: Arc<dyn HostNetwork>,
    /// This node's end of the mesh while it is up.
    pub(super) mesh_end: watch::Sender<Option<MeshEnd>>,
    /// Held for reading while a container starts on its bridges, for writing while bridges
    /// that nothing needs are removed.
    pub(super) bridge_use: RwLock<()>,
}

/// How often everything is looked at even though nothing woke a driver.
const SAFETY_TICK: Duration = Duration::from_secs(30);

impl Member {
    fn state(&self) -> Arc<ClusterState> {
        self.consensus.snapshot()
    }

    /// Commits on the system's own behalf. A failure is not retried here: the driver looks
    /// again at its next wake and finds the same to do.
    async fn report(&self, command: Command) -> bool {
        let system = Identity::new("system");
        match self.consensus.write(&system, command).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a system command was refused");
                false
            }
            Err(error) => {
                tracing::debug!(%error, "a system command was not committed");
                false
            }
        }
    }

    /// Makes a bridge, and lets it answer for what is behind the mesh.
    async fn ensure_bridge(&self, bridge: &Bridge) -> Result<(), RuntimeError> {
        self.bridges.ensure(bridge).await?;
        let prepared = self.host.prepare_bridge(&bridge.interface).await;
        prepared.map_err(|error| RuntimeError::Refused(error.to_string()))
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
