//! Rollouts: start-first behind the drain barrier, taken back when they fail; drains of nodes.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::cluster::audit::{Event, EventType};
use jaco_core::cluster::command::Step;
use jaco_core::cluster::deployment::{Deployment, Observation, Phase, Replica, ReplicaState};
use jaco_core::cluster::node::NodeStatus;
use jaco_core::cluster::rollout::RolloutStatus;
use jaco_core::id::{DeploymentName, NodeName};
use jaco_core::manifest::spec::{FailureAction, Resources, ServiceSpec, UpdateOrder};
use jaco_core::scheduler::{barrier, drain, plan};
use jaco_testkit::builders::{Cluster, data_mount, deployment, seen, service};
use proptest::prelude::*;

fn web(cluster: &mut Cluster, service: ServiceSpec) {
    cluster.deploy(deployment("d", [("web", service)])).unwrap();
}

fn of(cluster: &Cluster) -> &Deployment {
    &cluster.state.deployments[&DeploymentName::new("d")]
}

fn all(cluster: &Cluster) -> Vec<&Replica> {
    of(cluster).replicas.values().map(AsRef::as_ref).collect()
}

fn status(cluster: &Cluster) -> RolloutStatus {
    of(cluster).rollouts.values().next().unwrap().status
}

/// Every new replica fails, everything else does as it is told.
fn obey_but_fail(cluster: &mut Cluster, hash: &str) {
    let nodes: Vec<NodeName> = cluster.state.nodes.keys().cloned().collect();
    cluster.obey();
    for node in nodes {
        let bad = all(cluster).into_iter().filter(|r| {
            r.spec_hash.as_str() == hash && r.node == node && r.phase != Phase::Stopping
        });
        let observations = bad.map(|r| seen(r, ReplicaState::Failed)).collect();
        cluster.must(Command::Observe { node, observations });
    }
}

/// Steps until nothing is left but time.
fn run(cluster: &mut Cluster, fails: &str) {
    for _ in 0..100 {
        if !cluster.schedule() {
            return;
        }
        obey_but_fail(cluster, fails);
    }
    panic!("the rollout does not end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_update_stays_between_its_floor_and_its_ceiling(
        replicas in 1..7u32,
        parallelism in 1..4u32,
        stop_first in any::<bool>(),
    ) {
        let mut cluster = Cluster::of(3);
        let spec = |hash| {
            let mut spec = service(replicas, hash);
            spec.update.parallelism = parallelism;
            spec.update.order = stop_first.then_some(UpdateOrder::StopFirst);
            spec
        };
        web(&mut cluster, spec("a"));
        cluster.settle();
        web(&mut cluster, spec("b"));
        let (least, most) = match stop_first {
            true => (replicas.saturating_sub(parallelism), replicas),
            false => (replicas, replicas + parallelism),
        };
        for _ in 0..1_000 {
            cluster.schedule();
            let serving = all(&cluster).iter().filter(|r| r.is_serving()).count();
            prop_assert!(serving >= least as usize, "{serving} serve of {least}");
            prop_assert!(all(&cluster).len() <= most as usize);
            cluster.obey();
            cluster.now.0 += 1_000;
            if status(&cluster) == RolloutStatus::Completed {
                break;
            }
        }
        prop_assert_eq!(status(&cluster), RolloutStatus::Completed);
        prop_assert_eq!(all(&cluster).len(), replicas as usize);
        prop_assert!(all(&cluster).iter().all(|r| r.spec_hash.as_str() == "b"));
    }

    #[test]
    fn a_failed_update_ends_as_its_policy_says_and_keeps_what_served(
        replicas in 1..5u32,
        action in prop::sample::select(vec![FailureAction::Pause, FailureAction::Rollback]),
    ) {
        let mut cluster = Cluster::of(3);
        web(&mut cluster, service(replicas, "a"));
        cluster.settle();
        let before: Vec<_> = all(&cluster).iter().map(|r| r.id.clone()).collect();
        let mut bad = service(replicas, "b");
        bad.update.failure_action = action;
        web(&mut cluster, bad);
        run(&mut cluster, "b");
        let serving = all(&cluster).into_iter().filter(|r| r.is_serving());
        let serving: Vec<_> = serving.map(|r| r.id.clone()).collect();
        prop_assert_eq!(&serving, &before);
        let paused = action == FailureAction::Pause;
        prop_assert_eq!(of(&cluster).current, if paused { 2 } else { 3 });
        if paused {
            prop_assert_eq!(status(&cluster), RolloutStatus::Paused);
            // The same files again are a new try.
            let mut again = service(replicas, "b");
            again.update.failure_action = action;
            web(&mut cluster, again);
            prop_assert_eq!(status(&cluster), RolloutStatus::InProgress);
        }
        let aborted = |kind: EventType| kind == EventType::RolloutAborted;
        prop_assert!(cluster.state.audit.iter().any(|event| aborted(event.kind)));
    }
}

