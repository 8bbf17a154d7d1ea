//! The consensus library's type parameters, and how core types travel through it.

use std::fmt;

use jaco_core::cluster::{Applied, Proposal};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// What JACO replicates.
    pub Types:
        D = Record,
        R = Answer,
        NodeId = u64,
        Node = Peer,
);

/// A member as the consensus library knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Hostname.
    pub name: String,
    /// `host:port` of its raft listener.
    pub address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.address)
    }
}

/// One log record. Neither `Display` nor `Debug` shows its content: it may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Record(pub Proposal);

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a command of {}", self.0.identity)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What applying a record gave; empty for the library's own entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answer(pub Option<Applied>);

/// The library's names with our types filled in.
pub(super) mod alias {
    use super::Types;

    pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
    pub(crate) type Vote = openraft::alias::VoteOf<Types>;
    pub(crate) type Entry = openraft::alias::EntryOf<Types>;
    pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
    pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
    pub(crate) type Snapshot = openraft::alias::SnapshotOf<Types, Vec<u8>>;
    pub(crate) type Raft = openraft::Raft<Types, super::super::state_machine::StateMachine>;
}
