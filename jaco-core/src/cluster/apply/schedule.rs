//! Carrying out the scheduler's steps. A step whose ground has changed does nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Applied, Outcome, membership, rollouts, usage};
use crate::cluster::addresses;
use crate::cluster::audit::{EventType, record};
use crate::cluster::command::Step;
use crate::cluster::deployment::{Deployment, Observation, Phase, Replica, Restarts};
use crate::cluster::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, Identity, NetworkName, NodeName, ReplicaId, ServiceName};
use crate::manifest::spec::Placement;

/// Carries out a plan. One that is late, twice there or a former leader's does nothing; of a
/// deployment that has changed since nothing is done. Whoever leads plans that again.
pub(super) fn carry_out(state: &mut ClusterState, after: u64, steps: &[Step]) -> Applied {
    if after < state.ground {
        let ground = state.ground;
        let message = format!("the plan made at index {after} is void since index {ground}");
        return Err(Error::new(ErrorCode::NoLeader, message));
    }
    let stands = |step: &&Step| {
        let deployment = step.deployment();
        let deployment = deployment.and_then(|name| state.deployments.get(name));
        deployment.is_none_or(|deployment| deployment.ground <= after)
    };
    let standing: Vec<&Step> = steps.iter().filter(stands).collect();
    for step in standing {
        self::step(state, step);
    }
    Ok(Outcome::Done)
}

fn step(state: &mut ClusterState, step: &Step) {
    match step {
        Step::Place {
            deployment,
            service,
            revision,
            node,
        } => {
            // A step whose ground has changed places nothing.
            let _ = place(state, deployment, service, *revision, node);
        }
        Step::Move {
            deployment,
            replica,
            to,
            load,
        } => usage::move_to(state, deployment, replica, to, load.as_ref()),
        Step::Skip {
            deployment,
            replica,
            reason,
        } => usage::skip(state, deployment, replica, *reason),
        Step::Relocate {
            deployment,
            replica,
            to,
        } => relocate(state, deployment, replica, to),
        Step::Drain {
            deployment,
            replica,
        } => {
            let (index, since) = (state.index, state.clock);
            change(state, deployment, replica, |replica| {
                if replica.phase == Phase::Active {
                    replica.phase = Phase::Draining { index, since };
                }
            });
        }
        Step::EndRollout {
            deployment,
            service,
            started_at,
            status,
            cause,
        } => rollouts::end(
            state,
            deployment,
            service,
            *started_at,
            *status,
            cause.as_ref(),
        ),
        Step::RollBack {
            deployment,
            service,
            started_at,
            cause,
        } => rollouts::roll_back(state, deployment, service, *started_at, cause),
        Step::Stop {
            deployment,
            replica,
        } => {
            change(state, deployment, replica, |replica| {
                replica.phase = Phase::Stopping;
            });
        }
        Step::Restart {
            deployment,
            replica,
            generation,
        } => {
            let now = state.clock;
            change(state, deployment, replica, |replica| {
                if replica.generation + 1 == *generation {
                    replica.restarts.consecutive = replica.failures() + 1;
                    replica.restarts.total += 1;
                    replica.generation = *generation;
                    replica.restarts.last_at = Some(now);
                }
            });
        }
        Step::Forget {
            deployment,
            replica,
        } => forget(state, deployment, replica),
        Step::DrainTimeout { node } => {
            let given_up = membership::update(state, node, |node| {
                if let Some(drain) = &mut node.drain {
                    drain.timed_out = true;
                }
            });
            // A node that left meanwhile needs nothing.
            drop(given_up);
        }
        Step::Hold {
            deployment,
            service,
            running,
            floor,
        } => rollouts::hold(state, deployment, service, *running, *floor),
        Step::Finish { deployment } => finish(state, deployment),
    }
}

/// Gives what its node alone has failed another node. The old container goes at once: it serves
/// nobody.
fn relocate(state: &mut ClusterState, name: &DeploymentName, id: &ReplicaId, to: &NodeName) {
    let Some(deployment) = state.deployments.get(name) else {
        return;
    };
    let (Some(old), revision) = (deployment.replicas.get(id).cloned(), deployment.current) else {
        return;
    };
    if old.phase != Phase::Active || old.is_serving() || old.node == *to {
        return;
    }
    let Some(new) = place(state, name, &old.service, revision, to) else {
        return;
    };
    change(state, name, &new, |replica| {
        replica.fled_from = Some(old.node.clone());
    });
    change(state, name, id, |replica| replica.phase = Phase::Stopping);
    let reason = format!("{} alone fails it", old.node);
    let payload: &[(&str, &dyn std::fmt::Display)] = &[
        ("replica", id),
        ("from", &old.node),
        ("to", to),
        ("reason", &reason),
    ];
    let system = Identity::new("system");
    record(state, &system, EventType::RebalanceMoved, payload);
}

