//! Whether a domain leads to this cluster, before a CA is asked (spec 08, Certificates).

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::is_live;
use crate::cluster::node::Node;
use crate::cluster::state::{Cluster, ClusterState};
use crate::id::{Domain, NodeName};
use crate::manifest::hash::sha256_hex;

/// Where a node shows which cluster it belongs to, as a challenge of this token.
pub const PROBE_PATH: &str = "/.well-known/acme-challenge/jaco-probe";

/// What came of fetching the probe from one address of the domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probed {
    /// Something answered with this status and body.
    #[allow(missing_docs)]
    Answered { status: u16, body: String },
    /// Nothing did; why.
    Silent(String),
}

/// The token under [`PROBE_PATH`].
pub fn probe_token() -> &'static str {
    PROBE_PATH.rsplit('/').next().unwrap_or_default()
}

/// What every node of a cluster answers there, and no other cluster.
pub fn probe_answer(cluster: &Cluster) -> String {
    sha256_hex(format!("jaco-probe {} {}", cluster.id, cluster.ca_cert).as_bytes())
}

/// The node that fetches the probe: another than the leader, if one is there.
pub fn prober<'a>(state: &'a ClusterState, leader: &NodeName) -> Option<&'a Node> {
    let nodes = state.nodes.values().map(AsRef::as_ref);
    nodes
        .into_iter()
        .find(|node| is_live(node) && node.name != *leader)
}

/// How long to wait before an address is tried again, when it has been tried for so long without
/// being right; none when it is given up. The nodes learn of a domain one after the other, so
/// that what is right shows soon.
pub fn again(tried: Duration) -> Option<Duration> {
    const LIMIT: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_millis(500);
    (tried < LIMIT).then_some(PAUSE)
}

/// Why a domain that has no address cannot be validated.
pub fn nowhere(domain: &Domain) -> String {
    format!("{domain} has no address in the DNS")
}

/// Judges what one address of a domain answered.
///
/// # Errors
/// The reason why an order would be lost, for the operator.
pub fn verdict(
    state: &ClusterState,
    domain: &Domain,
    address: IpAddr,
    probed: &Probed,
) -> Result<(), String> {
    let ours = |node: &&Node| node.host().parse() == Ok(address);
    let node = state.nodes.values().map(AsRef::as_ref).find(ours);
    let whose = match node {
        Some(node) => format!("{address} ({})", node.name),
        None => format!("{address}, no address of a node,"),
    };
    let expected = state.cluster.as_ref().map(probe_answer);
    match probed {
        Probed::Answered { status: 200, body } if Some(body) == expected.as_ref() => Ok(()),
        Probed::Answered { status, .. } => Err(format!(
            "{domain} leads to {whose} where another server answers with status {status}"
        )),
        Probed::Silent(why) => Err(format!(
            "{domain} leads to {whose} where nothing answers: {why}"
        )),
    }
}
