//! The cluster and its nodes, tokens and audit log.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::Rights;
use crate::cluster::audit::{Event, EventType};
use crate::cluster::deployment::Replica;
use crate::cluster::node::{Isolation, MeshBackend, Node, NodeStatus};
use crate::cluster::state::ClusterState;
use crate::id::{ClusterId, Identity, NodeName, ReplicaId};
use crate::manifest::hash::sha256_hex;
use crate::ports::consensus::ConsensusStatus;
use crate::scheduler::drain;
use crate::time::Timestamp;

/// `jaco cluster status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClusterStatus {
    pub initialized: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeName>,
    pub raft_index: u64,
    pub raft_term: u64,
    /// Hex SHA-256 of this node's copy of the state at `raft_index`: equal on all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_hash: Option<String>,
    pub nodes: Vec<MemberRow>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MemberRow {
    pub hostname: NodeName,
    pub address: String,
    pub status: NodeStatus,
    pub suffrage: Suffrage,
}

/// Whether a member votes; only the leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Suffrage {
    Voter,
    Nonvoter,
    Unknown,
}

/// `jaco node list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NodeList {
    pub nodes: Vec<NodeRow>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NodeRow {
    pub hostname: NodeName,
    pub address: String,
    pub status: NodeStatus,
    pub mesh: MeshState,
    pub isolation: IsolationState,
    /// Why isolation is unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation_reason: Option<String>,
    /// `docker <version>`, or `unreachable`.
    pub engine: String,
    pub labels: BTreeMap<String, String>,
    /// Thousandths of a core.
    pub cpu: Usage,
    /// Bytes.
    pub memory: Usage,
    /// While it is being emptied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainRow>,
}

/// What a node that is being emptied still holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DrainRow {
    /// To move, or to stop for a global service.
    pub remaining: Vec<ReplicaId>,
    /// Bound to their data here.
    pub staying: Vec<ReplicaId>,
}

/// How a node is on the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum MeshState {
    Kernel,
    Userspace,
    Down,
}

/// Whether a node keeps containers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum IsolationState {
    Pending,
    Verified,
    Unavailable,
}

/// What is reserved and what is used, over the last minutes, of what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Usage {
    pub reserved: u64,
    pub capacity: u64,
    /// Absent until the node said so, and when that is too long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

/// `jaco token list`; no secret is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TokenList {
    pub tokens: Vec<TokenRow>,
}

/// One operator token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TokenRow {
    pub name: Identity,
    #[serde(flatten)]
    pub rights: Rights,
    pub issued_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// `jaco audit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AuditLog {
    pub events: Vec<Event>,
}

/// The cluster as this member sees it.
pub fn status(state: &ClusterState, raft: &ConsensusStatus) -> ClusterStatus {
    let suffrage = |member| match raft.is_leader() {
        false => Suffrage::Unknown,
        true if raft.voters.contains(&member) => Suffrage::Voter,
        true => Suffrage::Nonvoter,
    };
    let leader = raft.leader.and_then(|id| state.member(id));
    ClusterStatus {
        initialized: state.cluster.is_some(),
        cluster_id: state.cluster.as_ref().map(|cluster| cluster.id.clone()),
        name: state.cluster.as_ref().map(|cluster| cluster.name.clone()),
        leader: leader.map(|node| node.name.clone()),
        raft_index: state.index,
        raft_term: raft.term,
        state_hash: state.cluster.is_some().then(|| hash(state)),
        nodes: state
            .nodes
            .values()
            .map(|node| MemberRow {
                hostname: node.name.clone(),
                address: node.api_address.clone(),
                status: node.status(),
                suffrage: suffrage(node.member),
            })
            .collect(),
    }
}

fn hash(state: &ClusterState) -> String {
    sha256_hex(&serde_json::to_vec(state).unwrap_or_default())
}

/// Every node with what it has.
pub fn nodes(state: &ClusterState) -> NodeList {
    let mut reserved: BTreeMap<&NodeName, (u64, u64)> = BTreeMap::new();
    for replica in state.replicas() {
        let sums = reserved.entry(&replica.node).or_default();
        sums.0 += replica.reserved.cpu_millis;
        sums.1 += replica.reserved.memory_bytes;
    }
    let rows = state.nodes.values().map(|node| {
        let capacity = node
            .engine()
            .map(|engine| engine.capacity)
            .unwrap_or_default();
        let used = node.usage.filter(|usage| usage.counts(state.clock));
        let used = used.map(|usage| usage.average);
        let (cpu, memory) = reserved.get(&node.name).copied().unwrap_or_default();
        NodeRow {
            hostname: node.name.clone(),
            address: node.api_address.clone(),
            status: node.status(),
            mesh: mesh(node),
            isolation: match node.isolation() {
                Isolation::Pending => IsolationState::Pending,
                Isolation::Verified => IsolationState::Verified,
                Isolation::Unavailable { .. } => IsolationState::Unavailable,
            },
            isolation_reason: match node.isolation() {
                Isolation::Unavailable { code, reason } => Some(format!("{code}: {reason}")),
                _ => None,
            },
            engine: node.engine().map_or_else(
                || "unreachable".to_owned(),
                |e| format!("docker {}", e.version),
            ),
            labels: node.labels(),
            cpu: Usage {
                reserved: cpu,
                capacity: capacity.cpu_millis,
                used: used.map(|used| used.cpu_millis),
            },
            memory: Usage {
                reserved: memory,
                capacity: capacity.memory_bytes,
                used: used.map(|used| used.memory_bytes),
            },
            drain: drain_row(state, node),
        }
    });
    NodeList {
        nodes: rows.collect(),
    }
}

fn mesh(node: &Node) -> MeshState {
    let end = node.report.as_ref().and_then(|report| report.mesh.as_ref());
    match end.map(|end| end.backend) {
        Some(MeshBackend::Kernel) => MeshState::Kernel,
        Some(MeshBackend::Userspace) => MeshState::Userspace,
        None => MeshState::Down,
    }
}

fn drain_row(state: &ClusterState, node: &Node) -> Option<DrainRow> {
    node.drain?;
    let id = |replica: &Arc<Replica>| replica.id.clone();
    let remaining: Vec<ReplicaId> = drain::remaining(state, &node.name).map(id).collect();
    let here = state.replicas().filter(|replica| replica.node == node.name);
    let staying = here.map(id).filter(|id| !remaining.contains(id)).collect();
    Some(DrainRow { remaining, staying })
}

/// Every operator token, by name.
pub fn tokens(state: &ClusterState) -> TokenList {
    let mut tokens: Vec<TokenRow> = state
        .tokens
        .values()
        .map(|token| TokenRow {
            name: token.identity.clone(),
            rights: token.rights.clone(),
            issued_at: token.issued_at,
            revoked_at: token.revoked_at,
            expires_at: token.expires_at,
        })
        .collect();
    tokens.sort_by(|a, b| (&a.name, a.issued_at).cmp(&(&b.name, b.issued_at)));
    TokenList { tokens }
}

/// The events after an index, since a moment and of some types; all types when `types` is empty.
pub fn audit(
    state: &ClusterState,
    after: u64,
    since: Option<Timestamp>,
    types: &[EventType],
) -> Vec<Event> {
    let wanted = |event: &&Event| {
        event.index > after
            && since.is_none_or(|since| event.at >= since)
            && (types.is_empty() || types.contains(&event.kind))
    };
    state.audit.iter().filter(wanted).cloned().collect()
}
