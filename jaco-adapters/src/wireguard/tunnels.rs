//! What the protocol makes of packets and datagrams: whom a packet goes to, what comes of a
//! datagram, and what is due by time. Nothing here reads or writes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gotatun::noise::errors::WireGuardError;
use gotatun::noise::handshake::parse_handshake_anon;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgKind};
use gotatun::tun::MtuWatcher;
use gotatun::x25519::{PublicKey, StaticSecret};
use jaco_core::id::MeshKey;
use jaco_core::node::mesh::{KEEPALIVE, MTU, Peer};

/// Handshakes a second from one address, above which it must show that the address is its own.
const HANDSHAKES: u64 = 100;

/// A datagram and where it goes.
pub(super) type Datagram = (Packet, SocketAddr);

/// This end of the mesh.
pub(super) struct Tunnels {
    private: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
    indices: IndexTable,
    peers: BTreeMap<MeshKey, Tunnel>,
    /// Who is behind an address.
    by_address: HashMap<Ipv4Addr, MeshKey>,
    /// Who was given an index of ours, which datagrams name instead of a key.
    by_index: HashMap<u32, MeshKey>,
    mtu: MtuWatcher,
}

struct Tunnel {
    protocol: Tunn,
    /// Where the peer was last heard from; until then, where it was said to be.
    endpoint: SocketAddr,
}

impl Tunnels {
    pub(super) fn new(private: StaticSecret) -> Self {
        let public = PublicKey::from(&private);
        Self {
            private,
            public,
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES)),
            indices: IndexTable::from_os_rng(),
            peers: BTreeMap::new(),
            by_address: HashMap::new(),
            by_index: HashMap::new(),
            mtu: MtuWatcher::new(MTU),
        }
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        let mut allowed: BTreeMap<MeshKey, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for (address, key) in &self.by_address {
            allowed.entry(*key).or_default().insert(*address);
        }
        let peers = self.peers.iter().map(|(key, tunnel)| Peer {
            key: *key,
            endpoint: tunnel.endpoint,
            allowed: allowed.remove(key).unwrap_or_default(),
        });
        peers.collect()
    }

    /// Adds a peer, or changes what is behind it. One that is known is where it was last heard
    /// from, unless it `moved`.
    pub(super) fn set(&mut self, peer: &Peer, moved: bool) {
        self.by_address.retain(|_, key| *key != peer.key);
        let behind = peer.allowed.iter().map(|address| (*address, peer.key));
        self.by_address.extend(behind);
        match self.peers.entry(peer.key) {
            Entry::Occupied(mut known) if moved => known.get_mut().endpoint = peer.endpoint,
            Entry::Occupied(_) => {}
            Entry::Vacant(new) => {
                let protocol = Tunn::new(
                    self.private.clone(),
                    PublicKey::from(peer.key.0),
                    None,
                    Some(KEEPALIVE),
                    self.indices.clone(),
                    Arc::clone(&self.limiter),
                );
                let endpoint = peer.endpoint;
                new.insert(Tunnel { protocol, endpoint });
            }
        }
    }

    pub(super) fn remove(&mut self, peer: MeshKey) {
        self.peers.remove(&peer);
        self.by_address.retain(|_, key| *key != peer);
        self.by_index.retain(|_, key| *key != peer);
    }

    /// What a packet of this host becomes. None when nobody is behind its destination, and while
    /// a handshake is under way, after which it follows.
    pub(super) fn outgoing(&mut self, packet: Packet) -> Option<Datagram> {
        let key = *self.by_address.get(&address(&packet, DESTINATION)?)?;
        let tunnel = self.peers.get_mut(&key)?;
        let protocol = &mut tunnel.protocol;
        let datagram = protocol.handle_outgoing_packet(packet, Some(&mut self.mtu))?;
        note(&mut self.by_index, key, &datagram);
        Some((datagram.into(), tunnel.endpoint))
    }

    /// The packet in a datagram, if there is one and its source is behind whoever sent it. What
    /// is to be sent because of it is added to `replies`.
    pub(super) fn incoming(
        &mut self,
        datagram: Packet,
        from: SocketAddr,
        replies: &mut Vec<Datagram>,
    ) -> Option<Packet> {
        let datagram = match self.limiter.verify_packet(from, datagram) {
            Ok(datagram) => datagram,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                replies.push((cookie.into(), from));
                return None;
            }
            Err(_) => return None,
        };
        let key = self.sender(&datagram)?;
        let tunnel = self.peers.get_mut(&key)?;
        match tunnel.protocol.handle_incoming_packet(datagram) {
            TunnResult::WriteToTunnel(packet) => {
                tunnel.endpoint = from;
                let packet = whole(packet)?;
                let owner = self.by_address.get(&address(&packet, SOURCE)?);
                (owner == Some(&key)).then_some(packet)
            }
            TunnResult::WriteToNetwork(reply) => {
                tunnel.endpoint = from;
                note(&mut self.by_index, key, &reply);
                replies.push((reply.into(), from));
                for queued in tunnel.protocol.get_queued_packets(&mut self.mtu) {
                    note(&mut self.by_index, key, &queued);
                    replies.push((queued.into(), from));
                }
                None
            }
            TunnResult::Done | TunnResult::Err(_) => None,
        }
    }

    /// What is to be sent because of the time: handshakes and signs of life. To be called a few
    /// times a second.
    pub(super) fn tick(&mut self, due: &mut Vec<Datagram>) {
        self.limiter.try_reset_count();
        self.by_index.retain(|index, _| self.indices.in_use(*index));
        for (key, tunnel) in &mut self.peers {
            match tunnel.protocol.update_timers() {
                Ok(Some(datagram)) => {
                    note(&mut self.by_index, *key, &datagram);
                    due.push((datagram.into(), tunnel.endpoint));
                }
                Ok(None) | Err(WireGuardError::ConnectionExpired) => {}
                Err(error) => tracing::debug!(subsystem = "mesh", %key, ?error, "timers"),
            }
        }
    }

    /// Who says to have sent a datagram; whether it is true shows when it is opened.
    fn sender(&self, datagram: &WgKind) -> Option<MeshKey> {
        let index = match datagram {
            WgKind::HandshakeInit(first) => {
                let half = parse_handshake_anon(&self.private, &self.public, first).ok()?;
                return Some(MeshKey(half.peer_static_public));
            }
            WgKind::HandshakeResp(second) => second.receiver_idx.get(),
            WgKind::CookieReply(cookie) => cookie.receiver_idx.get(),
            WgKind::Data(data) => data.header.receiver_idx.get(),
        };
        self.by_index.get(&index).copied()
    }
}

