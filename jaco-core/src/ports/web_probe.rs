//! Fetching a page as a visitor would, to see who answers.

use std::net::IpAddr;

use async_trait::async_trait;

use crate::certs::Probed;
use crate::id::Domain;

/// Fetches over plain HTTP from port 80, within seconds, without following redirects.
#[async_trait]
pub trait WebProbe: Send + Sync + 'static {
    /// What an address answers for a domain and a path. The fetching is done by the member whose
    /// raft listener is at `via`, or by this node.
    async fn fetch(&self, via: Option<&str>, address: IpAddr, host: &Domain, path: &str) -> Probed;
}
