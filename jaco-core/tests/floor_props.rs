//! The floor is held whatever is planned.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::time::Duration;

use jaco_core::cluster::audit::EventType;
use jaco_core::cluster::command::Step;
use jaco_core::cluster::deployment::{Replica, ReplicaState};
use jaco_core::cluster::rollout::RolloutStatus;
use jaco_core::cluster::{ClusterState, Command};
use jaco_core::id::DeploymentName;
use jaco_core::manifest::spec::Placement;
use jaco_core::scheduler::floor;
use jaco_testkit::builders::{Cluster, deployment, seen, service};
use proptest::prelude::*;

fn name() -> DeploymentName {
    DeploymentName::new("d")
}

fn drain(replica: &Replica) -> Step {
    let (deployment, replica) = (name(), replica.id.clone());
    Step::Drain {
        deployment,
        replica,
    }
}

fn drain_all(cluster: &Cluster) -> Vec<Step> {
    let replicas = cluster.state.replicas();
    replicas.map(|replica| drain(replica)).collect()
}

fn stop(replica: &Replica) -> Step {
    let (deployment, replica) = (name(), replica.id.clone());
    Step::Stop {
        deployment,
        replica,
    }
}

fn serving(state: &ClusterState) -> usize {
    state
        .replicas()
        .filter(|replica| replica.is_serving())
        .count()
}

/// `web` with so many replicas, in the middle of a rollout.
fn rolling(replicas: u32, parallelism: u32) -> Cluster {
    let mut cluster = Cluster::of(3);
    let spec = |hash| {
        let mut web = service(replicas, hash);
        web.update.parallelism = parallelism;
        deployment("d", [("web", web)])
    };
    cluster.deploy(spec("a")).unwrap();
    cluster.settle();
    cluster.now.0 += 1;
    cluster.deploy(spec("b")).unwrap();
    cluster
}

proptest! {
    #[test]
    fn no_batch_takes_a_service_below_its_floor(
        replicas in 1..7u32,
        parallelism in 0..4u32,
        failed in prop::collection::vec(0..7usize, 0..3),
        batch in prop::collection::vec((0..7usize, any::<bool>()), 0..8),
    ) {
        let mut cluster = rolling(replicas, parallelism);
        let all: Vec<Replica> = cluster.state.replicas().map(|r| (**r).clone()).collect();
        for replica in failed.iter().filter_map(|i| all.get(*i)) {
            let observations = vec![seen(replica, ReplicaState::Failed)];
            cluster.must(Command::Observe { node: replica.node.clone(), observations });
        }
        let steps = batch.iter().filter_map(|(i, stops)| {
            let replica = all.get(*i)?;
            Some(if *stops { stop(replica) } else { drain(replica) })
        });
        let steps: Vec<Step> = steps.collect();
        let passed = floor::guard(&cluster.state, steps.clone(), cluster.now);
        let before = serving(&cluster.state);
        cluster.carry_out(passed.clone());
        let floor = if parallelism == 0 { 0 } else { replicas.saturating_sub(parallelism) };
        prop_assert!(serving(&cluster.state) >= before.min(floor as usize));
        // What breaks nothing passes as it is.
        let mut free = rolling(replicas, parallelism);
        free.state = cluster.state.clone();
        let held = passed.iter().any(|step| matches!(step, Step::Hold { .. }));
        prop_assert!(held || passed == steps);
    }
}

#[test]
fn a_breach_is_held_told_once_and_ends_in_a_paused_rollout() {
    let mut cluster = rolling(3, 1);
    let steps = drain_all(&cluster);
    let passed = floor::guard(&cluster.state, steps.clone(), cluster.now);
    let hold = Step::Hold {
        deployment: name(),
        service: "web".into(),
        running: 0,
        floor: 2,
    };
    assert_eq!(passed, std::slice::from_ref(&hold));
    cluster.carry_out(passed);
    let rollout = &cluster.state.deployments[&name()].rollouts["web"];
    assert_eq!(rollout.status, RolloutStatus::Paused);
    let event = cluster.state.audit.last().unwrap();
    assert_eq!(event.kind, EventType::RolloutInvariantHold);
    assert_eq!(event.payload["reason"], "0 would run, and at least 2 must");
    // Again at once nothing is left to do; later it is told again.
    let again = |now| floor::guard(&cluster.state, steps.clone(), now);
    assert_eq!(again(cluster.now), []);
    assert_eq!(again(cluster.now + Duration::from_secs(600)), [hold]);
}

#[test]
fn what_has_no_floor_passes() {
    let mut cluster = Cluster::of(3);
    let mut agent = service(0, "a");
    agent.placement = Placement::Global;
    let plain = deployment("d", [("agent", agent), ("web", service(1, "a"))]);
    cluster.deploy(plain).unwrap();
    cluster.settle();
    let steps = drain_all(&cluster);
    assert_eq!(
        floor::guard(&cluster.state, steps.clone(), cluster.now),
        steps
    );
    // Nor has a deployment that is deleted.
    let mut cluster = rolling(3, 1);
    let steps = drain_all(&cluster);
    cluster.must(Command::Delete { deployment: name() });
    assert_eq!(
        floor::guard(&cluster.state, steps.clone(), cluster.now),
        steps
    );
}
