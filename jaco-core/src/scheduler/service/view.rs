//! What one service looks like to the planner, and what that leaves room for: which of its
//! replicas carry it, which are to be replaced, and which may go now.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::deployment::{Phase, Replica};
use crate::id::{NodeName, ServiceName};
use crate::manifest::spec::{Placement, ServiceSpec};
use crate::scheduler::placement::is_misplaced;
use crate::scheduler::plan::{Turn, is_gone, is_lost};
use crate::scheduler::rollout::Update;
use crate::scheduler::settled;

/// Everything that the decision for one service looks at.
pub(in crate::scheduler) struct ServiceView<'a> {
    pub(super) name: &'a ServiceName,
    pub(super) spec: &'a ServiceSpec,
    /// How replicas are replaced.
    pub(super) update: Update<'a>,
    /// How many there should be.
    pub(super) wanted: usize,
    /// Active replicas of the present spec on nodes that may keep them.
    pub(super) current: Vec<&'a Arc<Replica>>,
    /// Active replicas of an older spec.
    stale: Vec<&'a Arc<Replica>>,
    /// Active replicas on nodes that do not suit the service any more, and the second ones on a
    /// node of a global service.
    misplaced: Vec<&'a Arc<Replica>>,
    /// Active replicas on nodes that are gone or down.
    pub(super) lost: Vec<&'a Arc<Replica>>,
    /// Replicas on their way out.
    pub(super) leaving: Vec<&'a Arc<Replica>>,
    /// Replicas on their way out of which nothing is left.
    pub(super) gone: Vec<&'a Arc<Replica>>,
}

impl<'a> ServiceView<'a> {
    pub(in crate::scheduler) fn of(
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
        let demand = super::demand(turn, name, spec, 1);
        let global = spec.placement == Placement::Global;
        let mut taken = BTreeSet::new();
        for replica in replicas {
            let active = replica.phase == Phase::Active;
            let second = global && active && !taken.insert(&replica.node);
            // Data cannot follow, so a replica that has some stays where it is.
            let unsuited =
                || !spec.is_stateful() && is_misplaced(&demand, &replica.node, turn.cluster);
            let done = view.is_final(replica);
            let list = match replica.phase {
                // Wherever that was, also when the node is gone.
                Phase::Active if done && !global => &mut view.current,
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
    pub(super) fn active(&self) -> usize {
        self.current.len() + self.stale.len() + self.misplaced.len()
    }

    pub(super) fn all_active(&self) -> impl Iterator<Item = &&'a Arc<Replica>> {
        self.current
            .iter()
            .chain(&self.stale)
            .chain(&self.misplaced)
    }

    /// True for a current replica outside of a rollout, which has its own way with failures.
    pub(super) fn may_relocate(&self, replica: &Replica) -> bool {
        !self.update.is_moving()
            && !self.update.is_paused()
            && self.current.iter().any(|here| here.id == replica.id)
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
    pub(super) fn outdated(&self) -> Vec<&'a Arc<Replica>> {
        let stale = match self.update.is_paused() {
            true => &[],
            false => self.stale.as_slice(),
        };
        let outdated: Vec<_> = self.misplaced.iter().chain(stale).copied().collect();
        self.in_order(&outdated)
    }

    /// Replicas that are neither proved nor outdated: on their way in or out.
    pub(super) fn in_flight(&self) -> usize {
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
    pub(super) fn missing(&self, have: usize) -> usize {
        let held = match self.update.starts_first() {
            true => 0,
            false => self.leaving.len(),
        };
        self.wanted.saturating_sub(have + held)
    }

    /// Start-first: how many are placed beside outdated ones.
    pub(super) fn substitutes(&self, have: usize) -> usize {
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

    /// The replicas that go now: what is too many, then what is outdated and has a substitute or
    /// may go before it comes. `have` is how many hold a slot.
    pub(super) fn outgoing(&self, have: usize) -> Vec<&'a Arc<Replica>> {
        if self.spec.placement == Placement::Global {
            return self.outgoing_of_global();
        }
        match self.update.starts_first() {
            true => self.outgoing_start_first(),
            false => self.outgoing_stop_first(have.saturating_sub(self.wanted)),
        }
    }

    fn outgoing_of_global(&self) -> Vec<&'a Arc<Replica>> {
        if !self.misplaced.is_empty() {
            return self.misplaced.clone();
        }
        let room = self.room_to_stop(0);
        self.outdated().into_iter().take(room).collect()
    }

    /// What stands in for another replica has to prove itself first.
    fn outgoing_start_first(&self) -> Vec<&'a Arc<Replica>> {
        let outdated = self.outdated();
        let replaced = (self.standing() + outdated.len()).saturating_sub(self.wanted);
        let surplus = match self.update.is_paused() {
            // What failed stays to be looked at.
            true => 0,
            false => self.current.len().saturating_sub(self.wanted),
        };
        let mut gone: Vec<_> = outdated.into_iter().take(replaced).collect();
        if surplus > 0 {
            gone.extend(self.surplus_order().into_iter().take(surplus));
        }
        gone
    }

    fn outgoing_stop_first(&self, surplus: usize) -> Vec<&'a Arc<Replica>> {
        let outdated = self.outdated();
        let mut gone = outdated.clone();
        gone.extend(self.surplus_order());
        gone.sort_by_key(|replica| self.is_of_use(replica));
        gone.truncate(surplus);
        // What has not proved itself yet is in flight already.
        let in_flight = gone
            .iter()
            .filter(|replica| self.is_unproved(replica))
            .count();
        let room = self.room_to_stop(gone.len() - in_flight);
        let stays = |replica: &&Arc<Replica>| gone.iter().all(|out| out.id != replica.id);
        let left: Vec<_> = outdated.into_iter().filter(stays).collect();
        // Slots that no node can fill leave no room for ever; what serves nobody needs none.
        let useless = match self.in_flight() {
            0 => left
                .iter()
                .filter(|replica| !self.is_of_use(replica))
                .count(),
            _ => 0,
        };
        let room = room.max(useless.min(self.update.parallelism(self.wanted)));
        gone.extend(left.into_iter().take(room));
        gone
    }

