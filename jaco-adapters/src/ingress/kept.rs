//! Listening sockets that outlive the daemon: the service manager keeps them while it restarts
//! (systemd's file descriptor store), so that visitors wait in the kernel's queue instead of
//! being refused.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use socket2::Socket;

use super::listener;

/// What nobody asked for so long after the start is given up.
const UNCLAIMED: Duration = Duration::from_secs(60);

/// What the manager keeps, by name. Without a manager, or by default, nothing is kept.
#[derive(Default)]
pub struct Kept {
    /// A manager listens to us.
    managed: bool,
    /// Handed over at the start and not asked for yet.
    inherited: Mutex<BTreeMap<String, Vec<Socket>>>,
}

impl Kept {
    /// Takes what the manager handed over; sockets of other kinds or without a name are closed.
    /// To be called before there is a second thread, as it takes variables out of the
    /// environment.
    pub fn from_environment() -> Self {
        let mut handed = ListenFd::from_env();
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut inherited: BTreeMap<String, Vec<Socket>> = BTreeMap::new();
        for (index, name) in (0..handed.len()).zip(names.split(':')) {
            match handed.take_tcp_listener(index) {
                Ok(Some(listener)) => {
                    let sockets = inherited.entry(name.to_owned()).or_default();
                    sockets.push(listener.into());
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(subsystem = "ingress", name, %error, "a kept socket is lost");
                }
            }
        }
        Self {
            managed: env::var_os("NOTIFY_SOCKET").is_some(),
            inherited: Mutex::new(inherited),
        }
    }

    /// True when sockets are kept at all.
    pub(super) fn is_managed(&self) -> bool {
        self.managed
    }

    /// The sockets kept under a name, once. Those of another address are given up.
    pub(super) fn take(&self, name: &str, address: SocketAddr) -> Vec<Socket> {
        let mut kept = self.inherited().remove(name).unwrap_or_default();
        kept.retain(|socket| listener::address(socket).is_ok_and(|at| at == address));
        if kept.is_empty() {
            self.forget(name);
        }
        kept
    }

    /// Hands copies to the manager.
    pub(super) fn keep(&self, name: &str, sockets: &[Socket]) {
        if !self.managed {
            return;
        }
        for socket in sockets {
            // One a message: what a name holds is a list, and so is what comes back.
            told(
                name,
                &[NotifyState::FdStore, NotifyState::FdName(name)],
                &[socket.as_fd()],
            );
        }
    }

    /// The manager closes its copies; so the address is free once ours are closed.
    pub(super) fn forget(&self, name: &str) {
        if !self.managed {
            return;
        }
        told(
            name,
            &[NotifyState::FdStoreRemove, NotifyState::FdName(name)],
            &[],
        );
    }

    /// Gives up what nobody asked for.
    pub(super) fn forget_unclaimed(&self) {
        let unclaimed = std::mem::take(&mut *self.inherited());
        for name in unclaimed.into_keys() {
            self.forget(&name);
        }
    }

    fn inherited(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Socket>>> {
        self.inherited
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives up in time what was handed over and nobody asked for.
pub(super) async fn give_up(kept: Weak<Kept>) {
    tokio::time::sleep(UNCLAIMED).await;
    if let Some(kept) = kept.upgrade() {
        kept.forget_unclaimed();
    }
}

/// Tells the manager, if there is one.
fn told(name: &str, states: &[NotifyState<'_>], sockets: &[BorrowedFd<'_>]) {
    if let Err(error) = sd_notify::notify_with_fds(states, sockets) {
        tracing::warn!(subsystem = "ingress", name, %error, "the service manager was not told");
    }
}
