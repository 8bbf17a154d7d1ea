//! Mesh: the peers and routes by which this node reaches replicas on other nodes (spec 07).
//!
//! Invariants (`tests/mesh_props.rs`): an address is reached through exactly one peer, and
//! never through the mesh when it is on this node; carrying out a diff leaves nothing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::cluster::addresses::Pool;
use crate::cluster::mesh_pool::MeshPool;
use crate::cluster::node::NodeCondition;
use crate::cluster::state::ClusterState;
use crate::id::{MeshKey, NodeName};

/// The mesh interface's name.
pub const INTERFACE: &str = "jaco-wg";
/// Bytes that fit into one packet of the mesh; the bridges have the same limit, so that no
/// container sends what would have to be cut.
pub const MTU: u16 = 1420;
/// Seconds between packets that keep a way through firewalls open.
pub const KEEPALIVE: u16 = 25;

/// What this node's end of the mesh should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Mesh {
    /// The node's own /32.
    pub address: Ipv4Addr,
    pub peers: BTreeMap<MeshKey, Peer>,
    /// What is let through the engine's own rules.
    pub passages: Vec<Passage>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Peer {
    pub key: MeshKey,
    /// Where its WireGuard listens.
    pub endpoint: SocketAddr,
    /// What is behind it: its own mesh address and those of its replicas.
    pub allowed: BTreeSet<Ipv4Addr>,
}

/// One kind of traffic between hosts that the engine's rules must let through unchanged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Passage {
    /// A network, as `a.b.c.d/n`.
    pub from: String,
    pub to: String,
}

impl Mesh {
    /// The /32s that are routed into the mesh.
    pub fn routes(&self) -> BTreeSet<Ipv4Addr> {
        let peers = self.peers.values();
        peers
            .flat_map(|peer| peer.allowed.iter().copied())
            .collect()
    }
}

/// One thing to do about peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAction {
    /// Add a peer, or make it like this.
    Set(Peer),
    /// Forget a peer.
    Remove(MeshKey),
}

/// One thing to do about routes into the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RouteAction {
    Add(Ipv4Addr),
    Remove(Ipv4Addr),
}

/// This node's mesh; `None` when it is no member (any more). A node whose host is a name is no
/// peer until `resolve` knows the name.
pub fn desired(
    state: &ClusterState,
    node: &NodeName,
    resolve: impl Fn(&str) -> Option<IpAddr>,
) -> Option<Mesh> {
    let me = state.nodes.get(node)?;
    let pools = pools(state)?;
    let mut behind: BTreeMap<&NodeName, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for replica in state.replicas().filter(|replica| replica.node != *node) {
        let addresses = behind.entry(&replica.node).or_default();
        addresses.extend(replica.addresses.values());
    }
    let peers = state.nodes.values().filter_map(|other| {
        let end = other.report.as_ref()?.mesh.as_ref()?;
        if other.name == *node {
            return None;
        }
        let endpoint = SocketAddr::new(resolved(&other.api_address, &resolve)?, end.port);
        let mut allowed = behind.remove(&other.name).unwrap_or_default();
        allowed.insert(other.mesh_address);
        let key = end.public_key;
        Some((
            key,
            Peer {
                key,
                endpoint,
                allowed,
            },
        ))
    });
    Some(Mesh {
        address: me.mesh_address,
        peers: peers.collect(),
        passages: passages(&pools.0, pools.1),
    })
}

/// True when what one node sends to replicas on the other arrives, as far as the state says.
pub fn reaches(state: &ClusterState, from: &NodeName, to: &NodeName) -> bool {
    let meshed = |name: &NodeName| {
        let node = state.nodes.get(name)?;
        node.report.as_ref()?.mesh.as_ref()?;
        Some(node.condition)
    };
    from == to || meshed(from).is_some() && meshed(to) == Some(NodeCondition::Reachable)
}

/// The address of the host of `host:port`.
pub(super) fn resolved(address: &str, resolve: &impl Fn(&str) -> Option<IpAddr>) -> Option<IpAddr> {
    let (host, _) = address.rsplit_once(':')?;
    resolve(host.trim_matches(['[', ']']))
}

/// Every /16 that addresses were taken from, and the pool of mesh addresses.
fn pools(state: &ClusterState) -> Option<(BTreeSet<Pool>, MeshPool)> {
    let cluster = state.cluster.as_ref()?;
    let taken = state.subnets.values();
    let mut pools: BTreeSet<Pool> = taken.map(|subnet| Pool::around(subnet.base)).collect();
    pools.insert(cluster.ipam_pool);
    Some((pools, cluster.mesh_pool))
}

/// Containers to containers, and nodes to containers. Which containers may talk is decided by
/// the firewall, which sees the packet too.
fn passages(pools: &BTreeSet<Pool>, mesh: MeshPool) -> Vec<Passage> {
    let mut passages = Vec::new();
    for to in pools {
        let to = to.to_string();
        let from = pools.iter().map(Pool::to_string).chain([mesh.to_string()]);
        passages.extend(from.map(|from| Passage {
            from,
            to: to.clone(),
        }));
    }
    passages
}

/// What turns the observed peers into the wanted ones; removals first, since an address belongs
/// to one peer at a time.
pub fn diff_peers(desired: &Mesh, observed: &[Peer]) -> Vec<PeerAction> {
    let gone = observed
        .iter()
        .filter(|seen| !desired.peers.contains_key(&seen.key))
        .map(|seen| PeerAction::Remove(seen.key));
    let mut changed: Vec<&Peer> = desired
        .peers
        .values()
        .filter(|peer| !observed.contains(peer))
        .collect();
    // A peer that only loses addresses goes before those that may gain them.
    let gains = |peer: &Peer| {
        let before = observed.iter().find(|seen| seen.key == peer.key);
        !before.is_some_and(|before| peer.allowed.is_subset(&before.allowed))
    };
    changed.sort_by_key(|peer| gains(peer));
    gone.chain(changed.into_iter().cloned().map(PeerAction::Set))
        .collect()
}

/// What turns the observed routes into the wanted ones.
pub fn diff_routes(desired: &Mesh, observed: &BTreeSet<Ipv4Addr>) -> Vec<RouteAction> {
    let wanted = desired.routes();
    let stale = observed.difference(&wanted).copied();
    let missing = wanted.difference(observed).copied();
    stale
        .map(RouteAction::Remove)
        .chain(missing.map(RouteAction::Add))
        .collect()
}
