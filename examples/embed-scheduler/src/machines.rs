//! The node's half of the loop, for each machine: compare, act, report.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use jaco_core::cluster::node::Engine;
use jaco_core::cluster::{ClusterState, Command};
use jaco_core::id::{ClusterId, NodeName, ReplicaId};
use jaco_core::node::containers::{self, Action, Desired};
use jaco_core::node::report::{self, Local};
use jaco_core::node::workloads::Workloads;
use jaco_core::ports::{ContainerRuntime, RuntimeError};
use jaco_core::time::Timestamp;

use crate::engine::Paper;

/// The machines with their engines, and those that nobody hears from.
pub(crate) struct Machines {
    engines: BTreeMap<NodeName, Arc<dyn ContainerRuntime>>,
    lost: BTreeSet<NodeName>,
}

impl Machines {
    /// One engine for each name.
    pub(crate) fn of(names: &[&str]) -> Self {
        let engine = |name: &&str| {
            let engine: Arc<dyn ContainerRuntime> = Arc::new(Paper::default());
            (NodeName::new(name), engine)
        };
        Self {
            engines: names.iter().map(engine).collect(),
            lost: BTreeSet::new(),
        }
    }

    /// What each engine says of itself.
    pub(crate) fn describe(&self) -> Result<BTreeMap<NodeName, Engine>, RuntimeError> {
        let engines = self.engines.iter();
        engines
            .map(|(node, engine)| Ok((node.clone(), at_once(engine.describe())?)))
            .collect()
    }

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
        &self,
        state: &ClusterState,
        now: Timestamp,
        out: &mut impl Write,
    ) -> io::Result<Vec<Command>> {
        let Some(cluster) = state.cluster.as_ref() else {
            return Ok(Vec::new());
        };
        let mut reports = Vec::new();
        for (node, engine) in &self.engines {
            if self.lost.contains(node) {
                continue;
            }
            let desired = containers::desired(state, node);
            let observed = at_once(engine.observe(&cluster.id)).map_err(io::Error::other)?;
            for action in containers::diff(&desired, &observed) {
                let verb = match &action {
                    Action::Start { .. } => "starts",
                    Action::Remove { .. } => "stops",
                };
                writeln!(out, "   {node:5} {verb} {}", action.replica())?;
                act(&**engine, &cluster.id, &desired, &action).map_err(io::Error::other)?;
            }
            let seen = at_once(engine.observe(&cluster.id)).map_err(io::Error::other)?;
            if let Some(index) = containers::swept(state, node, &desired, &seen) {
                let node = node.clone();
                reports.push(Command::Swept { node, index });
            }
            let by_replica = seen.into_iter().map(|seen| (seen.replica.clone(), seen));
            let local = Local {
                containers: by_replica.collect(),
                ..Local::default()
            };
            let observations = report::changes(&desired, &local, now);
            if !observations.is_empty() {
                let node = node.clone();
                reports.push(Command::Observe { node, observations });
            }
        }
        Ok(reports)
    }
}

fn act(
    engine: &dyn ContainerRuntime,
    cluster: &ClusterId,
    desired: &BTreeMap<ReplicaId, Desired>,
    action: &Action,
) -> Result<(), RuntimeError> {
    match action {
        Action::Remove { container_id, .. } => at_once(engine.remove(container_id)),
        Action::Start { replica } => {
            match containers::request(cluster, desired, replica, &Workloads::default()) {
                Some(request) => at_once(engine.start(&request)).map(drop),
                None => Ok(()),
            }
        }
    }
}

/// The outcome of a call that never waits; a program with real engines has an async runtime.
fn at_once<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("paper does not make anybody wait"),
    }
}
