//! Placement: who is chosen, who is refused and why.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeMap;

use jaco_core::cluster::Command;
use jaco_core::cluster::audit::EventType;
use jaco_core::cluster::deployment::Replica;
use jaco_core::cluster::node::{Isolation, NodeCondition};
use jaco_core::error::ErrorCode;
use jaco_core::id::{DeploymentName, NodeName, ServiceName};
use jaco_core::manifest::spec::{
    Attribute, Constraint, NetworkMode, Placement, Resources, ServiceSpec,
};
use jaco_core::scheduler::{explain, plan};
use jaco_testkit::builders::{Cluster, deployment, service};
use proptest::prelude::*;

fn with(replicas: u32, change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = service(replicas, "a");
    change(&mut spec);
    spec
}

fn web(cluster: &mut Cluster, spec: ServiceSpec) {
    cluster.deploy(deployment("d", [("web", spec)])).unwrap();
    cluster.settle();
}

fn replicas<'a>(cluster: &'a Cluster, service: &'a str) -> impl Iterator<Item = &'a Replica> {
    let all = cluster.state.replicas().map(AsRef::as_ref);
    all.filter(move |replica| replica.service.as_str() == service)
}

/// Replicas of `web` per node, for all nodes.
fn counts(cluster: &Cluster) -> BTreeMap<&str, usize> {
    let mut counts: BTreeMap<&str, usize> = cluster
        .state
        .nodes
        .keys()
        .map(|name| (name.as_str(), 0))
        .collect();
    for replica in replicas(cluster, "web") {
        *counts.entry(replica.node.as_str()).or_default() += 1;
    }
    counts
}

fn lose(cluster: &mut Cluster, name: &str) {
    let (node, condition) = (NodeName::new(name), NodeCondition::Unreachable);
    cluster.must(Command::NodeCondition { node, condition });
}

fn pending(cluster: &Cluster, service: &str) -> Option<String> {
    let deployment = &cluster.state.deployments[&DeploymentName::new("d")];
    let name = ServiceName::new(service);
    let spec = &deployment.spec().services[&name];
    explain::pending(&cluster.state, deployment, &name, spec).map(|cause| cause.message)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn spread_keeps_the_counts_within_one(nodes in 1..9usize, first in 0..30u32, more in 0..30u32) {
        let mut cluster = Cluster::of(nodes);
        web(&mut cluster, service(first, "a"));
        web(&mut cluster, service(first + more, "a"));
        let counts = counts(&cluster);
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        prop_assert!(most - least <= 1, "{counts:?}");
        prop_assert_eq!(counts.values().sum::<usize>(), (first + more) as usize);
    }

    #[test]
    fn few_and_many_replicas_are_placed_alike(
        nodes in 1..30usize,
        before in 0..40u32,
        pack in any::<bool>(),
        steps in prop::collection::vec(1..8u32, 2..6),
    ) {
        let spec = |count| with(count, |spec| {
            if pack {
                spec.placement = Placement::Pack;
                spec.reservations = Resources { cpu_millis: 300, memory_bytes: 1 };
            }
        });
        let start = || {
            let mut cluster = Cluster::of(nodes);
            cluster.deploy(deployment("other", [("x", service(before, "a"))])).unwrap();
            cluster.settle();
            cluster
        };
        let (mut at_once, mut in_steps) = (start(), start());
        web(&mut at_once, spec(steps.iter().sum()));
        let mut count = 0;
        for more in steps {
            count += more;
            web(&mut in_steps, spec(count));
        }
        let places = |cluster: &Cluster| -> Vec<(String, String)> {
            let place = |r: &Replica| (r.id.to_string(), r.node.to_string());
            replicas(cluster, "web").map(place).collect()
        };
        prop_assert_eq!(places(&at_once), places(&in_steps));
    }

    #[test]
    fn capacity_is_never_exceeded(
        sizes in prop::collection::vec((0..4u32, 0..1_500u64, any::<bool>()), 1..5),
        room in prop::collection::vec(500..3_000u64, 1..5),
    ) {
        let mut cluster = Cluster::of(room.len());
        for (i, cpu_millis) in room.iter().enumerate() {
            let memory_bytes = 1 << 30;
            let capacity = Resources { cpu_millis: *cpu_millis, memory_bytes };
            cluster.report(&format!("n{}", i + 1), capacity);
        }
        for (i, (count, cpu, pack)) in sizes.iter().enumerate() {
            let spec = with(*count, |spec| {
                spec.reservations.cpu_millis = *cpu;
                spec.placement = if *pack { Placement::Pack } else { Placement::Spread };
            });
            cluster.deploy(deployment(&format!("d{i}"), [("web", spec)])).unwrap();
            cluster.schedule();
        }
        for (i, cpu_millis) in room.iter().enumerate() {
            let name = format!("n{}", i + 1);
            let here = cluster.state.replicas().filter(|r| r.node.as_str() == name);
            let used: u64 = here.map(|r| r.reserved.cpu_millis).sum();
            prop_assert!(used <= *cpu_millis, "{name} holds {used} of {cpu_millis}");
        }
    }

    #[test]
    fn no_node_holds_more_than_its_share(nodes in 1..5usize, count in 0..20u32, max in 1..4u32) {
        let mut cluster = Cluster::of(nodes);
        let spec = with(count, |spec| spec.max_replicas_per_node = Some(max));
        web(&mut cluster, spec);
        prop_assert!(counts(&cluster).values().all(|here| *here <= max as usize));
        let placed: usize = counts(&cluster).values().sum();
        prop_assert_eq!(placed, (count as usize).min(nodes * max as usize));
    }

    #[test]
    fn equal_states_give_equal_plans(nodes in 1..6usize, count in 0..20u32) {
        let mut cluster = Cluster::of(nodes);
        cluster.deploy(deployment("d", [("web", service(count, "a"))])).unwrap();
        let text = serde_json::to_string(&cluster.state).unwrap();
        let copy = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(plan(&cluster.state, cluster.now), plan(&copy, cluster.now));
    }
}

