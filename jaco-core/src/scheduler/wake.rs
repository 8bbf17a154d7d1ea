//! When a plan may differ although nothing was seen: for the planner's timer.

use std::sync::Arc;

use super::barrier::SILENCE;
use super::rollout::Update;
use super::{drain, restart};
use crate::cluster::deployment::{Deployment, Phase, Replica};
use crate::cluster::node::Node;
use crate::time::Timestamp;

/// The next moment after `now` at which a restart, a step of a rollout or a drain falls due.
pub(super) fn next<'a, D>(
    nodes: impl Iterator<Item = &'a Arc<Node>>,
    deployments: D,
    now: Timestamp,
) -> Option<Timestamp>
where
    D: Iterator<Item = &'a Arc<Deployment>>,
{
    let of_deployment = |deployment: &'a Arc<Deployment>| {
        let replicas = || deployment.replicas.values().map(AsRef::as_ref);
        let barriers = replicas().filter_map(|replica: &Replica| match replica.phase {
            Phase::Draining { since, .. } => Some(since + SILENCE),
            Phase::Active | Phase::Stopping => None,
        });
        let steps = rollout_times(deployment, now);
        let restart = restart::next_due(replicas(), now);
        barriers.chain(steps).chain(restart).collect::<Vec<_>>()
    };
    let drains = nodes.filter_map(|node| drain::gives_up_at(node));
    let times = deployments.flat_map(of_deployment).chain(drains);
    times.filter(|at| *at > now).min()
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
