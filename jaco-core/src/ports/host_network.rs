//! Routes, bridges and packet paths of this host's kernel (spec 07).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use async_trait::async_trait;

use crate::node::mesh::Passage;

/// What the kernel is told beside the mesh itself. Every call may be repeated.
#[async_trait]
pub trait HostNetwork: Send + Sync + 'static {
    /// The /32s that are routed into the mesh.
    async fn routes(&self) -> Result<BTreeSet<Ipv4Addr>, HostError>;

    /// Routes a /32 into the mesh, sent from the node's mesh address.
    async fn add_route(&self, to: Ipv4Addr, source: Ipv4Addr) -> Result<(), HostError>;

    /// Removes such a route. One that is gone already is no error.
    async fn remove_route(&self, to: Ipv4Addr) -> Result<(), HostError>;

    /// Lets a bridge answer for addresses that are behind the mesh.
    async fn prepare_bridge(&self, interface: &str) -> Result<(), HostError>;

    /// Lets traffic between hosts through the engine's own rules, with its source address.
    async fn ensure_passages(&self, passages: &[Passage]) -> Result<(), HostError>;
}

/// Why the kernel did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The daemon may not, or the kernel cannot.
    #[error("{0}")]
    Unavailable(String),
    /// Anything else, in the kernel's words.
    #[error("{0}")]
    Failed(String),
}
