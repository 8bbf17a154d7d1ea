//! WireGuard in the kernel, over generic netlink.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use futures::StreamExt;
use genetlink::{GenetlinkHandle, new_connection};
use jaco_core::id::MeshKey;
use jaco_core::node::mesh::{INTERFACE, KEEPALIVE, Peer};
use jaco_core::ports::HostError;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::GenlMessage;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};
use tokio::task::AbortHandle;

use crate::transport::links::io_failed;

/// Addresses in one message: an attribute holds at most 64 KiB, an address takes some 30 bytes.
const ADDRESSES_AT_ONCE: usize = 1000;

pub(super) struct Kernel {
    handle: GenetlinkHandle,
    connection: AbortHandle,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Kernel {
    pub(super) async fn open() -> Result<Self, HostError> {
        let (connection, handle, _) = new_connection().map_err(|error| io_failed(&error))?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { handle, connection })
    }

    /// Sets the interface's own key and port; peers that it has stay.
    pub(super) async fn configure(&self, private: [u8; 32], port: u16) -> Result<(), HostError> {
        self.send(vec![
            WireguardAttribute::PrivateKey(private),
            WireguardAttribute::ListenPort(port),
        ])
        .await
    }

    pub(super) async fn set(&self, peer: &Peer, moved: bool) -> Result<(), HostError> {
        for message in messages(peer, moved) {
            self.send(vec![WireguardAttribute::Peers(vec![message])])
                .await?;
        }
        Ok(())
    }

    pub(super) async fn remove(&self, key: MeshKey) -> Result<(), HostError> {
        let peer = WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(key.0),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
        ]);
        self.send(vec![WireguardAttribute::Peers(vec![peer])]).await
    }

    pub(super) async fn peers(&self) -> Result<Vec<Peer>, HostError> {
        let mut found = BTreeMap::new();
        let name = WireguardAttribute::IfName(INTERFACE.to_owned());
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        for message in self
            .exchange(WireguardCmd::GetDevice, vec![name], flags)
            .await?
        {
            for attribute in message.attributes {
                if let WireguardAttribute::Peers(peers) = attribute {
                    peers.iter().for_each(|peer| collect(peer, &mut found));
                }
            }
        }
        let whole = |(key, (endpoint, allowed))| {
            let endpoint: Option<SocketAddr> = endpoint;
            Some(Peer {
                key,
                endpoint: endpoint?,
                allowed,
            })
        };
        Ok(found.into_iter().filter_map(whole).collect())
    }

    async fn send(&self, mut attributes: Vec<WireguardAttribute>) -> Result<(), HostError> {
        attributes.insert(0, WireguardAttribute::IfName(INTERFACE.to_owned()));
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let answer = self
            .exchange(WireguardCmd::SetDevice, attributes, flags)
            .await;
        answer.map(drop)
    }

    async fn exchange(
        &self,
        cmd: WireguardCmd,
        attributes: Vec<WireguardAttribute>,
        flags: u16,
    ) -> Result<Vec<WireguardMessage>, HostError> {
        let message = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        let refused = |error: genetlink::GenetlinkError| HostError::Failed(error.to_string());
        let mut handle = self.handle.clone();
        let mut answers = handle.request(message).await.map_err(refused)?;
        let mut messages = Vec::new();
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|error| HostError::Failed(error.to_string()))?;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => messages.push(message.payload),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(io_failed(&error.to_io()));
                }
                _ => {}
            }
        }
        Ok(messages)
    }
}

/// The messages that make a peer like this: the first replaces its addresses, others add.
fn messages(peer: &Peer, moved: bool) -> Vec<WireguardPeer> {
    let addresses: Vec<Ipv4Addr> = peer.allowed.iter().copied().collect();
    let mut chunks: Vec<&[Ipv4Addr]> = addresses.chunks(ADDRESSES_AT_ONCE).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let message = |(i, chunk): (usize, &&[Ipv4Addr])| {
        let mut attributes = vec![WireguardPeerAttribute::PublicKey(peer.key.0)];
        if i == 0 {
            let replace = WireguardPeerFlags::ReplaceAllowedIps;
            attributes.push(WireguardPeerAttribute::Flags(replace));
            attributes.push(WireguardPeerAttribute::PersistentKeepalive(KEEPALIVE));
            if moved {
                attributes.push(WireguardPeerAttribute::Endpoint(peer.endpoint));
            }
        }
        let allowed = chunk.iter().copied().map(allowed).collect();
        attributes.push(WireguardPeerAttribute::AllowedIps(allowed));
        WireguardPeer(attributes)
    };
    chunks.iter().enumerate().map(message).collect()
}

fn allowed(address: Ipv4Addr) -> WireguardAllowedIp {
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(WireguardAddressFamily::Ipv4),
        WireguardAllowedIpAttr::IpAddr(address.into()),
        WireguardAllowedIpAttr::Cidr(32),
    ])
}

type Found = BTreeMap<MeshKey, (Option<SocketAddr>, std::collections::BTreeSet<Ipv4Addr>)>;

/// A peer with many addresses comes in several messages.
fn collect(peer: &WireguardPeer, found: &mut Found) {
    let key = peer.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(MeshKey(*key)),
        _ => None,
    });
    let Some(key) = key else {
        return;
    };
    let (endpoint, addresses) = found.entry(key).or_default();
    for attribute in peer.iter() {
        match attribute {
            WireguardPeerAttribute::Endpoint(at) => *endpoint = Some(*at),
            WireguardPeerAttribute::AllowedIps(list) => {
                let attributes = list.iter().flat_map(|allowed| allowed.iter());
                addresses.extend(attributes.filter_map(|attribute| match attribute {
                    WireguardAllowedIpAttr::IpAddr(IpAddr::V4(v4)) => Some(*v4),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(addresses: u16) -> Peer {
        Peer {
            key: MeshKey([7; 32]),
            endpoint: "10.0.0.2:51820".parse().unwrap(),
            allowed: (0..addresses)
                .map(|n| Ipv4Addr::from_bits(0x0af4_0000 + u32::from(n)))
                .collect(),
        }
    }

    #[test]
    fn a_peer_survives_the_way_to_messages_and_back() {
        for count in [0, 1, 999, 1000, 1001, 2500] {
            let peer = peer(count);
            let messages = messages(&peer, true);
            assert_eq!(messages.len(), usize::from(count).div_ceil(1000).max(1));
            let mut found = BTreeMap::new();
            messages
                .iter()
                .for_each(|message| collect(message, &mut found));
            let expected = (Some(peer.endpoint), peer.allowed.clone());
            assert_eq!(found.remove(&peer.key), Some(expected));
        }
    }

    #[test]
    fn only_the_first_message_replaces_what_was_there() {
        let replaces = |message: &WireguardPeer| {
            let flag = WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps);
            message.contains(&flag)
        };
        let first: Vec<bool> = messages(&peer(1500), false).iter().map(replaces).collect();
        assert_eq!(first, [true, false]);
    }
}
