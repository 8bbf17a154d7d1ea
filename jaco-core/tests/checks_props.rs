//! The self-test: what a node tries, and what is made of the outcome.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use jaco_core::cluster::ClusterState;
use jaco_core::id::NodeName;
use jaco_core::node::bridges::{self, ObservedBridge};
use jaco_core::node::checks::{self, Check, SMALL, Seen, Tables};
use jaco_core::node::dns::{Answer, Kind, Question, zones};
use jaco_core::node::{firewall, mesh};
use jaco_testkit::builders::{Cluster, deployment, service};
use proptest::prelude::*;

fn cluster(nodes: usize, counts: &[u32]) -> Cluster {
    let mut cluster = Cluster::of(nodes);
    for (i, count) in counts.iter().enumerate() {
        let spec = deployment(&format!("d{i}"), [("web", service(*count, "a"))]);
        cluster.deploy(spec).unwrap();
    }
    cluster.settle();
    cluster
}

proptest! {
    #[test]
    fn every_other_member_is_tried_and_names_are_those_of_the_responder(
        nodes in 1..5usize,
        counts in prop::collection::vec(0..6u32, 0..4),
    ) {
        let cluster = cluster(nodes, &counts);
        for node in cluster.state.nodes.keys() {
            let wanted = checks::desired(&cluster.state, node);
            let tried: BTreeSet<(&NodeName, Ipv4Addr, u16)> = wanted
                .iter()
                .filter_map(|check| match check {
                    Check::Echo { to, address, size } => Some((to, *address, *size)),
                    _ => None,
                })
                .collect();
            let others = cluster.state.nodes.values().filter(|other| other.name != *node);
            let all = others.flat_map(|other| {
                [SMALL, mesh::MTU].map(|size| (&other.name, other.mesh_address, size))
            });
            prop_assert_eq!(tried, all.collect());

            let zones = zones(&cluster.state, node);
            let mut asked = BTreeSet::new();
            for check in &wanted {
                if let Check::Name { resolver, name, address, .. } = check {
                    asked.insert(*resolver);
                    let question = Question { name, kind: Kind::A };
                    let answer = zones.answer(*resolver, *resolver, &question, 0);
                    prop_assert_eq!(answer, Answer::Addresses(vec![*address]));
                    let found = Seen::Addresses(BTreeSet::from([*address]));
                    prop_assert!(checks::row(node, check, &found).ok);
                    let nothing = Seen::Addresses(BTreeSet::new());
                    prop_assert!(!checks::row(node, check, &nothing).ok);
                }
                let failed = Seen::Failed("x".to_owned());
                prop_assert!(!checks::row(node, check, &failed).ok);
            }
            prop_assert_eq!(asked, zones.gateways().collect());
            prop_assert_eq!(wanted.iter().filter(|c| **c == Check::Isolation).count(), 1);
        }
    }
}

#[test]
fn a_network_is_not_asked_where_nothing_serves_yet() {
    let mut cluster = Cluster::of(1);
    let spec = deployment("d", [("web", service(1, "a"))]);
    cluster.deploy(spec).unwrap();
    cluster.schedule();
    let node = NodeName::new("n1");
    let own = [Check::Isolation, Check::Tables];
    assert_eq!(checks::desired(&cluster.state, &node), own);
    cluster.obey();
    assert_eq!(checks::desired(&cluster.state, &node).len(), 3);
}

/// What a host would have had it carried out everything that the state asks for.
fn tables(
    state: &ClusterState,
    node: &NodeName,
    resolve: impl Fn(&str) -> Option<IpAddr>,
) -> Tables {
    let mesh = mesh::desired(state, node, &resolve).unwrap();
    let bridges = bridges::desired(state, node).into_values();
    let observed = |bridge: bridges::Bridge| ObservedBridge {
        engine_name: bridge.engine_name,
        interface: bridge.interface,
        subnet: bridge.subnet,
    };
    Tables {
        routes: mesh.routes(),
        peers: mesh.peers.into_values().collect(),
        bridges: bridges.map(observed).collect(),
        ruleset: firewall::desired(state, &firewall::Local::default(), &resolve).unwrap(),
    }
}

proptest! {
    #[test]
    fn only_what_differs_from_a_fresh_rendering_is_told(
        nodes in 1..5usize,
        counts in prop::collection::vec(0..6u32, 0..4),
        later in 0..6u32,
    ) {
        let mut cluster = cluster(nodes, &counts);
        let number = |host: &str| host.trim_start_matches('n').parse::<u8>().ok();
        let local = firewall::Local::default();
        let resolve = |host: &str| Some(IpAddr::from([10, 99, 0, number(host)?]));
        let before = cluster.state.clone();
        let nodes: Vec<NodeName> = before.nodes.keys().cloned().collect();
        for node in &nodes {
            let found = tables(&before, node, resolve);
            let told = checks::differences(&before, node, &local, resolve, &found);
            prop_assert_eq!(told, Vec::<String>::new());
            let nothing = Tables::default();
            prop_assert!(!checks::differences(&before, node, &local, resolve, &nothing).is_empty());
        }
        cluster.deploy(deployment("late", [("web", service(later, "a"))])).unwrap();
        cluster.settle();
        for node in &nodes {
            let found = tables(&before, node, resolve);
            let told = checks::differences(&cluster.state, node, &local, resolve, &found);
            // At least the packet filter has one network more.
            prop_assert!(!told.is_empty());
        }
    }
}
