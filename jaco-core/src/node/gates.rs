//! What a replica waits for before its container is made: `depends_on`, cluster-wide (spec 02).

use serde::Serialize;

use crate::cluster::deployment::{Deployment, Phase, Replica, ReplicaState};
use crate::id::ServiceName;
use crate::manifest::spec::{Condition, NetworkMode};

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
        let here = |peer: &&std::sync::Arc<Replica>| peer.node == replica.node;
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
    // A job of another revision has not done the work of this one.
    let once = condition == Condition::ServiceCompletedSuccessfully;
    let present = deployment.spec().services.get(name);
    let stale = |r: &Replica| present.is_some_and(|spec| spec.spec_hash != r.spec_hash);
    let mut active = deployment
        .replicas_of(name)
        .filter(|r| r.phase == Phase::Active && !(once && stale(r)));
    let wanted: &[ReplicaState] = match condition {
        Condition::ServiceStarted => &[Running, Degraded, Completed],
        Condition::ServiceHealthy => &[Running],
        Condition::ServiceCompletedSuccessfully => &[Completed],
    };
    Gate {
        service: name.clone(),
        condition,
        state: states(deployment, name),
        satisfied: active.any(|replica| wanted.contains(&replica.state())),
    }
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
