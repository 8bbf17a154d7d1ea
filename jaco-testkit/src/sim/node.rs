//! One simulated node: a log, a state, a daemon that is up or not, and an engine.

use std::sync::Arc;

use jaco_core::cluster::command::Step;
use jaco_core::cluster::{ClusterState, Command, Entry, Proposal, apply};
use jaco_core::id::{Identity, NodeName};
use jaco_core::node::containers;
use jaco_core::node::report::{self, Local};
use jaco_core::scheduler::{Planner, barrier, decide};
use jaco_core::time::Timestamp;

use super::engine::{Engine, Moment};
use super::invariants::{self, Broken, hold};
use super::raft::Raft;
use crate::builders::{capacity, node_report};

/// Reports wait this long for their effect before they are made again.
const REPORT_AGAIN: u64 = 6;

/// One entry in so many is applied by a node itself although another one has.
const COMPARED: usize = 8;

/// The state after each committed entry, by the first node that applied it.
#[derive(Debug, Default)]
pub struct Ledger(Vec<(Arc<Proposal>, ClusterState)>);

impl Ledger {
    /// The states after the first `seen` ones, in order.
    pub fn states_after(&self, seen: usize) -> impl Iterator<Item = &ClusterState> {
        self.0.iter().skip(seen).map(|(_, state)| state)
    }
}

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
    /// False while no engine answers.
    pub engine_up: bool,
    /// How far its clock is ahead of the simulation's, in milliseconds.
    pub clock_ahead: u64,
    /// How much of its log the invariants have seen.
    pub checked: usize,
    number: usize,
    planner: Planner,
    local: Local,
    reported_at: u64,
    beat_at: u64,
}

impl SimNode {
    /// Node `n<number>`, with a log that everyone has.
    pub fn new(number: usize, raft: Raft) -> Self {
        Self {
            name: NodeName::new(format!("n{number}")),
            number,
            up: true,
            raft,
            state: ClusterState::default(),
            engine: Engine::default(),
            engine_up: true,
            clock_ahead: 0,
            checked: 0,
            planner: Planner::default(),
            local: Local::default(),
            reported_at: 0,
            beat_at: 0,
        }
    }

    /// Applies what is committed. True when there was anything.
    ///
    /// # Errors
    /// With the floor that a step of the scheduler went below, or the index at which this node
    /// comes to another state than the first that applied it.
    pub fn apply_committed(&mut self, ledger: &mut Ledger) -> Result<bool, Broken> {
        let applied = usize::try_from(self.state.index).unwrap_or(usize::MAX);
        for i in applied..self.raft.commit {
            let entry = &self.raft.log[i].proposal;
            let known = ledger.0.get(i);
            // All have the same entries, or the check of the log tells. Each node applies some of
            // them itself, to compare; the rest it takes from the first that did.
            let own = (i + self.number).is_multiple_of(COMPARED);
            match known.filter(|(known, _)| !own && Arc::ptr_eq(known, entry)) {
                Some((_, state)) => self.state = state.clone(),
                None => self.apply(i)?,
            }
            match ledger.0.get(i) {
                Some((known, state)) if own && Arc::ptr_eq(known, &self.raft.log[i].proposal) => {
                    let (name, index) = (&self.name, state.index);
                    let alike = *state == self.state;
                    hold!(alike, "{name} has another state at index {index}");
                }
                Some(_) => {}
                None => {
                    let entry = Arc::clone(&self.raft.log[i].proposal);
                    ledger.0.push((entry, self.state.clone()));
                }
            }
        }
        Ok(applied < self.raft.commit)
    }

    fn apply(&mut self, i: usize) -> Result<(), Broken> {
        let proposal = Proposal::clone(&self.raft.log[i].proposal);
        let index = i as u64 + 1;
        let before =
            matches!(proposal.command, Command::Schedule { .. }).then(|| self.state.clone());
        // A refusal is an answer to the client; the state is what counts here.
        let _ = apply(&mut self.state, &Entry { index, proposal });
        match before {
            Some(before) => invariants::check_floor(&before, &self.state),
            None => Ok(()),
        }
    }

    /// What a leader plans next.
    pub fn plan(&mut self, now: Timestamp) -> Vec<Step> {
        decide(&mut self.planner, &self.state, now)
    }

    /// One look of the runtime driver: start, remove, report.
    pub fn look(&mut self, moment: &mut Moment<'_>) -> Option<Command> {
        if !self.engine_up {
            return None;
        }
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

    /// What a member has to say of itself that the others do not know.
    pub fn heartbeat(&mut self, step: u64) -> Option<Command> {
        let known = self.state.nodes.get(&self.name).filter(|_| self.up)?;
        let mut report = node_report(self.name.as_str(), capacity());
        report.engine = report.engine.filter(|_| self.engine_up);
        if known.report.as_ref() == Some(&report) || step < self.beat_at + REPORT_AGAIN {
            return None;
        }
        self.beat_at = step;
        let node = self.name.clone();
        Some(Command::NodeReport { node, report })
    }

    /// What the node has to say of the routes that it serves, which are those of its state.
    pub fn publish(&self) -> Option<Command> {
        let index = barrier::owed(&self.state, &self.name).filter(|_| self.up)?;
        let node = self.name.clone();
        Some(Command::Published { node, index })
    }

    /// What a node that came back has to say once nothing old is left on it.
    pub fn sweep(&self) -> Option<Command> {
        if !self.up || !self.engine_up {
            return None;
        }
        let desired = containers::desired(&self.state, &self.name);
        let observed: Vec<_> = self.engine.containers.values().cloned().collect();
        let index = containers::swept(&self.state, &self.name, &desired, &observed)?;
        let node = self.name.clone();
        Some(Command::Swept { node, index })
    }

    /// The engine dies.
    pub fn stop_engine(&mut self, now: Timestamp, random: &mut crate::soak::Random) {
        self.engine_up = false;
        self.local.work.clear();
        self.engine.stop(now, random);
    }

    /// The engine is there again.
    pub fn start_engine(&mut self) {
        self.engine_up = true;
    }

    /// The daemon dies; disk and containers stay.
    pub fn crash(&mut self, random: &mut crate::soak::Random) {
        self.up = false;
        self.raft = self.raft.restarted(self.number - 1);
        self.planner = Planner::default();
        self.local = Local::default();
        self.engine.abandoned(random);
    }

    /// The daemon comes back and applies its log anew, as far as it knew that it is committed.
    pub fn restart(&mut self, step: u64, members: usize) {
        self.up = true;
        self.raft.heard = (0..members).map(|other| (other, step)).collect();
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
        author: None,
        command,
    }
}
