//! WireGuard behind the `Mesh` port (spec 07): in the kernel where it has it, else in this
//! process on a TUN device. Both are one interface, [`INTERFACE`], with one address.
//!
//! The interface of the kernel outlives the daemon, so that containers stay connected while it
//! restarts; a TUN device ends with it.

mod carrier;
mod datagrams;
mod device;
mod kernel;
mod link;
mod tunnels;
mod userspace;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use gotatun::x25519::{PublicKey, StaticSecret};
use jaco_core::cluster::node::{MeshBackend, MeshEnd};
use jaco_core::id::MeshKey;
use jaco_core::node::mesh::{INTERFACE, Peer};
use jaco_core::ports::{HostError, Mesh};
use tokio::sync::Mutex;

use crate::transport::links::Links;
use kernel::Kernel;
use userspace::Userspace;

/// This node's WireGuard interface.
pub struct WireGuardMesh {
    private: StaticSecret,
    port: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    backend: Option<Backend>,
    /// Where each peer was said to be. WireGuard follows a peer that moves; that is no
    /// difference from what was asked for.
    endpoints: BTreeMap<MeshKey, SocketAddr>,
}

enum Backend {
    Kernel(Kernel),
    Userspace(Userspace),
}

impl WireGuardMesh {
    /// Nothing happens before the first call. `port` is the UDP port to listen on.
    pub fn new(private_key: [u8; 32], port: u16) -> Self {
        Self {
            private: StaticSecret::from(private_key),
            port,
            state: Mutex::default(),
        }
    }

    async fn start(&self, links: &Links) -> Result<Backend, HostError> {
        match link::add_wireguard(links, INTERFACE).await {
            Ok(()) => {
                let kernel = Kernel::open().await?;
                kernel.configure(self.private.to_bytes(), self.port).await?;
                return Ok(Backend::Kernel(kernel));
            }
            Err(HostError::Unavailable(reason)) => {
                tracing::info!(subsystem = "mesh", reason, "WireGuard runs in this process");
            }
            Err(failed) => return Err(failed),
        }
        let userspace = Userspace::start(INTERFACE, self.private.clone(), self.port).await?;
        Ok(Backend::Userspace(userspace))
    }
}

#[async_trait]
impl Mesh for WireGuardMesh {
    async fn ensure(&self, address: Ipv4Addr) -> Result<MeshEnd, HostError> {
        let mut state = self.state.lock().await;
        let links = Links::open()?;
        if state.backend.is_some() && links.index(INTERFACE).await?.is_none() {
            // Somebody deleted the interface; what was set on it went with it.
            state.backend = None;
            state.endpoints.clear();
        }
        if state.backend.is_none() {
            state.backend = Some(self.start(&links).await?);
        }
        link::bring_up(&links, INTERFACE, address).await?;
        Ok(MeshEnd {
            public_key: MeshKey(PublicKey::from(&self.private).to_bytes()),
            port: self.port,
            backend: match state.backend {
                Some(Backend::Kernel(_)) => MeshBackend::Kernel,
                _ => MeshBackend::Userspace,
            },
        })
    }

    async fn observe(&self) -> Result<Vec<Peer>, HostError> {
        let state = self.state.lock().await;
        let mut peers = match &state.backend {
            Some(Backend::Kernel(kernel)) => kernel.peers().await?,
            Some(Backend::Userspace(userspace)) => userspace.peers().await?,
            None => Vec::new(),
        };
        for peer in &mut peers {
            if let Some(asked_for) = state.endpoints.get(&peer.key) {
                peer.endpoint = *asked_for;
            }
        }
        Ok(peers)
    }

    async fn set(&self, peer: &Peer) -> Result<(), HostError> {
        let mut state = self.state.lock().await;
        let moved = state.endpoints.get(&peer.key) != Some(&peer.endpoint);
        match &state.backend {
            Some(Backend::Kernel(kernel)) => kernel.set(peer, moved).await?,
            Some(Backend::Userspace(userspace)) => userspace.set(peer, moved).await?,
            None => return Err(HostError::Failed("the mesh is not up".to_owned())),
        }
        state.endpoints.insert(peer.key, peer.endpoint);
        Ok(())
    }

    async fn remove(&self, key: MeshKey) -> Result<(), HostError> {
        let mut state = self.state.lock().await;
        match &state.backend {
            Some(Backend::Kernel(kernel)) => kernel.remove(key).await?,
            Some(Backend::Userspace(userspace)) => userspace.remove(key).await?,
            None => {}
        }
        state.endpoints.remove(&key);
        Ok(())
    }
}
