//! What would happen: the real plan on a copy of the state, with every node doing as it is told
//! (spec 05, Answering why).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Planner, decide, explain};
use crate::cluster::command::{Applied, Entry, Observed, Outcome, Proposal};
use crate::cluster::deployment::{Observation, Phase, Replica, ReplicaState};
use crate::cluster::node::NodeCondition;
use crate::cluster::{ClusterState, Command, apply};
use crate::error::Error;
use crate::id::{DeploymentName, Identity, NodeName, ReplicaId, ServiceName};
use crate::manifest::spec::DeploymentSpec;
use crate::time::Timestamp;
use crate::view::changes::{Change, changes};

/// A plan that is not at its end after so many rounds is shown as far as it got.
const ROUNDS: usize = 1_000;

/// What is thought to happen. Both may be; the loss then follows the change.
#[derive(Clone, Debug, Default)]
pub struct Thought {
    /// An [`Command::Apply`], and on whose behalf.
    pub change: Option<(Identity, Command)>,
    /// The node that dies.
    pub loss: Option<NodeName>,
}

/// What would follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Forecast {
    /// The deployment that would change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentName>,
    /// The revision that it would come to, or is at already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// The node that would be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// New replicas, and where they would run.
    pub placed: Vec<Placed>,
    /// Replicas that would be stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<ReplicaId>,
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

/// What would follow now.
///
/// # Errors
/// `node_not_found`, and why the change is refused.
pub fn foresee(state: &ClusterState, thought: &Thought, now: Timestamp) -> Result<Forecast, Error> {
    if let Some(node) = &thought.loss {
        state.node(node)?;
    }
    let mut rehearsal = Rehearsal {
        state: state.clone(),
        now,
    };
    rehearsal.settle();
    let before = rehearsal.state.clone();
    let mut forecast = Forecast {
        node: thought.loss.clone(),
        ..Forecast::default()
    };
    if let Some((identity, command)) = &thought.change {
        let outcome = rehearsal.commit(identity, command.clone())?;
        if let Outcome::Revision {
            deployment,
            revision,
            ..
        } = outcome
        {
            let spec = |state: &ClusterState| -> Option<Arc<DeploymentSpec>> {
                let deployment = state.deployments.get(&deployment);
                Some(Arc::clone(deployment.filter(|d| !d.deleting)?.spec()))
            };
            let new = spec(&rehearsal.state);
            let old = spec(&before);
            forecast.changes = new.map_or_else(Vec::new, |new| changes(old.as_deref(), &new));
            forecast.deployment = Some(deployment);
            forecast.revision = Some(revision);
        }
        rehearsal.settle();
    }
    if let Some(node) = thought.loss.clone() {
        let condition = NodeCondition::Unreachable;
        rehearsal.happen(Command::NodeCondition { node, condition });
        rehearsal.settle();
    }
    let after = &rehearsal.state;
    let lost = |replica: &&Arc<Replica>| Some(&replica.node) == thought.loss.as_ref();
    let new = after.replicas().filter(|r| before.replica(&r.id).is_err());
    let gone = before.replicas().filter(|r| after.replica(&r.id).is_err());
    let id = |replica: &Arc<Replica>| replica.id.clone();
    forecast.placed = new.map(placed).collect();
    forecast.removed = gone.filter(|r| !lost(r)).map(id).collect();
    forecast.waiting = after.replicas().filter(lost).map(id).collect();
    forecast.short = short(after);
    Ok(forecast)
}

fn short(state: &ClusterState) -> Vec<Short> {
    let services = state.deployments.values().flat_map(|deployment| {
        let services = deployment.spec().services.iter();
        services.map(move |(name, spec)| (deployment, name, spec))
    });
    let short = services.filter_map(|(deployment, service, spec)| {
        let cause = explain::pending(state, deployment, service, spec)?;
        Some(Short {
            deployment: deployment.name.clone(),
            service: service.clone(),
            reason: cause.message,
        })
    });
    short.collect()
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
    fn commit(&mut self, identity: &Identity, command: Command) -> Applied {
        let proposal = Proposal {
            at: self.now,
            identity: identity.clone(),
            author: None,
            command,
        };
        let index = self.state.index + 1;
        apply(&mut self.state, &Entry { index, proposal })
    }

    fn happen(&mut self, command: Command) {
        // A refusal changes nothing, here as there.
        drop(self.commit(&Identity::new("system"), command));
    }

    /// Plans and obeys until nothing is left to do.
    fn settle(&mut self) {
        let mut planner = Planner::default();
        for _ in 0..ROUNDS {
            let steps = decide(&mut planner, &self.state, self.now);
            if steps.is_empty() {
                let Some(due) = planner.due(self.now) else {
                    return;
                };
                self.now = due;
            } else {
                let after = self.state.index;
                self.happen(Command::Schedule { after, steps });
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
            self.happen(Command::Published { node: name, index });
            let name = node.clone();
            self.happen(Command::Swept { node: name, index });
            self.happen(Command::Observe { node, observations });
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
