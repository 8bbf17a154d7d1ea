//! An ingress that serves nobody and remembers what it was told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jaco_core::manifest::spec::Protocol;
use jaco_core::node::ingress::RouteTable;
use jaco_core::ports::IngressProxy;

/// Where the fake would serve HTTP.
const HTTP: u16 = 80;

/// Records the tables; ports can be taken by somebody else.
#[derive(Debug, Default)]
pub struct FakeIngress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    tables: Vec<Arc<RouteTable>>,
    taken: BTreeSet<u16>,
}

impl FakeIngress {
    /// Lets somebody else listen on a port.
    pub fn take(&self, port: u16) {
        self.lock().taken.insert(port);
    }

    /// Frees a port that somebody else had.
    pub fn release(&self, port: u16) {
        self.lock().taken.remove(&port);
    }

    /// Every table in the order of publishing.
    pub fn tables(&self) -> Vec<Arc<RouteTable>> {
        self.lock().tables.clone()
    }

    /// The table that is served now.
    pub fn table(&self) -> Option<Arc<RouteTable>> {
        self.lock().tables.last().cloned()
    }

    /// The TCP ports that are listened on, HTTP's among them.
    pub fn listening(&self) -> BTreeSet<u16> {
        let state = self.lock();
        state.wanted().difference(&state.taken).copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wanted(&self) -> BTreeSet<u16> {
        let Some(table) = self.tables.last() else {
            return BTreeSet::new();
        };
        let tcp = table.ports.keys().filter(|key| key.1 == Protocol::Tcp);
        let http = table.needs_http().then_some(HTTP);
        tcp.map(|key| key.0).chain(http).collect()
    }
}

#[async_trait]
impl IngressProxy for FakeIngress {
    fn publish(&self, table: Arc<RouteTable>) {
        self.lock().tables.push(table);
    }

    fn failed_listeners(&self) -> Vec<(String, String)> {
        let state = self.lock();
        let failed = state
            .wanted()
            .intersection(&state.taken)
            .copied()
            .collect::<Vec<_>>();
        let failure = |port| (format!("0.0.0.0:{port}"), "address in use".to_owned());
        failed.into_iter().map(failure).collect()
    }

    async fn leave(&self, _: Duration) {
        self.lock().tables.clear();
    }
}
