//! `Consensus` over openraft: writes, reads, membership, and what is known of the group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jaco_core::access::Author;
use jaco_core::cluster::{Applied, ClusterState, Command, Proposal};
use jaco_core::id::{MemberId, NodeName};
use jaco_core::ports::consensus::{ConsensusStatus, Follower};
use jaco_core::ports::{Clock, Consensus, ConsensusError, Measured, Meter};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant, RaftMetrics, ReadPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::network::Peers;
use super::types::alias::Raft;
use super::types::{Peer, Record, Types};

/// A leader that no majority has answered for so long has lost it; one that a follower has not
/// heard for so long leads it no more.
const LEASE: Duration = Duration::from_millis(1_000);

/// A member without a leader for so long takes it that there is no majority.
const LEADERLESS: Duration = Duration::from_secs(3);

/// How long a write may take in all before it is given up as lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that the port, the server and the background tasks share.
pub(super) struct Shared {
    pub(super) me: MemberId,
    pub(super) raft: Raft,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) meter: Arc<dyn Meter>,
    pub(super) peers: Peers,
    pub(super) state: watch::Receiver<Arc<ClusterState>>,
    /// When this member led, or heard the one that leads.
    pub(super) leader_seen: std::sync::Mutex<std::time::Instant>,
    /// The term that was last looked at, and since when.
    pub(super) term_began: std::sync::Mutex<(u64, std::time::Instant)>,
}

/// Why a member that was asked to lead a write did not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Refusal {
    NotLeader,
    QuorumLost,
    Failed(String),
}

impl From<Refusal> for ConsensusError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotLeader => ConsensusError::NoLeader,
            Refusal::QuorumLost => ConsensusError::QuorumLost,
            Refusal::Failed(reason) => ConsensusError::Failed(reason),
        }
    }
}

impl Shared {
    fn metrics(&self) -> RaftMetrics<Types> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// For how long the present term has been known here.
    fn term_age(&self, metrics: &RaftMetrics<Types>) -> Duration {
        let mut began = self
            .term_began
            .lock()
            .expect("no holder of this lock panics");
        if began.0 != metrics.current_term {
            *began = (metrics.current_term, std::time::Instant::now());
        }
        began.1.elapsed()
    }

    /// Commits as the leader. Given up at once when the majority is gone.
    pub(super) async fn lead_write(
        &self,
        author: &Author,
        command: Command,
    ) -> Result<Applied, Refusal> {
        let proposal = Proposal {
            at: self.clock.now(),
            identity: author.identity(&self.state.borrow()),
            author: Some(author.clone()),
            command,
        };
        let write = self.raft.client_write(Record(proposal));
        let written = tokio::select! {
            written = tokio::time::timeout(WRITE_TIMEOUT, write) => written,
            () = self.majority_lost() => return Err(Refusal::QuorumLost),
        };
        match written {
            Err(_) => Err(Refusal::QuorumLost),
            Ok(Ok(response)) => response
                .data
                .0
                .ok_or_else(|| Refusal::Failed("a command gave no outcome".to_owned())),
            Ok(Err(RaftError::APIError(
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
            ))) => Err(Refusal::NotLeader),
            Ok(Err(error)) => Err(Refusal::Failed(error.to_string())),
        }
    }

