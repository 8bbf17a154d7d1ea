//! Self-test: what a node tries so that its network is known to work (spec 07).
//!
//! Invariant (`tests/checks_props.rs`): every other member is tried, small and at full size,
//! and what a name is checked against is what this node's responder answers.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::cluster::addresses::Scope;
use crate::cluster::state::ClusterState;
use crate::id::NodeName;
use crate::node::{bridges, mesh};
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
    echoes.chain(names).chain([Check::Isolation]).collect()
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
    };
    let (ok, detail) = match (check, seen) {
        (_, Seen::Failed(reason)) => (false, reason.clone()),
        (Check::Echo { address, size, .. }, _) => (true, format!("{address}, {size} bytes")),
        (Check::Isolation, _) => (true, "verified".to_owned()),
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
