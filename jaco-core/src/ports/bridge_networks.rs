//! Engine networks with fixed subnets (spec 07, Bridges).

use async_trait::async_trait;

use super::RuntimeError;
use crate::id::ClusterId;
use crate::node::bridges::{Bridge, ObservedBridge};

/// Makes and removes the cluster's engine networks on this node. Calls may be repeated.
#[async_trait]
pub trait BridgeNetworks: Send + Sync + 'static {
    /// Every engine network of the cluster on this node.
    async fn observe(&self, cluster: &ClusterId) -> Result<Vec<ObservedBridge>, RuntimeError>;

    /// Makes the network unless it is there as asked.
    async fn ensure(&self, bridge: &Bridge) -> Result<(), RuntimeError>;

    /// Removes a network by its engine name. One that is gone already is no error; one that
    /// still has containers is.
    async fn remove(&self, engine_name: &str) -> Result<(), RuntimeError>;
}
