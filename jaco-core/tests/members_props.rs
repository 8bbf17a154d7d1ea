//! Group membership: one change at a time, and nobody leaves before hearing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jaco_core::cluster::members::{Action, CaughtUp, plan};
use jaco_core::cluster::node::NodeCondition;
use jaco_core::cluster::{ClusterState, Command};
use jaco_core::id::{MemberId, NodeName};
use jaco_core::ports::consensus::{ConsensusStatus, Follower};
use jaco_core::time::Timestamp;
use jaco_testkit::builders::Cluster;
use proptest::prelude::*;

const LIMIT: Duration = Duration::from_secs(5);
const NOW: Timestamp = Timestamp(100_000);

/// A group that the leader, member 1, sees like this.
#[derive(Clone, Debug)]
struct Group {
    status: ConsensusStatus,
    caught_up: CaughtUp,
}

impl Group {
    fn of(voters: &[MemberId], learners: &[MemberId]) -> Self {
        let follower = Follower {
            lag: 0,
            silent_for: Duration::ZERO,
        };
        let others = voters.iter().chain(learners).filter(|id| **id != 1);
        let status = ConsensusStatus {
            me: 1,
            leader: Some(1),
            term: 1,
            applied: 1,
            voters: voters.iter().copied().collect(),
            learners: learners.iter().copied().collect(),
            followers: others.map(|id| (*id, follower)).collect(),
        };
        let mut group = Self {
            status,
            caught_up: CaughtUp::default(),
        };
        group.look(Timestamp(0));
        group
    }

    fn look(&mut self, at: Timestamp) {
        self.caught_up.update(&self.status, at);
    }

    fn plan(&self, state: &ClusterState) -> Vec<Action> {
        plan(state, &self.status, &self.caught_up, LIMIT, NOW)
    }

    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::AddLearner { member, .. } => {
                self.status.learners.insert(*member);
                let (lag, silent_for) = (0, Duration::ZERO);
                self.status
                    .followers
                    .insert(*member, Follower { lag, silent_for });
                self.look(Timestamp(0));
            }
            Action::ChangeVoters {
                voters,
                drop_others,
                ..
            } => {
                let members = self.status.voters.union(&self.status.learners);
                let others = members.filter(|id| !voters.contains(id) && !drop_others);
                self.status.learners = others.copied().collect();
                self.status.voters = voters.clone();
            }
            Action::SetCondition { .. } => {}
        }
    }
}

fn is_change(action: &Action) -> bool {
    !matches!(action, Action::SetCondition { .. })
}

fn remove(cluster: &mut Cluster, name: &str) {
    let node = NodeName::new(name);
    cluster.must(Command::NodeRemove { node, force: true });
}

proptest! {
    #[test]
    fn the_group_changes_once_at_a_time_and_never_has_two_voters(
        nodes in 1..10usize,
        silent in prop::collection::btree_map(2..10u64, (0..10_000u64, 0..40u64), 0..5),
        removed in prop::collection::btree_set(2..10usize, 0..4),
    ) {
        let mut cluster = Cluster::of(nodes);
        let everyone: Vec<MemberId> = (1..=nodes as u64).collect();
        let mut group = Group::of(&[1], &everyone[1..]);
        for (id, (millis, lag)) in silent {
            if let Some(follower) = group.status.followers.get_mut(&id) {
                let silent_for = Duration::from_millis(millis);
                *follower = Follower { lag, silent_for };
            }
        }
        for number in removed.into_iter().filter(|number| *number <= nodes) {
            remove(&mut cluster, &format!("n{number}"));
        }
        for _ in 0..12 {
            group.look(Timestamp(0));
            let actions = group.plan(&cluster.state);
            prop_assert!(actions.iter().filter(|action| is_change(action)).count() <= 1);
            for action in &actions {
                group.carry_out(action);
            }
            prop_assert_eq!(group.status.voters.len() % 2, 1, "{:?}", group.status.voters);
            prop_assert!(group.status.voters.contains(&1));
        }
    }
}

#[test]
fn a_new_member_becomes_a_learner_then_a_voter() {
    let cluster = Cluster::of(3);
    let mut group = Group::of(&[1], &[2]);
    let mut voters = Vec::new();
    for _ in 0..4 {
        for action in group.plan(&cluster.state) {
            group.carry_out(&action);
        }
        voters.push(group.status.voters.len());
    }
    assert_eq!(voters, [1, 3, 3, 3]);
}

#[test]
fn a_removed_node_leaves_the_group_once_it_knows() {
    let mut cluster = Cluster::of(4);
    let mut group = Group::of(&[1, 2, 3], &[4]);
    remove(&mut cluster, "n4");
    group.status.followers.get_mut(&4).unwrap().lag = 1;
    assert_eq!(group.plan(&cluster.state), []);
    group.status.followers.get_mut(&4).unwrap().lag = 0;
    let expect = Action::ChangeVoters {
        voters: BTreeSet::from([1, 2, 3]),
        promoted: vec![],
        drop_others: true,
    };
    assert_eq!(group.plan(&cluster.state), [expect]);
}

#[test]
fn regression_removing_one_of_three_voters_does_not_leave_two() {
    let mut cluster = Cluster::of(3);
    let group = Group::of(&[1, 2, 3], &[]);
    remove(&mut cluster, "n2");
    let actions = group.plan(&cluster.state);
    let [Action::ChangeVoters { voters, .. }] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    assert_eq!(*voters, BTreeSet::from([1]));
}

#[test]
fn a_silent_node_is_unreachable_and_comes_back_with_a_margin() {
    let mut cluster = Cluster::of(3);
    let mut group = Group::of(&[1, 2, 3], &[]);
    let mut seen = BTreeMap::new();
    for millis in [6_000, 4_000, 1_000] {
        group.status.followers.get_mut(&2).unwrap().silent_for = Duration::from_millis(millis);
        for action in group.plan(&cluster.state) {
            if let Action::SetCondition { node, condition } = action {
                seen.insert(millis, condition);
                cluster.must(Command::NodeCondition { node, condition });
            }
        }
    }
    let (down, up) = (NodeCondition::Unreachable, NodeCondition::Reachable);
    assert_eq!(seen, BTreeMap::from([(6_000, down), (1_000, up)]));
}
