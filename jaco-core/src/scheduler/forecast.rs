//! What would happen: the real plan on a copy of the state, with every node doing as it is told
//! (spec 05, Answering why).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Planner, explain};
use crate::cluster::command::{Entry, Observed, Proposal};
use crate::cluster::deployment::{Observation, Phase, Replica, ReplicaState};
use crate::cluster::node::NodeCondition;
use crate::cluster::{ClusterState, Command, apply};
use crate::error::Error;
use crate::id::{DeploymentName, Identity, NodeName, ReplicaId, ServiceName};
use crate::time::Timestamp;

/// A plan that is not at its end after so many rounds is shown as far as it got.
const ROUNDS: usize = 1_000;

/// What the loss of a node would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Loss {
    pub node: NodeName,
    /// New replicas, and where they would run.
    pub placed: Vec<Placed>,
    /// Replicas that would wait for the node, because their data is there.
    pub waiting: Vec<ReplicaId>,
    /// Services that would stay short, and why.
    pub short: Vec<Short>,
}

/// A replica that would be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Placed {
    pub replica: ReplicaId,
    pub node: NodeName,
}

/// A service that would have too few replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Short {
    pub deployment: DeploymentName,
    pub service: ServiceName,
    pub reason: String,
}

/// What would happen if a node died now.
///
/// # Errors
/// `node_not_found`.
pub fn lose(state: &ClusterState, node: &NodeName, now: Timestamp) -> Result<Loss, Error> {
    state.node(node)?;
    let mut rehearsal = Rehearsal {
        state: state.clone(),
        now,
    };
    rehearsal.settle();
    let before = rehearsal.state.clone();
    let lost = node.clone();
    let condition = NodeCondition::Unreachable;
    rehearsal.commit(Command::NodeCondition {
        node: lost,
        condition,
    });
    rehearsal.settle();
    let after = &rehearsal.state;
    let known = |id: &ReplicaId| before.replica(id).is_ok();
    let new = after.replicas().filter(|replica| !known(&replica.id));
    let waiting = after.replicas().filter(|replica| replica.node == *node);
    let services = after.deployments.values().flat_map(|deployment| {
        let services = deployment.spec().services.iter();
        services.map(move |(name, spec)| (deployment, name, spec))
    });
    let short = services.filter_map(|(deployment, service, spec)| {
        let cause = explain::pending(after, deployment, service, spec)?;
        Some(Short {
            deployment: deployment.name.clone(),
            service: service.clone(),
            reason: cause.message,
        })
    });
    Ok(Loss {
        node: node.clone(),
        placed: new.map(placed).collect(),
        waiting: waiting.map(|replica| replica.id.clone()).collect(),
        short: short.collect(),
    })
}

fn placed(replica: &Arc<Replica>) -> Placed {
    Placed {
        replica: replica.id.clone(),
        node: replica.node.clone(),
    }
}

/// A state that nobody else sees.
struct Rehearsal {
    state: ClusterState,
    now: Timestamp,
}

impl Rehearsal {
    fn commit(&mut self, command: Command) {
        let proposal = Proposal {
            at: self.now,
            identity: Identity::new("system"),
            command,
        };
        let index = self.state.index + 1;
        // A refusal changes nothing, here as there.
        drop(apply(&mut self.state, &Entry { index, proposal }));
    }

    /// Plans and obeys until nothing is left to do.
    fn settle(&mut self) {
        let mut planner = Planner::default();
        for _ in 0..ROUNDS {
            let steps = planner.plan(&self.state, self.now);
            if steps.is_empty() {
                let Some(due) = planner.due(self.now) else {
                    return;
                };
                self.now = due;
            } else {
                self.commit(Command::Schedule(steps));
            }
            self.obey();
        }
    }

    /// Every node that is there does what the state wants.
    fn obey(&mut self) {
        let live = self.state.nodes.values();
        let live = live.filter(|node| node.condition == NodeCondition::Reachable);
        let live: Vec<NodeName> = live.map(|node| node.name.clone()).collect();
        let mut seen: BTreeMap<NodeName, Vec<Observed>> = BTreeMap::new();
        for replica in self.state.replicas() {
            let observed = seen.entry(replica.node.clone()).or_default();
            observed.extend(obedient(replica));
        }
        for node in live {
            let index = self.state.index;
            let observations = seen.remove(&node).unwrap_or_default();
            let name = node.clone();
            self.commit(Command::Published { node: name, index });
            self.commit(Command::Observe { node, observations });
        }
    }
}

/// What a node would say of a replica once it has done its part. What has failed goes on failing.
fn obedient(replica: &Replica) -> Option<Observed> {
    let state = match (replica.phase, replica.state()) {
        (Phase::Stopping, _) => ReplicaState::Stopped,
        (_, ReplicaState::Pending | ReplicaState::Pulling | ReplicaState::Starting) => {
            ReplicaState::Running
        }
        _ => return None,
    };
    Some(Observed {
        deployment: replica.deployment.clone(),
        replica: replica.id.clone(),
        observation: Observation {
            generation: replica.generation,
            state,
            ..Observation::default()
        },
    })
}
