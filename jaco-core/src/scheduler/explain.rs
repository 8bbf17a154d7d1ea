//! Why things are as they are, from the same functions that decide (spec 05, Answering why).

use std::collections::BTreeMap;

use super::placement::{Cluster, Demand, Rejection, verdicts};
use super::relocate;
use crate::cluster::deployment::{Cause, Deployment, Phase, Replica};
use crate::cluster::state::ClusterState;
use crate::error::ErrorCode;
use crate::id::{NodeName, ServiceName};
use crate::manifest::spec::{NetworkMode, Placement, ServiceSpec};

/// For each node, why it would or would not take one more replica of the service.
pub fn placement(
    state: &ClusterState,
    deployment: &Deployment,
    name: &ServiceName,
    service: &ServiceSpec,
) -> Vec<(NodeName, Option<Rejection>)> {
    let mut cluster = Cluster::of(state);
    cluster.enter(deployment);
    verdicts(
        &Demand {
            state,
            deployment,
            name,
            service,
            count: 1,
            avoid: None,
        },
        &mut cluster,
    )
}

/// True when a replica that its node alone fails is about to go to another node.
pub fn goes_elsewhere(state: &ClusterState, deployment: &Deployment, replica: &Replica) -> bool {
    use crate::cluster::rollout::RolloutStatus::{InProgress, Paused};
    let name = &replica.service;
    let Some(service) = deployment.spec().services.get(name) else {
        return false;
    };
    let active = deployment.replicas_of(name);
    let active: Vec<_> = active.filter(|r| r.phase == Phase::Active).collect();
    let rollout = deployment.rollouts.get(name).map(|rollout| rollout.status);
    !matches!(rollout, Some(InProgress | Paused))
        && replica.spec_hash == service.spec_hash
        && relocate::is_due(replica, service, &active)
        && placement(state, deployment, name, service)
            .iter()
            .any(|(node, why)| *node != replica.node && why.is_none())
}

/// Why a service has fewer replicas than it wants; `None` when it has them all.
pub fn pending(
    state: &ClusterState,
    deployment: &Deployment,
    name: &ServiceName,
    service: &ServiceSpec,
) -> Option<Cause> {
    if service.placement == Placement::Global || !is_short(deployment, name, service) {
        return None;
    }
    if let NetworkMode::Service(with) = &service.network_mode
        && let Some(other) = deployment.spec().services.get(with)
        && is_short(deployment, with, other)
        && pending(state, deployment, with, other).is_none()
    {
        // The other is about to be placed, and this one after it.
        return None;
    }
    let verdicts = placement(state, deployment, name, service);
    if let Placement::Hosts(_) = &service.placement {
        return unsatisfied_hosts(&verdicts, service);
    }
    if verdicts.iter().any(|(_, verdict)| verdict.is_none()) {
        return None;
    }
    let shortage = |verdict: &Option<Rejection>| {
        matches!(
            verdict,
            Some(Rejection::Cpu { .. } | Rejection::Memory { .. })
        )
    };
    let code = verdicts
        .iter()
        .any(|(_, v)| shortage(v))
        .then_some(ErrorCode::InsufficientCapacity);
    let reasons: Vec<String> = verdicts
        .iter()
        .filter_map(|(node, verdict)| verdict.as_ref().map(|why| format!("{node}: {why}")))
        .collect();
    let message = match reasons.is_empty() {
        true => "the cluster has no node".to_owned(),
        false => format!(
            "no node can take a replica of \"{name}\" ({})",
            reasons.join("; ")
        ),
    };
    Some(Cause {
        code,
        message,
        details: BTreeMap::new(),
    })
}

fn is_short(deployment: &Deployment, name: &ServiceName, service: &ServiceSpec) -> bool {
    let replicas = deployment.replicas_of(name);
    let active = replicas.filter(|replica| replica.phase == Phase::Active);
    active.count() < service.replicas as usize
}

/// None when every host can take its replica: the next plan places them.
fn unsatisfied_hosts(
    verdicts: &[(NodeName, Option<Rejection>)],
    service: &ServiceSpec,
) -> Option<Cause> {
    let Placement::Hosts(hosts) = &service.placement else {
        unreachable!("called for host placement only")
    };
    let usable = |host: &NodeName| {
        verdicts
            .iter()
            .any(|(node, why)| node == host && matches!(why, None | Some(Rejection::HostTaken)))
    };
    let missing: Vec<&str> = hosts
        .iter()
        .filter(|host| !usable(host))
        .map(NodeName::as_str)
        .collect();
    let message = match missing.first() {
        Some(host) => format!("cannot satisfy host placement: {host} unreachable"),
        None if hosts.len() >= service.replicas as usize => return None,
        None => "cannot satisfy host placement: fewer hosts than replicas".to_owned(),
    };
    let details = BTreeMap::from([
        (
            "reason".to_owned(),
            "cannot_satisfy_host_placement".to_owned(),
        ),
        ("missing".to_owned(), missing.join(", ")),
    ]);
    Some(Cause {
        code: None,
        message,
        details,
    })
}
