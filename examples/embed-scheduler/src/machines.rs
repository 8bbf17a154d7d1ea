//! Machines that exist on paper only: what a container runtime would do is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use jaco_core::cluster::command::Observed;
use jaco_core::cluster::deployment::{Observation, Phase, ReplicaState};
use jaco_core::cluster::{ClusterState, Command};
use jaco_core::id::{NodeName, ReplicaId};
use jaco_core::node::containers;

/// What runs where.
#[derive(Default)]
pub(crate) struct Machines {
    running: BTreeMap<NodeName, BTreeSet<ReplicaId>>,
    lost: BTreeSet<NodeName>,
}

impl Machines {
    /// Nobody hears from the machine any more.
    pub(crate) fn lose(&mut self, node: &NodeName) {
        self.lost.insert(node.clone());
    }

    /// All machines are heard again.
    pub(crate) fn find(&mut self) {
        self.lost.clear();
    }

    /// Brings each machine to what the state wants of it; gives what they saw.
    pub(crate) fn obey(
        &mut self,
        state: &ClusterState,
        out: &mut impl Write,
    ) -> io::Result<Vec<Command>> {
        let mut reports = Vec::new();
        for node in state.nodes.keys().filter(|node| !self.lost.contains(*node)) {
            let running = self.running.entry(node.clone()).or_default();
            let desired = containers::desired(state, node);
            let wanted = |id: &ReplicaId| {
                desired
                    .get(id)
                    .is_some_and(|d| d.replica.phase == Phase::Active)
            };
            for id in running.iter().filter(|id| !wanted(id)) {
                writeln!(out, "   {node:5} stops {id}")?;
            }
            running.retain(|id| wanted(id));
            let mut observations = Vec::new();
            for (id, desired) in &desired {
                let replica = &desired.replica;
                let state = match replica.phase {
                    Phase::Active => ReplicaState::Running,
                    Phase::Stopping => ReplicaState::Stopped,
                };
                if state == ReplicaState::Running && running.insert(id.clone()) {
                    writeln!(out, "   {node:5} starts {id}")?;
                }
                let observation = Observation {
                    generation: replica.generation,
                    state,
                    ..Observation::default()
                };
                if observation != replica.observed {
                    observations.push(Observed {
                        deployment: replica.deployment.clone(),
                        replica: id.clone(),
                        observation,
                    });
                }
            }
            if !observations.is_empty() {
                let node = node.clone();
                reports.push(Command::Observe { node, observations });
            }
        }
        Ok(reports)
    }
}
