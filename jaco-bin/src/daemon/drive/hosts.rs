//! The addresses of the members' hosts, for members that are known by a name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jaco_core::cluster::ClusterState;

/// A name that does not resolve in this time is unknown until it is asked for again.
const LIMIT: Duration = Duration::from_secs(2);

/// Looked up once, until forgotten.
#[derive(Default)]
pub(super) struct Hosts(BTreeMap<String, IpAddr>);

impl Hosts {
    /// Looks up the hosts that were not looked up yet.
    pub(super) async fn refresh(&mut self, state: &ClusterState) {
        for node in state.nodes.values() {
            let host = node.host().trim_matches(['[', ']']);
            if self.0.contains_key(host) {
                continue;
            }
            if let Some(address) = look_up(host).await {
                self.0.insert(host.to_owned(), address);
            }
        }
    }

    /// The address of a host, if it is known.
    pub(super) fn get(&self, host: &str) -> Option<IpAddr> {
        self.0.get(host).copied()
    }

    /// Asks anew next time.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

async fn look_up(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let found = tokio::time::timeout(LIMIT, tokio::net::lookup_host((host, 0)));
    let mut found = found.await.ok()?.ok()?;
    found.next().map(|address| address.ip())
}
