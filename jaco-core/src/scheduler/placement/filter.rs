//! Which nodes may take a replica at all; every refusal has a reason for people.

use std::fmt;

use serde::Serialize;

use crate::cluster::node::{Node, NodeStatus};
use crate::cluster::state::ClusterState;
use crate::manifest::spec::{Attribute, Constraint, Placement, Resources, ServiceSpec};

/// Why a node does not take a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub enum Rejection {
    NotReady(NodeStatus),
    NotListed,
    Constraint(Constraint),
    HostTaken,
    MaxPerNode(u32),
    CoLocation(String),
    Cpu { wanted: u64, free: u64 },
    Memory { wanted: u64, free: u64 },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::NotReady(NodeStatus::Joining) => f.write_str("still joining"),
            Rejection::NotReady(NodeStatus::DockerUnreachable) => {
                f.write_str("its engine does not answer")
            }
            Rejection::NotReady(NodeStatus::Draining | NodeStatus::DrainTimeout) => {
                f.write_str("being drained")
            }
            Rejection::NotReady(NodeStatus::Unreachable) => f.write_str("unreachable"),
            Rejection::NotReady(_) => f.write_str("does not take new replicas"),
            Rejection::NotListed => f.write_str("not among the hosts of the service"),
            Rejection::Constraint(constraint) => {
                let (what, sign) = (&constraint.attribute, &constraint.value);
                let operator = if constraint.equal { "==" } else { "!=" };
                match what {
                    Attribute::Hostname => write!(f, "fails node.hostname {operator} {sign}"),
                    Attribute::Label(key) => {
                        write!(f, "fails node.labels.{key} {operator} {sign}")
                    }
                    Attribute::Arch => write!(f, "fails node.platform.arch {operator} {sign}"),
                }
            }
            Rejection::HostTaken => f.write_str("holds a replica of this service already"),
            Rejection::MaxPerNode(max) => write!(f, "holds {max} replicas, the most per node"),
            Rejection::CoLocation(with) => write!(f, "holds no replica of \"{with}\""),
            Rejection::Cpu { wanted, free } => {
                write!(f, "has {free} thousandths of a core free, {wanted} wanted")
            }
            Rejection::Memory { wanted, free } => {
                write!(f, "has {free} bytes of memory free, {wanted} wanted")
            }
        }
    }
}

/// The first reason against a node, or `None` when it may take one more replica. `here` is how
/// many replicas of the service it holds, `reserved` what all replicas there have reserved.
pub fn reject(
    state: &ClusterState,
    node: &Node,
    service: &ServiceSpec,
    here: u32,
    reserved: Resources,
) -> Option<Rejection> {
    standing(state, node, service).or_else(|| room(node, service, here, reserved))
}

/// Reasons that do not depend on load.
pub(in crate::scheduler) fn standing(
    _state: &ClusterState,
    node: &Node,
    service: &ServiceSpec,
) -> Option<Rejection> {
    let status = node.status();
    if status != NodeStatus::Ready {
        return Some(Rejection::NotReady(status));
    }
    if let Placement::Hosts(hosts) = &service.placement
        && !hosts.contains(&node.name)
    {
        return Some(Rejection::NotListed);
    }
    let failed = service
        .constraints
        .iter()
        .find(|constraint| !holds(node, constraint));
    failed.cloned().map(Rejection::Constraint)
}

/// True when a node, before and after a change, passes [`standing`] for the same services.
pub(in crate::scheduler) fn stands_alike(before: &Node, after: &Node) -> bool {
    let arch = |node: &Node| node.engine().map(|engine| engine.arch.clone());
    let labels = |node: &Node| node.report.as_ref().map(|report| report.labels.clone());
    before.status() == after.status()
        && arch(before) == arch(after)
        && labels(before) == labels(after)
}

fn holds(node: &Node, constraint: &Constraint) -> bool {
    let actual = match &constraint.attribute {
        Attribute::Hostname => Some(node.name.as_str()),
        Attribute::Label(key) => node
            .report
            .as_ref()
            .and_then(|report| report.labels.get(key))
            .map(String::as_str),
        Attribute::Arch => node.engine().map(|engine| engine.arch.as_str()),
    };
    (actual == Some(constraint.value.as_str())) == constraint.equal
}

/// Reasons that load gives.
pub(super) fn room(
    node: &Node,
    service: &ServiceSpec,
    here: u32,
    reserved: Resources,
) -> Option<Rejection> {
    let one_each = matches!(service.placement, Placement::Hosts(_) | Placement::Global);
    if one_each && here > 0 {
        return Some(Rejection::HostTaken);
    }
    if let Some(max) = service.max_replicas_per_node.filter(|max| here >= *max) {
        return Some(Rejection::MaxPerNode(max));
    }
    let capacity = node
        .engine()
        .map(|engine| engine.capacity)
        .unwrap_or_default();
    let wanted = service.reservations;
    let free = capacity.cpu_millis.saturating_sub(reserved.cpu_millis);
    if wanted.cpu_millis > free {
        return Some(Rejection::Cpu {
            wanted: wanted.cpu_millis,
            free,
        });
    }
    let free = capacity.memory_bytes.saturating_sub(reserved.memory_bytes);
    if wanted.memory_bytes > free {
        return Some(Rejection::Memory {
            wanted: wanted.memory_bytes,
            free,
        });
    }
    None
}
