//! The simulation: many nodes in one thread under a seed, with faults.
//!
//! Each node runs the real `apply` and the real node derivations, the leader the real `plan`;
//! log, network and engines are models. Hosts join and leave the cluster; the log goes to all of
//! them all the time, and any of them may lead. A step is 200 ms. After every step the invariants
//! are checked; when the faults are over, everything must come to what was declared.

pub mod engine;
mod faults;
pub mod invariants;
pub mod node;
pub mod raft;
mod rules;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::cluster::members::{self, Action, CaughtUp};
use jaco_core::id::MemberId;
use jaco_core::ports::consensus::{ConsensusStatus, Follower};
use jaco_core::time::Timestamp;

use self::engine::{CALM_ENGINE, Moment, ROUGH_ENGINE};
use self::invariants::{Broken, Witness, shortcomings};
use self::node::{Ledger, SimNode, system};
use self::raft::{Id, Logged, Message, Raft};
use self::wishes::Wishes;
use crate::builders::Cluster;
use crate::soak::Random;

/// Milliseconds a step.
const STEP: u64 = 200;
/// Steps with faults.
const CHAOS: u64 = 300;
/// Steps to converge in after the last fault: ten minutes, an address rests for one.
const CALM: u64 = 3_000;
/// Steps after which a whole cluster has a leader that everyone follows.
const ELECTED_WITHIN: u64 = 50;
const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);

/// What one seed did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Run {
    pub entries: usize,
    pub steps: u64,
}

/// Runs one seed to its end.
///
/// # Errors
/// With the rule that broke and the step at which it did.
pub fn run(seed: u64) -> Result<Run, Broken> {
    let mut simulation = Simulation::new(seed);
    while simulation.step < CHAOS {
        simulation.disturb();
        simulation.tick()?;
    }
    simulation.calm()?;
    while simulation.step < CHAOS + CALM {
        simulation.tick()?;
        if simulation.step.is_multiple_of(10) && shortcomings(&simulation.nodes).is_empty() {
            return Ok(Run {
                entries: simulation.witness.committed(),
                steps: simulation.step,
            });
        }
    }
    let missing = shortcomings(&simulation.nodes).join("; ");
    Err(format!("does not converge in {CALM} steps: {missing}"))
}

struct Simulation {
    step: u64,
    random: Random,
    nodes: Vec<SimNode>,
    network: Network,
    witness: Witness,
    ledger: Ledger,
    caught_up: CaughtUp,
    wishes: Wishes,
    /// Join tokens given out.
    tokens: u32,
    calm: bool,
}

/// Messages under way, and who cannot hear whom.
#[derive(Default)]
struct Network {
    queue: BTreeMap<u64, Vec<(Id, Id, Message)>>,
    apart: BTreeSet<(Id, Id)>,
}

impl Network {
    fn connects(&self, a: Id, b: Id) -> bool {
        !self.apart.contains(&(a.min(b), a.max(b)))
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let members = [3, 5][random.below(2)];
        let formed = Cluster::of(members);
        let log = formed.log.into_iter().map(|entry| Logged {
            term: 0,
            proposal: Arc::new(entry.proposal),
        });
        let log: Vec<Logged> = log.collect();
        let raft = Raft::formed(log);
        // Some hosts replicate the log without being members yet: they join later.
        let hosts = members + random.below(3);
        let node = |number| SimNode::new(number, raft.clone());
        Self {
            step: 0,
            random,
            nodes: (1..=hosts).map(node).collect(),
            network: Network::default(),
            witness: Witness::default(),
            ledger: Ledger::default(),
            caught_up: CaughtUp::default(),
            wishes: Wishes::default(),
            tokens: 0,
            calm: false,
        }
    }

    fn now(&self, node: Id) -> Timestamp {
        Timestamp(2_000_000 + self.step * STEP + self.nodes[node].clock_ahead)
    }

    /// One step of everybody, then the checks.
    fn tick(&mut self) -> Result<(), Broken> {
        self.step += 1;
        self.deliver();
        self.elect();
        for id in 0..self.nodes.len() {
            let news = self.nodes[id].apply_committed(&mut self.ledger)?;
            // Drivers wake on news, else now and then.
            let wakes = news || self.step % 3 == id as u64 % 3;
            if wakes {
                self.look(id);
            }
            self.lead(id, wakes);
        }
        self.witness
            .check(&self.nodes, &self.ledger)
            .map_err(|broken| format!("step {}: {broken}", self.step))?;
        for node in &mut self.nodes {
            node.checked = node.raft.commit;
        }
        Ok(())
    }

    fn deliver(&mut self) {
        let later = self.network.queue.split_off(&(self.step + 1));
        let due = std::mem::replace(&mut self.network.queue, later);
        for (from, to, message) in due.into_values().flatten() {
            if !self.nodes[to].up || !self.network.connects(from, to) {
                continue;
            }
            let (step, members) = (self.step, self.nodes.len());
            let raft = &mut self.nodes[to].raft;
            match message {
                Message::Propose(command) => {
                    if raft.leads(to) {
                        let at = self.now(to);
                        self.nodes[to].raft.append(system(at, *command));
                    }
                }
                Message::Answer { term, held } => raft.answered(from, term, held, step, members),
                append => {
                    if let Some(answer) = raft.follow(from, append) {
                        self.send(to, from, answer);
                    }
                }
            }
        }
    }

    fn send(&mut self, from: Id, to: Id, message: Message) {
        let lost = !self.calm && self.random.below(50) == 0;
        if !lost {
            let delay = if self.calm {
                1
            } else {
                1 + self.random.below(3) as u64
            };
            let queue = self.network.queue.entry(self.step + delay).or_default();
            queue.push((from, to, message));
        }
    }

