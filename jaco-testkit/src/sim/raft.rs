//! A small model of the replicated log: terms, majorities, disks, and messages that may be late,
//! lost or out of order. Votes are cast at once; replication goes through the network.

use std::collections::BTreeMap;
use std::sync::Arc;

use jaco_core::cluster::Proposal;

/// A node's place in the simulation.
pub type Id = usize;

/// One entry of a log.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Logged {
    pub term: u64,
    pub proposal: Arc<Proposal>,
}

/// What one member has on disk, and what it knows while it runs.
#[derive(Clone, Debug, Default)]
pub struct Raft {
    /// On disk: the newest term that it has heard of.
    pub term: u64,
    /// On disk: its log.
    pub log: Vec<Logged>,
    /// How many entries it knows to be committed.
    pub commit: usize,
    /// Who leads the term, as far as it knows.
    pub leader: Option<Id>,
    /// Of a leader: how much each other member is known to hold.
    matched: BTreeMap<Id, usize>,
    /// Of a leader: where each other member's next entries start.
    next: BTreeMap<Id, usize>,
    /// Of a leader: the step at which each other member last answered.
    pub heard: BTreeMap<Id, u64>,
}

/// What members say to each other.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Message {
    Append {
        term: u64,
        /// How many entries precede these, and the term of the last of them.
        prev: (usize, u64),
        entries: Vec<Logged>,
        commit: usize,
    },
    Answer {
        term: u64,
        /// How much is held; an error says where to try again.
        held: Result<usize, usize>,
    },
    /// A command for the leader, who stamps the time.
    Propose(Box<jaco_core::cluster::Command>),
}

impl Raft {
    /// A member of a formed cluster, whose log everyone has.
    pub fn formed(log: Vec<Logged>) -> Self {
        Self {
            commit: log.len(),
            log,
            ..Self::default()
        }
    }

    /// What is left after a crash: the disk. A member that led takes itself for the leader until
    /// it hears of another.
    pub fn restarted(&self, me: Id) -> Self {
        Self {
            term: self.term,
            log: self.log.clone(),
            commit: self.commit,
            leader: self.leader.filter(|leader| *leader == me),
            ..Self::default()
        }
    }

    /// True for the leader of this member's own term.
    pub fn leads(&self, me: Id) -> bool {
        self.leader == Some(me)
    }

    /// Which of two logs is the newer: the rule of elections.
    pub fn freshness(&self) -> (u64, usize) {
        (self.term_at(self.log.len()), self.log.len())
    }

    fn term_at(&self, length: usize) -> u64 {
        length.checked_sub(1).map_or(0, |i| self.log[i].term)
    }

    /// Votes in a term; a leader starts with nothing known of the others.
    pub fn vote(&mut self, term: u64, leader: Id) {
        self.term = term;
        self.leader = Some(leader);
        self.matched.clear();
        self.next.clear();
        self.heard.clear();
    }

    /// Adds an entry to the leader's log.
    pub fn append(&mut self, proposal: Proposal) {
        let (term, proposal) = (self.term, Arc::new(proposal));
        self.log.push(Logged { term, proposal });
    }

    /// The leader's message to another member; empty entries are a heartbeat.
    pub fn message_to(&self, other: Id) -> Message {
        let next = self.next.get(&other).copied().unwrap_or(self.log.len());
        Message::Append {
            term: self.term,
            prev: (next, self.term_at(next)),
            entries: self.log[next..].to_vec(),
            commit: self.commit,
        }
    }

    /// Takes in a leader's message and answers it.
    pub fn follow(&mut self, from: Id, message: Message) -> Option<Message> {
        let Message::Append {
            term,
            prev: (length, prev_term),
            entries,
            commit,
        } = message
        else {
            return None;
        };
        if term < self.term {
            let held = Err(self.log.len());
            return Some(Message::Answer {
                term: self.term,
                held,
            });
        }
        self.term = term;
        self.leader = Some(from);
        if length > self.log.len() || self.term_at(length) != prev_term {
            let held = Err(self.log.len().min(length.saturating_sub(1)));
            return Some(Message::Answer { term, held });
        }
        let held = length + entries.len();
        for (i, entry) in entries.into_iter().enumerate() {
            let at = length + i;
            if self.log.get(at).is_some_and(|mine| mine.term != entry.term) {
                self.log.truncate(at);
            }
            if at == self.log.len() {
                self.log.push(entry);
            }
        }
        self.commit = self.commit.max(commit.min(held));
        Some(Message::Answer {
            term,
            held: Ok(held),
        })
    }

    /// Takes in an answer. What a majority of `members` holds is committed.
    pub fn answered(
        &mut self,
        from: Id,
        term: u64,
        held: Result<usize, usize>,
        step: u64,
        members: usize,
    ) {
        if term > self.term {
            self.term = term;
            self.leader = None;
        }
        if term != self.term {
            return;
        }
        self.heard.insert(from, step);
        match held {
            Ok(held) => {
                let matched = self.matched.entry(from).or_default();
                *matched = held.max(*matched);
                self.next.insert(from, *matched);
            }
            // Who knows of a newer term only may hold more than its new leader.
            Err(hint) => drop(self.next.insert(from, hint.min(self.log.len()))),
        }
        let mut lengths: Vec<usize> = self.matched.values().copied().collect();
        lengths.push(self.log.len());
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let by_majority = lengths.get(members / 2).copied().unwrap_or(0);
        // Only an entry of the present term proves that the earlier ones cannot be replaced.
        if self.term_at(by_majority) == self.term {
            self.commit = self.commit.max(by_majority);
        }
    }

    /// How many entries another member lacks, as its leader knows.
    pub fn lag(&self, other: Id) -> u64 {
        let matched = self.matched.get(&other).copied().unwrap_or(0);
        (self.log.len() - matched) as u64
    }
}