#[test]
fn a_node_that_comes_up_again_or_lost_its_isolation_keeps_what_runs_and_gets_nothing_new() {
    for isolation in [
        Isolation::Pending,
        Isolation::Unavailable {
            code: ErrorCode::IsolationUnavailable,
            reason: "nft is not installed".to_owned(),
        },
    ] {
        let mut cluster = Cluster::of(3);
        let everywhere = with(1, |spec| spec.placement = Placement::Global);
        let spec = deployment("d", [("web", service(3, "a")), ("agent", everywhere)]);
        cluster.deploy(spec).unwrap();
        cluster.settle();
        let before = counts(&cluster)["n2"];
        let node = NodeName::new("n2");
        let mut report = cluster.state.nodes[&node].report.clone().unwrap();
        report.isolation = isolation;
        cluster.must(Command::NodeReport { node, report });
        assert_eq!(plan(&cluster.state, cluster.now), vec![]);
        let more = deployment("more", [("web", service(6, "a"))]);
        cluster.deploy(more).unwrap();
        cluster.settle();
        let on_n2 = cluster.state.replicas().filter(|r| r.node.as_str() == "n2");
        let of_more = on_n2.filter(|r| r.deployment.as_str() == "more").count();
        assert_eq!((before, of_more), (1, 0));
    }
}

#[test]
fn pack_fills_one_node_before_the_next() {
    let mut cluster = Cluster::of(3);
    let spec = with(6, |spec| {
        spec.placement = Placement::Pack;
        spec.reservations.cpu_millis = 500;
    });
    web(&mut cluster, spec);
    let mut counts: Vec<usize> = counts(&cluster).into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 2, 4]);
}

#[test]
fn hosts_are_taken_all_or_none() {
    let mut cluster = Cluster::of(3);
    lose(&mut cluster, "n3");
    let hosts = || Placement::Hosts(vec!["n2".into(), "n3".into()]);
    web(&mut cluster, with(2, |spec| spec.placement = hosts()));
    assert_eq!(replicas(&cluster, "web").count(), 0);
    let why = pending(&cluster, "web").unwrap();
    assert_eq!(why, "cannot satisfy host placement: n3 unreachable");
    let (node, condition) = ("n3".into(), NodeCondition::Reachable);
    cluster.must(Command::NodeCondition { node, condition });
    cluster.obey();
    cluster.settle();
    assert_eq!(
        counts(&cluster),
        BTreeMap::from([("n1", 0), ("n2", 1), ("n3", 1)])
    );
    assert_eq!(pending(&cluster, "web"), None);
}

#[test]
fn nothing_is_told_of_free_hosts_that_the_next_plan_will_take() {
    let mut cluster = Cluster::of(3);
    let hosts = Placement::Hosts(vec!["n2".into(), "n3".into()]);
    let pinned = with(2, |spec| spec.placement = hosts.clone());
    cluster.deploy(deployment("d", [("web", pinned)])).unwrap();
    assert_eq!(replicas(&cluster, "web").count(), 0);
    assert_eq!(pending(&cluster, "web"), None);
    cluster.settle();
    assert_eq!(replicas(&cluster, "web").count(), 2);
}

#[test]
fn global_puts_one_on_every_ready_node_and_names_it_after_the_host() {
    let mut cluster = Cluster::of(3);
    lose(&mut cluster, "n2");
    web(
        &mut cluster,
        with(0, |spec| spec.placement = Placement::Global),
    );
    let ids: Vec<&str> = replicas(&cluster, "web").map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["d-web-n1", "d-web-n3"]);
    cluster.join("n4");
    cluster.report("n4", jaco_testkit::builders::capacity());
    cluster.settle();
    assert_eq!(replicas(&cluster, "web").count(), 3);
}

