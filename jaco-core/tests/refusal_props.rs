//! A start that the engine refused, until somebody decides to try again.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::cluster::deployment::ReplicaState;
use jaco_core::id::{DeploymentName, NodeName, ReplicaId};
use jaco_core::manifest::spec::{DeploymentSpec, Placement};
use jaco_core::node::containers;
use jaco_core::node::report::{self, Local};
use jaco_core::ports::RuntimeError;
use jaco_testkit::builders::{Cluster, deployment, service};

fn no_space() -> RuntimeError {
    RuntimeError::Refused("no space".to_owned())
}

#[test]
fn a_start_that_the_engine_refused_is_tried_again_as_a_new_generation_only() {
    let mut cluster = Cluster::of(1);
    cluster
        .deploy(deployment("d", [("web", service(1, "a"))]))
        .unwrap();
    cluster.schedule();
    let (id, node) = (ReplicaId::new("d-web-1"), NodeName::new("n1"));
    let mut local = Local::default();
    let desired = containers::desired(&cluster.state, &node);
    local.note_refusal(&desired[&id].replica, no_space());
    assert!(!report::may_start(&desired[&id], &local, cluster.now));
    let observations = report::changes(&desired, &local, cluster.now);
    cluster.must(Command::Observe {
        node: node.clone(),
        observations,
    });
    cluster.now = cluster.now + Duration::from_secs(1);
    assert!(cluster.schedule(), "the scheduler restarts it");
    let desired = containers::desired(&cluster.state, &node);
    assert!(report::may_start(&desired[&id], &local, cluster.now));
}

fn agent(hash: &str) -> DeploymentSpec {
    let mut agent = service(0, hash);
    agent.placement = Placement::Global;
    deployment("d", [("agent", agent)])
}

#[test]
fn what_replaces_a_global_replica_counts_its_generation_up() {
    let mut cluster = Cluster::of(2);
    for (hash, generation) in [("a", 1), ("b", 2), ("c", 3)] {
        cluster.deploy(agent(hash)).unwrap();
        cluster.settle();
        let replicas: Vec<_> = cluster.state.replicas().collect();
        assert_eq!(replicas.len(), 2);
        for replica in replicas {
            assert_eq!(replica.id.as_str(), format!("d-agent-{}", replica.node));
            assert_eq!(
                (replica.spec_hash.as_str(), replica.generation),
                (hash, generation)
            );
        }
    }
}

#[test]
fn a_refusal_says_nothing_of_the_next_replica_of_that_name() {
    let mut cluster = Cluster::of(1);
    let (id, node) = (ReplicaId::new("d-agent-n1"), NodeName::new("n1"));
    cluster.deploy(agent("a")).unwrap();
    cluster.schedule();
    let mut local = Local::default();
    let desired = containers::desired(&cluster.state, &node);
    local.note_refusal(&desired[&id].replica, no_space());
    assert!(!report::may_start(&desired[&id], &local, cluster.now));
    let seen = report::changes(&desired, &local, cluster.now);
    assert_eq!(seen[0].observation.state, ReplicaState::Failed);

    // After the deployment's end the next one has the name, and the same generation too.
    cluster.now = cluster.now + Duration::from_secs(1);
    cluster.must(Command::Delete {
        deployment: DeploymentName::new("d"),
    });
    cluster.settle();
    cluster.deploy(agent("b")).unwrap();
    cluster.schedule();
    let desired = containers::desired(&cluster.state, &node);
    assert_eq!(desired[&id].replica.generation, 1);
    assert!(report::may_start(&desired[&id], &local, cluster.now));
    let seen = report::changes(&desired, &local, cluster.now);
    assert_eq!(seen[0].observation.state, ReplicaState::Pending);
}
