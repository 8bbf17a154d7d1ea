//! Members of the cluster: where they are, what they can run, how they are.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::usage::NodeUsage;
use crate::error::ErrorCode;
use crate::id::{MemberId, MeshKey, NodeName};
use crate::manifest::host_access::Allowed;
use crate::manifest::spec::Resources;
use crate::time::Timestamp;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Unique in the cluster.
    pub name: NodeName,
    /// Its raft number.
    pub member: MemberId,
    /// `host:port` of its API.
    pub api_address: String,
    /// `host:port` of its raft listener.
    pub cluster_address: String,
    /// Its /32 on the mesh, the source of what the node itself sends to replicas elsewhere.
    pub mesh_address: Ipv4Addr,
    /// Serial of its certificate, lower-case hex.
    pub serial: String,
    /// Hex SHA-256 of its certificate's public key, by which others know it; empty until a node
    /// of a version that did not say has reported it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key_hash: String,
    /// What it reports of itself; absent until its first report.
    pub report: Option<NodeReport>,
    /// What the operator called it; these win over the labels of its configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What the leader and the operator made of it.
    pub condition: NodeCondition,
    /// Set while an operator wants it empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// What it uses; absent until it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<NodeUsage>,
    /// When a replica was last moved here to even out the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_at: Option<Timestamp>,
    /// The index at which it came back, until it has said that nothing is left there of what it
    /// should not run any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<u64>,
    /// The newest index whose routes and names it serves.
    pub published: u64,
    /// When it became a member.
    pub joined_at: Timestamp,
}

/// An operator's wish that a node be empty (spec 05, Drain of a node).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// When it began, or when the last replica left.
    pub progressed_at: Timestamp,
    /// True once no replica left for too long; nothing more is stopped then.
    pub timed_out: bool,
}

/// What a node says of itself, at boot and whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Absent while the engine does not answer.
    pub engine: Option<Engine>,
    /// From `node_labels` of its configuration.
    pub labels: BTreeMap<String, String>,
    /// The daemon's version.
    pub version: String,
    /// Absent while the node has no mesh interface.
    pub mesh: Option<MeshEnd>,
    /// Whether its packet filter keeps containers apart.
    pub isolation: Isolation,
    /// Hex SHA-256 of its certificate's public key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key_hash: String,
    /// What it lets every workload have of the host.
    #[serde(default)]
    pub workloads: Allowed,
}

/// What a node knows of its packet filter (spec 07, Isolation).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Not loaded yet.
    #[default]
    Pending,
    /// Loaded, read back and found equal.
    Verified,
    /// It cannot be loaded, or what was read back differs: no container is placed here.
    #[allow(missing_docs)]
    Unavailable { code: ErrorCode, reason: String },
}

impl NodeReport {
    fn status(&self) -> NodeStatus {
        match (&self.engine, &self.isolation) {
            (None, _) => NodeStatus::DockerUnreachable,
            (_, Isolation::Unavailable { .. }) => NodeStatus::IsolationUnavailable,
            (_, Isolation::Pending) => NodeStatus::Joining,
            (Some(_), Isolation::Verified) => NodeStatus::Ready,
        }
    }
}

/// A node's end of the mesh (spec 07).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshEnd {
    /// Its WireGuard public key; the private one never leaves the node.
    pub public_key: MeshKey,
    /// The UDP port that it listens on.
    pub port: u16,
    /// What encrypts.
    pub backend: MeshBackend,
}

/// Where WireGuard runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum MeshBackend {
    Kernel,
    Userspace,
}

/// A container engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// E.g. `20.10.24`.
    pub version: String,
    /// Negotiated API version, e.g. `1.41`.
    pub api_version: String,
    /// As images say it: `amd64`, `arm64`, …
    pub arch: String,
    /// What the host has.
    pub capacity: Resources,
}

/// The leader's and the operator's view of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeCondition {
    /// Heard from.
    #[default]
    Reachable,
    /// Not heard from for `node_unreachable_after`.
    Unreachable,
}

/// A node's state as users see it (spec 03, States).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum NodeStatus {
    Joining,
    Ready,
    Draining,
    DrainTimeout,
    Unreachable,
    DockerUnreachable,
    IsolationUnavailable,
}

impl Node {
    /// The one state that users see; the worst cause wins.
    pub fn status(&self) -> NodeStatus {
        match (&self.condition, &self.report) {
            (NodeCondition::Unreachable, _) => NodeStatus::Unreachable,
            (NodeCondition::Reachable, None) => NodeStatus::Joining,
            (NodeCondition::Reachable, Some(report)) => match (report.status(), self.drain) {
                (NodeStatus::Ready, _) if self.returned.is_some() => NodeStatus::Joining,
                (NodeStatus::Ready, Some(Drain { timed_out, .. })) if timed_out => {
                    NodeStatus::DrainTimeout
                }
                (NodeStatus::Ready, Some(_)) => NodeStatus::Draining,
                (status, _) => status,
            },
        }
    }

    /// Its labels: those of its configuration, and the operator's before them.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.configured_labels().cloned().unwrap_or_default();
        labels.extend(self.labels.clone());
        labels
    }

    /// One of its labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        let configured = || self.configured_labels()?.get(key);
        self.labels.get(key).or_else(configured).map(String::as_str)
    }

    /// The labels of its configuration; absent until it reported.
    pub fn configured_labels(&self) -> Option<&BTreeMap<String, String>> {
        self.report.as_ref().map(|report| &report.labels)
    }

    /// What its packet filter was last reported to be.
    pub fn isolation(&self) -> &Isolation {
        self.report
            .as_ref()
            .map_or(&Isolation::Pending, |report| &report.isolation)
    }

    /// Its engine, when it answers.
    pub fn engine(&self) -> Option<&Engine> {
        self.report.as_ref()?.engine.as_ref()
    }

    /// The host part of its API address.
    pub fn host(&self) -> &str {
        self.api_address
            .rsplit_once(':')
            .map_or(self.api_address.as_str(), |(host, _)| host)
    }
}
