//! The voter policy: the table of spec 04, never two voters, one step at a time.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeSet;
use std::time::Duration;

use jaco_core::cluster::voters::{Member, PROMOTE_AFTER, after_removal, next_voters, target};
use jaco_core::id::{MemberId, NodeName};
use proptest::prelude::*;

const LEADER: MemberId = 1;

fn member(id: MemberId, voter: bool, reachable: bool, ready: bool) -> Member {
    Member {
        id,
        name: NodeName::new(format!("n{id:02}")),
        voter,
        reachable,
        caught_up_for: if ready { PROMOTE_AFTER } else { Duration::ZERO },
    }
}

/// Up to twelve members, an odd number of voters, the leader first.
fn groups() -> impl Strategy<Value = Vec<Member>> {
    let others = prop::collection::vec((any::<bool>(), any::<bool>()), 0..12);
    (others, prop::sample::select(vec![1usize, 3, 5, 7])).prop_map(|(others, voters)| {
        let voters = match voters.min(others.len() + 1) {
            even if even % 2 == 0 => even - 1,
            odd => odd,
        };
        let mut members = vec![member(LEADER, true, true, true)];
        for (i, (reachable, ready)) in others.into_iter().enumerate() {
            let id = i as MemberId + 2;
            members.push(member(id, members.len() < voters, reachable, ready));
        }
        members
    })
}

fn voters(members: &[Member]) -> BTreeSet<MemberId> {
    members.iter().filter(|m| m.voter).map(|m| m.id).collect()
}

fn adopt(members: &mut [Member], next: &BTreeSet<MemberId>) {
    for member in members {
        member.voter = next.contains(&member.id);
    }
}

#[test]
fn regression_the_table_of_the_specification_holds() {
    let table: Vec<usize> = (1..=10).map(target).collect();
    assert_eq!(table, [1, 1, 3, 3, 5, 5, 7, 7, 7, 7]);
}

#[test]
fn one_voter_becomes_three_in_one_step() {
    let mut members: Vec<_> = (1..=3).map(|id| member(id, id == 1, true, true)).collect();
    assert_eq!(
        next_voters(LEADER, &members),
        Some(BTreeSet::from([1, 2, 3]))
    );
    members[2].caught_up_for = Duration::ZERO;
    assert_eq!(next_voters(LEADER, &members), None);
}

proptest! {
    #[test]
    fn a_step_is_odd_keeps_the_leader_and_is_small(members in groups()) {
        let before = voters(&members);
        if let Some(next) = next_voters(LEADER, &members) {
            prop_assert!(next.len() % 2 == 1, "{next:?}");
            prop_assert!(next.contains(&LEADER));
            prop_assert!(before.symmetric_difference(&next).count() <= 2);
            prop_assert_ne!(next, before);
        }
    }

    #[test]
    fn only_the_reachable_and_caught_up_are_promoted(members in groups()) {
        let next = next_voters(LEADER, &members).unwrap_or_default();
        for promoted in members.iter().filter(|m| next.contains(&m.id) && !m.voter) {
            prop_assert!(promoted.reachable && promoted.caught_up_for >= PROMOTE_AFTER);
        }
    }

    #[test]
    fn repeated_steps_end_at_the_table(mut members in groups()) {
        for member in &mut members {
            (member.reachable, member.caught_up_for) = (true, PROMOTE_AFTER);
        }
        for _ in 0..10 {
            match next_voters(LEADER, &members) {
                Some(next) => adopt(&mut members, &next),
                None => break,
            }
        }
        prop_assert_eq!(next_voters(LEADER, &members), None);
        prop_assert_eq!(voters(&members).len(), target(members.len()));
    }

    #[test]
    fn a_dead_voter_is_replaced_before_the_counts_are_looked_at(members in groups()) {
        let dead = members.iter().any(|m| m.voter && !m.reachable);
        let live = members.iter().any(|m| {
            !m.voter && m.reachable && m.caught_up_for >= PROMOTE_AFTER
        });
        let before = voters(&members);
        if dead && live && before.len() <= target(members.len()) {
            let next = next_voters(LEADER, &members).expect("a replacement");
            prop_assert_eq!(next.len(), before.len());
            let lost: Vec<_> = before.difference(&next).copied().collect();
            prop_assert_eq!(lost.len(), 1);
            prop_assert!(members.iter().any(|m| m.id == lost[0] && !m.reachable));
        }
    }

    #[test]
    fn a_removal_never_leaves_an_even_set(mut members in groups(), leaver in 0..12usize) {
        let leaver = leaver % members.len();
        if members.len() > 1 {
            members.remove(leaver);
        }
        let next = after_removal(LEADER, &members);
        prop_assert!(next.len() % 2 == 1, "{next:?}");
        prop_assert!(next.iter().all(|id| members.iter().any(|m| m.id == *id)));
        let stayed = members.iter().any(|m| m.id == LEADER);
        prop_assert!(!stayed || next.contains(&LEADER));
    }
}
