//! A routed or published port that nothing listens on: asked until it opens, and no rollout goes
//! on to replicas that are deaf where the ones before them were not.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::cluster::deployment::{Cause, Deployment, Replica, ReplicaState};
use jaco_core::cluster::rollout::RolloutStatus;
use jaco_core::error::ErrorCode;
use jaco_core::id::{DeploymentName, NodeName, ReplicaId};
use jaco_core::manifest::spec::FailureAction;
use jaco_core::node::containers;
use jaco_core::node::health::{self, ASK_SILENT_AGAIN};
use jaco_core::node::report::{self, Local};
use jaco_core::ports::container_runtime::{ContainerStatus, ObservedContainer};
use jaco_core::time::Timestamp;
use jaco_testkit::builders::{Cluster, deployment, seen, service};
use proptest::prelude::*;

fn of(cluster: &Cluster) -> &Deployment {
    &cluster.state.deployments[&DeploymentName::new("d")]
}

fn deploy(cluster: &mut Cluster, hash: &str, replicas: u32, action: FailureAction) {
    let mut web = service(replicas, hash);
    web.update.failure_action = action;
    cluster.deploy(deployment("d", [("web", web)])).unwrap();
}

fn nothing_listens(ports: &str) -> Cause {
    Cause {
        code: Some(ErrorCode::PortNotListening),
        message: format!("nothing listens on port {ports}"),
        details: BTreeMap::from([("ports".to_owned(), ports.to_owned())]),
    }
}

/// Every replica of a spec runs and does not listen.
fn deafen(cluster: &mut Cluster, hash: &str, ports: &str) {
    let nodes: Vec<NodeName> = cluster.state.nodes.keys().cloned().collect();
    for node in nodes {
        let deaf = |r: &&Replica| r.spec_hash.as_str() == hash && r.node == node && r.is_serving();
        let replicas = of(cluster).replicas.values().map(AsRef::as_ref);
        let observations = replicas.filter(deaf).map(|replica| {
            let mut observed = seen(replica, ReplicaState::Running);
            observed.observation.cause = Some(nothing_listens(ports));
            observed
        });
        let observations = observations.collect();
        cluster.must(Command::Observe { node, observations });
    }
}

/// Two minutes in which the replicas of one spec, or of both, do not listen on some ports.
fn two_minutes(cluster: &mut Cluster, deaf: &[(&str, &str)]) {
    for _ in 0..120 {
        cluster.schedule();
        cluster.obey();
        for (hash, ports) in deaf {
            deafen(cluster, hash, ports);
        }
        cluster.now.0 += 1_000;
    }
}

fn serving(cluster: &Cluster, hash: &str) -> BTreeSet<ReplicaId> {
    let replicas = of(cluster).replicas.values();
    let serving = replicas.filter(|r| r.is_serving() && r.spec_hash.as_str() == hash);
    serving.map(|replica| replica.id.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn replicas_that_do_not_listen_take_no_places(
        replicas in 1..5u32,
        action in prop::sample::select(vec![FailureAction::Pause, FailureAction::Rollback]),
    ) {
        let mut cluster = Cluster::of(3);
        deploy(&mut cluster, "a", replicas, action);
        cluster.settle();
        let before = serving(&cluster, "a");
        deploy(&mut cluster, "b", replicas, action);
        two_minutes(&mut cluster, &[("b", "80")]);
        prop_assert_eq!(serving(&cluster, "a"), before);
        let rollout = of(&cluster).rollouts.values().next().unwrap();
        let (status, current) = match action {
            FailureAction::Pause => (RolloutStatus::Paused, 2),
            _ => (RolloutStatus::RolledBack, 3),
        };
        prop_assert_eq!((rollout.status, of(&cluster).current), (status, current));
        let why = &rollout.cause.as_ref().unwrap().message;
        prop_assert!(why.ends_with(": nothing listens on port 80"), "{}", why);
    }

    #[test]
    fn a_port_that_nothing_ever_listened_on_holds_up_nothing(
        replicas in 1..5u32,
        more in any::<bool>(),
    ) {
        let mut cluster = Cluster::of(3);
        deploy(&mut cluster, "a", replicas, FailureAction::Pause);
        cluster.settle();
        deafen(&mut cluster, "a", "80, 81");
        deploy(&mut cluster, "b", replicas, FailureAction::Pause);
        let now = if more { "80, 82" } else { "80" };
        two_minutes(&mut cluster, &[("a", "80, 81"), ("b", now)]);
        let (status, left) = match more {
            true => (RolloutStatus::Paused, replicas as usize),
            false => (RolloutStatus::Completed, 0),
        };
        prop_assert_eq!(of(&cluster).rollouts.values().next().unwrap().status, status);
        prop_assert_eq!(serving(&cluster, "a").len(), left);
    }

    #[test]
    fn one_that_opens_late_completes_the_rollout(opens in 1..60u64) {
        let mut cluster = Cluster::of(3);
        deploy(&mut cluster, "a", 1, FailureAction::Rollback);
        cluster.settle();
        deploy(&mut cluster, "b", 1, FailureAction::Rollback);
        for second in 0..120 {
            cluster.schedule();
            cluster.obey();
            if second < opens {
                deafen(&mut cluster, "b", "80");
            }
            cluster.now.0 += 1_000;
        }
        prop_assert_eq!(of(&cluster).current, 2);
        prop_assert_eq!(serving(&cluster, "b").len(), 1);
        prop_assert_eq!(serving(&cluster, "a").len(), 0);
    }

    #[test]
    fn what_the_ports_are_is_read_from_the_cause(
        ports in prop::collection::btree_set(any::<u16>(), 1..5),
    ) {
        let mut cluster = Cluster::of(1);
        deploy(&mut cluster, "a", 1, FailureAction::Pause);
        cluster.settle();
        let told: Vec<String> = ports.iter().map(u16::to_string).collect();
        deafen(&mut cluster, "a", &told.join(", "));
        let replica = of(&cluster).replicas.values().next().unwrap();
        prop_assert_eq!(replica.observed.silent_ports(), ports);
    }
}

#[test]
fn what_does_not_listen_is_asked_again_until_it_does() {
    let mut cluster = Cluster::of(1);
    deploy(&mut cluster, "a", 1, FailureAction::Pause);
    cluster.settle();
    let node = cluster.state.nodes.keys().next().unwrap().clone();
    let container = |replica: &Replica| ObservedContainer {
        id: replica.observed.container_id.clone().unwrap(),
        replica: replica.id.clone(),
        generation: replica.generation,
        spec_hash: replica.spec_hash.to_string(),
        status: ContainerStatus::Running,
        exit_code: 0,
        oom_killed: false,
        health: None,
        started_at: Some(Timestamp(0)),
        finished_at: None,
        error: String::new(),
    };
    let asked = |cluster: &Cluster| {
        let desired = containers::desired(&cluster.state, &node);
        let replica = &desired.values().next().unwrap().replica;
        let again = report::next_look(&desired, &Local::default(), cluster.now);
        (health::is_asked(replica, &container(replica)), again)
    };
    assert_eq!(asked(&cluster), (false, None::<Duration>));
    deafen(&mut cluster, "a", "80");
    assert_eq!(asked(&cluster), (true, Some(ASK_SILENT_AGAIN)));
    cluster.obey();
    assert_eq!(asked(&cluster), (false, None));
}
