//! The JSON that users see (spec 09), each shape beside its file in `golden/`.
//!
//! `JACO_GOLDEN=write cargo test -p jaco-core --test json_shapes` writes the files anew; what
//! changed is then in the diff: a new field is fine, a renamed one is not.
#![allow(clippy::disallowed_methods)] // a test may read files and variables
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::{env, fs};

use jaco_core::cluster::Command;
use jaco_core::cluster::addresses::Scope;
use jaco_core::cluster::certs::{AccountKey, CertStep, Environment, Stage};
use jaco_core::cluster::deployment::{Cause, ReplicaState};
use jaco_core::cluster::node::NodeCondition;
use jaco_core::error::{Error, ErrorCode};
use jaco_core::id::{DeploymentName, Domain, Identity, NodeName};
use jaco_core::manifest::output::ValidateOutput;
use jaco_core::manifest::spec::NetworkMode;
use jaco_core::node::checks::{self, Check, Seen};
use jaco_core::ports::consensus::ConsensusStatus;
use jaco_core::scheduler::forecast::{self, Thought};
use jaco_core::time::Timestamp;
use jaco_core::view::changes::{Applied, changes};
use jaco_core::view::check::NetworkCheck;
use jaco_core::view::cluster::{self, AuditLog, Suffrage};
use jaco_core::view::status::{DeploymentStatus, status};
use jaco_core::view::{cert, network, replica, route};
use jaco_testkit::builders::{Cluster, bundle, deployment, seen, service};
use serde::Serialize;
use support::Project;

const JACO: &str = "deployment: shop\nroutes:\n\
    - {domain: shop.example, service: web, port: 8080}\n\
    - {domain: shop.example, service: api, port: 90, path: /api, strip_path: true, tls: auto}\n\
    services:\n- {name: web, replicas: 2}\n";
const COMPOSE: &str = "services:\n  web:\n    image: web:1\n    depends_on: {api: {condition: \
    service_healthy}}\n  api:\n    image: api:1\n    ports: ['9000:90']\n    deploy: {resources: \
    {reservations: {cpus: '0.5', memory: 64M}}}\n";

/// A shop on three nodes: one replica failed, one node is lost.
fn shop() -> Cluster {
    let mut cluster = Cluster::of(3);
    let spec = Project::default().spec(JACO, COMPOSE);
    cluster.deploy(spec).unwrap();
    cluster.settle();
    let failed = cluster.state.replicas().find(|r| r.service == "web".into());
    let failed = failed.unwrap().clone();
    let mut failure = seen(&failed, ReplicaState::Failed);
    failure.observation.started_at = Some(Timestamp(1_000_000));
    failure.observation.since = Some(Timestamp(1_001_500));
    failure.observation.cause = Some(Cause {
        code: Some(ErrorCode::ContainerExited),
        message: "exited with status 3".to_owned(),
        details: BTreeMap::from([("exit_code".to_owned(), "3".to_owned())]),
    });
    cluster.must(Command::Observe {
        node: failed.node.clone(),
        observations: vec![failure],
    });
    certify(&mut cluster);
    cluster.must(Command::NodeCondition {
        node: NodeName::new("n3"),
        condition: NodeCondition::Unreachable,
    });
    cluster
}

/// The shop's domain has a certificate, and the last try to renew it failed.
fn certify(cluster: &mut Cluster) {
    let account = AccountKey {
        directory: "https://ca.example/dir".to_owned(),
        contact: None,
    };
    let ordered = CertStep::Ordered {
        environment: Environment::Prod,
        account,
        url: "https://ca.example/order/1".to_owned(),
        key_sealed: "00".to_owned(),
        challenge: None,
    };
    let issued = CertStep::Issued {
        chain: "chain".to_owned(),
        serial: "0a".to_owned(),
        not_before: Timestamp(0),
        not_after: Timestamp(7_776_000_000),
    };
    let failed = CertStep::Failed {
        stage: Stage::Order,
        environment: Environment::Prod,
        reason: "too many certificates".to_owned(),
        rate_limited: true,
        retry_at: None,
    };
    let steps = [ordered.clone(), issued.clone(), ordered, issued, failed];
    for (after, step) in (0..).zip(steps) {
        let domain = Domain::new("shop.example");
        cluster.must(Command::Certificate {
            domain,
            after,
            step,
        });
    }
}

/// Compares with the file, or writes it when asked to.
fn check(name: &str, shape: &impl Serialize) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let path = directory.join(format!("{name}.json"));
    let mut text = serde_json::to_string_pretty(shape).unwrap();
    text.push('\n');
    if env::var("JACO_GOLDEN").is_ok_and(|wish| wish == "write") {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} is not:\n{text}", path.display());
}

#[test]
fn status_keeps_its_shape() {
    check("status", &status(&shop().state, None, None).unwrap());
}

/// What `n1`, which leads, or another member sees.
fn raft(cluster: &Cluster, me: &str) -> ConsensusStatus {
    let member = |name: &str| cluster.state.nodes[name].member;
    ConsensusStatus {
        me: member(me),
        leader: Some(member("n1")),
        term: 2,
        applied: cluster.state.index,
        voters: BTreeSet::from([member("n1")]),
        learners: BTreeSet::from([member("n2")]),
        followers: BTreeMap::new(),
    }
}