/// Makes a replica; its id, unless the step's ground has changed.
fn place(
    state: &mut ClusterState,
    name: &DeploymentName,
    service: &ServiceName,
    revision: u64,
    node: &NodeName,
) -> Option<ReplicaId> {
    let deployment = state.deployments.get(name)?;
    if deployment.deleting || deployment.current != revision || !state.nodes.contains_key(node) {
        return None;
    }
    let spec = Arc::clone(deployment.spec());
    let wanted = spec.services.get(service)?;
    let mut deployment = Arc::clone(deployment);
    let global = wanted.placement == Placement::Global;
    let counter = Arc::make_mut(&mut deployment)
        .counters
        .entry(service.clone())
        .or_default();
    let (number, generation) = match global {
        true => (0, *counter + 1),
        false => {
            *counter += 1;
            (*counter, 1)
        }
    };
    let id = replica_id(name, service, number, node, global);
    if deployment.replicas.contains_key(&id) {
        return None;
    }
    let networks = wanted.networks.keys().cloned();
    // The plan saw a free address; if another step took it, the next plan says why not.
    let addresses = addresses::allocate(state, name, networks, &id).ok()?;
    let replica = Replica {
        id: id.clone(),
        deployment: name.clone(),
        service: service.clone(),
        number,
        node: node.clone(),
        revision,
        spec_hash: wanted.spec_hash.clone(),
        generation,
        addresses,
        reserved: wanted.reservations,
        phase: Phase::Active,
        move_to: None,
        fled_from: None,
        usage: None,
        skips: BTreeMap::new(),
        placed_at: state.clock,
        restarts: Restarts::default(),
        observed: Observation::default(),
        seen_at: state.clock,
    };
    Arc::make_mut(&mut deployment)
        .replicas
        .insert(id.clone(), Arc::new(replica));
    state.deployments.insert(name.clone(), deployment);
    Some(id)
}

fn replica_id(
    deployment: &DeploymentName,
    service: &ServiceName,
    number: u64,
    node: &NodeName,
    global: bool,
) -> ReplicaId {
    if global {
        ReplicaId::new(format!("{deployment}-{service}-{node}"))
    } else {
        ReplicaId::new(format!("{deployment}-{service}-{number}"))
    }
}

/// Changes one replica where it stands.
pub(super) fn change(
    state: &mut ClusterState,
    name: &DeploymentName,
    id: &ReplicaId,
    change: impl FnOnce(&mut Replica),
) {
    let Some(deployment) = state.deployments.get_mut(name) else {
        return;
    };
    let deployment: &mut Deployment = Arc::make_mut(deployment);
    if let Some(replica) = deployment.replicas.get_mut(id) {
        change(Arc::make_mut(replica));
    }
}

/// Drops a replica's record, frees its addresses, and the subnet of a network without use.
pub(super) fn forget(state: &mut ClusterState, name: &DeploymentName, id: &ReplicaId) {
    let Some(deployment) = state.deployments.get_mut(name) else {
        return;
    };
    let deployment: &mut Deployment = Arc::make_mut(deployment);
    let Some(replica) = deployment.replicas.remove(id) else {
        return;
    };
    if replica.number == 0 {
        // The next one on that node has its name, and is not to be taken for it.
        let counter = deployment.counters.entry(replica.service.clone());
        let counter = counter.or_default();
        *counter = replica.generation.max(*counter);
    }
    membership::drained(state, &replica.node);
    let held: BTreeMap<NetworkName, _> = replica.addresses.clone();
    addresses::release(state, name, held.into_keys(), id);
    release_unused_subnets(state, name);
    super::deploy::prune_revisions(state, name);
}

/// Frees each /24 of a deployment whose network is neither declared nor in use.
pub(super) fn release_unused_subnets(state: &mut ClusterState, name: &DeploymentName) {
    let declared = state
        .deployments
        .get(name)
        .filter(|deployment| !deployment.deleting);
    let declared = declared.map(|deployment| Arc::clone(deployment.spec()));
    let unused: Vec<_> = state
        .subnets
        .iter()
        .filter(|(scope, subnet)| scope.deployment == *name && subnet.used.is_empty())
        .filter(|(scope, _)| {
            !declared
                .as_ref()
                .is_some_and(|spec| spec.networks.contains_key(&scope.network))
        })
        .map(|(scope, subnet)| (scope.clone(), subnet.to_string()))
        .collect();
    for (scope, subnet) in unused {
        addresses::release_subnet(state, &scope);
        let system = Identity::new("system");
        let payload: &[(&str, &dyn std::fmt::Display)] =
            &[("network", &scope), ("subnet", &subnet)];
        record(state, &system, EventType::SubnetReleased, payload);
    }
}

fn finish(state: &mut ClusterState, name: &DeploymentName) {
    let done = |deployment: &Arc<Deployment>| deployment.deleting && deployment.replicas.is_empty();
    if state.deployments.get(name).is_some_and(done) {
        state.deployments.remove(name);
        release_unused_subnets(state, name);
    }
}
