//! The next steps of one service: forget, stop, restart, place, in this order.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::placement::{Demand, is_misplaced, place, place_at};
use super::plan::{Turn, is_gone, is_lost};
use super::rollout::Update;
use super::{barrier, restart, settled};
use crate::cluster::deployment::{Phase, Replica, ReplicaState};
use crate::cluster::node::NodeStatus;
use crate::id::ServiceName;
use crate::manifest::spec::{Placement, ServiceSpec};

/// Everything that the decision for one service looks at.
pub(super) struct ServiceView<'a> {
    name: &'a ServiceName,
    spec: &'a ServiceSpec,
    /// How replicas are replaced.
    update: Update<'a>,
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
            update: Update::of(turn.deployment, name, spec, turn.now),
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
                Phase::Draining { .. } | Phase::Stopping if is_gone(turn.state, replica) => {
                    &mut view.gone
                }
                Phase::Draining { .. } | Phase::Stopping => &mut view.leaving,
                Phase::Active if is_lost(turn.state, &replica.node) => &mut view.lost,
                Phase::Active if second || replica.move_to.is_some() => &mut view.misplaced,
                Phase::Active if global && unsuited() => &mut view.misplaced,
                Phase::Active if view.update.replaces(replica) => &mut view.stale,
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

    fn all_active(&self) -> impl Iterator<Item = &&'a Arc<Replica>> {
        self.current
            .iter()
            .chain(&self.stale)
            .chain(&self.misplaced)
    }

    /// Current replicas that have proved themselves.
    fn settled(&self) -> usize {
        let settled = |replica: &&&Arc<Replica>| self.update.has_settled(replica);
        self.current.iter().filter(settled).count()
    }

    /// Replicas that carry the service and are not to be replaced.
    fn standing(&self) -> usize {
        let kept = match self.update.is_paused() {
            true => self.stale.len(),
            false => 0,
        };
        self.settled() + kept
    }

    /// What is to be replaced: what does not serve first, then what stands wrong.
    fn outdated(&self) -> Vec<&'a Arc<Replica>> {
        let stale = match self.update.is_paused() {
            true => &[],
            false => self.stale.as_slice(),
        };
        let outdated: Vec<_> = self.misplaced.iter().chain(stale).copied().collect();
        in_order(&outdated)
    }

    /// Replicas that are neither proved nor outdated: on their way in or out.
    fn in_flight(&self) -> usize {
        self.current.len() - self.settled() + self.leaving.len()
    }

    /// Stop-first: how many more than those `retired` may go before their substitutes come.
    fn room_to_stop(&self, retired: usize) -> usize {
        if !self.update.may_step(&self.current) {
            return 0;
        }
        let here = self.active() + self.leaving.len();
        let open = self.wanted.saturating_sub(here) + self.in_flight() + retired;
        let parallelism = self.update.parallelism(self.wanted);
        parallelism.saturating_sub(open)
    }

    /// How many are too few, whatever is outdated. A replica on its way out holds its slot until
    /// its container is gone when the new one may not start beside it.
    fn missing(&self, have: usize) -> usize {
        let held = match self.update.starts_first() {
            true => 0,
            false => self.leaving.len(),
        };
        self.wanted.saturating_sub(have + held)
    }

    /// Start-first: how many are placed beside outdated ones.
    fn substitutes(&self, have: usize) -> usize {
        let outdated = self.outdated().len();
        if !self.update.starts_first() || outdated == 0 || !self.update.may_step(&self.current) {
            return 0;
        }
        let parallelism = self.update.parallelism(self.wanted);
        let most = self.wanted + parallelism;
        let unproved = self.current.len() - self.settled();
        most.saturating_sub(have + self.leaving.len())
            .min(self.wanted.saturating_sub(self.current.len()))
            .min(parallelism.saturating_sub(unproved))
    }

    /// True when there is nothing but proved replicas of the present spec.
    fn is_done(&self) -> bool {
        let others = self.stale.len() + self.misplaced.len() + self.leaving.len();
        let current = self.current.len();
        others == 0 && current >= self.wanted && self.settled() == current
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
    for replica in &view.leaving {
        if barrier::is_met(turn.state, replica, turn.now) {
            turn.stop(replica);
        }
    }
    let end = view
        .update
        .end(turn.deployment, view.name, &view.current, view.is_done());
    if let Some(end) = end {
        // After a failure everything else depends on how it ends.
        let failed = !view.is_done();
        turn.steps.push(end);
        if failed {
            return;
        }
    }
    let have = view.active() + forget_lost(view, turn);
    let outgoing = outgoing(view, have);
    for replica in &outgoing {
        turn.retire(replica);
    }
    let stays = |replica: &&&Arc<Replica>| !outgoing.iter().any(|out| out.id == replica.id);
    for replica in view.all_active().filter(stays) {
        let spec = turn.deployment.service_of(replica).unwrap_or(view.spec);
        if let Some(generation) = restart::due(replica, spec, turn.now) {
            turn.restart(replica, generation);
        }
    }
    let missing = match view.spec.placement {
        // Each node has a slot of its own; placement passes over those that are taken.
        Placement::Global => view.wanted,
        _ => view.missing(have).max(view.substitutes(have)),
    };
    let home = forget_gone(view, missing, turn);
    let placed = place_missing(view, missing - home, turn);
    let stuck = placed == 0 && view.substitutes(have) > 0 && outgoing.is_empty();
    if stuck && view.in_flight() == 0 && have >= view.wanted {
        make_room(view, turn);
    }
}

