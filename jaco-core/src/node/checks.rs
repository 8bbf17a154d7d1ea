//! Self-test: what a node tries so that its network is known to work (spec 07).
//!
//! Invariant (`tests/checks_props.rs`): every other member is tried, small and at full size,
//! and what a name is checked against is what this node's responder answers; what a fresh
//! rendering of the state gives is not called different, and anything else is.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::cluster::addresses::Scope;
use crate::cluster::state::ClusterState;
use crate::id::NodeName;
use crate::node::bridges::{Action, ObservedBridge};
use crate::node::firewall::Ruleset;
use crate::node::mesh::{Peer, PeerAction, RouteAction};
use crate::node::{bridges, firewall, mesh};
use crate::view::check::{CheckKind, CheckRow};

/// Bytes of an IPv4 packet that passes any link.
pub const SMALL: u16 = 64;

/// One thing to try.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Check {
    /// An echo over the mesh in a packet of so many bytes, which must not be cut.
    Echo {
        to: NodeName,
        address: Ipv4Addr,
        size: u16,
    },
    /// A name that a bridge's responder knows.
    Name {
        scope: Scope,
        resolver: Ipv4Addr,
        name: String,
        address: Ipv4Addr,
    },
    /// The packet filter is what the state asks for.
    Isolation,
    /// Peers, routes, engine networks and packet filter are those of a fresh rendering.
    Tables,
}

/// What this host has of the cluster's network, as its kernel and its engine say.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Tables {
    pub peers: Vec<Peer>,
    pub routes: BTreeSet<Ipv4Addr>,
    pub bridges: Vec<ObservedBridge>,
    pub ruleset: Ruleset,
}

/// What came of a [`Check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It worked.
    Fine,
    /// A responder gave these.
    Addresses(BTreeSet<Ipv4Addr>),
    /// It did not work.
    Failed(String),
}

/// What this node checks: every other member, one name of each network that it serves, and its
/// packet filter.
pub fn desired(state: &ClusterState, node: &NodeName) -> Vec<Check> {
    let others = state.nodes.values().filter(|other| other.name != *node);
    let echoes = others.flat_map(|other| {
        [SMALL, mesh::MTU].map(|size| Check::Echo {
            to: other.name.clone(),
            address: other.mesh_address,
            size,
        })
    });
    let names = bridges::hosted(state, node).into_iter();
    let names = names.filter_map(|scope| name(state, node, scope));
    let own = [Check::Isolation, Check::Tables];
    echoes.chain(names).chain(own).collect()
}

/// How what a host has differs from what the state, rendered anew, asks for: what is stale, and
/// what is missing.
pub fn differences(
    state: &ClusterState,
    node: &NodeName,
    local: &firewall::Local,
    resolve: impl Fn(&str) -> Option<IpAddr>,
    found: &Tables,
) -> Vec<String> {
    let Some(wanted) = mesh::desired(state, node, &resolve) else {
        return vec!["this node is no member".to_owned()];
    };
    let peers = mesh::diff_peers(&wanted, &found.peers);
    let peers = peers.iter().map(|action| match action {
        PeerAction::Set(peer) => format!("peer at {} is not as wanted", peer.endpoint),
        PeerAction::Remove(key) => format!("peer {key:?} is stale"),
    });
    let routes = mesh::diff_routes(&wanted, &found.routes);
    let routes = routes.iter().map(|action| match action {
        RouteAction::Add(to) => format!("route to {to} is missing"),
        RouteAction::Remove(to) => format!("route to {to} is stale"),
    });
    let bridges = bridges::diff(&bridges::desired(state, node), &found.bridges);
    let bridges = bridges.iter().map(|action| match action {
        Action::Ensure(bridge) => format!("network {} is missing", bridge.engine_name),
        Action::Remove(name) => format!("network {name} is stale"),
    });
    let rules = firewall::desired(state, local, &resolve).unwrap_or_default();
    let rules = rules.differences(&found.ruleset);
    peers.chain(routes).chain(bridges).chain(rules).collect()
}

/// The name of a replica of this node; none while nothing serves here, since a bridge without a
/// container need not be up.
fn name(state: &ClusterState, node: &NodeName, scope: Scope) -> Option<Check> {
    let resolver = state.subnets.get(&scope)?.gateway();
    let deployment = state.deployments.get(&scope.deployment)?;
    let mut here = deployment.replicas.values();
    let (name, address) = here.find_map(|replica| {
        let address = *replica.addresses.get(&scope.network)?;
        let serves = replica.node == *node && replica.is_serving();
        serves.then(|| (replica.id.to_string(), address))
    })?;
    Some(Check::Name {
        scope,
        resolver,
        name,
        address,
    })
}

/// A check and what came of it, as people read it.
pub fn row(node: &NodeName, check: &Check, seen: &Seen) -> CheckRow {
    let (kind, target) = match check {
        Check::Echo { to, size, .. } if *size == mesh::MTU => (CheckKind::Mtu, to.to_string()),
        Check::Echo { to, .. } => (CheckKind::Mesh, to.to_string()),
        Check::Name { scope, .. } => {
            let target = format!("{}/{}", scope.deployment, scope.network);
            (CheckKind::Dns, target)
        }
        Check::Isolation => (CheckKind::Isolation, node.to_string()),
        Check::Tables => (CheckKind::Tables, node.to_string()),
    };
    let (ok, detail) = match (check, seen) {
        (_, Seen::Failed(reason)) => (false, reason.clone()),
        (Check::Echo { address, size, .. }, _) => (true, format!("{address}, {size} bytes")),
        (Check::Isolation, _) => (true, "verified".to_owned()),
        (Check::Tables, _) => (true, "as rendered anew".to_owned()),
        (Check::Name { name, address, .. }, Seen::Addresses(found)) => {
            let ok = *found == BTreeSet::from([*address]);
            let found: Vec<String> = found.iter().map(Ipv4Addr::to_string).collect();
            let found = match found.is_empty() {
                true => "nothing".to_owned(),
                false => found.join(", "),
            };
            let detail = match ok {
                true => format!("{name} is {address}"),
                false => format!("{name} is {address}, the answer was {found}"),
            };
            (ok, detail)
        }
        (Check::Name { .. }, Seen::Fine) => (false, "there was no answer".to_owned()),
    };
    CheckRow {
        node: node.clone(),
        check: kind,
        target,
        ok,
        detail,
    }
}

/// The row of a node that could not be asked.
pub fn silent(node: &NodeName, reason: &str) -> CheckRow {
    CheckRow {
        node: node.clone(),
        check: CheckKind::Answer,
        target: node.to_string(),
        ok: false,
        detail: reason.to_owned(),
    }
}
