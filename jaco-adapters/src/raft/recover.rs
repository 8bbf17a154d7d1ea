//! What a stopped member has, and how it goes on alone (spec 04, Failure).
//!
//! The whole log counts as committed: what a majority had acknowledged is in it wherever this
//! member had it. Going on alone is one new snapshot, which replaces the old one whole; a crash
//! before leaves the member as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jaco_core::cluster::{ClusterState, Command, Entry, Proposal, apply};
use jaco_core::id::{Identity, MemberId, NodeName};
use jaco_core::ports::Sealer;
use jaco_core::time::Timestamp;
use openraft::Membership;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use redb::Database;

use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::types::Peer;
use super::types::alias::{LogId, StoredMembership, Vote};
use super::{LOG_FILE, OpenError};

/// A member whose daemon does not run.
pub struct Survivor {
    log: LogStore,
    machine: StateMachine,
    last: Option<LogId>,
}

impl Survivor {
    /// Reads all that the member in `dir` has; changes nothing.
    ///
    /// # Errors
    /// When there is no intact log of this state key, or a daemon has it open.
    pub async fn open(dir: &Path, sealer: Arc<dyn Sealer>) -> Result<Self, OpenError> {
        let failed = |reason: String| OpenError::Log {
            dir: dir.display().to_string(),
            reason,
        };
        let db = Database::open(dir.join(LOG_FILE)).map_err(|error| failed(error.to_string()))?;
        let log = LogStore::new(db, Arc::clone(&sealer));
        let mut log = log.map_err(|error| failed(error.to_string()))?;
        let machine = StateMachine::open(dir, sealer);
        let mut machine = machine.map_err(|error| failed(error.to_string()))?;
        let first = machine.last_applied().map_or(0, |last| last.index() + 1);
        let entries = log.try_get_log_entries(first..).await;
        for entry in entries.map_err(|error| failed(error.to_string()))? {
            machine.take(entry);
        }
        let last = machine.last_applied();
        Ok(Self { log, machine, last })
    }

    /// The state with every entry of the log.
    pub fn state(&self) -> &ClusterState {
        self.machine.state()
    }

    /// Writes these commands after the log, and makes `member` the one that there is.
    ///
    /// # Errors
    /// When the disk fails, or a command is refused; the member is then as it was.
    pub async fn go_on_alone(
        mut self,
        member: MemberId,
        name: &NodeName,
        address: &str,
        commands: Vec<Command>,
        at: Timestamp,
    ) -> Result<u64, OpenError> {
        let failed = |reason: String| OpenError::Start(reason);
        let vote = self
            .log
            .read_vote()
            .await
            .map_err(|error| failed(error.to_string()))?;
        let voted = vote.map_or(0, |vote| vote.leader_id.term);
        let logged = self.last.map_or(0, |last| last.committed_leader_id().term);
        // Newer than anything that a lost member may still say.
        let vote = Vote::new(voted.max(logged) + 1, member);
        let mut state = self.machine.state().clone();
        for command in commands {
            let proposal = Proposal {
                at,
                identity: Identity::new("local"),
                author: None,
                command,
            };
            let index = state.index + 1;
            let done = apply(&mut state, &Entry { index, proposal });
            done.map_err(|error| failed(error.to_string()))?;
        }
        let index = state.index;
        let last = LogId::new(vote.leader_id, index);
        let peer = Peer {
            name: name.to_string(),
            address: address.to_owned(),
        };
        let voters = vec![BTreeSet::from([member])];
        let membership = Membership::new(voters, BTreeMap::from([(member, peer)]));
        let membership = membership.map_err(|error| failed(error.to_string()))?;
        let saved = self.log.save_vote(&vote).await;
        saved.map_err(|error| failed(error.to_string()))?;
        let membership = StoredMembership::new(Some(last), membership);
        let replaced = self.machine.replace(state, last, membership).await;
        replaced.map_err(|error| failed(error.to_string()))?;
        Ok(index)
    }
}