#[test]
fn a_restart_replaces_every_replica_once_and_changes_nothing_else() {
    let mut cluster = Cluster::of(2);
    web(&mut cluster, service(3, "a"));
    cluster.settle();
    cluster.now.0 += 1;
    let service = Some("web".into());
    let deployment = DeploymentName::new("d");
    cluster.must(Command::Restart {
        deployment,
        service,
    });
    cluster.settle();
    assert_eq!(status(&cluster), RolloutStatus::Completed);
    let numbers: Vec<u64> = all(&cluster).iter().map(|r| r.number).collect();
    assert_eq!(numbers, [4, 5, 6]);
    assert_eq!(of(&cluster).current, 2);
}

#[test]
fn a_node_that_joins_gets_its_share_by_one_move_at_a_time() {
    let mut cluster = Cluster::of(2);
    web(&mut cluster, service(6, "a"));
    cluster.settle();
    cluster.join("n3");
    cluster.report("n3", jaco_testkit::builders::capacity());
    for _ in 0..100 {
        if !cluster.schedule() {
            break;
        }
        let moving = all(&cluster).iter().filter(|r| r.move_to.is_some()).count();
        let serving = all(&cluster).iter().filter(|r| r.is_serving()).count();
        assert!(moving <= 1 && serving >= 6);
        cluster.obey();
    }
    for number in 1..=3 {
        let node = NodeName::new(format!("n{number}"));
        let here = all(&cluster).iter().filter(|r| r.node == node).count();
        assert_eq!(here, 2, "on {node}");
    }
}

#[test]
fn a_rollout_goes_on_past_failures_when_told_to_down_to_its_floor() {
    let mut cluster = Cluster::of(2);
    web(&mut cluster, service(3, "a"));
    cluster.settle();
    let mut bad = service(3, "b");
    bad.update.failure_action = FailureAction::Continue;
    bad.update.parallelism = 2;
    web(&mut cluster, bad);
    run(&mut cluster, "b");
    let serving = all(&cluster).iter().filter(|r| r.is_serving()).count();
    assert_eq!((serving, status(&cluster)), (1, RolloutStatus::Paused));
    let events = cluster.state.audit.iter();
    let held = events.filter(|event| event.kind == EventType::RolloutInvariantHold);
    assert_eq!(held.count(), 1);
}

#[test]
fn a_step_that_takes_too_long_fails_the_rollout() {
    let mut cluster = Cluster::of(2);
    web(&mut cluster, service(1, "a"));
    cluster.settle();
    web(&mut cluster, service(1, "b"));
    cluster.schedule();
    cluster.now.0 += 59_000;
    assert_eq!(plan(&cluster.state, cluster.now), Vec::new());
    cluster.now.0 += 1_000;
    let steps = plan(&cluster.state, cluster.now);
    assert!(matches!(&steps[..], [Step::RollBack { .. }]), "{steps:?}");
}

#[test]
fn a_new_replica_has_to_run_for_the_monitor_time() {
    let mut cluster = Cluster::of(2);
    web(&mut cluster, service(1, "a"));
    cluster.settle();
    web(&mut cluster, service(1, "b"));
    cluster.schedule();
    let new = all(&cluster)
        .into_iter()
        .find(|r| r.number == 2)
        .unwrap()
        .clone();
    let mut running = seen(&new, ReplicaState::Running);
    running.observation = Observation {
        since: Some(cluster.now),
        ..running.observation
    };
    cluster.must(Command::Observe {
        node: new.node.clone(),
        observations: vec![running],
    });
    cluster.now.0 += 4_000;
    assert_eq!(plan(&cluster.state, cluster.now), Vec::new());
    cluster.now.0 += 1_000;
    let steps = plan(&cluster.state, cluster.now);
    assert!(matches!(&steps[..], [Step::Drain { .. }]), "{steps:?}");
}

