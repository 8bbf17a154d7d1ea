//! The voter-set policy: a pure function of who is there (spec 04, Voter set).
//!
//! Invariants (`tests/voters_props.rs`): one step at a time; the leader is never demoted; the
//! set never has two voters; repeating the step ends at the table's count.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{MemberId, NodeName};

/// How long a nonvoter must have been caught up before it is promoted (`PromoteAfter`).
pub const PROMOTE_AFTER: Duration = Duration::from_secs(3);

/// What the leader knows of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Member {
    pub id: MemberId,
    pub name: NodeName,
    pub voter: bool,
    pub reachable: bool,
    /// For how long its log has been as long as the leader's.
    pub caught_up_for: Duration,
}

/// How many voters a cluster of this many members has.
pub fn target(members: usize) -> usize {
    match members {
        0 => 0,
        1 | 2 => 1,
        3 | 4 => 3,
        5 | 6 => 5,
        _ => 7,
    }
}

/// The next voter set, or `None` when the present one stays.
///
/// Promotes the first caught-up and reachable nonvoters by name; demotes the last voter by
/// name, never the leader; replaces a dead voter by a live nonvoter first. From one voter the
/// step to three is taken at once, when two candidates are ready.
pub fn next_voters(leader: MemberId, members: &[Member]) -> Option<BTreeSet<MemberId>> {
    let by_name: BTreeMap<&NodeName, &Member> = members.iter().map(|m| (&m.name, m)).collect();
    let voters: Vec<&Member> = by_name.values().copied().filter(|m| m.voter).collect();
    let mut candidates = by_name
        .values()
        .copied()
        .filter(|m| !m.voter && m.reachable && m.caught_up_for >= PROMOTE_AFTER);
    let mut next: BTreeSet<MemberId> = voters.iter().map(|m| m.id).collect();
    let target = target(members.len());

    let dead = voters.iter().rev().find(|m| !m.reachable && m.id != leader);
    if let (Some(dead), true) = (dead, voters.len() <= target) {
        if let Some(live) = candidates.next() {
            next.remove(&dead.id);
            next.insert(live.id);
            return Some(next);
        }
        return None;
    }
    if voters.len() < target {
        // A set of even size tolerates no more losses than the odd one below it.
        let wanted = if voters.len() % 2 == 1 { 2 } else { 1 };
        let promoted: Vec<MemberId> = candidates.map(|m| m.id).take(wanted).collect();
        next.extend(&promoted);
        return (promoted.len() == wanted).then_some(next);
    }
    if voters.len() > target {
        let surplus = if voters.len() % 2 == 1 { 2 } else { 1 };
        let demoted = demotions(leader, &voters, surplus);
        next.retain(|id| !demoted.contains(id));
        return Some(next);
    }
    None
}

/// The voters once those that left the cluster are no longer among the members: an odd number,
/// so that the loss of one of three does not leave two.
pub fn after_removal(leader: MemberId, members: &[Member]) -> BTreeSet<MemberId> {
    let by_name: BTreeMap<&NodeName, &Member> = members.iter().map(|m| (&m.name, m)).collect();
    let (voters, others): (Vec<&Member>, Vec<&Member>) = by_name.values().partition(|m| m.voter);
    let mut next: BTreeSet<MemberId> = voters.iter().map(|m| m.id).collect();
    if next.len() % 2 == 1 {
        return next;
    }
    let ready = |m: &&&Member| m.reachable && m.caught_up_for >= PROMOTE_AFTER;
    let heir = others.iter().find(ready);
    if next.is_empty() {
        let anyone = others.iter().find(|m| m.reachable).or(others.first());
        next.extend(heir.or(anyone).map(|m| m.id));
    } else if let (Some(heir), true) = (heir, next.len() < target(members.len())) {
        next.insert(heir.id);
    } else {
        let demoted = demotions(leader, &voters, 1);
        next.retain(|id| !demoted.contains(id));
    }
    next
}

/// Dead voters go first, then the last by name; never the leader.
fn demotions(leader: MemberId, voters: &[&Member], count: usize) -> BTreeSet<MemberId> {
    let dead = voters.iter().rev().filter(|m| !m.reachable);
    let live = voters.iter().rev().filter(|m| m.reachable);
    dead.chain(live)
        .filter(|m| m.id != leader)
        .take(count)
        .map(|m| m.id)
        .collect()
}