    /// When no majority hears a leader, some member of a majority with the newest log among its
    /// voters begins a term.
    fn elect(&mut self) {
        let candidate = self.random.below(self.nodes.len());
        if !self.nodes[candidate].up || self.random.below(4) > 0 || self.hears_a_leader(candidate) {
            return;
        }
        let fresh = self.nodes[candidate].raft.freshness();
        let votes = |voter: &Id| {
            self.nodes[*voter].up
                && self.network.connects(candidate, *voter)
                && self.nodes[*voter].raft.freshness() <= fresh
                && (*voter == candidate || !self.hears_a_leader(*voter))
        };
        let voters: Vec<Id> = (0..self.nodes.len()).filter(votes).collect();
        if voters.len() * 2 <= self.nodes.len() {
            return;
        }
        let terms = voters.iter().map(|voter| self.nodes[*voter].raft.term);
        let term = terms.max().unwrap_or(0) + 1;
        for voter in voters {
            self.nodes[voter].raft.vote(term, candidate);
        }
        self.caught_up = CaughtUp::default();
        let others = (0..self.nodes.len()).filter(|id| *id != candidate);
        let step = self.step;
        self.nodes[candidate].raft.heard = others.map(|id| (id, step)).collect();
        let at = self.now(candidate);
        let command = Command::Lead {
            node: self.nodes[candidate].name.clone(),
            term,
            ipam_pool: jaco_core::cluster::addresses::Pool::parse("10.244.0.0/16")
                .expect("a valid pool"),
            mesh_pool: jaco_core::cluster::mesh_pool::MeshPool::parse("10.240.0.0/16")
                .expect("a valid pool"),
            audit_retention: 100,
        };
        self.nodes[candidate].raft.append(system(at, command));
    }

    fn hears_a_leader(&self, id: Id) -> bool {
        let raft = &self.nodes[id].raft;
        raft.leader.is_some_and(|leader| {
            let other = &self.nodes[leader];
            other.up
                && self.network.connects(id, leader)
                && other.raft.leads(leader)
                && other.raft.term == raft.term
        })
    }

    /// The runtime driver of a node.
    fn look(&mut self, id: Id) {
        let troubles = if self.calm { CALM_ENGINE } else { ROUGH_ENGINE };
        let now = self.now(id);
        let mut moment = Moment {
            step: self.step,
            now,
            troubles,
            random: &mut self.random,
        };
        let seen = self.nodes[id].look(&mut moment);
        let node = &mut self.nodes[id];
        let said = [
            seen,
            node.heartbeat(self.step),
            node.publish(),
            node.sweep(),
        ];
        for command in said.into_iter().flatten() {
            if let Some(leader) = self.nodes[id].raft.leader {
                self.send(id, leader, Message::Propose(Box::new(command)));
            }
        }
    }

    /// A leader replicates, watches the others and plans.
    fn lead(&mut self, id: Id, plans: bool) {
        if !self.nodes[id].up || !self.nodes[id].raft.leads(id) {
            return;
        }
        for other in (0..self.nodes.len()).filter(|other| *other != id) {
            let message = self.nodes[id].raft.message_to(other);
            self.send(id, other, message);
        }
        let node = &self.nodes[id];
        // Its driver waits for its own entry, unless it gave that up for lost.
        let waits = node.raft.commit < node.raft.log.len() && self.random.below(4) > 0;
        if !plans || waits || node.state.led_term != node.raft.term {
            return;
        }
        let now = self.now(id);
        let status = self.status(id);
        self.caught_up.update(&status, now);
        let actions = members::plan(
            &self.nodes[id].state,
            &status,
            &self.caught_up,
            UNREACHABLE_AFTER,
            now,
        );
        let conditions = actions.into_iter().filter_map(|action| match action {
            Action::SetCondition { node, condition } => {
                Some(Command::NodeCondition { node, condition })
            }
            _ => None,
        });
        let mut commands: Vec<Command> = conditions.collect();
        let steps = self.nodes[id].plan(now);
        if !steps.is_empty() {
            let after = self.nodes[id].state.index;
            let plan = Command::Schedule { after, steps };
            // A plan may come twice, and late, to whoever leads then.
            if self.random.below(4) == 0 {
                let other = self.random.below(self.nodes.len());
                self.send(id, other, Message::Propose(Box::new(plan.clone())));
            }
            commands.push(plan);
        }
        for command in commands {
            self.nodes[id].raft.append(system(now, command));
        }
    }

    fn status(&self, id: Id) -> ConsensusStatus {
        let (raft, state) = (&self.nodes[id].raft, &self.nodes[id].state);
        let member = |other: Id| {
            let node = state.nodes.get(&self.nodes[other].name)?;
            Some((other, node.member))
        };
        let members: BTreeMap<Id, MemberId> = (0..self.nodes.len()).filter_map(member).collect();
        let others = members.iter().filter(|(other, _)| **other != id);
        let follower = |(other, member): (&Id, &MemberId)| {
            let heard = raft.heard.get(other).copied().unwrap_or(0);
            let silent_for = Duration::from_millis((self.step - heard) * STEP);
            let lag = raft.lag(*other);
            (*member, Follower { lag, silent_for })
        };
        let me = members.get(&id).copied().unwrap_or(0);
        ConsensusStatus {
            me,
            leader: Some(me),
            term: raft.term,
            applied: state.index,
            voters: members.values().copied().collect(),
            learners: BTreeSet::new(),
            followers: others.map(follower).collect(),
        }
    }
}
