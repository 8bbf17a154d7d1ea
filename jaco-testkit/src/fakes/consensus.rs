//! A group of one that commits at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::channel::oneshot;
use jaco_core::access::Author;
use jaco_core::cluster::{Applied, ClusterState, Command, Entry, Proposal, apply};
use jaco_core::id::{MemberId, NodeName};
use jaco_core::ports::consensus::ConsensusStatus;
use jaco_core::ports::{Clock, Consensus, ConsensusError};

/// The real state machine without a log; reads and writes fail when told.
pub struct FakeConsensus {
    clock: Arc<dyn Clock>,
    shared: Mutex<Shared>,
}

struct Shared {
    state: Arc<ClusterState>,
    status: ConsensusStatus,
    failure: Option<ConsensusError>,
    waiting: Vec<(u64, oneshot::Sender<()>)>,
}

impl FakeConsensus {
    /// Member 1, leading with this state.
    pub fn leading(state: ClusterState, clock: Arc<dyn Clock>) -> Self {
        let status = ConsensusStatus {
            me: 1,
            leader: Some(1),
            term: 1,
            applied: state.index,
            voters: BTreeSet::from([1]),
            ..ConsensusStatus::default()
        };
        let shared = Shared {
            state: Arc::new(state),
            status,
            failure: None,
            waiting: Vec::new(),
        };
        Self {
            clock,
            shared: Mutex::new(shared),
        }
    }

    /// Makes writes and consistent reads fail, or ends that.
    pub fn set_failure(&self, failure: Option<ConsensusError>) {
        self.lock().failure = failure;
    }

    /// Says who leads.
    pub fn set_leader(&self, leader: Option<MemberId>) {
        self.lock().status.leader = leader;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn working(&self) -> Result<MutexGuard<'_, Shared>, ConsensusError> {
        let shared = self.lock();
        match &shared.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(shared),
        }
    }
}

#[async_trait]
impl Consensus for FakeConsensus {
    async fn write(&self, author: &Author, command: Command) -> Result<Applied, ConsensusError> {
        let at = self.clock.now();
        let mut shared = self.working()?;
        let entry = Entry {
            index: shared.state.index + 1,
            proposal: Proposal {
                at,
                identity: author.identity(&shared.state),
                author: Some(author.clone()),
                command,
            },
        };
        let mut state = ClusterState::clone(&shared.state);
        let applied = apply(&mut state, &entry);
        shared.status.applied = entry.index;
        shared.state = Arc::new(state);
        let (woken, waiting) = std::mem::take(&mut shared.waiting)
            .into_iter()
            .partition(|(index, _)| entry.index > *index);
        shared.waiting = waiting;
        drop::<Vec<_>>(woken);
        Ok(applied)
    }

    async fn write_leading(
        &self,
        author: &Author,
        command: Command,
    ) -> Result<Applied, ConsensusError> {
        if !self.working()?.status.is_leader() {
            return Err(ConsensusError::NoLeader);
        }
        self.write(author, command).await
    }

    async fn catch_up(&self) -> Result<(), ConsensusError> {
        self.working().map(drop)
    }

    fn snapshot(&self) -> Arc<ClusterState> {
        Arc::clone(&self.lock().state)
    }

    async fn applied_after(&self, index: u64) {
        let (wake, woken) = oneshot::channel();
        {
            let mut shared = self.lock();
            if shared.state.index > index {
                return;
            }
            shared.waiting.push((index, wake));
        }
        // Dropping the sender is the signal.
        let _ = woken.await;
    }

    fn status(&self) -> ConsensusStatus {
        self.lock().status.clone()
    }

    async fn add_learner(
        &self,
        member: MemberId,
        _node: NodeName,
        _address: String,
    ) -> Result<(), ConsensusError> {
        self.working()?.status.learners.insert(member);
        Ok(())
    }

    async fn change_members(
        &self,
        voters: BTreeSet<MemberId>,
        drop_others: bool,
    ) -> Result<(), ConsensusError> {
        let status = &mut self.working()?.status;
        let before = std::mem::replace(&mut status.voters, voters);
        if drop_others {
            status.learners.clear();
        } else {
            status.learners.extend(before);
            status.learners = &status.learners - &status.voters;
        }
        Ok(())
    }

    async fn shutdown(&self) {
        let mut shared = self.lock();
        shared.failure = Some(ConsensusError::Failed("stopped".to_owned()));
        shared.status.leader = None;
    }
}
