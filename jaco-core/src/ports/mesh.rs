//! The encrypted network between nodes (spec 07, Mesh).

use std::net::Ipv4Addr;

use async_trait::async_trait;

use super::HostError;
use crate::cluster::node::MeshEnd;
use crate::id::MeshKey;
use crate::node::mesh::Peer;

/// This node's WireGuard interface and its peers. Every call may be repeated.
#[async_trait]
pub trait Mesh: Send + Sync + 'static {
    /// Brings the interface up under its address, in the kernel where it can be and in this
    /// process otherwise, and says what others need to know of it.
    async fn ensure(&self, address: Ipv4Addr) -> Result<MeshEnd, HostError>;

    /// The peers as the interface has them.
    async fn observe(&self) -> Result<Vec<Peer>, HostError>;

    /// Adds a peer, or makes it like this.
    async fn set(&self, peer: &Peer) -> Result<(), HostError>;

    /// Forgets a peer. One that is gone already is no error.
    async fn remove(&self, key: MeshKey) -> Result<(), HostError>;
}
