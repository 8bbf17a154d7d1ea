//! Containers: what this node should run, and the actions that get there (spec 06).
//!
//! Invariants (`tests/node_props.rs`): a container with the wanted hash and generation is never
//! touched, but for one whose shared network is gone; carrying out every action leaves nothing to
//! do; one replica has one action at most.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bridges::{self, CLUSTER_LABEL};
use super::gates;
use crate::cluster::addresses::{self, Scope};
use crate::cluster::deployment::{Deployment, Phase, Replica};
use crate::cluster::state::ClusterState;
use crate::id::{ClusterId, NodeName, ReplicaId, ServiceName};
use crate::manifest::spec::{MountSource, NetworkMode, ServiceSpec, VolumeSpec};
use crate::node::workloads::Workloads;
use crate::ports::container_runtime::{
    ContainerNetwork, ContainerRequest, ContainerStatus, Endpoint, ObservedContainer,
};

/// A replica of this node, with its deployment at hand.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Desired {
    pub replica: Arc<Replica>,
    pub deployment: Arc<Deployment>,
}

impl Desired {
    /// What its container is; absent only if its revision was lost, which `apply` prevents.
    pub fn service(&self) -> Option<&ServiceSpec> {
        self.deployment.service_of(&self.replica)
    }
}

/// One thing to do for one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    /// Stop and remove a container: not wanted, outdated, or in its replica's way.
    Remove {
        replica: ReplicaId,
        container_id: String,
    },
    /// Make and start the replica's container.
    Start { replica: ReplicaId },
}

impl Action {
    /// The replica it is for.
    pub fn replica(&self) -> &ReplicaId {
        match self {
            Action::Remove { replica, .. } | Action::Start { replica } => replica,
        }
    }
}

/// The replicas that the state puts on this node, those on their way out included.
pub fn desired(state: &ClusterState, node: &NodeName) -> BTreeMap<ReplicaId, Desired> {
    let mut desired = BTreeMap::new();
    for deployment in state.deployments.values() {
        for replica in deployment
            .replicas
            .values()
            .filter(|replica| replica.node == *node)
        {
            let entry = Desired {
                replica: Arc::clone(replica),
                deployment: Arc::clone(deployment),
            };
            desired.insert(replica.id.clone(), entry);
        }
    }
    desired
}

/// What to do now. Gated replicas have no action until their gates open.
pub fn diff(desired: &BTreeMap<ReplicaId, Desired>, observed: &[ObservedContainer]) -> Vec<Action> {
    let mut actions = BTreeMap::new();
    let mut present = BTreeMap::new();
    for container in observed {
        let wanted = desired.get(&container.replica);
        let stays = |wanted: &&Desired| {
            is_wanted(wanted, container) && !is_stranded(wanted, container, observed)
        };
        if wanted.filter(stays).is_some() {
            present.insert(&container.replica, container);
        } else {
            let action = Action::Remove {
                replica: container.replica.clone(),
                container_id: container.id.clone(),
            };
            actions.insert(container.replica.clone(), action);
        }
    }
    for (id, wanted) in desired {
        let startable = wanted.replica.phase == Phase::Active
            && !wanted.replica.has_completed()
            && !present.contains_key(id)
            && !actions.contains_key(id)
            && gates::gates(&wanted.deployment, &wanted.replica)
                .iter()
                .all(|g| g.satisfied);
        if startable {
            actions.insert(
                id.clone(),
                Action::Start {
                    replica: id.clone(),
                },
            );
        }
    }
    actions.into_values().collect()
}

/// Since when a node has nothing left of what it should not run, when it owes the cluster that
/// word: one that comes back takes no replica before (spec 05, Placement).
pub fn swept(
    state: &ClusterState,
    node: &NodeName,
    desired: &BTreeMap<ReplicaId, Desired>,
    observed: &[ObservedContainer],
) -> Option<u64> {
    state.nodes.get(node)?.returned?;
    let wanted = |container: &ObservedContainer| {
        let wanted = desired.get(&container.replica);
        wanted.is_some_and(|wanted| is_wanted(wanted, container))
    };
    observed.iter().all(wanted).then_some(state.index)
}

/// True for a container in the network of another one that is not there any more: the one that
/// it was started beside has been replaced, or was started again since.
fn is_stranded(wanted: &Desired, container: &ObservedContainer, all: &[ObservedContainer]) -> bool {
    let mode = wanted.service().map(|service| &service.network_mode);
    let Some(NetworkMode::Service(with)) = mode else {
        return false;
    };
    let peer = beside(&wanted.deployment, &wanted.replica, with);
    let peer = peer.and_then(|peer| all.iter().find(|other| other.replica == peer.id));
    // One that has ended is the scheduler's to start again; a job has done its part.
    container.status == ContainerStatus::Running
        && peer.is_some_and(|peer| {
            peer.status == ContainerStatus::Running && peer.started_at > container.started_at
        })
}