/// No node has room for a substitute beside what runs, so that one goes before the other comes.
fn make_room(view: &ServiceView<'_>, turn: &mut Turn<'_, '_>) {
    let ready =
        |node| turn.state.nodes.get(node).map(|node| node.status()) == Some(NodeStatus::Ready);
    if let Some(replica) = view.stale.iter().rev().find(|replica| ready(&replica.node)) {
        turn.retire(replica);
    }
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

/// Places what is missing, as far as there is room. Returns how many were placed.
fn place_missing<'a>(view: &ServiceView<'a>, missing: usize, turn: &mut Turn<'a, '_>) -> usize {
    let count = missing.min(turn.addressable(view.spec));
    if count == 0 {
        return 0;
    }
    let demand = demand(turn, view.name, view.spec, count);
    let nodes = place(&demand, turn.cluster);
    let placed = nodes.len();
    for node in nodes {
        turn.place(view.name, view.spec, node);
    }
    placed
}

/// The replicas that go now: what is too many, then what is outdated and has a substitute or may
/// go before it comes.
fn outgoing<'a>(view: &ServiceView<'a>, have: usize) -> Vec<&'a Arc<Replica>> {
    let outdated = view.outdated();
    let outdated_len = outdated.len();
    if view.spec.placement == Placement::Global {
        return match view.misplaced.is_empty() {
            true => outdated.into_iter().take(view.room_to_stop(0)).collect(),
            false => view.misplaced.clone(),
        };
    }
    if view.update.starts_first() {
        // What stands in for another replica has to prove itself first.
        let replaced = (view.standing() + outdated_len).saturating_sub(view.wanted);
        let surplus = match view.update.is_paused() {
            // What failed stays to be looked at.
            true => 0,
            false => view.current.len().saturating_sub(view.wanted),
        };
        let replaced = outdated.into_iter().take(replaced);
        return replaced
            .chain(in_order(&view.current).into_iter().take(surplus))
            .collect();
    }
    let surplus = have.saturating_sub(view.wanted);
    let mut all = outdated;
    all.extend(in_order(&view.current));
    let mut gone = all.clone();
    gone.sort_by_key(|replica| replica.is_serving());
    gone.truncate(surplus);
    let left = all.into_iter().take(outdated_len);
    let left = left.filter(|replica| gone.iter().all(|out| out.id != replica.id));
    // What has not proved itself yet is in flight already.
    let unproved = |replica: &&&Arc<Replica>| {
        let current = view.current.iter().any(|here| here.id == replica.id);
        current && !view.update.has_settled(replica)
    };
    let retired = gone.len() - gone.iter().filter(unproved).count();
    let left: Vec<_> = left.take(view.room_to_stop(retired)).collect();
    gone.extend(left);
    gone
}

/// What does not serve goes first, then the newest number.
fn in_order<'a>(replicas: &[&'a Arc<Replica>]) -> Vec<&'a Arc<Replica>> {
    let mut order = replicas.to_vec();
    order.sort_by_key(|replica| (replica.is_serving(), Reverse(replica.number)));
    order
}