#[test]
fn regression_suffrage_is_unknown_to_a_follower() {
    let cluster = shop();
    let nodes = cluster::status(&cluster.state, &raft(&cluster, "n2")).nodes;
    assert!(nodes.iter().all(|node| node.suffrage == Suffrage::Unknown));
}

#[test]
fn cluster_status_keeps_its_shape() {
    let cluster = shop();
    let mut shape = cluster::status(&cluster.state, &raft(&cluster, "n1"));
    // Any new field of the state changes it, which is no change of shape.
    shape.state_hash = Some("0".repeat(64));
    check("cluster_status", &shape);
}

#[test]
fn node_list_keeps_its_shape() {
    check("node_list", &cluster::nodes(&shop().state));
}

#[test]
fn get_route_keeps_its_shape() {
    let (node, domain) = (NodeName::new("n1"), Domain::new("shop.example"));
    let shape = route::detail(&shop().state, &node, &domain).unwrap();
    check("get_route", &shape);
}

#[test]
fn cert_list_keeps_its_shape() {
    check("cert_list", &cert::list(&shop().state));
}

#[test]
fn get_replica_keeps_its_shape() {
    let state = shop().state;
    let failed = state
        .replicas()
        .find(|replica| replica.observed.cause.is_some());
    let shape = replica::detail(&state, &failed.unwrap().id).unwrap();
    check("get_replica", &shape);
}

#[test]
fn get_network_keeps_its_shape() {
    let scope = |network: &str| Scope {
        deployment: DeploymentName::new("shop"),
        network: network.into(),
    };
    let state = shop().state;
    check(
        "get_network",
        &network::detail(&state, &scope("_default")).unwrap(),
    );
    let error = network::detail(&state, &scope("back")).unwrap_err();
    assert_eq!(error.code, ErrorCode::ValidationFailed);
    assert!(error.message.ends_with("it has: _default"), "{error:?}");
}

#[test]
fn net_check_keeps_its_shape() {
    let (node, state) = (NodeName::new("n1"), shop().state);
    let wanted = checks::desired(&state, &node);
    let rows = wanted.iter().map(|check| match check {
        Check::Echo { to, .. } if *to == NodeName::new("n3") => {
            checks::row(&node, check, &Seen::Failed("no answer".to_owned()))
        }
        Check::Name { address, .. } => {
            let found = Seen::Addresses(BTreeSet::from([*address]));
            checks::row(&node, check, &found)
        }
        _ => checks::row(&node, check, &Seen::Fine),
    });
    let silent = checks::silent(&NodeName::new("n2"), "it does not answer");
    check(
        "net_check",
        &NetworkCheck::of(rows.chain([silent]).collect()),
    );
}

#[test]
fn validate_keeps_its_shape() {
    let compose = "version: '3'\nservices:\n  web:\n    image: w\n    net: x\n    foo: 1\n    \
                   ports: ['80:80']\n";
    let resolved = Project::default().resolve("deployment: shop\ncolour: red\n", compose);
    check("validate", &ValidateOutput::from(resolved));
}

#[test]
fn audit_keeps_its_shape() {
    let events = cluster::audit(&shop().state, 0, None, &[]);
    check("audit", &AuditLog { events });
}

#[test]
fn plan_keeps_its_shape() {
    let cluster = shop();
    let compose = COMPOSE.replace("api:1", "api:2").replace("'0.5'", "'8'");
    let spec = Project::default().spec(JACO, &compose);
    let command = Command::Apply {
        bundle: Arc::new(bundle()),
        spec: Arc::new(spec),
        privileged: false,
    };
    let thought = Thought {
        change: Some((Identity::new("local"), command)),
        loss: Some(NodeName::new("n2")),
    };
    let shape = forecast::foresee(&cluster.state, &thought, cluster.now).unwrap();
    check("plan", &shape);
}

#[test]
fn apply_keeps_its_shape() {
    let old = Project::default().spec(JACO, COMPOSE);
    let new = Project::default().spec(
        &JACO.replace("/api", "/v2"),
        &COMPOSE.replace("web:1", "web:2").replace("9000", "9001"),
    );
    let shape = Applied {
        deployment: DeploymentName::new("shop"),
        revision: 2,
        changed: true,
        changes: changes(Some(&old), &new),
        converged: Some(true),
    };
    check("apply", &shape);
}

#[test]
fn an_error_keeps_its_shape() {
    let error = Error::new(ErrorCode::PortConflict, "host port 9000/tcp is taken")
        .with("owner", "other/web");
    check("error", &error.document());
}

#[test]
fn regression_a_service_beside_one_that_is_about_to_be_placed_is_not_stuck() {
    let mut cluster = Cluster::of(1);
    let mut beside = service(1, "b");
    beside.network_mode = NetworkMode::Service("base".into());
    beside.networks.clear();
    let spec = deployment("d", [("base", service(1, "a")), ("beside", beside)]);
    cluster.deploy(spec).unwrap();
    let before = status(&cluster.state, None, None).unwrap();
    assert_eq!(before.deployments[0].status, DeploymentStatus::Progressing);
    cluster.settle();
    let after = status(&cluster.state, None, None).unwrap();
    assert_eq!(after.deployments[0].status, DeploymentStatus::Active);
}
