//! The self-test of the network between nodes.

use serde::{Deserialize, Serialize};

use crate::id::NodeName;

/// `jaco net check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NetworkCheck {
    /// Every check passed.
    pub ok: bool,
    /// By node.
    pub checks: Vec<CheckRow>,
}

/// One thing that a node tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CheckRow {
    /// Who tried.
    pub node: NodeName,
    pub check: CheckKind,
    /// A node, or a network as `<deployment>/<network>`.
    pub target: String,
    pub ok: bool,
    /// What was seen, or why it failed.
    pub detail: String,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// The node tells what it found.
    Answer,
    /// A small packet over the mesh and back.
    Mesh,
    /// The largest packet over the mesh and back, not cut.
    Mtu,
    /// A name in a bridge's responder.
    Dns,
    /// The packet filter.
    Isolation,
    /// What the host has, against a fresh rendering of the state.
    Tables,
}

impl NetworkCheck {
    /// The findings of all nodes together.
    pub fn of(checks: Vec<CheckRow>) -> Self {
        Self {
            ok: checks.iter().all(|row| row.ok),
            checks,
        }
    }
}
