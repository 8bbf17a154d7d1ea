//! What goes wrong, what clients want meanwhile, and the end of it.

use std::time::Duration;

use jaco_core::cluster::Command;

use super::invariants::Broken;
use super::node::system;
use super::raft::Id;
use super::wishes::Wishes;
use super::{ELECTED_WITHIN, Simulation};
use crate::builders::new_node;

/// How far clocks may be ahead of the slowest, in milliseconds.
const SKEWS: [usize; 4] = [1, 1_000, 10_000, 90_000];

impl Simulation {
    /// One more fault or wish, now and then.
    pub(super) fn disturb(&mut self) {
        let id = self.random.below(self.nodes.len());
        match self.random.below(160) {
            0 if self.nodes[id].up => self.nodes[id].crash(&mut self.random),
            1..=3 if !self.nodes[id].up => self.restart(id),
            4 => self.isolate(id),
            5..=7 => self.network.apart.clear(),
            8..=14 => {
                let command = self.wishes.declare(&mut self.random);
                self.propose(command);
            }
            15 | 16 => {
                let command = Wishes::change(&mut self.random);
                self.propose(command);
            }
            17 | 18 => self.join_or_leave(id),
            19 => self.drain(id, true),
            20 | 21 => self.drain(id, false),
            22 => {
                let now = self.now(id);
                self.nodes[id].stop_engine(now, &mut self.random);
            }
            23..=25 => self.nodes[id].start_engine(),
            26 => self.skew(id),
            27 => self.nodes[id].engine.slowness = [1, 1, 3, 10, 40][self.random.below(5)],
            _ => {}
        }
    }

    fn restart(&mut self, id: Id) {
        let (step, members) = (self.step, self.nodes.len());
        self.nodes[id].restart(step, members);
    }

    fn isolate(&mut self, id: Id) {
        let others = (0..self.nodes.len()).filter(|other| *other != id);
        let pairs = others.map(|other| (id.min(other), id.max(other)));
        self.network.apart.extend(pairs);
    }

    fn skew(&mut self, id: Id) {
        let most = SKEWS[self.random.below(SKEWS.len())];
        self.nodes[id].clock_ahead = self.random.below(most) as u64;
    }

    fn drain(&mut self, id: Id, drain: bool) {
        let node = self.nodes[id].name.clone();
        self.propose(Command::NodeDrain { node, drain });
    }

    /// A host that is no member becomes one, and the other way round: with its data, if it must.
    fn join_or_leave(&mut self, id: Id) {
        let name = self.nodes[id].name.clone();
        let newest = self.nodes.iter().max_by_key(|node| node.state.index);
        let is_member = newest.is_some_and(|node| node.state.nodes.contains_key(&name));
        if is_member {
            let (node, force) = (name, true);
            self.propose(Command::NodeRemove { node, force });
            return;
        }
        self.tokens += 1;
        let hash = format!("token-{}", self.tokens);
        let ttl = Duration::from_secs(60);
        self.propose(Command::JoinTokenIssue {
            hash: hash.clone(),
            node: None,
            sans: Vec::new(),
            ttl,
        });
        self.propose(Command::NodeJoin {
            token_hash: hash,
            node: new_node(name.as_str()),
        });
    }

    /// A client hands a command to some leader, which may be a former one.
    fn propose(&mut self, command: Command) {
        let leaders = |id: &Id| self.nodes[*id].up && self.nodes[*id].raft.leads(*id);
        let leaders: Vec<Id> = (0..self.nodes.len()).filter(leaders).collect();
        if !leaders.is_empty() {
            let leader = leaders[self.random.below(leaders.len())];
            let at = self.now(leader);
            self.nodes[leader].raft.append(system(at, command));
        }
    }

    /// The end of the faults. What was declared is declared once more, anew, so that nothing
    /// stays given up.
    pub(super) fn calm(&mut self) -> Result<(), Broken> {
        self.calm = true;
        self.network.apart.clear();
        for id in 0..self.nodes.len() {
            if !self.nodes[id].up {
                self.restart(id);
            }
            self.nodes[id].start_engine();
            self.nodes[id].engine.slowness = 1;
        }
        for _ in 0..ELECTED_WITHIN {
            self.tick()?;
        }
        for id in 0..self.nodes.len() {
            self.drain(id, false);
        }
        // Twice, since a port that is taken by another refuses one of the two.
        for _ in 0..2 {
            for command in self.wishes.repeat() {
                self.propose(command);
            }
        }
        self.propose(Wishes::anew());
        Ok(())
    }
}
