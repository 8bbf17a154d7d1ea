//! What must always hold, checked by code that shares nothing with the planner.

use std::collections::{BTreeMap, BTreeSet};

use jaco_core::cluster::ClusterState;
use jaco_core::cluster::deployment::{Deployment, Phase, Replica, ReplicaState};
use jaco_core::cluster::node::NodeStatus;
use jaco_core::error::ErrorCode;
use jaco_core::id::{NodeName, ServiceName};
use jaco_core::manifest::spec::{Placement, ServiceKind, ServiceSpec};
use jaco_core::ports::container_runtime::ContainerStatus;
use jaco_core::scheduler::explain;

use super::node::{Ledger, SimNode};
use super::raft::Logged;
use super::rules::{self, Jobs};
use super::wishes::LARGE;

/// What the checks remember of the run so far.
#[derive(Debug, Default)]
pub struct Witness {
    leaders: BTreeMap<u64, NodeName>,
    committed: Vec<Logged>,
    /// How many states have been looked at.
    states: usize,
    newest: ClusterState,
    /// Where the data of the one stateful service is.
    home: Option<NodeName>,
    /// Up to which number the replicas with data are given up that a host had when it was removed
    /// by force: it may go on with them until it hears of that.
    given_up: BTreeMap<NodeName, u64>,
    jobs: Jobs,
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
pub(super) use hold;

impl Witness {
    /// Looks at every node after a step, and at every state that is new.
    ///
    /// # Errors
    /// With the first broken rule.
    pub fn check(&mut self, nodes: &[SimNode], ledger: &Ledger) -> Result<(), Broken> {
        for (id, node) in nodes.iter().enumerate().filter(|(_, node)| node.up) {
            self.check_leader(id, node)?;
            self.check_log(node)?;
        }
        for state in ledger.states_after(self.states) {
            self.states += 1;
            self.check_state(state)?;
        }
        self.check_data(nodes)?;
        self.jobs.check_order(nodes)
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

    /// What one state is enough to check.
    fn check_state(&mut self, state: &ClusterState) -> Result<(), Broken> {
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
        rules::check(state)?;
        self.jobs.note(state);
        self.jobs.check(state)?;
        self.note_removals(state);
        self.newest = state.clone();
        Ok(())
    }

    /// What a removed host has of the data is given up with it.
    fn note_removals(&mut self, state: &ClusterState) {
        let counter = || {
            let data = state.deployments.get("data")?;
            data.counters.get("store").copied()
        };
        for node in self.newest.nodes.values() {
            let now = state.nodes.get(&node.name).map(|node| node.member);
            if now != Some(node.member) {
                self.given_up
                    .insert(node.name.clone(), counter().unwrap_or(0));
                self.home.take_if(|home| *home == node.name);
            }
        }
    }

    /// The stateful service has one replica: its container has one place.
    fn check_data(&mut self, nodes: &[SimNode]) -> Result<(), Broken> {
        for node in nodes {
            let given_up = self.given_up.get(&node.name).copied().unwrap_or(0);
            for container in node.engine.containers.values() {
                let number = container.replica.as_str().strip_prefix("data-store-");
                let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
                    continue;
                };
                if container.status != ContainerStatus::Running || number <= given_up {
                    continue;
                }
                let home = self.home.get_or_insert_with(|| node.name.clone());
                hold!(
                    *home == node.name,
                    "the data was used on {home} and now is on {}",
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
            let floor = match spec.update.parallelism {
                0 => 0,
                some => spec.replicas.saturating_sub(some) as usize,
            };
            let free = spec.placement == Placement::Global || spec.kind == ServiceKind::Job;
            hold!(
                free || taken.count() == 0 || serving >= floor,
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
    for node in newest
        .nodes
        .values()
        .filter(|node| node.status() != NodeStatus::Ready)
    {
        missing.push(format!("{} is {:?}", node.name, node.status()));
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
    let wanted = match &service.placement {
        Placement::Global => state.nodes.len(),
        Placement::Hosts(hosts) => {
            let there = hosts.iter().filter(|host| state.nodes.contains_key(*host));
            return pinned_shortcoming(state, deployment, name, service, there.count());
        }
        _ => service.replicas as usize,
    };
    let right = replicas.iter().all(|replica| {
        let ended = ReplicaState::Completed;
        replica.spec_hash == service.spec_hash
            && replica.phase == Phase::Active
            && match service.kind {
                ServiceKind::Service => replica.state() == ReplicaState::Running,
                ServiceKind::Job => replica.state() == ended,
            }
    });
    if service.reservations.cpu_millis > 0 && wanted > room(state) {
        // The rest stays as it is, old or new, and the reason is told.
        let told = explain::pending(state, deployment, name, service);
        let told = told.and_then(|cause| cause.code) == Some(ErrorCode::InsufficientCapacity);
        let full = replicas.len() == room(state);
        return (!told || !full).then(|| format!("{name} has {} and tells {told}", replicas.len()));
    }
    let states: Vec<_> = replicas
        .iter()
        .map(|replica| {
            (
                &replica.id,
                replica.state(),
                &replica.node,
                &replica.spec_hash,
            )
        })
        .collect();
    let rollout = deployment.rollouts.get(name);
    (replicas.len() != wanted || !right).then(|| {
        let dep = &deployment.name;
        format!("{dep}/{name} wants {wanted}, has {states:?} in {rollout:?}")
    })
}

/// How many replicas that reserve [`LARGE`] the cluster holds.
fn room(state: &ClusterState) -> usize {
    let engines = state.nodes.values().filter_map(|node| node.engine());
    let fitting = engines.map(|engine| (engine.capacity.cpu_millis / LARGE) as usize);
    fitting.sum()
}

/// With a host missing there is no replica more than there are hosts, and the reason is told.
fn pinned_shortcoming(
    state: &ClusterState,
    deployment: &Deployment,
    name: &ServiceName,
    service: &ServiceSpec,
    there: usize,
) -> Option<String> {
    let wanted = service.replicas as usize;
    let running = deployment.replicas_of(name).filter(|replica| {
        replica.spec_hash == service.spec_hash
            && replica.phase == Phase::Active
            && replica.state() == ReplicaState::Running
    });
    let (running, all) = (running.count(), deployment.replicas_of(name).count());
    if there >= wanted {
        return (running != wanted || all != wanted)
            .then(|| format!("{name} wants {wanted}, has {all} and {running} run"));
    }
    let told = explain::pending(state, deployment, name, service).is_some();
    (all > there || !told).then(|| format!("{name} has {all} on {there} hosts, told: {told}"))
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
