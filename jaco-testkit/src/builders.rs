//! States, specs and logs for tests of the core: small, valid, and easy to vary.

use std::collections::BTreeMap;
use std::sync::Arc;

use jaco_core::cluster::addresses::Pool;
use jaco_core::cluster::command::{ClusterInit, NewNode, Observed, Step};
use jaco_core::cluster::deployment::{Observation, Phase, Replica, ReplicaState};
use jaco_core::cluster::mesh_pool::MeshPool;
use jaco_core::cluster::node::{Engine, Isolation, MeshBackend, MeshEnd, NodeReport};
use jaco_core::cluster::{Applied, ClusterState, Command, Entry, Proposal, apply};
use jaco_core::id::{
    ClusterId, DeploymentName, Identity, MeshKey, NodeName, ServiceName, SpecHash,
};
use jaco_core::manifest::Bundle;
use jaco_core::manifest::spec::{
    ContainerSpec, DeploymentSpec, Mount, MountSource, NetworkAttachment, NetworkMode, NetworkSpec,
    Placement, PullPolicy, Resources, RestartPolicy, ServiceKind, ServiceSpec, UpdateConfig,
};
use jaco_core::scheduler::{Planner, decide, plan};
use jaco_core::time::Timestamp;

/// A cluster state that is driven by commands, as the raft log would.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The state.
    pub state: ClusterState,
    /// The time that the next entry carries.
    pub now: Timestamp,
    /// Every entry so far.
    pub log: Vec<Entry>,
    planner: Planner,
}

impl Cluster {
    /// A formed cluster with nodes `n1`, `n2`, … that have reported.
    pub fn of(nodes: usize) -> Self {
        let mut cluster = Self::empty();
        for number in 2..=nodes {
            cluster.join(&format!("n{number}"));
        }
        for number in 1..=nodes {
            cluster.report(&format!("n{number}"), capacity());
        }
        cluster
    }

    /// A formed cluster of the node `n1`, which has not reported.
    pub fn empty() -> Self {
        let state = ClusterState::default();
        let mut cluster = Self {
            state,
            now: Timestamp(1_000_000),
            log: Vec::new(),
            planner: Planner::default(),
        };
        let pool = Pool::parse("10.244.0.0/16").expect("a valid pool");
        let init = ClusterInit {
            id: ClusterId::new("cluster"),
            name: "test".to_owned(),
            ca_cert: String::new(),
            ca_key_sealed: String::new(),
            ipam_pool: pool,
            mesh_pool: MeshPool::parse("10.240.0.0/16").expect("a valid pool"),
            node: new_node("n1"),
            token_hash: "bootstrap".to_owned(),
        };
        cluster.must(Command::ClusterInit(Box::new(init)));
        cluster
    }

    /// Applies a command and gives its outcome.
    pub fn apply(&mut self, command: Command) -> Applied {
        let identity = Identity::new("tester");
        let proposal = Proposal {
            at: self.now,
            identity,
            author: None,
            command,
        };
        let entry = Entry {
            index: self.state.index + 1,
            proposal,
        };
        self.log.push(entry.clone());
        apply(&mut self.state, &entry)
    }

    /// Applies a command that must succeed.
    ///
    /// # Panics
    /// When it is refused.
    pub fn must(&mut self, command: Command) {
        if let Err(error) = self.apply(command) {
            panic!("refused: {error}");
        }
    }

    /// Admits a node.
    pub fn join(&mut self, name: &str) {
        let hash = format!("join-{name}");
        let ttl = std::time::Duration::from_secs(60);
        self.must(Command::JoinTokenIssue {
            hash: hash.clone(),
            node: None,
            sans: vec![],
            ttl,
        });
        self.must(Command::NodeJoin {
            token_hash: hash,
            node: new_node(name),
        });
    }

    /// Takes in what a node has.
    pub fn report(&mut self, name: &str, capacity: Resources) {
        self.must(Command::NodeReport {
            node: NodeName::new(name),
            report: node_report(name, capacity),
        });
    }

    /// Applies a deployment.
    pub fn deploy(&mut self, spec: DeploymentSpec) -> Applied {
        let command = Command::Apply {
            bundle: Arc::new(bundle()),
            spec: Arc::new(spec),
            privileged: true,
        };
        self.apply(command)
    }

    /// Plans once and applies the steps. True when there were any.
    pub fn schedule(&mut self) -> bool {
        let planned = self.planner.plan(&self.state, self.now);
        let anew = plan(&self.state, self.now);
        assert_eq!(planned, anew, "what a planner remembers changes no plan");
        let steps = decide(&mut self.planner, &self.state, self.now);
        let any = !steps.is_empty();
        if any {
            self.carry_out(steps);
        }
        any
    }

    /// Commits what was planned on the present state.
    pub fn carry_out(&mut self, steps: Vec<Step>) {
        let after = self.state.index;
        self.must(Command::Schedule { after, steps });
    }

