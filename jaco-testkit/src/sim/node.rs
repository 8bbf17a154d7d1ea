//! One simulated node: a log, a state, a daemon that is up or not, and an engine.

use jaco_core::cluster::command::Step;
use jaco_core::cluster::{ClusterState, Command, Entry, Proposal, apply};
use jaco_core::id::{Identity, NodeName};
use jaco_core::node::containers;
use jaco_core::node::report::{self, Local};
use jaco_core::scheduler::{Planner, barrier};
use jaco_core::time::Timestamp;

use super::engine::{Engine, Moment};
use super::invariants::{self, Broken};
use super::raft::Raft;

/// Reports wait this long for their effect before they are made again.
const REPORT_AGAIN: u64 = 6;

/// A node.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SimNode {
    pub name: NodeName,
    pub up: bool,
    pub raft: Raft,
    /// What its log has made of the state.
    pub state: ClusterState,
    pub engine: Engine,
    /// How much of its log the invariants have seen.
    pub checked: usize,
    planner: Planner,
    local: Local,
    reported_at: u64,
}

impl SimNode {
    /// A node with a log that everyone has.
    pub fn new(name: NodeName, raft: Raft) -> Self {
        Self {
            name,
            up: true,
            raft,
            state: ClusterState::default(),
            engine: Engine::default(),
            checked: 0,
            planner: Planner::default(),
            local: Local::default(),
            reported_at: 0,
        }
    }

    /// Applies what is committed. True when there was anything.
    ///
    /// # Errors
    /// With the floor that a step of the scheduler went below.
    pub fn apply_committed(&mut self) -> Result<bool, Broken> {
        let applied = usize::try_from(self.state.index).unwrap_or(usize::MAX);
        for i in applied..self.raft.commit {
            let proposal = Proposal::clone(&self.raft.log[i].proposal);
            let index = i as u64 + 1;
            let before =
                matches!(proposal.command, Command::Schedule(_)).then(|| self.state.clone());
            // A refusal is an answer to the client; the state is what counts here.
            let _ = apply(&mut self.state, &Entry { index, proposal });
            if let Some(before) = before {
                invariants::check_floor(&before, &self.state)?;
            }
        }
        Ok(applied < self.raft.commit)
    }

    /// What a leader plans next.
    pub fn plan(&mut self, now: Timestamp) -> Vec<Step> {
        self.planner.plan(&self.state, now)
    }

    /// One look of the runtime driver: start, remove, report.
    pub fn look(&mut self, moment: &mut Moment<'_>) -> Option<Command> {
        self.engine.advance(&mut self.local, moment);
        if !self.up || self.state.cluster.is_none() {
            return None;
        }
        let desired = containers::desired(&self.state, &self.name);
        let observed: Vec<_> = self.engine.containers.values().cloned().collect();
        for action in containers::diff(&desired, &observed) {
            self.engine.begin(action, &desired, &mut self.local, moment);
        }
        let by_replica = observed.into_iter().map(|c| (c.replica.clone(), c));
        self.local.containers = by_replica.collect();
        let refused = &mut self.local.refused;
        refused.retain(|replica, _| desired.contains_key(replica));
        let observations = report::changes(&desired, &self.local, moment.now);
        if observations.is_empty() || moment.step < self.reported_at + REPORT_AGAIN {
            return None;
        }
        self.reported_at = moment.step;
        let node = self.name.clone();
        Some(Command::Observe { node, observations })
    }

    /// What the node has to say of the routes that it serves, which are those of its state.
    pub fn publish(&self) -> Option<Command> {
        let index = barrier::owed(&self.state, &self.name).filter(|_| self.up)?;
        let node = self.name.clone();
        Some(Command::Published { node, index })
    }

    /// The daemon dies; disk and containers stay.
    pub fn crash(&mut self, random: &mut crate::soak::Random) {
        self.up = false;
        self.raft = self.raft.restarted();
        self.planner = Planner::default();
        self.local = Local::default();
        self.engine.abandoned(random);
    }

    /// The daemon comes back and applies its log anew, once it hears what is committed.
    pub fn restart(&mut self) {
        self.up = true;
        self.local = Local::default();
        self.state = ClusterState::default();
        self.checked = 0;
    }
}

/// A proposal of the system itself.
pub fn system(at: jaco_core::time::Timestamp, command: Command) -> Proposal {
    let identity = Identity::new("system");
    Proposal {
        at,
        identity,
        command,
    }
}
