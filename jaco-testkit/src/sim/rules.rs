//! What must hold in every state: capacity, hosts, ports, jobs. Shares nothing with the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jaco_core::cluster::ClusterState;
use jaco_core::cluster::deployment::{Deployment, Phase, Replica, Revision};
use jaco_core::id::{DeploymentName, NodeName, ReplicaId, ServiceName, SpecHash};
use jaco_core::manifest::spec::{Condition, Placement, ServiceKind, ServiceSpec};

use super::engine::Engine;
use super::invariants::{Broken, hold};
use super::node::SimNode;

type ServiceKey = (DeploymentName, ServiceName);

/// What has been seen of jobs, and of the containers that wait for them.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// Every kind of job that was ever done.
    done: BTreeSet<(ServiceKey, SpecHash)>,
    /// Which replicas did the present kind of each job.
    by: BTreeMap<ServiceKey, (SpecHash, BTreeSet<ReplicaId>)>,
    /// How many containers of each node were looked at.
    looked_at: BTreeMap<NodeName, u64>,
}

/// Rules that one state is enough to check.
pub(super) fn check(state: &ClusterState) -> Result<(), Broken> {
    let mut reserved: BTreeMap<&NodeName, u64> = BTreeMap::new();
    for replica in state.replicas().filter(|replica| !replica.is_stopped()) {
        *reserved.entry(&replica.node).or_default() += replica.reserved.cpu_millis;
    }
    for (name, millis) in reserved {
        let engine = state.nodes.get(name).and_then(|node| node.engine());
        let capacity = engine.map_or(u64::MAX, |engine| engine.capacity.cpu_millis);
        hold!(
            millis <= capacity,
            "{millis} of {capacity} reserved on {name}"
        );
    }
    let mut ports = BTreeMap::new();
    for deployment in state.deployments.values() {
        let services = deployment.spec().services.values();
        for port in services.flat_map(|service| &service.ports) {
            let other = ports.insert(port.host, &deployment.name);
            hold!(
                other.is_none(),
                "{} has port {} too",
                deployment.name,
                port.host
            );
        }
        check_seats(deployment)?;
    }
    Ok(())
}

/// A service with hosts of its own, or on every node, has one replica on each at most.
fn check_seats(deployment: &Deployment) -> Result<(), Broken> {
    let mut seats = BTreeSet::new();
    let active = deployment.replicas.values();
    for replica in active.filter(|replica| replica.phase == Phase::Active) {
        let Some(service) = deployment.service_of(replica) else {
            return Err(format!("{} is of no revision", replica.id));
        };
        let single = match &service.placement {
            Placement::Hosts(hosts) => {
                let listed = hosts.contains(&replica.node);
                hold!(
                    listed,
                    "{} is on {}, not its host",
                    replica.id,
                    replica.node
                );
                true
            }
            Placement::Global => true,
            _ => false,
        };
        let is_first = seats.insert((&replica.service, &replica.node));
        hold!(
            is_first || !single,
            "{} is second on {}",
            replica.id,
            replica.node
        );
        let job = service.kind == ServiceKind::Job;
        let (tries, most) = (replica.restarts.total, service.restart.max_attempts);
        hold!(
            !job || tries <= most,
            "{} is tried {tries} times more",
            replica.id
        );
    }
    Ok(())
}

impl Jobs {
    /// Takes in which jobs are done.
    pub(super) fn note(&mut self, state: &ClusterState) {
        for replica in state.replicas().filter(|replica| replica.has_completed()) {
            let key = (replica.deployment.clone(), replica.service.clone());
            self.done.insert((key, replica.spec_hash.clone()));
        }
    }

    /// A job that is done is not done again. Takes one state after the other.
    pub(super) fn check(&mut self, state: &ClusterState) -> Result<(), Broken> {
        for deployment in state.deployments.values() {
            for (service, spec) in &deployment.spec().services {
                if spec.kind != ServiceKind::Job {
                    continue;
                }
                let key = (deployment.name.clone(), service.clone());
                let entry = self.by.entry(key);
                let (hash, by) = entry.or_insert_with(|| (spec.spec_hash.clone(), BTreeSet::new()));
                if *hash != spec.spec_hash || deployment.deleting {
                    (*hash, *by) = (spec.spec_hash.clone(), BTreeSet::new());
                }
                if deployment.deleting {
                    // The next one of this name does its jobs anew.
                    continue;
                }
                // What was done under an earlier revision of the same kind may be on its way out.
                let done = deployment
                    .replicas_of(service)
                    .filter(|r| r.has_completed() && r.phase == Phase::Active);
                let done = done.filter(|replica| replica.spec_hash == *hash);
                by.extend(done.map(|replica| replica.id.clone()));
                let most = spec.replicas as usize;
                hold!(
                    by.len() <= most,
                    "{service} is done by {by:?}, not by {most}"
                );
            }
        }
        Ok(())
    }

    /// What awaits a job starts after it.
    pub(super) fn check_order(&mut self, nodes: &[SimNode]) -> Result<(), Broken> {
        for node in nodes.iter().filter(|node| node.up) {
            let made = node.engine.made();
            let before = self.looked_at.insert(node.name.clone(), made).unwrap_or(0);
            for number in before..made {
                let container = node.engine.containers.get(&Engine::id(number + 1));
                let replica = container.and_then(|it| {
                    // One of a deployment that was deleted meanwhile is nobody's.
                    let replica = node.state.replica(&it.replica).ok()?;
                    Some(replica).filter(|replica| replica.spec_hash.as_str() == it.spec_hash)
                });
                if let Some(replica) = replica {
                    self.check_awaited(&node.state, replica)?;
                }
            }
        }
        Ok(())
    }

    fn check_awaited(&self, state: &ClusterState, replica: &Arc<Replica>) -> Result<(), Broken> {
        let deployment = &state.deployments[&replica.deployment];
        let Some(service) = deployment.service_of(replica) else {
            return Ok(());
        };
        for (name, on) in &service.depends_on {
            let key = (replica.deployment.clone(), name.clone());
            // The gate was passed under some revision since the one that brought this replica's
            // kind; another may have come while the container was on its way.
            let other = |revision: &&Arc<Revision>| {
                let same = revision.spec.services.get(&replica.service);
                same.is_none_or(|same| same.spec_hash != replica.spec_hash)
            };
            let revisions = deployment.revisions.values().skip_while(other);
            let specs = revisions.map(|it| &it.spec).chain([deployment.spec()]);
            let mut kinds = specs.filter_map(|spec| spec.services.get(name));
            let is_done = |awaited: &ServiceSpec| {
                let kind = (key.clone(), awaited.spec_hash.clone());
                self.done.contains(&kind)
            };
            hold!(
                on.condition != Condition::ServiceCompletedSuccessfully || kinds.any(is_done),
                "{} runs before {name} is done",
                replica.id
            );
        }
        Ok(())
    }
}