    /// Lets every node carry out what the state wants, at once and without failure.
    pub fn obey(&mut self) {
        let nodes: Vec<NodeName> = self.state.nodes.keys().cloned().collect();
        for node in nodes {
            let index = self.state.index;
            let name = node.clone();
            self.must(Command::Published { node: name, index });
            self.must(Command::Swept { node, index });
        }
        let mut by_node: BTreeMap<NodeName, Vec<Observed>> = BTreeMap::new();
        for replica in self.state.replicas() {
            let state = match replica.phase {
                Phase::Active | Phase::Draining { .. } => ReplicaState::Running,
                Phase::Stopping => ReplicaState::Stopped,
            };
            by_node
                .entry(replica.node.clone())
                .or_default()
                .push(seen(replica, state));
        }
        for (node, observations) in by_node {
            self.must(Command::Observe { node, observations });
        }
    }

    /// Plans and obeys until nothing is left to do. Gives the number of rounds.
    ///
    /// # Panics
    /// When it does not settle within 1,000 rounds.
    pub fn settle(&mut self) -> usize {
        for round in 0..1_000 {
            if !self.schedule() {
                let Some(due) = self.planner.due(self.now) else {
                    return round;
                };
                self.now = due;
            }
            self.obey();
        }
        panic!("the cluster does not settle");
    }
}

/// An observation of a replica.
pub fn seen(replica: &Replica, state: ReplicaState) -> Observed {
    Observed {
        deployment: replica.deployment.clone(),
        replica: replica.id.clone(),
        observation: Observation {
            generation: replica.generation,
            state,
            container_id: Some(format!("c-{}-{}", replica.id, replica.generation)),
            ..Observation::default()
        },
    }
}

/// A node as it enters.
pub fn new_node(name: &str) -> NewNode {
    NewNode {
        key_hash: format!("key-{name}"),
        name: NodeName::new(name),
        api_address: format!("{name}:7000"),
        cluster_address: format!("{name}:7001"),
        serial: format!("serial-{name}"),
    }
}

/// What a node says of itself when all is well with it.
pub fn node_report(name: &str, capacity: Resources) -> NodeReport {
    let engine = Engine {
        version: "20.10".to_owned(),
        api_version: "1.41".to_owned(),
        arch: "amd64".to_owned(),
        capacity,
    };
    NodeReport {
        key_hash: String::new(),
        workloads: Default::default(),
        engine: Some(engine),
        labels: BTreeMap::from([("name".to_owned(), name.to_owned())]),
        version: "test".to_owned(),
        mesh: Some(mesh_end(name)),
        isolation: Isolation::Verified,
    }
}

/// Two cores, four GiB.
pub fn capacity() -> Resources {
    Resources {
        cpu_millis: 2_000,
        memory_bytes: 4 << 30,
    }
}

/// An empty pair of manifests.
pub fn bundle() -> Bundle {
    serde_json::from_value(serde_json::json!({
        "jaco": "", "compose": "{}", "inactive": [], "files": {}, "variables": {}, "contents": {},
    }))
    .expect("an empty bundle")
}

/// A deployment of these services on its default network.
pub fn deployment(
    name: &str,
    services: impl IntoIterator<Item = (&'static str, ServiceSpec)>,
) -> DeploymentSpec {
    let services: BTreeMap<ServiceName, ServiceSpec> = services
        .into_iter()
        .map(|(name, service)| (ServiceName::new(name), service))
        .collect();
    let used = services
        .values()
        .flat_map(|service| service.networks.keys().cloned());
    DeploymentSpec {
        name: DeploymentName::new(name),
        acme: true,
        acme_email: None,
        routes: Vec::new(),
        networks: used
            .map(|network| (network, NetworkSpec::default()))
            .collect(),
        services,
        volumes: BTreeMap::new(),
        contents: BTreeMap::new(),
    }
}

/// A service of so many replicas, spread, on the default network.
pub fn service(replicas: u32, hash: &str) -> ServiceSpec {
    ServiceSpec {
        kind: ServiceKind::Service,
        replicas,
        placement: Placement::Spread,
        constraints: Vec::new(),
        max_replicas_per_node: None,
        reservations: Resources::default(),
        container: ContainerSpec {
            image: format!("image:{hash}"),
            ..ContainerSpec::default()
        },
        network_mode: NetworkMode::Networks,
        networks: BTreeMap::from([("_default".into(), NetworkAttachment::default())]),
        ports: Vec::new(),
        depends_on: BTreeMap::new(),
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        restart: RestartPolicy::default(),
        pull_policy: PullPolicy::default(),
        spec_hash: SpecHash::new(hash),
    }
}

/// The volume `data` at `/data`, which ties a replica to its node.
pub fn data_mount() -> Mount {
    Mount {
        target: "/data".to_owned(),
        source: MountSource::Volume {
            key: "data".to_owned(),
            nocopy: false,
            subpath: None,
        },
        read_only: false,
    }
}

/// A mesh end whose key is the node's own.
fn mesh_end(name: &str) -> MeshEnd {
    let mut key = [0; 32];
    for (byte, letter) in key.iter_mut().zip(name.bytes()) {
        *byte = letter;
    }
    MeshEnd {
        public_key: MeshKey(key),
        port: 51820,
        backend: MeshBackend::Userspace,
    }
}
