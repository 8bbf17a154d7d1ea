//! The addresses of the members' hosts, for members that are known by a name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use jaco_core::cluster::ClusterState;

/// A name that does not resolve in this time is unknown until it is asked for again.
const LIMIT: Duration = Duration::from_secs(2);

/// Looked up once, until forgotten; shared by the drivers that need them.
#[derive(Default)]
pub(in crate::daemon) struct Hosts(Mutex<BTreeMap<String, IpAddr>>);

impl Hosts {
    /// The addresses of the members' hosts, by host. Looks up those that were not looked up yet.
    pub(in crate::daemon) async fn addresses(
        &self,
        state: &ClusterState,
    ) -> BTreeMap<String, IpAddr> {
        let mut addresses = self.known().clone();
        for node in state.nodes.values() {
            let host = node.host().trim_matches(['[', ']']);
            if addresses.contains_key(host) {
                continue;
            }
            if let Some(address) = look_up(host).await {
                addresses.insert(host.to_owned(), address);
                self.known().insert(host.to_owned(), address);
            }
        }
        addresses
    }

    /// Asks anew next time.
    pub(super) fn forget(&self) {
        self.known().clear();
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, IpAddr>> {
        self.0.lock().expect("no holder of this lock panics")
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
