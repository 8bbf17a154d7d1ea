//! What nodes use, and the moves that follow from it (spec 05, Rebalancing under pressure).

use std::sync::Arc;
use std::time::Duration;

use super::{membership, schedule};
use crate::cluster::audit::{EventType, record};
use crate::cluster::command::{Applied, Load, Outcome, Skip};
use crate::cluster::deployment::Deployment;
use crate::cluster::node::Node;
use crate::cluster::state::ClusterState;
use crate::cluster::usage::{Measured, NodeUsage, TRIGGER, blend, share};
use crate::id::{DeploymentName, Identity, NodeName, ReplicaId};
use crate::manifest::spec::Resources;

/// Takes in what a node used since it last said so. A node speaks only of its own replicas.
pub(super) fn report(
    state: &mut ClusterState,
    name: &NodeName,
    used: Resources,
    interval: Duration,
    replicas: &[Measured],
) -> Applied {
    let now = state.clock;
    let before = state.node(name)?.usage.filter(|usage| usage.counts(now));
    // What was not heard of for too long begins anew.
    let passed = before.map(|before| now.since(before.at));
    let average = match (before, passed) {
        (Some(before), Some(passed)) => blend(before.average, used, passed),
        _ => used,
    };
    membership::update(state, name, |node| {
        let capacity = node.engine().map(|engine| engine.capacity);
        let is_over = share(average, capacity.unwrap_or_default()).0 > TRIGGER;
        let so_far = before.map_or(0, |before| before.over);
        node.usage = Some(NodeUsage {
            average,
            at: now,
            interval,
            over: if is_over { so_far.saturating_add(1) } else { 0 },
        });
    })?;
    for measured in replicas {
        let Some(deployment) = state.deployments.get_mut(&measured.deployment) else {
            continue;
        };
        let deployment: &mut Deployment = Arc::make_mut(deployment);
        let replica = deployment.replicas.get_mut(&measured.replica);
        if let Some(replica) = replica.filter(|replica| replica.node == *name) {
            let replica = Arc::make_mut(replica);
            replica.usage = Some(match (replica.usage, passed) {
                (Some(old), Some(passed)) => blend(old, measured.used, passed),
                _ => measured.used,
            });
        }
    }
    Ok(Outcome::Done)
}

/// Has another node hold a replica in the stead of one. Under pressure the averages of both nodes
/// change at once by what moves: they would else show it minutes later, and more would follow.
pub(super) fn move_to(
    state: &mut ClusterState,
    name: &DeploymentName,
    id: &ReplicaId,
    to: &NodeName,
    load: Option<&Load>,
) {
    let deployment = state.deployments.get(name);
    let Some(replica) = deployment.and_then(|deployment| deployment.replicas.get(id)) else {
        return;
    };
    let from = replica.node.clone();
    schedule::change(state, name, id, |replica| {
        replica.move_to = Some(to.clone());
    });
    let now = state.clock;
    change(state, to, |node| node.received_at = Some(now));
    let payload: &[(&str, &dyn std::fmt::Display)] =
        &[("replica", id), ("from", &from), ("to", to)];
    let system = Identity::new("system");
    let Some(load) = load else {
        record(state, &system, EventType::RebalanceMoved, payload);
        return;
    };
    let moved = load.footprint;
    change(state, &from, |node| {
        if let Some(usage) = &mut node.usage {
            let average = &mut usage.average;
            average.cpu_millis = average.cpu_millis.saturating_sub(moved.cpu_millis);
            average.memory_bytes = average.memory_bytes.saturating_sub(moved.memory_bytes);
            usage.over = 0;
        }
    });
    change(state, to, |node| {
        if let Some(usage) = &mut node.usage {
            let average = &mut usage.average;
            average.cpu_millis = average.cpu_millis.saturating_add(moved.cpu_millis);
            average.memory_bytes = average.memory_bytes.saturating_add(moved.memory_bytes);
        }
    });
    let shares = [load.source, load.target, load.relief, load.target_after];
    let [source, target, relief, target_after] = shares.map(thousandths);
    let numbers: [(&str, &dyn std::fmt::Display); 6] = [
        ("source_pressure", &source),
        ("target_pressure", &target),
        ("relief", &relief),
        ("target_after", &target_after),
        ("cpu_millis", &moved.cpu_millis),
        ("memory_bytes", &moved.memory_bytes),
    ];
    let payload = [payload, &numbers].concat();
    record(state, &system, EventType::RebalanceMoved, &payload);
}

/// Tells why a replica stays on a node under pressure.
pub(super) fn skip(state: &mut ClusterState, name: &DeploymentName, id: &ReplicaId, reason: Skip) {
    let now = state.clock;
    schedule::change(state, name, id, |replica| {
        replica.skips.insert(reason, now);
    });
    let system = Identity::new("system");
    let payload: &[(&str, &dyn std::fmt::Display)] =
        &[("replica", id), ("reason", &reason.as_str())];
    record(state, &system, EventType::RebalanceSkipped, payload);
}

/// Changes a node; one that left meanwhile needs nothing.
fn change(state: &mut ClusterState, name: &NodeName, change: impl FnOnce(&mut Node)) {
    if let Some(node) = state.nodes.get_mut(name) {
        change(Arc::make_mut(node));
    }
}

/// A share as people write it.
fn thousandths(share: u64) -> String {
    format!("{}.{:03}", share / 1_000, share % 1_000)
}