#[test]
fn without_room_for_both_the_old_one_goes_first() {
    let mut cluster = Cluster::of(1);
    let full = |hash| {
        let mut spec = service(1, hash);
        spec.reservations = Resources {
            cpu_millis: 1_500,
            memory_bytes: 0,
        };
        spec
    };
    web(&mut cluster, full("a"));
    cluster.settle();
    web(&mut cluster, full("b"));
    cluster.settle();
    assert!(all(&cluster).iter().all(|r| r.spec_hash.as_str() == "b"));
    assert_eq!(all(&cluster).len(), 1);
}

#[test]
fn nothing_is_stopped_before_every_live_node_has_left_it_out() {
    let mut cluster = Cluster::of(3);
    web(&mut cluster, service(2, "a"));
    cluster.settle();
    web(&mut cluster, service(1, "a"));
    cluster.schedule();
    let at = cluster.state.index;
    for number in 1..=2 {
        let node = NodeName::new(format!("n{number}"));
        assert_eq!(barrier::owed(&cluster.state, &node), Some(at));
        cluster.must(Command::Published { node, index: at });
    }
    assert_eq!(plan(&cluster.state, cluster.now), Vec::new());
    let mut silent = cluster.clone();
    silent.now = silent.now + barrier::SILENCE;
    let stops = |steps: &[Step]| matches!(steps, [Step::Stop { .. }]);
    assert!(stops(&plan(&silent.state, silent.now)));
    let node = NodeName::new("n3");
    cluster.must(Command::Published { node, index: at });
    assert!(stops(&plan(&cluster.state, cluster.now)));
}