/// True for the very container that the replica should have, whatever became of it; one that
/// was made but never started is made anew.
fn is_wanted(wanted: &Desired, container: &ObservedContainer) -> bool {
    let replica = &wanted.replica;
    replica.phase != Phase::Stopping
        && container.spec_hash == replica.spec_hash.as_str()
        && container.generation == replica.generation
        && !matches!(
            container.status,
            ContainerStatus::Created | ContainerStatus::Removing
        )
}

/// Everything that the container of a replica is made from. `None` while a container that it
/// shares its network with is not there.
pub fn request(
    cluster: &ClusterId,
    desired: &BTreeMap<ReplicaId, Desired>,
    id: &ReplicaId,
    workloads: &Workloads,
) -> Option<ContainerRequest> {
    let wanted = desired.get(id)?;
    let service = wanted.service()?;
    let revision = wanted.deployment.revisions.get(&wanted.replica.revision)?;
    let mut volumes = BTreeMap::new();
    let mut contents = BTreeMap::new();
    for mount in &service.container.mounts {
        match &mount.source {
            MountSource::Volume { key, .. } => {
                let volume = revision.spec.volumes.get(key)?;
                volumes.insert(key.clone(), labelled(cluster, wanted, key, volume));
            }
            MountSource::Files(tree) => {
                for file in &tree.files {
                    let content = revision.spec.contents.get(&file.content)?;
                    contents.insert(file.content.clone(), content.clone());
                }
            }
            _ => {}
        }
    }
    let mut spec = service.container.clone();
    if spec.dns.is_empty() {
        spec.dns.extend(resolver(wanted));
    }
    Some(ContainerRequest {
        name: id.clone(),
        labels: labels(cluster, wanted, service),
        spec: workloads.complete(spec),
        granted: revision.granted,
        network: network(wanted, service)?,
        volumes,
        contents,
    })
}

fn labelled(cluster: &ClusterId, wanted: &Desired, key: &str, volume: &VolumeSpec) -> VolumeSpec {
    let mut volume = volume.clone();
    volume
        .labels
        .insert(CLUSTER_LABEL.to_owned(), cluster.to_string());
    volume.labels.insert(
        "jaco.deployment".to_owned(),
        wanted.deployment.name.to_string(),
    );
    volume
        .labels
        .insert("jaco.volume_key".to_owned(), key.to_owned());
    volume
}

fn labels(
    cluster: &ClusterId,
    wanted: &Desired,
    service: &ServiceSpec,
) -> BTreeMap<String, String> {
    let replica = &wanted.replica;
    let mut labels = service.container.labels.clone();
    let ours = [
        (CLUSTER_LABEL, cluster.to_string()),
        ("jaco.deployment", replica.deployment.to_string()),
        ("jaco.service", replica.service.to_string()),
        ("jaco.replica_id", replica.id.to_string()),
        ("jaco.replica_index", replica.number.to_string()),
        ("jaco.spec_hash", replica.spec_hash.to_string()),
        ("jaco.generation", replica.generation.to_string()),
    ];
    labels.extend(ours.map(|(key, value)| (key.to_owned(), value)));
    labels
}

/// Where the container sends its questions: to the responder on its first network, which knows
/// it by its address and answers for all of its networks (spec 07, DNS). None for a container
/// without an address of its own.
fn resolver(wanted: &Desired) -> Option<String> {
    let address = wanted.replica.address()?;
    Some(addresses::gateway(address).to_string())
}

/// The replica whose network a replica shares, when its service says `network_mode: service:`
/// that service.
pub(super) fn beside<'a>(
    deployment: &'a Deployment,
    replica: &Replica,
    with: &'a ServiceName,
) -> Option<&'a Arc<Replica>> {
    let here = |other: &&Arc<Replica>| other.node == replica.node && other.phase == Phase::Active;
    deployment.replicas_of(with).find(here)
}

fn network(wanted: &Desired, service: &ServiceSpec) -> Option<ContainerNetwork> {
    let replica = &wanted.replica;
    match &service.network_mode {
        NetworkMode::None => Some(ContainerNetwork::None),
        NetworkMode::Service(with) => {
            let beside = beside(&wanted.deployment, replica, with)?;
            Some(ContainerNetwork::SharedWith(beside.id.to_string()))
        }
        NetworkMode::Networks => {
            let endpoints = replica.addresses.iter().map(|(network, address)| {
                let scope = Scope {
                    deployment: replica.deployment.clone(),
                    network: network.clone(),
                };
                Endpoint {
                    network: bridges::engine_name(&scope),
                    address: *address,
                }
            });
            Some(ContainerNetwork::Endpoints(endpoints.collect()))
        }
    }
}
