//! Keeping the raft group equal to the members in the state; leader only (spec 04).
//!
//! Invariants (`tests/members_props.rs`): at most one change of the group at a time; a removed
//! node leaves the group only after it could learn of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::node::{Node, NodeCondition};
use super::state::ClusterState;
use super::voters::{self, Member};
use crate::id::{MemberId, NodeName};
use crate::ports::consensus::ConsensusStatus;
use crate::time::Timestamp;

/// A follower that lacks no more entries than this counts as caught up.
const CAUGHT_UP_LAG: u64 = 16;

/// One thing for the leader to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    AddLearner {
        member: MemberId,
        node: NodeName,
        address: String,
    },
    /// Make exactly these the voters; drop all other members when `drop_others`.
    ChangeVoters {
        voters: BTreeSet<MemberId>,
        promoted: Vec<NodeName>,
        drop_others: bool,
    },
    SetCondition {
        node: NodeName,
        condition: NodeCondition,
    },
}

/// Since when each follower has been caught up. Kept by the leader, lost with leadership.
#[derive(Clone, Debug, Default)]
pub struct CaughtUp(BTreeMap<MemberId, Timestamp>);

impl CaughtUp {
    /// Takes in the present lags.
    pub fn update(&mut self, status: &ConsensusStatus, now: Timestamp) {
        self.0.retain(|id, _| {
            status
                .followers
                .get(id)
                .is_some_and(|follower| follower.lag <= CAUGHT_UP_LAG)
        });
        for (id, follower) in &status.followers {
            if follower.lag <= CAUGHT_UP_LAG {
                self.0.entry(*id).or_insert(now);
            }
        }
    }

    fn duration(&self, id: MemberId, now: Timestamp) -> Duration {
        self.0
            .get(&id)
            .map_or(Duration::ZERO, |since| now.since(*since))
    }
}

/// The next things to do; empty when group and state agree.
pub fn plan(
    state: &ClusterState,
    status: &ConsensusStatus,
    caught_up: &CaughtUp,
    unreachable_after: Duration,
    now: Timestamp,
) -> Vec<Action> {
    let mut actions = conditions(state, status, unreachable_after);
    let in_group = |id: &MemberId| status.voters.contains(id) || status.learners.contains(id);
    if let Some(node) = state.nodes.values().find(|node| !in_group(&node.member)) {
        actions.push(Action::AddLearner {
            member: node.member,
            node: node.name.clone(),
            address: node.cluster_address.clone(),
        });
        return actions;
    }
    actions.extend(removal(state, status, caught_up, unreachable_after, now));
    if !actions
        .iter()
        .any(|action| matches!(action, Action::ChangeVoters { .. }))
    {
        actions.extend(election(state, status, caught_up, unreachable_after, now));
    }
    actions
}

fn is_silent(status: &ConsensusStatus, id: MemberId, limit: Duration) -> bool {
    let follower = status.followers.get(&id);
    follower.is_some_and(|follower| follower.silent_for > limit)
}

fn conditions(state: &ClusterState, status: &ConsensusStatus, limit: Duration) -> Vec<Action> {
    let condition = |id: MemberId| match status.followers.get(&id) {
        _ if id == status.me => Some(NodeCondition::Reachable),
        None => None,
        Some(follower) if follower.silent_for > limit => Some(NodeCondition::Unreachable),
        Some(follower) if follower.silent_for < limit / 2 => Some(NodeCondition::Reachable),
        // Between the two nothing changes, so that a slow node does not flap.
        Some(_) => None,
    };
    let changed = state.nodes.values().filter_map(|node| {
        let condition = condition(node.member)?;
        (condition != node.condition).then(|| Action::SetCondition {
            node: node.name.clone(),
            condition,
        })
    });
    changed.collect()
}

/// Drops members that the state no longer has, once they know or cannot be told.
fn removal(
    state: &ClusterState,
    status: &ConsensusStatus,
    caught_up: &CaughtUp,
    limit: Duration,
    now: Timestamp,
) -> Option<Action> {
    let known: BTreeSet<MemberId> = state.nodes.values().map(|node| node.member).collect();
    let group = status.voters.union(&status.learners);
    let gone: Vec<MemberId> = group.copied().filter(|id| !known.contains(id)).collect();
    let informed = |id: &MemberId| {
        *id == status.me
            || is_silent(status, *id, limit)
            || status
                .followers
                .get(id)
                .is_none_or(|follower| follower.lag == 0)
    };
    if gone.is_empty() || !gone.iter().all(informed) {
        return None;
    }
    let members = members(state, status, caught_up, limit, now);
    let voters = voters::after_removal(status.me, &members);
    Some(Action::ChangeVoters {
        voters,
        promoted: Vec::new(),
        drop_others: true,
    })
}

fn election(
    state: &ClusterState,
    status: &ConsensusStatus,
    caught_up: &CaughtUp,
    limit: Duration,
    now: Timestamp,
) -> Option<Action> {
    let members = members(state, status, caught_up, limit, now);
    let voters = voters::next_voters(status.me, &members)?;
    let promoted = members
        .iter()
        .filter(|member| voters.contains(&member.id) && !member.voter)
        .map(|member| member.name.clone())
        .collect();
    Some(Action::ChangeVoters {
        voters,
        promoted,
        drop_others: false,
    })
}

/// The members of the state as the voter policy sees them.
fn members(
    state: &ClusterState,
    status: &ConsensusStatus,
    caught_up: &CaughtUp,
    limit: Duration,
    now: Timestamp,
) -> Vec<Member> {
    let member = |node: &Arc<Node>| Member {
        id: node.member,
        name: node.name.clone(),
        voter: status.voters.contains(&node.member),
        reachable: !is_silent(status, node.member, limit),
        caught_up_for: caught_up.duration(node.member, now),
    };
    state.nodes.values().map(member).collect()
}
