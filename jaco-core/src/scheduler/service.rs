//! The next steps of one service: forget, stop, restart, place, in this order.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::placement::{Demand, is_misplaced, place, place_at};
use super::plan::{Turn, is_gone, is_lost};
use super::{restart, settled};
use crate::cluster::deployment::{Phase, Replica, ReplicaState};
use crate::id::ServiceName;
use crate::manifest::spec::{Placement, ServiceSpec};

/// Everything that the decision for one service looks at.
pub(super) struct ServiceView<'a> {
    name: &'a ServiceName,
    spec: &'a ServiceSpec,
    /// How many there should be.
    wanted: usize,
    /// Active replicas of the present spec on nodes that may keep them.
    current: Vec<&'a Arc<Replica>>,
    /// Active replicas of an older spec.
    stale: Vec<&'a Arc<Replica>>,
    /// Active replicas on nodes that do not suit the service any more, and the second ones on a
    /// node of a global service.
    misplaced: Vec<&'a Arc<Replica>>,
    /// Active replicas on nodes that are gone or down.
    lost: Vec<&'a Arc<Replica>>,
    /// Replicas on their way out.
    leaving: Vec<&'a Arc<Replica>>,
    /// Replicas on their way out of which nothing is left.
    gone: Vec<&'a Arc<Replica>>,
}

impl<'a> ServiceView<'a> {
    pub(super) fn of(
        turn: &Turn<'a, '_>,
        name: &'a ServiceName,
        spec: &'a ServiceSpec,
        replicas: Vec<&'a Arc<Replica>>,
    ) -> Self {
        let mut view = Self {
            name,
            spec,
            wanted: settled::wanted(turn.state, spec),
            current: Vec::new(),
            stale: Vec::new(),
            misplaced: Vec::new(),
            lost: Vec::new(),
            leaving: Vec::new(),
            gone: Vec::new(),
        };
        let demand = demand(turn, name, spec, 1);
        let global = spec.placement == Placement::Global;
        let mut taken = BTreeSet::new();
        for replica in replicas {
            let active = replica.phase == Phase::Active;
            let second = global && active && !taken.insert(&replica.node);
            // Data cannot follow, so a replica that has some stays where it is.
            let unsuited =
                || !spec.is_stateful() && is_misplaced(&demand, &replica.node, turn.cluster);
            let list = match replica.phase {
                Phase::Stopping if is_gone(turn.state, replica) => &mut view.gone,
                Phase::Stopping => &mut view.leaving,
                Phase::Active if is_lost(turn.state, &replica.node) => &mut view.lost,
                Phase::Active if second => &mut view.misplaced,
                Phase::Active if global && unsuited() => &mut view.misplaced,
                Phase::Active if replica.spec_hash != spec.spec_hash => &mut view.stale,
                Phase::Active if unsuited() => &mut view.misplaced,
                Phase::Active => &mut view.current,
            };
            list.push(replica);
        }
        view
    }

    /// Active replicas on nodes that can be talked to.
    fn active(&self) -> usize {
        self.current.len() + self.stale.len() + self.misplaced.len()
    }

    /// True when a replica is not started anew when its node is lost: its data is there, or its
    /// work is done.
    fn outlives_its_node(&self, replica: &Replica) -> bool {
        self.spec.is_stateful() || replica.state() == ReplicaState::Completed
    }
}

fn demand<'a>(
    turn: &Turn<'a, '_>,
    name: &'a ServiceName,
    service: &'a ServiceSpec,
    count: usize,
) -> Demand<'a> {
    Demand {
        state: turn.state,
        deployment: turn.deployment,
        name,
        service,
        count,
    }
}

