//! What the clients of a simulated cluster ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::id::{DeploymentName, ServiceName};
use jaco_core::manifest::spec::{
    Condition, Dependency, DeploymentSpec, FailureAction, Placement, Protocol, PublishedPort,
    Resources, ServiceKind, ServiceSpec, UpdateOrder,
};

use crate::builders::{bundle, data_mount, deployment, service};
use crate::soak::Random;

/// - `web`: spread replicas;
/// - `data`: one with a volume, and its client;
/// - `agent`: on every node;
/// - `batch`: a job, a job that awaits it, and a service that awaits both;
/// - `large`: of which a node holds two;
/// - `pinned`: on two hosts by name.
const NAMES: [&str; 6] = ["web", "data", "agent", "batch", "large", "pinned"];

/// The share of a node that a replica of `large` reserves: of two cores.
pub(super) const LARGE: u64 = 900;

/// What clients declared last, by deployment; counts up with every change.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes(BTreeMap<&'static str, u32>);

impl Wishes {
    /// The next revision of some deployment.
    pub(super) fn declare(&mut self, random: &mut Random) -> Command {
        let name = NAMES[random.below(NAMES.len())];
        self.again(name)
    }

    fn again(&mut self, name: &'static str) -> Command {
        let revision = self.0.entry(name).or_default();
        *revision += 1;
        Command::Apply {
            bundle: Arc::new(bundle()),
            spec: Arc::new(declared(name, *revision)),
            privileged: false,
        }
    }

    /// Everything that was ever declared, once more and anew.
    pub(super) fn repeat(&mut self) -> Vec<Command> {
        let names: Vec<&'static str> = self.0.keys().copied().collect();
        names.into_iter().map(|name| self.again(name)).collect()
    }

    /// What names a host that has left cannot be declared once more; it can be started anew.
    pub(super) fn anew() -> Command {
        Command::Restart {
            deployment: DeploymentName::new("pinned"),
            service: None,
        }
    }

    /// Something without files: the end of a deployment, or a step to the side.
    pub(super) fn change(random: &mut Random) -> Command {
        let deployment = DeploymentName::new(["web", "batch", "large", "agent"][random.below(4)]);
        match random.below(5) {
            0 | 1 => Command::Delete { deployment },
            2 => Command::Restart {
                deployment,
                service: None,
            },
            3 => Command::Rollback {
                deployment,
                to: None,
            },
            _ => Command::Scale {
                deployment: DeploymentName::new("web"),
                service: ServiceName::new("web"),
                replicas: u32::try_from(random.below(6)).unwrap_or(0),
            },
        }
    }
}

fn declared(name: &str, revision: u32) -> DeploymentSpec {
    let hash = format!("{name}{revision}");
    match name {
        "data" => {
            let mut store = service(1, &hash);
            store.container.mounts = vec![data_mount()];
            let client = service(revision % 3, "client");
            deployment(name, [("store", store), ("client", client)])
        }
        "agent" => {
            let mut agent = service(0, &hash);
            agent.placement = Placement::Global;
            deployment(name, [("agent", agent)])
        }
        "batch" => batch(revision),
        "large" => {
            let mut large = rolled(service(1 + revision % 9, &hash), revision);
            large.reservations = Resources {
                cpu_millis: LARGE,
                memory_bytes: 0,
            };
            large.ports = published(revision);
            deployment(name, [("large", large)])
        }
        "pinned" => {
            let mut pinned = service(2, &format!("pinned{}", revision / 2));
            pinned.placement = Placement::Hosts(vec!["n1".into(), "n3".into()]);
            deployment(name, [("pinned", pinned)])
        }
        _ => {
            let mut web = rolled(service(1 + revision % 5, &hash), revision);
            web.ports = published(revision);
            deployment(name, [("web", web)])
        }
    }
}

/// The first job changes with every second revision, the second with every third.
fn batch(revision: u32) -> DeploymentSpec {
    let job = |replicas: u32, hash: &str| ServiceSpec {
        kind: ServiceKind::Job,
        ..service(replicas, hash)
    };
    let done = Dependency {
        condition: Condition::ServiceCompletedSuccessfully,
        required: true,
    };
    let half = revision / 2;
    let extract = job(1 + half % 2, &format!("extract{half}"));
    let mut transform = job(1, &format!("transform{}", revision / 3));
    transform.depends_on.insert("extract".into(), done);
    let mut serve = service(1 + revision % 2, &format!("serve{revision}"));
    serve.depends_on.insert("transform".into(), done);
    let services = [
        ("extract", extract),
        ("transform", transform),
        ("serve", serve),
    ];
    deployment("batch", services)
}

/// A service with every way to be updated, by revision.
fn rolled(mut service: ServiceSpec, revision: u32) -> ServiceSpec {
    let at = revision as usize;
    let orders = [
        None,
        Some(UpdateOrder::StopFirst),
        Some(UpdateOrder::StartFirst),
    ];
    let (pause, go_on) = (FailureAction::Pause, FailureAction::Continue);
    for (update, action) in [
        (&mut service.update, [FailureAction::Rollback, pause, go_on]),
        (&mut service.rollback, [pause; 3]),
    ] {
        update.order = orders[at % 3];
        update.parallelism = [1, 2, 1, 0][at % 4];
        update.delay = Duration::from_secs([0, 0, 1][at / 2 % 3]);
        update.failure_action = action[at / 3 % 3];
    }
    service
}

/// Two deployments want this port at times.
fn published(revision: u32) -> Vec<PublishedPort> {
    let port = PublishedPort {
        host: 9_000,
        container: 80,
        protocol: Protocol::Tcp,
        proxy_protocol: false,
    };
    Some(port)
        .filter(|_| revision.is_multiple_of(2))
        .into_iter()
        .collect()
}
