//! Planning again and again: what did not change since the last plan is not looked at again.
//!
//! Invariant (`tests/plan_props.rs`): whatever a planner has seen before, it plans what a new one
//! would. So the cost of a plan grows with the change, not with the cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::placement::{Cluster, stands_alike};
use super::plan::plan_deployment;
use super::settled::{self, Nodes};
use super::{drain, pressure, rebalance, wake};
use crate::cluster::command::Step;
use crate::cluster::deployment::Deployment;
use crate::cluster::node::Node;
use crate::cluster::state::ClusterState;
use crate::id::{DeploymentName, NodeName};
use crate::manifest::bounds;
use crate::time::Timestamp;

/// Plans one state after another.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    /// What the last plan was made of; shares its structure with the state.
    nodes: OrdMap<NodeName, Arc<Node>>,
    deployments: OrdMap<DeploymentName, Arc<Deployment>>,
    /// Those of them that need something.
    restless: BTreeSet<DeploymentName>,
    /// Those whose services were not found to lie evenly.
    uneven: BTreeSet<DeploymentName>,
    /// What the nodes hold; counted when first asked for.
    load: Option<Cluster>,
}

impl Planner {
    /// The next steps; empty when there is nothing to do until the state or the clock moves on.
    pub fn plan(&mut self, state: &ClusterState, now: Timestamp) -> Vec<Step> {
        self.see(state);
        let mut steps = drain::timeouts(state, now);
        if !self.restless.is_empty() {
            let mut cluster = self.load(state).clone();
            for deployment in self.restless().filter(|it| is_bounded(it)) {
                plan_deployment(state, deployment, now, &mut cluster, &mut steps);
            }
        } else if steps.is_empty() {
            steps = self.even_out(state);
        }
        // What cannot come to rest must not keep the others on a node under pressure.
        if steps.is_empty() && pressure::is_lasting(state, now) {
            let mut cluster = self.load(state).clone();
            steps = pressure::plan(state, &self.restless, now, &mut cluster);
        }
        steps
    }

    /// The next moment after `now` at which the plan of the state seen last may differ although
    /// nothing changed.
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        // What is settled waits for nothing.
        wake::next(self.nodes.values(), self.restless(), now)
    }

    fn restless(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        let found = |name| self.deployments.get(name);
        self.restless.iter().filter_map(found)
    }

    /// Takes in what changed since the last plan.
    fn see(&mut self, state: &ClusterState) {
        let mut changed = BTreeSet::new();
        for item in self.deployments.diff(&state.deployments) {
            let (before, after) = match item {
                DiffItem::Add(_, new) => (None, Some(new)),
                DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
                DiffItem::Remove(_, old) => (Some(old), None),
            };
            if let Some(load) = &mut self.load {
                load.shift(before.map(AsRef::as_ref), after.map(AsRef::as_ref));
            }
            changed.extend(before.or(after).map(|deployment| deployment.name.clone()));
        }
        if self.see_nodes(state) {
            changed.extend(state.deployments.keys().cloned());
        }
        self.nodes = state.nodes.clone();
        self.deployments = state.deployments.clone();
        let nodes = Nodes::of(state);
        for name in changed {
            let deployment = state.deployments.get(&name);
            let restless = deployment.is_some_and(|it| !settled::is_settled(&nodes, it));
            put(&mut self.restless, &name, restless);
            put(&mut self.uneven, &name, deployment.is_some());
        }
    }

    /// Takes in the nodes; true when another set of them may take replicas than before.
    fn see_nodes(&mut self, state: &ClusterState) -> bool {
        let mut other = false;
        for item in self.nodes.diff(&state.nodes) {
            match (item, &mut self.load) {
                (DiffItem::Update { old, new }, load) => {
                    other |= !stands_alike(old.1, new.1);
                    if let Some(load) = load {
                        load.renew(new.1);
                    }
                }
                (DiffItem::Add(..) | DiffItem::Remove(..), load) => {
                    other = true;
                    *load = None;
                }
            }
        }
        other
    }

    fn load(&mut self, state: &ClusterState) -> &Cluster {
        self.load.get_or_insert_with(|| Cluster::of(state))
    }

    /// The next move, of the first service that lies uneven and can be evened out.
    fn even_out(&mut self, state: &ClusterState) -> Vec<Step> {
        let names: Vec<_> = self.uneven.iter().cloned().collect();
        for name in names {
            let Some(deployment) = state.deployments.get(&name) else {
                continue;
            };
            let uneven = rebalance::uneven(state, deployment);
            if uneven.is_empty() {
                self.uneven.remove(&name);
                continue;
            }
            let mut cluster = self.load(state).clone();
            let steps = rebalance::plan(state, deployment, &uneven, &mut cluster);
            if !steps.is_empty() {
                return steps;
            }
        }
        Vec::new()
    }
}

/// What breaks a bound that an older version did not know is left alone: to plan it could be the
/// end of every leader. It can still be scaled down or deleted.
pub(super) fn is_bounded(deployment: &Deployment) -> bool {
    deployment.deleting || bounds::check(deployment.spec()).is_ok()
}

/// Puts a name into a set, or takes it out.
fn put(names: &mut BTreeSet<DeploymentName>, name: &DeploymentName, is_in: bool) {
    if is_in {
        names.insert(name.clone());
    } else {
        names.remove(name);
    }
}
