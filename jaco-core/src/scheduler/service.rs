//! The next steps of one service: forget, stop, restart, place, in this order.

mod view;

use std::sync::Arc;

use super::placement::{Demand, place, place_at};
use super::plan::{MAX_STEPS, Turn};
use super::{barrier, relocate, restart};
use crate::cluster::deployment::Replica;
use crate::cluster::node::NodeStatus;
use crate::id::ServiceName;
use crate::manifest::spec::{Placement, ServiceSpec};

pub(super) use view::ServiceView;

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
        avoid: None,
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
    let outgoing = view.outgoing(have);
    for replica in &outgoing {
        turn.retire(replica);
    }
    let stays = |replica: &&&Arc<Replica>| !outgoing.iter().any(|out| out.id == replica.id);
    let staying: Vec<_> = view.all_active().filter(stays).copied().collect();
    for replica in &staying {
        let spec = turn.deployment.service_of(replica).unwrap_or(view.spec);
        if let Some(generation) = restart::due(replica, spec, turn.now) {
            turn.restart(replica, generation);
        } else if relocate::is_due(replica, spec, &staying) && view.may_relocate(replica) {
            relocate(view, replica, turn);
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

/// Gives a replica another node, when one takes it.
fn relocate<'a>(view: &ServiceView<'a>, replica: &'a Replica, turn: &mut Turn<'a, '_>) {
    if turn.addressable(view.spec) == 0 {
        return;
    }
    let mut demand = demand(turn, view.name, view.spec, 1);
    demand.avoid = Some(&replica.node);
    if let Some(to) = place(&demand, turn.cluster).pop() {
        turn.relocate(replica, view.spec, to);
    }
}

/// No node has room for a substitute beside what runs, so that one goes before the other comes.
fn make_room(view: &ServiceView<'_>, turn: &mut Turn<'_, '_>) {
    let ready =
        |node| turn.state.nodes.get(node).map(|node| node.status()) == Some(NodeStatus::Ready);
    let replaced = view.outdated().into_iter();
    let mut replaced = replaced.filter(|replica| view.update.replaces(replica));
    if let Some(replica) = replaced.find(|replica| ready(&replica.node)) {
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
    let room = MAX_STEPS.saturating_sub(turn.steps.len());
    let count = missing.min(turn.addressable(view.spec)).min(room);
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
