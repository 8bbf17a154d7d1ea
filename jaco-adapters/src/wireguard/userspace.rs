//! WireGuard in this process, on a TUN device.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gotatun::device::{Device, DeviceBuilder, Peer as DevicePeer};
use gotatun::x25519::{PublicKey, StaticSecret};
use jaco_core::id::MeshKey;
use jaco_core::node::mesh::{KEEPALIVE, Peer};
use jaco_core::ports::HostError;
use tokio::runtime::{Builder, Runtime};

use super::datagrams::Sockets;
use super::device::{self, TunRead, TunWrite};

type MeshDevice = Device<(Sockets, TunWrite, TunRead)>;

pub(super) struct Userspace {
    device: Arc<MeshDevice>,
    thread: MeshThread,
}

impl Userspace {
    pub(super) async fn start(
        interface: &'static str,
        private: StaticSecret,
        port: u16,
    ) -> Result<Self, HostError> {
        let thread = MeshThread::start().map_err(failed)?;
        let device = thread.run(async move {
            let (write, read) = device::open(interface).map_err(failed)?;
            let device = DeviceBuilder::new()
                .with_udp(Sockets::default())
                .with_ip_pair(write, read)
                .with_private_key(private)
                .build()
                .await
                .map_err(failed)?;
            // A device without peers opens its sockets only when it is told another port.
            device.set_listen_port(port).await.map_err(failed)?;
            Ok(Arc::new(device))
        });
        let device = device.await?;
        Ok(Self { device, thread })
    }

    pub(super) async fn peers(&self) -> Vec<Peer> {
        let peers = self.device.peers().await.into_iter();
        let peers = peers.filter_map(|stats| {
            let peer = stats.peer;
            let allowed = peer.allowed_ips.iter();
            let v4 = |address: IpAddr| match address {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            };
            Some(Peer {
                key: MeshKey(peer.public_key.to_bytes()),
                endpoint: peer.endpoint?,
                allowed: allowed.filter_map(|network| v4(network.ip())).collect(),
            })
        });
        peers.collect()
    }

    pub(super) async fn set(&self, peer: &Peer, moved: bool) -> Result<(), HostError> {
        let (device, peer) = (Arc::clone(&self.device), peer.clone());
        let key = PublicKey::from(peer.key.0);
        let written = self.thread.run(async move {
            let allowed = || peer.allowed.iter().copied().map(Ipv4Addr::into);
            let written = device.write(async |device| {
                let known = device.modify_peer(&key, |known| {
                    known.clear_allowed_ips();
                    known.add_allowed_ips(allowed().collect::<Vec<IpAddr>>());
                    if moved {
                        known.set_endpoint(Some(peer.endpoint));
                    }
                });
                if !known.await {
                    let mut new = DevicePeer::new(key).with_endpoint(peer.endpoint);
                    new.allowed_ips = allowed().map(|address: IpAddr| address.into()).collect();
                    new.keepalive = Some(KEEPALIVE);
                    device.add_peer(new);
                }
            });
            written.await.map_err(failed)
        });
        written.await
    }

    pub(super) async fn remove(&self, key: MeshKey) -> Result<(), HostError> {
        let (device, key) = (Arc::clone(&self.device), PublicKey::from(key.0));
        let removed = async move { device.remove_peer(&key).await.map_err(failed) };
        self.thread.run(removed).await.map(drop)
    }
}

/// The thread that carries all packets: a busy mesh does not delay the control plane, and what
/// one step hands to the next stays on one core and gathers into runs.
struct MeshThread(Option<Runtime>);

impl MeshThread {
    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("mesh")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs something there; whatever it spawns stays there.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, HostError>> + Send + 'static,
    ) -> Result<T, HostError> {
        let runtime = self.0.as_ref();
        let runtime = runtime.ok_or_else(|| HostError::Failed("the mesh has ended".to_owned()))?;
        runtime.spawn(work).await.map_err(failed)?
    }
}

impl Drop for MeshThread {
    fn drop(&mut self) {
        // Waiting for it, as a plain drop does, is not allowed on a thread of another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn failed(error: impl std::error::Error) -> HostError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    HostError::Failed(text)
}