#[test]
fn a_drained_node_empties_and_is_given_up_when_it_cannot() {
    let mut cluster = Cluster::of(3);
    web(&mut cluster, service(3, "a"));
    cluster.settle();
    let node = NodeName::new("n2");
    let wish = |drain| Command::NodeDrain {
        node: NodeName::new("n2"),
        drain,
    };
    let mut stuck = cluster.clone();
    cluster.must(wish(true));
    cluster.settle();
    assert!(all(&cluster).iter().all(|r| r.node != node));
    assert_eq!(all(&cluster).len(), 3);
    cluster.must(wish(false));
    assert_eq!(cluster.state.nodes[&node].status(), NodeStatus::Ready);

    // A substitute that never runs holds the old one in its place.
    stuck.must(wish(true));
    stuck.schedule();
    stuck.now = stuck.now + drain::PATIENCE - Duration::from_millis(1);
    stuck.schedule();
    assert_eq!(stuck.state.nodes[&node].status(), NodeStatus::Draining);
    stuck.now.0 += 1;
    stuck.schedule();
    assert_eq!(stuck.state.nodes[&node].status(), NodeStatus::DrainTimeout);
    assert!(all(&stuck).iter().any(|r| r.node == node && r.is_serving()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scaling_down_takes_from_the_fullest_node_so_that_no_move_follows(
        nodes in 2..5usize,
        replicas in 2..9u32,
        added in 1..3usize,
        left in 1..8u32,
    ) {
        let mut cluster = Cluster::of(nodes);
        web(&mut cluster, service(replicas, "a"));
        cluster.settle();
        for number in nodes + 1..=nodes + added {
            cluster.join(&format!("n{number}"));
            cluster.report(&format!("n{number}"), jaco_testkit::builders::capacity());
        }
        cluster.settle();
        web(&mut cluster, service(left.min(replicas), "a"));
        let numbers = |cluster: &Cluster| of(cluster).counters["web"];
        let before = numbers(&cluster);
        cluster.settle();
        prop_assert_eq!(all(&cluster).len(), left.min(replicas) as usize);
        prop_assert_eq!(numbers(&cluster), before, "a replica was moved");
    }
}

#[test]
fn data_is_given_up_by_number_alone() {
    let mut cluster = Cluster::of(2);
    let mut store = service(4, "a");
    store.container.mounts.push(data_mount());
    web(&mut cluster, store.clone());
    cluster.settle();
    store.replicas = 2;
    web(&mut cluster, store);
    cluster.settle();
    let numbers: Vec<u64> = all(&cluster).iter().map(|r| r.number).collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn a_rollout_that_another_revision_supersedes_ends_with_an_event() {
    let mut cluster = Cluster::of(3);
    let both = |web, api| {
        let services = [("web", service(2, web)), ("api", service(1, api))];
        deployment("d", services)
    };
    cluster.deploy(both("a", "a")).unwrap();
    cluster.settle();
    let aborted = |cluster: &Cluster| -> Vec<(String, String)> {
        let events = cluster.state.audit.iter();
        let events = events.filter(|event| event.kind == EventType::RolloutAborted);
        let told = |key: &str, event: &Event| event.payload[key].clone();
        events
            .map(|e| (told("service", e), told("reason", e)))
            .collect()
    };
    let ended = |service: &str| (service.to_owned(), "superseded".to_owned());
    cluster.deploy(both("b", "b")).unwrap();
    cluster.deploy(both("a", "c")).unwrap();
    assert_eq!(aborted(&cluster), [ended("api"), ended("web")]);
    // Nothing of `web` was replaced yet, so that it needs no rollout any more.
    let rollouts = &of(&cluster).rollouts;
    assert_eq!(rollouts["web"].status, RolloutStatus::Aborted);
    assert_eq!(rollouts["api"].status, RolloutStatus::InProgress);
    let deployment = DeploymentName::new("d");
    cluster.must(Command::Delete { deployment });
    assert_eq!(aborted(&cluster)[2..], [ended("api")]);
}

#[test]
fn what_failed_a_rollout_is_told_once() {
    let mut cluster = Cluster::of(2);
    web(&mut cluster, service(1, "a"));
    cluster.settle();
    web(&mut cluster, service(1, "b"));
    run(&mut cluster, "b");
    let events = cluster.state.audit.iter();
    let aborted = events.filter(|event| event.kind == EventType::RolloutAborted);
    let reasons: Vec<&String> = aborted.map(|event| &event.payload["reason"]).collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].starts_with("d-web-2: "), "{reasons:?}");
}

#[test]
fn surplus_is_removed_and_the_rest_is_left_alone() {
    let mut cluster = Cluster::of(3);
    web(&mut cluster, service(5, "a"));
    cluster.settle();
    let before: Vec<_> = all(&cluster).iter().map(|r| r.id.clone()).collect();
    web(&mut cluster, service(2, "a"));
    cluster.settle();
    let after: Vec<_> = all(&cluster).iter().map(|r| r.id.clone()).collect();
    assert_eq!(after, before[..2]);
}

#[test]
fn regression_a_swap_of_counts_between_services_is_not_mistaken_for_rest() {
    let mut cluster = Cluster::of(2);
    let both = |a, b| deployment("d", [("a", service(a, "a")), ("b", service(b, "b"))]);
    cluster.deploy(both(3, 1)).unwrap();
    cluster.settle();
    cluster.deploy(both(1, 3)).unwrap();
    cluster.settle();
    let count = |name: &str| {
        let of_service = |r: &&&Replica| r.service.as_str() == name;
        all(&cluster).iter().filter(of_service).count()
    };
    assert_eq!((count("a"), count("b")), (1, 3));
}

#[test]
fn what_serves_nobody_is_replaced_although_a_slot_cannot_be_filled() {
    let mut cluster = Cluster::of(1);
    let mut single = service(2, "a");
    single.max_replicas_per_node = Some(1);
    single.update.order = Some(UpdateOrder::StopFirst);
    web(&mut cluster, single);
    cluster.settle();
    let old = all(&cluster)[0].id.clone();
    cluster.now.0 += 1;
    cluster.must(Command::Restart {
        deployment: DeploymentName::new("d"),
        service: None,
    });
    for _ in 0..20 {
        cluster.obey();
        let fails = all(&cluster)
            .into_iter()
            .filter(|replica| replica.id == old && replica.phase != Phase::Stopping);
        let observations = fails.map(|r| seen(r, ReplicaState::Failed)).collect();
        let node = NodeName::new("n1");
        cluster.must(Command::Observe { node, observations });
        cluster.schedule();
        cluster.now.0 += 1_000;
    }
    let left = all(&cluster);
    let renewed = left.len() == 1 && left[0].id != old && left[0].is_serving();
    assert!(renewed, "{left:?}");
}
