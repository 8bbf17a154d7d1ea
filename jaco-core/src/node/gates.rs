//! What a replica waits for before its container is made: `depends_on`, cluster-wide (spec 02).

use std::sync::Arc;

use serde::Serialize;

use crate::cluster::deployment::{Deployment, Phase, Replica, ReplicaState};
use crate::id::ServiceName;
use crate::manifest::spec::{Condition, NetworkMode, Placement};

/// One gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Gate {
    pub service: ServiceName,
    pub condition: Condition,
    /// What the service's replicas are, e.g. `running, pending`; `none` without any.
    pub state: String,
    pub satisfied: bool,
}

/// The gates of a replica, in service order.
pub fn gates(deployment: &Deployment, replica: &Replica) -> Vec<Gate> {
    let Some(service) = deployment.service_of(replica) else {
        return Vec::new();
    };
    let declared = service.depends_on.iter().filter(|(name, dependency)| {
        dependency.required || deployment.spec().services.contains_key(*name)
    });
    let mut gates: Vec<Gate> = declared
        .map(|(name, on)| gate(deployment, name, on.condition))
        .collect();
    if let NetworkMode::Service(with) = &service.network_mode {
        let here = |peer: &&Arc<Replica>| peer.node == replica.node;
        let peers = deployment.replicas_of(with).filter(here);
        let up = peers
            .into_iter()
            .any(|peer| matches!(peer.state(), ReplicaState::Running | ReplicaState::Degraded));
        gates.push(Gate {
            service: with.clone(),
            condition: Condition::ServiceStarted,
            state: states(deployment, with),
            satisfied: up,
        });
    }
    gates
}

fn gate(deployment: &Deployment, name: &ServiceName, condition: Condition) -> Gate {
    use ReplicaState::{Completed, Degraded, Running};
    let is_active = |r: &&Arc<Replica>| r.phase == Phase::Active;
    let active = || deployment.replicas_of(name).filter(is_active);
    let any = |wanted: &[ReplicaState]| active().any(|r| wanted.contains(&r.state()));
    let satisfied = match condition {
        Condition::ServiceStarted => any(&[Running, Degraded, Completed]),
        Condition::ServiceHealthy => any(&[Running]),
        Condition::ServiceCompletedSuccessfully => is_complete(deployment, name, active()),
    };
    Gate {
        service: name.clone(),
        condition,
        state: states(deployment, name),
        satisfied,
    }
}

/// True when all replicas of a job have done its work. Those of another revision have not done
/// the work of this one.
fn is_complete<'a>(
    deployment: &Deployment,
    name: &ServiceName,
    active: impl Iterator<Item = &'a Arc<Replica>>,
) -> bool {
    let present = deployment.spec().services.get(name);
    let least = match present.map(|job| (&job.placement, job.replicas)) {
        Some((Placement::Global, _)) | None => 1,
        Some((_, replicas)) => replicas.max(1) as usize,
    };
    let of_kind = |r: &&Arc<Replica>| present.is_none_or(|job| job.spec_hash == r.spec_hash);
    let states: Vec<_> = active.filter(of_kind).map(|r| r.state()).collect();
    states.len() >= least && states.iter().all(|state| *state == ReplicaState::Completed)
}

fn states(deployment: &Deployment, name: &ServiceName) -> String {
    let states: Vec<&str> = deployment
        .replicas_of(name)
        .map(|replica| replica.state().as_str())
        .collect();
    if states.is_empty() {
        "none".to_owned()
    } else {
        states.join(", ")
    }
}