    /// The current replicas as they go when there are too many: what does not serve, then from
    /// the fullest node, which spares a move later. Data is given up by number alone.
    fn surplus_order(&self) -> Vec<&'a Arc<Replica>> {
        let mut order = self.in_order(&self.current);
        if self.spec.placement != Placement::Spread || self.spec.is_stateful() {
            return order;
        }
        // How many older ones serve on the same node: the fullest node has the highest places.
        let mut held: BTreeMap<&NodeName, u32> = BTreeMap::new();
        let mut places = BTreeMap::new();
        for replica in order.iter().rev().filter(|replica| replica.is_serving()) {
            let place = held.entry(&replica.node).or_default();
            places.insert(&replica.id, *place);
            *place += 1;
        }
        order.sort_by_key(|replica| {
            let place = places.get(&replica.id).copied();
            (self.is_of_use(replica), Reverse((place, replica.number)))
        });
        order
    }

    /// True for a current replica that the next step waits for.
    fn is_unproved(&self, replica: &Replica) -> bool {
        let is_current = self.current.iter().any(|here| here.id == replica.id);
        is_current && !self.update.has_settled(replica)
    }

    /// True when there is nothing but proved replicas of the present spec.
    pub(super) fn is_done(&self) -> bool {
        let others = self.stale.len() + self.misplaced.len() + self.leaving.len();
        let current = self.current.len();
        others == 0 && current >= self.wanted && self.settled() == current
    }

    /// True when a replica is not started anew when its node is lost: its data is there, or its
    /// work is done.
    pub(super) fn outlives_its_node(&self, replica: &Replica) -> bool {
        self.spec.is_stateful() || self.is_final(replica)
    }

    /// True for a job that is done, and does not have to be done anew.
    fn is_final(&self, replica: &Replica) -> bool {
        replica.is_done(self.spec) && !self.update.replaces(replica)
    }

    /// True for what serves, and for a job that is done: without it the job would be done again.
    fn is_of_use(&self, replica: &Replica) -> bool {
        replica.is_serving() || replica.is_done(self.spec)
    }

    /// What is of no use goes first, then the newest number.
    fn in_order(&self, replicas: &[&'a Arc<Replica>]) -> Vec<&'a Arc<Replica>> {
        let mut order = replicas.to_vec();
        order.sort_by_key(|replica| (self.is_of_use(replica), Reverse(replica.number)));
        order
    }
}
