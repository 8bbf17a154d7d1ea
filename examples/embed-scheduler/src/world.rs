//! The replicated half: a state, a list of entries in place of a log, and a clock that counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jaco_core::cluster::addresses::Pool;
use jaco_core::cluster::command::{ClusterInit, NewNode, Step};
use jaco_core::cluster::mesh_pool::MeshPool;
use jaco_core::cluster::node::{Engine, Isolation, NodeReport};
use jaco_core::cluster::{ClusterState, Command, Entry, Proposal, apply};
use jaco_core::id::{ClusterId, Identity, NodeName};
use jaco_core::manifest::{Bundle, parse};
use jaco_core::ports::Clock;
use jaco_core::scheduler::plan;
use jaco_core::time::Timestamp;

/// A clock of our own: one second a look.
#[derive(Default)]
struct Counting(AtomicU64);

impl Clock for Counting {
    fn now(&self) -> Timestamp {
        Timestamp(1_000 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// The state and the time.
pub(crate) struct World {
    pub(crate) state: ClusterState,
    clock: Arc<dyn Clock>,
}

impl World {
    /// A cluster of these machines, all ready.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn of(machines: &BTreeMap<NodeName, Engine>) -> Self {
        let mut names = machines.keys();
        let first = names.next().expect("at least one machine");
        let state = ClusterState::default();
        let clock = Arc::new(Counting::default());
        let mut world = Self { state, clock };
        world.write(Command::ClusterInit(Box::new(ClusterInit {
            id: ClusterId::new("example"),
            name: "example".to_owned(),
            ca_cert: String::new(),
            ca_key_sealed: String::new(),
            ipam_pool: Pool::parse("10.244.0.0/16").expect("a /16"),
            mesh_pool: MeshPool::parse("10.245.0.0/24").expect("a /24"),
            node: new_node(first),
            token_hash: "operator".to_owned(),
        })));
        for name in names {
            world.join(name);
        }
        for (name, engine) in machines {
            let report = NodeReport {
                engine: Some(engine.clone()),
                labels: [].into(),
                version: "example".to_owned(),
                mesh: None,
                isolation: Isolation::Verified,
                ..NodeReport::default()
            };
            let node = name.clone();
            world.write(Command::NodeReport { node, report });
        }
        world
    }

    /// The time: every look at the clock moves it.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn join(&mut self, name: &NodeName) {
        let (hash, node, sans) = (name.to_string(), None, Vec::new());
        let ttl = Duration::from_secs(3_600);
        self.write(Command::JoinTokenIssue {
            hash,
            node,
            sans,
            ttl,
        });
        let (token_hash, node) = (name.to_string(), new_node(name));
        self.write(Command::NodeJoin { token_hash, node });
    }

    /// Commits a command; a program with several copies would replicate it first.
    pub(crate) fn write(&mut self, command: Command) {
        let (at, identity) = (self.clock.now(), Identity::new("example"));
        let proposal = Proposal {
            at,
            identity,
            author: None,
            command,
        };
        let index = self.state.index + 1;
        apply(&mut self.state, &Entry { index, proposal }).expect("the story has no refusals");
    }

    /// The next steps of the scheduler.
    pub(crate) fn plan(&self) -> Vec<Step> {
        plan(&self.state, self.clock.now())
    }

    /// Where the first replica of a service is.
    pub(crate) fn home_of(&self, service: &str) -> NodeName {
        let mut replicas = self.state.replicas();
        let first = replicas.find(|replica| replica.service.as_str() == service);
        first.expect("the service was placed").node.clone()
    }
}

fn new_node(name: &NodeName) -> NewNode {
    NewNode {
        key_hash: String::new(),
        name: name.clone(),
        api_address: format!("{name}:7000"),
        cluster_address: format!("{name}:7001"),
        serial: name.to_string(),
    }
}

/// The deployment of the story, from manifests.
pub(crate) fn shop() -> Command {
    let compose = "services:\n  web: {image: web, deploy: {replicas: 4}}\n  \
                   db: {image: db, volumes: ['data:/data']}\nvolumes: {data: }\n";
    let bundle = Bundle {
        jaco: "deployment: shop\n".to_owned(),
        compose: compose.to_owned(),
        ..Bundle::default()
    };
    let spec = Arc::new(parse(&bundle).expect("valid manifests"));
    let (bundle, privileged) = (Arc::new(bundle), false);
    Command::Apply {
        bundle,
        spec,
        privileged,
    }
}

/// A step in words.
pub(crate) fn tell(step: &Step) -> String {
    match step {
        Step::Place { service, node, .. } => format!("place {service} on {node}"),
        Step::Move { replica, to, .. } | Step::Relocate { replica, to, .. } => {
            format!("move {replica} to {to}")
        }
        Step::Drain { replica, .. } => format!("drain {replica}"),
        Step::Stop { replica, .. } => format!("stop {replica}"),
        Step::Restart { replica, .. } => format!("restart {replica}"),
        Step::Forget { replica, .. } => format!("forget {replica}"),
        Step::EndRollout { service, .. } => format!("end the rollout of {service}"),
        Step::RollBack { service, .. } => format!("roll back {service}"),
        Step::Skip { replica, .. } => format!("keep {replica} where it is"),
        Step::Hold { service, .. } => format!("hold {service}"),
        Step::DrainTimeout { node } => format!("give up draining {node}"),
        Step::Finish { deployment } => format!("finish {deployment}"),
    }
}