/// Keeps the index that a handshake gives to a peer.
fn note(by_index: &mut HashMap<u32, MeshKey>, key: MeshKey, datagram: &WgKind) {
    let index = match datagram {
        WgKind::HandshakeInit(first) => first.sender_idx.get(),
        WgKind::HandshakeResp(second) => second.sender_idx.get(),
        WgKind::CookieReply(_) | WgKind::Data(_) => return,
    };
    by_index.insert(index, key);
}

/// Where an IPv4 header has its addresses (RFC 791, 3.1).
const SOURCE: usize = 12;
const DESTINATION: usize = 16;

/// An address of an IPv4 packet; the mesh carries no other.
fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    let is_v4 = packet.first()? >> 4 == 4;
    let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    is_v4.then(|| octets.into())
}

/// An IPv4 packet without what it was padded with. None for a sign of life, which is empty.
fn whole(mut packet: Packet) -> Option<Packet> {
    let length = packet.get(2..4)?.try_into().ok()?;
    let length = usize::from(u16::from_be_bytes(length));
    packet.truncate(length);
    (packet.len() == length).then_some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 1);
    const THERE: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 2);
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 3);

    fn endpoint(host: u8) -> SocketAddr {
        ([192, 0, 2, host], 51820).into()
    }

    fn peer(tunnels: &Tunnels, host: u8, allowed: &[Ipv4Addr]) -> Peer {
        Peer {
            key: MeshKey(tunnels.public.to_bytes()),
            endpoint: endpoint(host),
            allowed: allowed.iter().copied().collect(),
        }
    }

    /// Two ends that know each other.
    fn pair() -> (Tunnels, Tunnels) {
        let [mut a, mut b] = [1, 2].map(|byte| Tunnels::new(StaticSecret::from([byte; 32])));
        a.set(&peer(&b, 2, &[THERE]), true);
        b.set(&peer(&a, 1, &[HERE]), true);
        (a, b)
    }

    fn packet(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Packet {
        let length = u16::try_from(20 + payload.len()).expect("it is short");
        let mut bytes = vec![0; 20];
        bytes[0] = 0x45;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[12..16].copy_from_slice(&from.octets());
        bytes[16..20].copy_from_slice(&to.octets());
        bytes.extend_from_slice(payload);
        Packet::copy_from(&bytes[..])
    }

    /// Has `a` send something first, and both take and answer datagrams until there are none.
    /// What comes out at `b`.
    fn deliver(a: &mut Tunnels, b: &mut Tunnels, packet: Packet) -> Vec<Packet> {
        let mut out = Vec::new();
        let mut to_b: Vec<Datagram> = a.outgoing(packet).into_iter().collect();
        while !to_b.is_empty() {
            let mut to_a = Vec::new();
            for (datagram, _) in to_b.drain(..) {
                out.extend(b.incoming(datagram, endpoint(1), &mut to_a));
            }
            for (datagram, _) in to_a {
                assert!(a.incoming(datagram, endpoint(2), &mut to_b).is_none());
            }
        }
        out
    }

    #[test]
    fn what_waits_for_a_handshake_comes_out_whole() {
        let (mut a, mut b) = pair();
        // Of a length that is padded.
        let sent = packet(HERE, THERE, b"hello");
        let came = deliver(&mut a, &mut b, Packet::copy_from(&sent[..]));
        assert_eq!(came.len(), 1);
        assert_eq!(came[0][..], sent[..]);
        let came = deliver(&mut b, &mut a, packet(THERE, HERE, b""));
        assert_eq!(
            came.len(),
            1,
            "the other direction needs no handshake of its own"
        );
    }

    #[test]
    fn a_source_that_is_not_behind_its_peer_is_dropped() {
        let (mut a, mut b) = pair();
        assert!(deliver(&mut a, &mut b, packet(ELSEWHERE, THERE, b"")).is_empty());
        let allowed = peer(&a, 1, &[HERE, ELSEWHERE]);
        b.set(&allowed, false);
        assert_eq!(
            deliver(&mut a, &mut b, packet(ELSEWHERE, THERE, b"")).len(),
            1
        );
    }

    #[test]
    fn a_packet_goes_to_whom_its_destination_is_behind_and_to_nobody_else() {
        let (mut a, _) = pair();
        let (_, to) = a.outgoing(packet(HERE, THERE, b"")).expect("a handshake");
        assert_eq!(to, endpoint(2));
        assert!(a.outgoing(packet(HERE, ELSEWHERE, b"")).is_none());
        let third = Tunnels::new(StaticSecret::from([3; 32]));
        a.set(&peer(&third, 3, &[THERE]), true);
        let (_, to) = a.outgoing(packet(HERE, THERE, b"")).expect("a handshake");
        assert_eq!(
            to,
            endpoint(3),
            "an address is behind the last that it was given to"
        );
        a.remove(MeshKey(third.public.to_bytes()));
        assert!(a.outgoing(packet(HERE, THERE, b"")).is_none());
        assert_eq!(a.peers().len(), 1);
    }

    #[test]
    fn a_peer_is_answered_where_it_was_last_heard_from() {
        let (mut a, mut b) = pair();
        deliver(&mut a, &mut b, packet(HERE, THERE, b""));
        let (datagram, _) = a.outgoing(packet(HERE, THERE, b"")).expect("a session");
        assert!(b.incoming(datagram, endpoint(9), &mut Vec::new()).is_some());
        let (_, to) = b.outgoing(packet(THERE, HERE, b"")).expect("a session");
        assert_eq!(to, endpoint(9));
        let known = peer(&a, 1, &[HERE]);
        b.set(&known, false);
        assert_eq!(b.peers()[0].endpoint, endpoint(9));
        b.set(&known, true);
        assert_eq!(b.peers(), [known]);
    }

    mod fuzz {
        use super::*;
        use crate::fuzz::each;

        #[test]
        fn no_datagram_and_no_packet_makes_it_panic() {
            let (mut a, mut b) = pair();
            let first = a.outgoing(packet(HERE, THERE, b"")).expect("a handshake").0;
            let mut replies = Vec::new();
            b.incoming(Packet::copy_from(&first[..]), endpoint(1), &mut replies);
            let second = replies.pop().expect("its answer").0;
            a.incoming(Packet::copy_from(&second[..]), endpoint(2), &mut replies);
            let data = replies.pop().expect("what waited").0;
            let plain = packet(HERE, THERE, b"hello");
            let corpus = [&first[..], &second[..], &data[..], &plain[..]];
            each(&corpus, |bytes| {
                b.incoming(Packet::copy_from(bytes), endpoint(1), &mut Vec::new());
                a.outgoing(Packet::copy_from(bytes));
                whole(Packet::copy_from(bytes)).and_then(|packet| address(&packet, SOURCE));
            });
        }
    }
}
