//! Trying the network as what runs on this host sees it (spec 07).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use async_trait::async_trait;

use super::HostError;

/// Sends and waits for the answer, a few seconds at most. Changes nothing.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// Asks an address for an echo of one IPv4 packet of so many bytes that no host on the way
    /// may cut. An error when no whole echo comes.
    async fn echo(&self, to: Ipv4Addr, size: u16) -> Result<(), HostError>;

    /// The addresses that a resolver gives a name; none when the name does not exist. An error
    /// when it does not answer.
    async fn resolve(
        &self,
        resolver: Ipv4Addr,
        name: &str,
    ) -> Result<BTreeSet<Ipv4Addr>, HostError>;
}
