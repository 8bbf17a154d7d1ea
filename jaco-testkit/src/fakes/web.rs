//! A world of names and pages in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use async_trait::async_trait;
use jaco_core::certs::Probed;
use jaco_core::id::Domain;
use jaco_core::ports::{HostError, HostLookup, WebProbe};

/// Addresses by name; a world without any has no resolver that answers.
#[derive(Debug, Default)]
pub struct FakeLookup(pub BTreeMap<String, BTreeSet<IpAddr>>);

#[async_trait]
impl HostLookup for FakeLookup {
    async fn addresses(&self, name: &str) -> Result<BTreeSet<IpAddr>, HostError> {
        if let Ok(address) = name.parse() {
            return Ok(BTreeSet::from([address]));
        }
        if self.0.is_empty() {
            return Err(HostError::Failed("no resolver answers".to_owned()));
        }
        let known = self.0.get(&name.to_ascii_lowercase());
        Ok(known.cloned().unwrap_or_default())
    }
}

/// Servers by address: their pages by host and path, as status and body. What they do not have
/// they answer with 404.
#[derive(Debug, Default)]
pub struct FakeWeb(pub BTreeMap<IpAddr, Pages>);

/// The pages of one server.
pub type Pages = BTreeMap<(Domain, String), (u16, String)>;

#[async_trait]
impl WebProbe for FakeWeb {
    async fn fetch(&self, _: Option<&str>, address: IpAddr, host: &Domain, path: &str) -> Probed {
        let Some(pages) = self.0.get(&address) else {
            return Probed::Silent("connection refused".to_owned());
        };
        let page = pages.get(&(host.clone(), path.to_owned()));
        let (status, body) = page.cloned().unwrap_or((404, String::new()));
        Probed::Answered { status, body }
    }
}
