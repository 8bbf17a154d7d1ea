//! A shop on three nodes, and a CA that never fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jaco_core::certs::{Action, Offer, PRODUCTION, STAGING, Settings, plan, renewal};
use jaco_core::cluster::Command;
use jaco_core::cluster::audit::EventType;
use jaco_core::cluster::certs::{
    AccountKey, CertState, CertStep, Certificate, Challenge, Environment, Renewal, Stage,
};
use jaco_core::id::{Domain, NodeName, ServiceName};
use jaco_core::manifest::spec::{DeploymentSpec, RouteSpec};
use jaco_core::time::Timestamp;
use jaco_testkit::builders::{Cluster, deployment, service};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn settings() -> Settings {
    Settings::new(true, "", "ops@example.com", false)
}

pub(crate) fn spec(name: &str, domains: &[&str]) -> DeploymentSpec {
    let mut spec = deployment(name, [("web", service(1, "h1"))]);
    let route = |domain: &&str| RouteSpec {
        domain: Domain::new(domain),
        path: String::new(),
        service: ServiceName::new("web"),
        port: 80,
        tls: true,
        strip_path: false,
    };
    spec.routes = domains.iter().map(route).collect();
    spec
}

/// Three nodes, a shop with one domain, and the accounts that it needs.
pub(crate) fn shop() -> Cluster {
    let mut cluster = Cluster::of(3);
    cluster.deploy(spec("shop", &["shop.test"])).unwrap();
    for directory in [PRODUCTION, STAGING, "https://ca.test/dir"] {
        for contact in [None, Some("ops@example.com")] {
            register(&mut cluster, directory, contact);
        }
    }
    cluster
}

pub(crate) fn register(cluster: &mut Cluster, directory: &str, contact: Option<&str>) {
    cluster.must(Command::AcmeAccount {
        account: AccountKey {
            directory: directory.to_owned(),
            contact: contact.map(str::to_owned),
        },
        credentials_sealed: "sealed".to_owned(),
    });
}

pub(crate) fn domain() -> Domain {
    Domain::new("shop.test")
}

pub(crate) fn certificate(cluster: &Cluster) -> &Arc<Certificate> {
    &cluster.state.certs[&domain()]
}

pub(crate) fn state(cluster: &Cluster) -> CertState {
    certificate(cluster).state()
}

/// The plan of a leader that does nothing else.
pub(crate) fn planned(cluster: &Cluster, settings: &Settings) -> Vec<Action> {
    plan(&cluster.state, settings, &BTreeSet::new(), cluster.now)
}

pub(crate) fn step(cluster: &mut Cluster, after: u64, step: CertStep) {
    let domain = domain();
    cluster.must(Command::Certificate {
        domain,
        after,
        step,
    });
}

pub(crate) fn acknowledge(cluster: &mut Cluster) {
    let index = cluster.state.index;
    let nodes: Vec<NodeName> = cluster.state.nodes.keys().cloned().collect();
    for node in nodes {
        cluster.must(Command::Published { node, index });
    }
}

pub(crate) fn issued(now: Timestamp, serial: &str) -> CertStep {
    CertStep::Issued {
        chain: format!("chain {serial}"),
        serial: serial.to_owned(),
        not_before: now,
        not_after: now + DAY * 90,
    }
}

pub(crate) fn failed(environment: Environment, retry_at: Option<Timestamp>) -> CertStep {
    CertStep::Failed {
        stage: Stage::Order,
        environment,
        reason: "no".to_owned(),
        rate_limited: retry_at.is_some(),
        retry_at,
    }
}

/// A CA that never fails: what it makes of an action, as the driver would report it.
pub(crate) fn answer(cluster: &Cluster, action: &Action) -> Option<Command> {
    let (domain, after, step) = match action {
        Action::Register { account, .. } => {
            return Some(Command::AcmeAccount {
                account: account.clone(),
                credentials_sealed: "sealed".to_owned(),
            });
        }
        Action::Order {
            domain,
            after,
            environment,
            account,
            ..
        } => {
            let challenge = Challenge {
                token: format!("token-{after}"),
                answer: "answer".to_owned(),
            };
            let step = CertStep::Ordered {
                environment: *environment,
                account: account.clone(),
                url: format!("https://ca/{after}"),
                key_sealed: format!("key-{after}"),
                challenge: Some(challenge),
            };
            (domain, after, step)
        }
        Action::Complete { domain, after, .. } => {
            (domain, after, issued(cluster.now, &format!("{after}")))
        }
        Action::AskRenewal { domain, after, .. } => {
            let none = renewal(&Renewal::default(), Some(Offer::None), cluster.now);
            (domain, after, CertStep::Renewal(none))
        }
        Action::Commit(command) => return Some(command.clone()),
    };
    Some(Command::Certificate {
        domain: domain.clone(),
        after: *after,
        step,
    })
}

/// Carries everything out until nothing is planned.
pub(crate) fn issue(cluster: &mut Cluster, settings: &Settings) {
    for _ in 0..20 {
        for action in planned(cluster, settings) {
            let command = answer(cluster, &action).unwrap();
            cluster.must(command);
        }
        acknowledge(cluster);
    }
}

pub(crate) fn events(cluster: &Cluster, kind: EventType) -> Vec<String> {
    let events = cluster.state.audit.iter().filter(|e| e.kind == kind);
    events.map(|e| e.payload["env"].clone()).collect()
}