#[test]
fn labels_that_the_operator_sets_win_and_move_what_they_no_longer_suit() {
    let label = |cluster: &mut Cluster, node: &str, set: &[(&str, &str)], remove: &[&str]| {
        let pairs = set
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        cluster.apply(Command::NodeLabel {
            node: NodeName::new(node),
            set: pairs.collect(),
            remove: remove.iter().map(|key| (*key).to_owned()).collect(),
        })
    };
    let mut cluster = Cluster::of(3);
    for node in ["n1", "n2"] {
        label(&mut cluster, node, &[("zone", "north")], &[]).unwrap();
    }
    let north = Constraint {
        attribute: Attribute::Label("zone".to_owned()),
        equal: true,
        value: "north".to_owned(),
    };
    web(&mut cluster, with(2, |spec| spec.constraints.push(north)));
    cluster.settle();
    let held = |cluster: &Cluster| counts(cluster).into_values().collect::<Vec<_>>();
    assert_eq!(held(&cluster), [1, 1, 0]);
    label(&mut cluster, "n1", &[("zone", "south")], &[]).unwrap();
    label(
        &mut cluster,
        "n3",
        &[("zone", "north"), ("disk", "ssd")],
        &[],
    )
    .unwrap();
    cluster.settle();
    assert_eq!(held(&cluster), [0, 1, 1]);
    label(&mut cluster, "n3", &[], &["zone", "disk"]).unwrap();
    cluster.settle();
    assert_eq!(held(&cluster), [0, 2, 0]);

    // What the configuration says can be called otherwise, and then be called that again.
    let name = |cluster: &Cluster| cluster.state.nodes["n1"].label("name").unwrap().to_owned();
    label(&mut cluster, "n1", &[("name", "first")], &[]).unwrap();
    assert_eq!(name(&cluster), "first");
    label(&mut cluster, "n1", &[], &["name"]).unwrap();
    assert_eq!(name(&cluster), "n1");
    let refused = label(&mut cluster, "n1", &[], &["name"]).unwrap_err();
    assert_eq!(refused.code, ErrorCode::ValidationFailed);
    for odd in ["", "a b", "a=b"] {
        label(&mut cluster, "n1", &[(odd, "x")], &[]).unwrap_err();
    }
    label(&mut cluster, "n9", &[], &[]).unwrap_err();
    // Each change is one event, and no change is none.
    label(&mut cluster, "n1", &[("zone", "south")], &[]).unwrap();
    let events = cluster.state.audit.iter();
    let events = events.filter(|event| event.kind == EventType::NodeLabel);
    let told: Vec<&str> = events.map(|event| &*event.payload["labels"]).collect();
    let words = [
        "zone=north",
        "zone=north",
        "zone=south",
        "disk=ssd zone=north",
    ];
    assert_eq!(told[..4], words);
    assert_eq!(told[4..], ["disk- zone-", "name=first", "name-"]);
}

#[test]
fn constraints_choose_and_exclude_and_say_why() {
    let constraint = |attribute, equal, value: &str| Constraint {
        attribute,
        equal,
        value: value.to_owned(),
    };
    let label = || Attribute::Label("name".to_owned());
    let mut cluster = Cluster::of(3);
    let not_first = constraint(Attribute::Hostname, false, "n1");
    let third = constraint(label(), true, "n3");
    web(
        &mut cluster,
        with(2, |spec| spec.constraints = vec![not_first, third]),
    );
    assert_eq!(
        counts(&cluster),
        BTreeMap::from([("n1", 0), ("n2", 0), ("n3", 2)])
    );
    let foreign = constraint(Attribute::Arch, true, "arm64");
    web(
        &mut cluster,
        with(3, |spec| spec.constraints = vec![foreign]),
    );
    let why = pending(&cluster, "web").unwrap();
    assert!(
        why.contains("n2: fails node.platform.arch == arm64"),
        "{why}"
    );
}

#[test]
fn a_new_node_moves_nothing_while_the_spread_is_within_one() {
    let mut cluster = Cluster::of(2);
    web(&mut cluster, service(2, "a"));
    cluster.settle();
    let before: Vec<_> = replicas(&cluster, "web").cloned().collect();
    cluster.join("n3");
    cluster.report("n3", jaco_testkit::builders::capacity());
    assert!(!cluster.schedule());
    let after: Vec<_> = replicas(&cluster, "web").cloned().collect();
    assert_eq!(after, before);
}

#[test]
fn a_service_that_shares_a_network_follows_its_peer() {
    let mut cluster = Cluster::of(4);
    let sidecar = with(2, |spec| {
        spec.network_mode = NetworkMode::Service("web".into());
        spec.networks.clear();
    });
    let base = |hash: &str| with(2, |spec| spec.spec_hash = hash.into());
    let both = |hash| deployment("d", [("side", sidecar.clone()), ("web", base(hash))]);
    cluster.deploy(both("a")).unwrap();
    cluster.settle();
    let beside = |cluster: &Cluster| {
        replicas(cluster, "side").all(|side| replicas(cluster, "web").any(|w| w.node == side.node))
    };
    assert_eq!(replicas(&cluster, "side").count(), 2);
    assert!(beside(&cluster));
    // The peer is replaced, and may come back on another node.
    for hash in ["b", "c", "d"] {
        cluster.deploy(both(hash)).unwrap();
        cluster.settle();
        assert!(beside(&cluster), "after {hash}");
    }
}
