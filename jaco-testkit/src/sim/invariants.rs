//! What must always hold, checked by code that shares nothing with the planner.

use std::collections::{BTreeMap, BTreeSet};

use jaco_core::cluster::ClusterState;
use jaco_core::cluster::deployment::{Deployment, Phase, Replica, ReplicaState};
use jaco_core::id::{NodeName, ServiceName};
use jaco_core::manifest::spec::{Placement, ServiceSpec};
use jaco_core::ports::container_runtime::ContainerStatus;

use super::node::SimNode;
use super::raft::Logged;

/// What the checks remember of the run so far.
#[derive(Debug, Default)]
pub struct Witness {
    leaders: BTreeMap<u64, NodeName>,
    committed: Vec<Logged>,
    states: BTreeMap<u64, ClusterState>,
    /// Where the data of each stateful service is.
    homes: BTreeMap<String, NodeName>,
}

/// A broken rule, in words.
pub type Broken = String;

macro_rules! hold {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

impl Witness {
    /// Looks at every node after a step.
    ///
    /// # Errors
    /// With the first broken rule.
    pub fn check(&mut self, nodes: &[SimNode]) -> Result<(), Broken> {
        for (id, node) in nodes.iter().enumerate().filter(|(_, node)| node.up) {
            self.check_leader(id, node)?;
            self.check_log(node)?;
            self.check_state(node)?;
        }
        self.check_data(nodes)
    }

    fn check_leader(&mut self, id: usize, node: &SimNode) -> Result<(), Broken> {
        if !node.raft.leads(id) {
            return Ok(());
        }
        let term = node.raft.term;
        if let Some(leader) = self.leaders.get(&term) {
            hold!(
                *leader == node.name,
                "term {term} has leaders {leader} and {}",
                node.name
            );
            return Ok(());
        }
        self.leaders.insert(term, node.name.clone());
        let held = node.raft.log.get(..self.committed.len());
        hold!(
            held == Some(&self.committed),
            "{} leads term {term} without what was committed",
            node.name
        );
        Ok(())
    }

    /// A committed entry is the same for everyone, for ever.
    fn check_log(&mut self, node: &SimNode) -> Result<(), Broken> {
        let from = node.checked.min(self.committed.len());
        for (i, entry) in node.raft.log[..node.raft.commit]
            .iter()
            .enumerate()
            .skip(from)
        {
            match self.committed.get(i) {
                Some(committed) => hold!(committed == entry, "{} lost entry {i}", node.name),
                None => self.committed.push(entry.clone()),
            }
        }
        Ok(())
    }

    /// Equal indexes have equal states; addresses have one holder.
    fn check_state(&mut self, node: &SimNode) -> Result<(), Broken> {
        let state = &node.state;
        if let Some(known) = self.states.get(&state.index) {
            hold!(
                node.checked >= node.raft.commit || known == state,
                "{} has another state at index {}",
                node.name,
                state.index
            );
            return Ok(());
        }
        let mut holders = BTreeMap::new();
        for replica in state.replicas() {
            for address in replica.addresses.values() {
                let other = holders.insert(*address, &replica.id);
                hold!(
                    other.is_none(),
                    "{address} belongs to {} and {}",
                    replica.id,
                    other.expect("just seen")
                );
            }
        }
        self.states.insert(state.index, state.clone());
        Ok(())
    }

    /// The simulation runs stateful services with one replica: its container has one place.
    fn check_data(&mut self, nodes: &[SimNode]) -> Result<(), Broken> {
        for node in nodes {
            for container in node.engine.containers.values() {
                let Some((service, _)) = container.replica.as_str().rsplit_once("-") else {
                    continue;
                };
                if container.status != ContainerStatus::Running || !service.ends_with("-store") {
                    continue;
                }
                let home = self
                    .homes
                    .entry(service.to_owned())
                    .or_insert_with(|| node.name.clone());
                hold!(
                    *home == node.name,
                    "{service} ran on {home} and now on {}",
                    node.name
                );
            }
        }
        Ok(())
    }

    /// How many entries were committed.
    pub fn committed(&self) -> usize {
        self.committed.len()
    }
}

/// A step of the scheduler takes no serving replica away below the number wanted but the one that
/// is being replaced.
pub(super) fn check_floor(before: &ClusterState, after: &ClusterState) -> Result<(), Broken> {
    let serves = |r: &Replica| {
        r.phase == Phase::Active
            && r.observed.generation == r.generation
            && r.observed.state == ReplicaState::Running
    };
    for (name, was) in &before.deployments {
        let Some(now) = after.deployments.get(name).filter(|d| !d.deleting) else {
            continue;
        };
        for (service, spec) in &now.spec().services {
            let taken = was.replicas.values().filter(|r| r.service == *service);
            let taken = taken.filter(|r| {
                let left = now.replicas.get(&r.id);
                serves(r) && left.is_some_and(|left| left.phase != Phase::Active)
            });
            let serving = now.replicas.values().filter(|r| r.service == *service);
            let serving = serving.filter(|r| serves(r)).count();
            let parallelism = spec.update.parallelism as usize;
            let floor = (spec.replicas as usize).saturating_sub(parallelism);
            hold!(
                spec.placement == Placement::Global || taken.count() == 0 || serving >= floor,
                "{name}/{service} falls to {serving} of {floor}"
            );
        }
    }
    Ok(())
}

/// What is still missing from what was declared; empty when the cluster has converged.
pub fn shortcomings(nodes: &[SimNode]) -> Vec<String> {
    let Some(newest) = nodes
        .iter()
        .map(|node| &node.state)
        .max_by_key(|state| state.index)
    else {
        return Vec::new();
    };
    let mut missing = Vec::new();
    for node in nodes.iter().filter(|node| node.state.index != newest.index) {
        missing.push(format!("{} is behind", node.name));
    }
    for deployment in newest.deployments.values() {
        if deployment.deleting {
            missing.push(format!("{} is not deleted", deployment.name));
        }
        for (name, service) in &deployment.spec().services {
            missing.extend(service_shortcoming(newest, deployment, name, service));
        }
    }
    missing.extend(stray_containers(newest, nodes));
    missing
}

fn service_shortcoming(
    state: &ClusterState,
    deployment: &Deployment,
    name: &ServiceName,
    service: &ServiceSpec,
) -> Option<String> {
    let replicas: Vec<_> = deployment
        .replicas
        .values()
        .filter(|replica| replica.service == *name)
        .collect();
    let right = replicas.iter().all(|replica| {
        replica.spec_hash == service.spec_hash
            && replica.phase == Phase::Active
            && replica.state() == ReplicaState::Running
    });
    let wanted = match service.placement {
        Placement::Global => state.nodes.len(),
        _ => service.replicas as usize,
    };
    let states: Vec<_> = replicas
        .iter()
        .map(|replica| (&replica.id, replica.state()))
        .collect();
    (replicas.len() != wanted || !right)
        .then(|| format!("{}/{name} wants {wanted}, has {states:?}", deployment.name))
}

/// Every running container is one that the state wants there, and each has one.
fn stray_containers(state: &ClusterState, nodes: &[SimNode]) -> Vec<String> {
    let wanted: BTreeSet<_> = state
        .replicas()
        .map(|r| (&r.node, &r.id, r.generation))
        .collect();
    let containers = nodes.iter().flat_map(|node| {
        let containers = node.engine.containers.values();
        containers.map(move |c| (&node.name, &c.replica, c.generation))
    });
    let running: Vec<_> = containers.collect();
    let set: BTreeSet<_> = running.iter().copied().collect();
    let mut stray: Vec<String> = set
        .symmetric_difference(&wanted)
        .map(|odd| format!("container {odd:?}"))
        .collect();
    if set.len() != running.len() {
        stray.push("two containers of one replica".to_owned());
    }
    stray
}
