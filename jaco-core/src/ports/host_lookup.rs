//! Addresses of names in the world.

use std::collections::BTreeSet;
use std::net::IpAddr;

use async_trait::async_trait;

use super::HostError;

/// Asks the node's upstream resolvers.
#[async_trait]
pub trait HostLookup: Send + Sync + 'static {
    /// The addresses of a name, of either family; none when it has none or does not exist. An
    /// error when nobody answers.
    async fn addresses(&self, name: &str) -> Result<BTreeSet<IpAddr>, HostError>;
}
