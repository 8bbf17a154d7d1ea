//! WireGuard in this process, on a TUN device.

use std::net::{IpAddr, Ipv4Addr};

use gotatun::device::{Device, DeviceBuilder, Peer as DevicePeer};
use gotatun::udp::socket::UdpSocketFactory;
use gotatun::x25519::{PublicKey, StaticSecret};
use jaco_core::id::MeshKey;
use jaco_core::node::mesh::{KEEPALIVE, Peer};
use jaco_core::ports::HostError;

use super::device::{self, TunRead, TunWrite};

/// Bytes of each socket buffer: a burst of a busy peer fits while the process is not scheduled.
const SOCKET_BUFFER: usize = 4 << 20;

pub(super) struct Userspace {
    device: Device<(UdpSocketFactory, TunWrite, TunRead)>,
}

impl Userspace {
    pub(super) async fn start(
        interface: &str,
        private: StaticSecret,
        port: u16,
    ) -> Result<Self, HostError> {
        let (write, read) = device::open(interface).map_err(failed)?;
        let device = DeviceBuilder::new()
            .with_default_udp()
            .udp_recv_buffer_size(SOCKET_BUFFER)
            .udp_send_buffer_size(SOCKET_BUFFER)
            .with_ip_pair(write, read)
            .with_private_key(private)
            .build()
            .await
            .map_err(failed)?;
        // A device without peers opens its sockets only when it is told another port.
        device.set_listen_port(port).await.map_err(failed)?;
        Ok(Self { device })
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
        let key = PublicKey::from(peer.key.0);
        let allowed = || peer.allowed.iter().copied().map(Ipv4Addr::into);
        let written = self.device.write(async |device| {
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
    }

    pub(super) async fn remove(&self, key: MeshKey) -> Result<(), HostError> {
        let key = PublicKey::from(key.0);
        let removed = self.device.remove_peer(&key).await;
        removed.map(drop).map_err(failed)
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
