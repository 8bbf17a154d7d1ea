//! A responder that answers nobody and remembers what it was told.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jaco_core::node::dns::Zones;
use jaco_core::ports::DnsResponder;

/// Records the zones; addresses can be taken by somebody else.
#[derive(Debug, Default)]
pub struct FakeDns(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    published: Vec<Arc<Zones>>,
    taken: BTreeSet<Ipv4Addr>,
}

impl FakeDns {
    /// Lets somebody else listen on an address.
    pub fn take(&self, gateway: Ipv4Addr) {
        self.lock().taken.insert(gateway);
    }

    /// The zones that are served now.
    pub fn zones(&self) -> Option<Arc<Zones>> {
        self.lock().published.last().cloned()
    }

    /// The addresses that are listened on.
    pub fn listening(&self) -> BTreeSet<Ipv4Addr> {
        let state = self.lock();
        state.wanted().difference(&state.taken).copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wanted(&self) -> BTreeSet<Ipv4Addr> {
        let zones = self.published.last();
        zones.iter().flat_map(|zones| zones.gateways()).collect()
    }
}

impl DnsResponder for FakeDns {
    fn publish(&self, zones: Arc<Zones>) {
        self.lock().published.push(zones);
    }

    fn failed_listeners(&self) -> Vec<(String, String)> {
        let state = self.lock();
        let wanted = state.wanted();
        let failed = wanted.intersection(&state.taken);
        failed
            .map(|gateway| (format!("{gateway}:53"), "address in use".to_owned()))
            .collect()
    }
}
