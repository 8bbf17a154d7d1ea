//! Which listeners are open, which are on their way out, and which could not be opened; and
//! trying those again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

/// How often a listener that could not be opened is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// A server whose listeners follow what is published.
pub(crate) trait Serving {
    /// What a listener is for.
    type Key: Copy + Ord;

    fn shared(&self) -> &Mutex<Listeners<Self::Key>>;

    /// Opens and closes as what was published last asks for.
    fn reconcile(&self, listeners: &mut Listeners<Self::Key>);

    /// Where a listener is, or should be.
    fn address(&self, key: Self::Key) -> SocketAddr;

    fn listeners(&self) -> MutexGuard<'_, Listeners<Self::Key>> {
        self.shared().lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that could not be opened, with the reason, by address.
    fn failed(&self) -> Vec<(String, String)> {
        let listeners = self.listeners();
        let failed = listeners.failed.iter();
        failed
            .map(|(&key, why)| (self.address(key).to_string(), why.clone()))
            .collect()
    }
}

/// Tries again for as long as the server exists what did not succeed: whoever held an address
/// may have gone, and what was published does not change for that.
pub(crate) async fn retry<S: Serving>(server: Weak<S>) {
    loop {
        tokio::time::sleep(RETRY).await;
        let Some(server) = server.upgrade() else {
            return;
        };
        let mut listeners = server.listeners();
        if listeners.unfinished() {
            server.reconcile(&mut listeners);
        }
    }
}

/// The listeners of one server, by what they are for.
pub(crate) struct Listeners<K> {
    open: BTreeMap<K, Listening>,
    /// Told to close; the loops hold their sockets for a moment longer.
    closing: BTreeMap<K, Listening>,
    failed: BTreeMap<K, String>,
}

/// One open listener.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    /// The loops end when this is false, and drop their receivers after their sockets.
    pub(crate) open: watch::Sender<bool>,
}

impl<K> Default for Listeners<K> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            closing: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }
}

impl<K: Copy + Ord> Listeners<K> {
    /// Closes what is not wanted and opens what is missing. An address that is still closing
    /// is opened by a later call.
    pub(crate) fn reconcile(
        &mut self,
        wanted: &BTreeSet<K>,
        mut open: impl FnMut(K) -> io::Result<Listening>,
    ) {
        self.closing
            .retain(|_, listening| !listening.open.is_closed());
        let unwanted = self.open.extract_if(.., |key, _| !wanted.contains(key));
        for (key, listening) in unwanted {
            let _ = listening.open.send(false);
            self.closing.insert(key, listening);
        }
        self.failed.clear();
        for &key in wanted {
            if self.open.contains_key(&key) || self.closing.contains_key(&key) {
                continue;
            }
            match open(key) {
                Ok(listening) => drop(self.open.insert(key, listening)),
                Err(error) => drop(self.failed.insert(key, error.to_string())),
            }
        }
    }

    /// Something is to be done that could not be done at once.
    fn unfinished(&self) -> bool {
        !self.failed.is_empty() || !self.closing.is_empty()
    }

    /// Where a listener is.
    pub(crate) fn address(&self, key: K) -> Option<SocketAddr> {
        self.open.get(&key).map(|listening| listening.address)
    }
}