    /// Returns once this member, leading, has had no answer from a majority for [`LEASE`].
    async fn majority_lost(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let metrics = self.metrics();
            let silent = metrics.last_quorum_acked.map(|at| at.elapsed());
            let alone = metrics.membership_config.voter_ids().count() <= 1;
            if !alone && silent.is_some_and(|silent| silent > LEASE) {
                return;
            }
        }
    }

    /// The index that a consistent read must have applied; leader only.
    pub(super) async fn read_index(&self) -> Result<u64, Refusal> {
        let read = self.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        match tokio::time::timeout(LEASE, read).await {
            Err(_) => Err(Refusal::QuorumLost),
            Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
            Ok(Err(RaftError::Fatal(fatal))) => Err(Refusal::Failed(fatal.to_string())),
            Ok(Err(RaftError::APIError(_))) => Err(Refusal::NotLeader),
        }
    }

    /// Notes that this member leads, or that the leader was heard just now.
    pub(super) fn note_leader(&self) {
        *self
            .leader_seen
            .lock()
            .expect("no holder of this lock panics") = std::time::Instant::now();
    }

    fn leader_silent_for(&self) -> Duration {
        let seen = self.leader_seen.lock();
        seen.expect("no holder of this lock panics").elapsed()
    }

    /// Who leads. The library goes on naming a leader that a follower is cut off from.
    fn current_leader(&self, metrics: &RaftMetrics<Types>) -> Option<MemberId> {
        let heard = |leader: &MemberId| *leader == self.me || self.leader_silent_for() <= LEASE;
        metrics.current_leader.filter(heard)
    }

    /// Whether this member leads or has heard of the one that does lately.
    pub(super) fn hears_leader(&self) -> bool {
        self.leader_silent_for() <= LEADERLESS
    }

    fn leader(&self) -> Result<(MemberId, Peer), ConsensusError> {
        let metrics = self.metrics();
        let leader = self.current_leader(&metrics).and_then(|id| {
            let node = metrics.membership_config.membership().get_node(&id)?;
            Some((id, node.clone()))
        });
        match leader {
            Some(leader) => {
                if leader.0 == self.me {
                    self.note_leader();
                }
                Ok(leader)
            }
            None if self.leader_silent_for() > LEADERLESS => Err(ConsensusError::QuorumLost),
            None => Err(ConsensusError::NoLeader),
        }
    }

    /// Waits for what a leader is asked for as long as it leads.
    async fn led<T>(
        &self,
        by: MemberId,
        asked: impl Future<Output = T>,
    ) -> Result<T, ConsensusError> {
        let mut asked = std::pin::pin!(asked);
        loop {
            match tokio::time::timeout(Duration::from_millis(100), &mut asked).await {
                Ok(answer) => return Ok(answer),
                Err(_) if self.current_leader(&self.metrics()) != Some(by) => {
                    return Err(ConsensusError::NoLeader);
                }
                Err(_) => {}
            }
        }
    }

    /// Keeps [`Self::leader`]'s clock right while nobody writes.
    pub(super) async fn follow_leader(self: Arc<Self>) {
        let mut metrics = self.raft.metrics();
        loop {
            let _ = self.leader();
            self.term_age(&self.metrics());
            let changed = tokio::time::timeout(Duration::from_millis(500), metrics.changed());
            if matches!(changed.await, Ok(Err(_))) {
                return;
            }
        }
    }

    async fn forward_write(
        &self,
        (leader, peer): &(MemberId, Peer),
        author: &Author,
        command: &Command,
    ) -> Result<Applied, ConsensusError> {
        let frame = super::network::encode(&(author, command)).map_err(failed)?;
        let mut client = self.peers.client(&peer.address).map_err(failed)?;
        let answer = self
            .led(*leader, client.propose(frame))
            .await?
            .map_err(|_| ConsensusError::NoLeader)?;
        let answer: Result<Applied, Refusal> =
            super::network::decode(&answer.into_inner()).map_err(failed)?;
        Ok(answer?)
    }

    async fn forward_read_index(
        &self,
        (leader, peer): &(MemberId, Peer),
    ) -> Result<u64, ConsensusError> {
        let mut client = self.peers.client(&peer.address).map_err(failed)?;
        let frame = super::network::encode(&()).map_err(failed)?;
        let answer = self
            .led(*leader, client.read_index(frame))
            .await?
            .map_err(|_| ConsensusError::NoLeader)?;
        let answer: Result<u64, Refusal> =
            super::network::decode(&answer.into_inner()).map_err(failed)?;
        Ok(answer?)
    }

    async fn applied_to(&self, index: u64) {
        let mut state = self.state.clone();
        // Fails only when the state machine is gone, which ends the process.
        let _ = state.wait_for(|state| state.index >= index).await;
    }
}

fn failed<E: std::fmt::Display>(error: E) -> ConsensusError {
    ConsensusError::Failed(error.to_string())
}

/// One member's hold on the replicated log.
pub struct RaftConsensus {
    pub(super) shared: Arc<Shared>,
}

impl RaftConsensus {
    /// Starts a cluster of which this is the only member.
    ///
    /// # Errors
    /// When the log holds something already.
    pub async fn initialize(&self, name: &NodeName, address: &str) -> Result<(), ConsensusError> {
        let peer = Peer {
            name: name.to_string(),
            address: address.to_owned(),
        };
        let members = BTreeMap::from([(self.shared.me, peer)]);
        self.shared.raft.initialize(members).await.map_err(failed)
    }
}

