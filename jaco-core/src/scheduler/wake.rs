//! When a plan may differ although nothing was seen: for the driver's timer.

use super::barrier::SILENCE;
use super::rollout::Update;
use super::{drain, restart};
use crate::cluster::deployment::{Deployment, Phase, Replica};
use crate::cluster::state::ClusterState;
use crate::time::Timestamp;

/// The next moment after `now` at which a restart, a step of a rollout or a drain falls due.
pub fn next(state: &ClusterState, now: Timestamp) -> Option<Timestamp> {
    let replicas = || state.replicas().map(AsRef::as_ref);
    let barriers = replicas().filter_map(|replica: &Replica| match replica.phase {
        Phase::Draining { since, .. } => Some(since + SILENCE),
        Phase::Active | Phase::Stopping => None,
    });
    let deployments = state.deployments.values();
    let steps = deployments.flat_map(|deployment| rollout_times(deployment, now));
    let nodes = state.nodes.values();
    let drains = nodes.filter_map(|node| drain::gives_up_at(node));
    let times = barriers.chain(steps).chain(drains);
    let times = times.filter(|at| *at > now);
    times.chain(restart::next_due(replicas(), now)).min()
}

/// When the replicas of the rollouts that move have proved themselves, or are late.
fn rollout_times(deployment: &Deployment, now: Timestamp) -> Vec<Timestamp> {
    let mut times = Vec::new();
    let moving = deployment
        .rollouts
        .iter()
        .filter(|(_, rollout)| rollout.is_moving());
    for name in moving.map(|(name, _)| name) {
        let Some(spec) = deployment.spec().services.get(name) else {
            continue;
        };
        let update = Update::of(deployment, name, spec, now);
        let new = deployment.replicas_of(name);
        let new: Vec<_> = new.filter(|replica| !update.replaces(replica)).collect();
        times.extend(new.iter().map(|replica| update.settles_at(replica)));
        times.extend(new.iter().map(|replica| update.deadline(replica)));
        times.extend(update.next_step(&new));
    }
    times
}
