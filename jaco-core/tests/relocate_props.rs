//! What its node alone fails goes to another node once, before it is given up.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeSet;

use jaco_core::cluster::Command;
use jaco_core::cluster::audit::EventType;
use jaco_core::cluster::deployment::{Replica, ReplicaState};
use jaco_core::id::{DeploymentName, NodeName};
use jaco_core::manifest::spec::{NetworkMode, Placement, ServiceKind, ServiceSpec};
use jaco_core::view::status::{Verdict, status, verdict};
use jaco_testkit::builders::{Cluster, data_mount, deployment, seen, service};
use proptest::prelude::*;

fn web(cluster: &mut Cluster, service: ServiceSpec) {
    let base = jaco_testkit::builders::service(1, "base");
    let services = [("base", base), ("web", service)];
    cluster.deploy(deployment("d", services)).unwrap();
}

fn replicas(cluster: &Cluster) -> Vec<Replica> {
    let of_web = |replica: &&std::sync::Arc<Replica>| replica.service.as_str() == "web";
    let replicas = cluster.state.replicas().filter(of_web);
    replicas.map(|replica| (**replica).clone()).collect()
}

/// Everything does as it is told, but what is on these nodes fails.
fn obey_but_fail(cluster: &mut Cluster, bad: &BTreeSet<NodeName>) {
    cluster.obey();
    for replica in replicas(cluster) {
        if bad.contains(&replica.node) && !replica.is_stopped() {
            let observations = vec![seen(&replica, ReplicaState::Failed)];
            let node = replica.node.clone();
            cluster.must(Command::Observe { node, observations });
        }
    }
}

/// Steps until nothing is left but time, a minute after the other.
fn run(cluster: &mut Cluster, bad: &BTreeSet<NodeName>) {
    let mut quiet = 0;
    for _ in 0..400 {
        quiet = if cluster.schedule() { 0 } else { quiet + 1 };
        if quiet > 5 {
            return;
        }
        obey_but_fail(cluster, bad);
        cluster.now.0 += 60_000;
    }
    panic!("it does not end");
}

fn bad(nodes: &[usize]) -> BTreeSet<NodeName> {
    let name = |number: &usize| NodeName::new(format!("n{number}"));
    nodes.iter().map(name).collect()
}

fn moves(cluster: &Cluster) -> usize {
    let events = cluster.state.audit.iter();
    let moved = |kind: EventType| kind == EventType::RebalanceMoved;
    events.filter(|event| moved(event.kind)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_one_node_fails_runs_elsewhere_in_the_end(
        replicas_wanted in 1..7u32,
        sick in 1..4usize,
    ) {
        let mut cluster = Cluster::of(3);
        web(&mut cluster, service(replicas_wanted, "a"));
        run(&mut cluster, &bad(&[sick]));
        let all = replicas(&cluster);
        prop_assert_eq!(all.len(), replicas_wanted as usize);
        prop_assert!(all.iter().all(Replica::is_serving), "{all:?}");
        // Each was moved once, and nothing is brought back to fail again.
        let fled = all.iter().filter(|replica| replica.fled_from.is_some()).count();
        prop_assert_eq!(moves(&cluster), fled);
    }

    #[test]
    fn nothing_is_moved_twice(replicas_wanted in 1..7u32, sick in prop::sample::subsequence(
        vec![1, 2, 3, 4], 0..=4,
    )) {
        let mut cluster = Cluster::of(4);
        web(&mut cluster, service(replicas_wanted, "a"));
        run(&mut cluster, &bad(&sick));
        prop_assert!(moves(&cluster) <= replicas_wanted as usize);
    }
}

#[test]
fn what_every_node_fails_is_given_up_where_it_is() {
    let mut cluster = Cluster::of(3);
    web(&mut cluster, service(3, "a"));
    run(&mut cluster, &bad(&[1, 2, 3]));
    assert_eq!(moves(&cluster), 0);
    let name = DeploymentName::new("d");
    let status = status(&cluster.state, Some(&name), None).unwrap();
    assert!(matches!(verdict(&status), Verdict::Stuck(_)));
}

#[test]
fn what_is_about_to_go_elsewhere_is_not_told_as_given_up() {
    let mut cluster = Cluster::of(2);
    web(&mut cluster, service(1, "a"));
    let name = DeploymentName::new("d");
    let verdict_now = |cluster: &Cluster| {
        let status = status(&cluster.state, Some(&name), None).unwrap();
        verdict(&status)
    };
    cluster.schedule();
    let sick = BTreeSet::from([replicas(&cluster)[0].node.clone()]);
    while moves(&cluster) == 0 {
        obey_but_fail(&mut cluster, &sick);
        assert_eq!(verdict_now(&cluster), Verdict::Moving);
        cluster.now.0 += 60_000;
        cluster.schedule();
    }
    run(&mut cluster, &sick);
    assert_eq!(verdict_now(&cluster), Verdict::Steady);
    assert!(!sick.contains(&replicas(&cluster)[0].node));
}

#[test]
fn an_apply_lets_a_replica_flee_once_more_and_use_its_node_again() {
    let mut cluster = Cluster::of(2);
    web(&mut cluster, service(2, "a"));
    run(&mut cluster, &bad(&[2]));
    assert!(replicas(&cluster).iter().all(|r| r.node.as_str() == "n1"));
    web(&mut cluster, service(2, "a"));
    assert_eq!(moves(&cluster), 1);
    web(&mut cluster, service(3, "a"));
    run(&mut cluster, &bad(&[]));
    let here = |r: &&Replica| r.node.as_str() == "n2";
    assert!(replicas(&cluster).iter().filter(here).count() > 0);
}

#[test]
fn what_is_bound_to_its_node_stays() {
    let bind: [fn(&mut ServiceSpec); 5] = [
        |spec| spec.container.mounts.push(data_mount()),
        |spec| spec.placement = Placement::Global,
        |spec| spec.placement = Placement::Hosts(vec!["n1".into()]),
        |spec| spec.kind = ServiceKind::Job,
        |spec| {
            spec.network_mode = NetworkMode::Service("base".into());
            spec.networks.clear();
        },
    ];
    for bind in bind {
        let mut cluster = Cluster::of(3);
        let mut spec = service(1, "a");
        bind(&mut spec);
        web(&mut cluster, spec);
        cluster.schedule();
        let sick = BTreeSet::from([replicas(&cluster)[0].node.clone()]);
        run(&mut cluster, &sick);
        assert_eq!(moves(&cluster), 0);
    }
}