#[async_trait]
impl Consensus for RaftConsensus {
    async fn write(&self, author: &Author, command: Command) -> Result<Applied, ConsensusError> {
        let begun = std::time::Instant::now();
        let leader = self.shared.leader()?;
        let applied = if leader.0 == self.shared.me {
            self.shared.lead_write(author, command).await?
        } else {
            self.shared.forward_write(&leader, author, &command).await?
        };
        self.shared.meter.record(Measured::Commit(begun.elapsed()));
        Ok(applied)
    }

    async fn write_leading(
        &self,
        author: &Author,
        command: Command,
    ) -> Result<Applied, ConsensusError> {
        let begun = std::time::Instant::now();
        let applied = self.shared.lead_write(author, command).await?;
        self.shared.meter.record(Measured::Commit(begun.elapsed()));
        Ok(applied)
    }

    async fn catch_up(&self) -> Result<(), ConsensusError> {
        let leader = self.shared.leader()?;
        let index = if leader.0 == self.shared.me {
            self.shared.read_index().await?
        } else {
            self.shared.forward_read_index(&leader).await?
        };
        self.shared.applied_to(index).await;
        Ok(())
    }

    fn snapshot(&self) -> Arc<ClusterState> {
        Arc::clone(&self.shared.state.borrow())
    }

    async fn applied_after(&self, index: u64) {
        self.shared.applied_to(index + 1).await;
    }

    fn status(&self) -> ConsensusStatus {
        let metrics = self.shared.metrics();
        let membership = &metrics.membership_config;
        ConsensusStatus {
            me: self.shared.me,
            leader: self.shared.current_leader(&metrics),
            term: metrics.current_term,
            applied: metrics.last_applied.map_or(0, |id| id.index()),
            voters: membership.voter_ids().collect(),
            learners: membership.membership().learner_ids().collect(),
            followers: followers(&metrics, self.shared.me, self.shared.term_age(&metrics)),
        }
    }

    async fn add_learner(
        &self,
        member: MemberId,
        node: NodeName,
        address: String,
    ) -> Result<(), ConsensusError> {
        let peer = Peer {
            name: node.to_string(),
            address,
        };
        let added = self.shared.raft.add_learner(member, peer, false).await;
        added.map(drop).map_err(failed)
    }

    async fn change_members(
        &self,
        voters: BTreeSet<MemberId>,
        drop_others: bool,
    ) -> Result<(), ConsensusError> {
        let change = ChangeMembers::ReplaceAllVoters(voters);
        let changed = self
            .shared
            .raft
            .change_membership(change, !drop_others)
            .await;
        changed.map(drop).map_err(failed)
    }

    async fn shutdown(&self) {
        let status = self.status();
        if status.is_leader() {
            let heirs = status
                .followers
                .iter()
                .filter(|(id, _)| status.voters.contains(id));
            if let Some((heir, _)) = heirs.min_by_key(|(_, follower)| follower.lag) {
                let _ = self.shared.raft.trigger().transfer_leader(*heir).await;
                let handed_over = self.shared.raft.wait(Some(Duration::from_secs(1)));
                let me = self.shared.me;
                let gone = |m: &RaftMetrics<Types>| m.current_leader.is_some_and(|id| id != me);
                let _ = handed_over.metrics(gone, "leadership handed over").await;
            }
        }
        let _ = self.shared.raft.shutdown().await;
    }
}

fn followers(
    metrics: &RaftMetrics<Types>,
    me: MemberId,
    term_age: Duration,
) -> BTreeMap<MemberId, Follower> {
    let last = metrics.last_log_index.unwrap_or(0);
    let Some(replication) = &metrics.replication else {
        return BTreeMap::new();
    };
    let matched = replication.iter().filter(|(id, _)| **id != me);
    matched
        .map(|(id, matched)| {
            let lag = last.saturating_sub(matched.as_ref().map_or(0, |id| id.index()));
            let heard = metrics
                .heartbeat
                .as_ref()
                .and_then(|heard| heard.get(id).copied());
            // One that never answered this leader has been silent for as long as it leads.
            let silent_for = heard.flatten().map_or(term_age, |at| at.elapsed());
            (*id, Follower { lag, silent_for })
        })
        .collect()
}
