//! A host's mesh, routes and packet filter in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::future;
use jaco_core::cluster::node::{MeshBackend, MeshEnd};
use jaco_core::id::MeshKey;
use jaco_core::node::firewall::Ruleset;
use jaco_core::node::mesh::{Passage, Peer};
use jaco_core::ports::{Firewall, HostError, HostNetwork, Mesh};

/// One host; implements the three ports of its kernel.
#[derive(Debug, Default)]
pub struct FakeHost(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    up: bool,
    peers: BTreeMap<MeshKey, Peer>,
    routes: BTreeSet<Ipv4Addr>,
    table: Ruleset,
}

impl FakeHost {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Mesh for FakeHost {
    async fn ensure(&self, _address: Ipv4Addr) -> Result<MeshEnd, HostError> {
        self.lock().up = true;
        Ok(MeshEnd {
            public_key: MeshKey([7; 32]),
            port: 51820,
            backend: MeshBackend::Userspace,
        })
    }

    async fn observe(&self) -> Result<Vec<Peer>, HostError> {
        Ok(self.lock().peers.values().cloned().collect())
    }

    async fn set(&self, peer: &Peer) -> Result<(), HostError> {
        let mut state = self.lock();
        if !state.up {
            return Err(HostError::Failed("the mesh is not up".to_owned()));
        }
        state.peers.insert(peer.key, peer.clone());
        Ok(())
    }

    async fn remove(&self, key: MeshKey) -> Result<(), HostError> {
        self.lock().peers.remove(&key);
        Ok(())
    }
}

#[async_trait]
impl HostNetwork for FakeHost {
    async fn routes(&self) -> Result<BTreeSet<Ipv4Addr>, HostError> {
        Ok(self.lock().routes.clone())
    }

    async fn add_route(&self, to: Ipv4Addr, _source: Ipv4Addr) -> Result<(), HostError> {
        let mut state = self.lock();
        if !state.up {
            return Err(HostError::Failed("there is no interface".to_owned()));
        }
        state.routes.insert(to);
        Ok(())
    }

    async fn remove_route(&self, to: Ipv4Addr) -> Result<(), HostError> {
        self.lock().routes.remove(&to);
        Ok(())
    }

    async fn prepare_bridge(&self, _interface: &str) -> Result<(), HostError> {
        Ok(())
    }

    async fn ensure_passages(&self, _passages: &[Passage]) -> Result<(), HostError> {
        Ok(())
    }
}

#[async_trait]
impl Firewall for FakeHost {
    async fn replace(&self, ruleset: &Ruleset) -> Result<(), HostError> {
        self.lock().table = ruleset.clone();
        Ok(())
    }

    async fn observe(&self) -> Result<Ruleset, HostError> {
        Ok(self.lock().table.clone())
    }

    async fn changed(&self) {
        future::pending::<()>().await;
    }
}
