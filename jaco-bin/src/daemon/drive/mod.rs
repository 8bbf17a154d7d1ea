//! The drivers: each waits for a wake, takes a snapshot, asks the core, runs what it says
//! through ports, and reports what it saw. None of them decides anything.

pub(super) mod dns;
pub(super) mod heartbeat;
pub(super) mod ingress;
pub(super) mod membership;
pub(super) mod network;
pub(super) mod runtime;
pub(super) mod scheduler;
mod starts;

use std::sync::Arc;
use std::time::Duration;

use jaco_core::cluster::{ClusterState, Command};
use jaco_core::id::{ClusterId, Identity, NodeName};
use jaco_core::ports::{
    BridgeNetworks, Clock, Consensus, ContainerLogs, ContainerRuntime, DnsResponder, IngressProxy,
};
use tokio::sync::RwLock;

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
    pub(super) dns: Arc<dyn DnsResponder>,
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