/// Decides for one service.
pub(super) fn plan<'a>(view: &ServiceView<'a>, turn: &mut Turn<'a, '_>) {
    let have = view.active() + forget_lost(view, turn);
    let surplus = match view.spec.placement {
        Placement::Global => view.misplaced.len(),
        _ => have.saturating_sub(view.wanted),
    };
    if surplus > 0 {
        remove_surplus(view, surplus, turn);
    } else if let Some(replica) = next_outdated(view) {
        turn.stop(replica);
    }
    for replica in &view.current {
        if let Some(generation) = restart::due(replica, view.spec, turn.now) {
            turn.restart(replica, generation);
        }
    }
    let missing = match view.spec.placement {
        // Each node has a slot of its own; placement passes over those that are taken.
        Placement::Global => view.wanted,
        // A replica on its way out holds its slot until its container is gone: stop-first.
        _ => view.wanted.saturating_sub(have + view.leaving.len()),
    };
    let home = forget_gone(view, missing, turn);
    place_missing(view, missing - home, turn);
}

/// Gives up what is on lost nodes. Returns how many replicas wait for their node instead: an
/// empty volume elsewhere would be data loss.
fn forget_lost(view: &ServiceView<'_>, turn: &mut Turn<'_, '_>) -> usize {
    let open = view.wanted.saturating_sub(view.active());
    let mut waiting = 0;
    for replica in &view.lost {
        let is_member = turn.state.nodes.contains_key(&replica.node);
        if waiting < open && is_member && view.outlives_its_node(replica) {
            waiting += 1;
        } else {
            turn.forget(replica);
        }
    }
    waiting
}

/// Forgets what has stopped. A replica with data leaves its place to its successor, on the same
/// node and in the same entry; until the node can take it, the record stays and holds the slot.
/// Returns how many of the missing slots are so taken care of.
fn forget_gone<'a>(view: &ServiceView<'a>, missing: usize, turn: &mut Turn<'a, '_>) -> usize {
    let mut home = 0;
    for replica in &view.gone {
        let is_member = turn.state.nodes.contains_key(&replica.node);
        if !view.spec.is_stateful() || !is_member || home == missing {
            turn.forget(replica);
            continue;
        }
        home += 1;
        let demand = demand(turn, view.name, view.spec, 1);
        let addressable = turn.addressable(view.spec) > 0;
        if addressable && place_at(&demand, &replica.node, turn.cluster) {
            turn.forget(replica);
            turn.place(view.name, view.spec, replica.node.clone());
        }
    }
    home
}

fn place_missing<'a>(view: &ServiceView<'a>, missing: usize, turn: &mut Turn<'a, '_>) {
    let count = missing.min(turn.addressable(view.spec));
    if count == 0 {
        return;
    }
    let demand = demand(turn, view.name, view.spec, count);
    for node in place(&demand, turn.cluster) {
        turn.place(view.name, view.spec, node);
    }
}

/// The one replica to stop now because it is stale or misplaced. One that does not serve costs
/// nothing, so it never waits; one that serves waits until all others of the service do.
fn next_outdated<'a>(view: &ServiceView<'a>) -> Option<&'a Arc<Replica>> {
    if !view.leaving.is_empty() {
        return None;
    }
    let mut outdated = view.stale.iter().chain(&view.misplaced).copied();
    let down = outdated.clone().find(|replica| !replica.is_serving());
    if down.is_some() {
        return down;
    }
    let is_settled = |replica: &Arc<Replica>| {
        matches!(
            replica.state(),
            ReplicaState::Running | ReplicaState::Completed
        )
    };
    let complete = view.active() >= view.wanted;
    let others_run = view.current.iter().all(|replica| is_settled(replica));
    outdated.next().filter(|_| complete && others_run)
}

/// Misplaced before stale before current, not serving before serving, the newest number first.
fn remove_surplus(view: &ServiceView<'_>, surplus: usize, turn: &mut Turn<'_, '_>) {
    let lists = [&view.misplaced, &view.stale, &view.current];
    let mut order: Vec<(usize, &Arc<Replica>)> = lists
        .into_iter()
        .enumerate()
        .flat_map(|(rank, list)| list.iter().map(move |replica| (rank, *replica)))
        .collect();
    order.sort_by_key(|(rank, replica)| (*rank, replica.is_serving(), Reverse(replica.number)));
    for (_, replica) in order.into_iter().take(surplus) {
        turn.stop(replica);
    }
}
