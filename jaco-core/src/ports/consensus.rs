//! The replicated log: writes through the leader, reads from a local snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::access::Author;
use crate::cluster::{Applied, ClusterState, Command};
use crate::error::{Error, ErrorCode};
use crate::id::{MemberId, NodeName};

/// One member's hold on the replicated state.
///
/// A write that returned is on the disks of a majority. One that failed with `no_leader` or
/// `quorum_lost` may or may not be committed later; commands are made so that repeating one is
/// harmless. Dropping a future leaves a started write to its fate.
#[async_trait]
pub trait Consensus: Send + Sync + 'static {
    /// Commits a command, forwarding it to the leader when this member is not. Returns what
    /// applying gave.
    async fn write(&self, author: &Author, command: Command) -> Result<Applied, ConsensusError>;

    /// Commits a command only while this member leads; `no_leader` when it does not. For what was
    /// decided on the state of this member: another leader has decided anew.
    async fn write_leading(
        &self,
        author: &Author,
        command: Command,
    ) -> Result<Applied, ConsensusError>;

    /// Waits until the local snapshot holds everything that was committed before the call.
    async fn catch_up(&self) -> Result<(), ConsensusError>;

    /// The newest applied state. Cheap; hold it for as long as one decision takes.
    fn snapshot(&self) -> Arc<ClusterState>;

    /// Waits until the applied index is greater than `index`.
    async fn applied_after(&self, index: u64);

    /// What this member knows of the group.
    fn status(&self) -> ConsensusStatus;

    /// Adds a member that receives the log but does not vote. Leader only; repeating is
    /// harmless.
    async fn add_learner(
        &self,
        member: MemberId,
        node: NodeName,
        address: String,
    ) -> Result<(), ConsensusError>;

    /// Makes exactly these members voters, in one joint change; members that are in neither set
    /// are dropped when `drop_others`. Leader only.
    async fn change_members(
        &self,
        voters: BTreeSet<MemberId>,
        drop_others: bool,
    ) -> Result<(), ConsensusError>;

    /// Hands leadership over if this member leads, then stops. Nothing is served afterwards.
    async fn shutdown(&self);
}

/// What one member knows of the group. Empty before it is part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConsensusStatus {
    pub me: MemberId,
    pub leader: Option<MemberId>,
    pub term: u64,
    pub applied: u64,
    pub voters: BTreeSet<MemberId>,
    pub learners: BTreeSet<MemberId>,
    /// On the leader: for every other member, how far its log is behind and when it last
    /// answered.
    pub followers: BTreeMap<MemberId, Follower>,
}

impl ConsensusStatus {
    /// True when this member leads.
    pub fn is_leader(&self) -> bool {
        self.leader == Some(self.me)
    }
}

/// What a leader knows of one follower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    /// Entries that it lacks.
    pub lag: u64,
    /// Since its last answer, or since this leader began when it never answered.
    pub silent_for: Duration,
}

/// Why a write or a consistent read did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsensusError {
    /// No leader is known; an election may be going on.
    #[error("no leader is known")]
    NoLeader,
    /// This side has no majority.
    #[error("a majority of the voters does not answer")]
    QuorumLost,
    /// The log or the disk under it failed, or the member is stopping.
    #[error("the replicated log failed: {0}")]
    Failed(String),
}

impl From<ConsensusError> for Error {
    fn from(error: ConsensusError) -> Self {
        match error {
            ConsensusError::NoLeader => Error::new(
                ErrorCode::NoLeader,
                "the cluster has no leader at the moment",
            ),
            ConsensusError::QuorumLost => Error::new(
                ErrorCode::QuorumLost,
                "this side of the cluster has no majority; writes are refused",
            ),
            ConsensusError::Failed(reason) => Error::internal(reason),
        }
    }
}
