//! A forecast is what then happens.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::{BTreeMap, BTreeSet};

use jaco_core::cluster::Command;
use jaco_core::cluster::node::NodeCondition;
use jaco_core::error::ErrorCode;
use jaco_core::id::NodeName;
use jaco_core::manifest::spec::{Placement, Resources};
use jaco_core::scheduler::forecast;
use jaco_testkit::builders::{Cluster, data_mount, deployment, service};
use proptest::prelude::*;

fn cluster(counts: &[u32; 4], reserved: u64) -> Cluster {
    let mut cluster = Cluster::of(4);
    let mut store = service(counts[0], "store");
    store.container.mounts = vec![data_mount()];
    let mut agent = service(0, "agent");
    agent.placement = Placement::Global;
    let mut pack = service(counts[1], "pack");
    pack.placement = Placement::Pack;
    let mut large = service(counts[2], "large");
    large.reservations = Resources {
        cpu_millis: reserved,
        memory_bytes: 0,
    };
    let web = service(counts[3], "web");
    let first = [("store", store), ("agent", agent), ("pack", pack)];
    cluster.deploy(deployment("a", first)).unwrap();
    cluster
        .deploy(deployment("b", [("large", large), ("web", web)]))
        .unwrap();
    cluster.settle();
    cluster
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_forecast_of_a_loss_is_what_then_happens(
        counts in prop::array::uniform4(0..6u32),
        reserved in 100..1_200u64,
        number in 1..5u8,
    ) {
        let mut cluster = cluster(&counts, reserved);
        let node = NodeName::new(format!("n{number}"));
        let loss = forecast::lose(&cluster.state, &node, cluster.now).unwrap();
        let before: BTreeSet<_> = cluster.state.replicas().map(|r| r.id.clone()).collect();
        let condition = NodeCondition::Unreachable;
        cluster.must(Command::NodeCondition { node: node.clone(), condition });
        cluster.settle();
        let new = cluster.state.replicas().filter(|r| !before.contains(&r.id));
        let new: BTreeMap<_, _> = new.map(|r| (r.id.clone(), r.node.clone())).collect();
        let told = loss.placed.into_iter().map(|placed| (placed.replica, placed.node));
        prop_assert_eq!(told.collect::<BTreeMap<_, _>>(), new);
        let waiting = cluster.state.replicas().filter(|r| r.node == node);
        let waiting: Vec<_> = waiting.map(|r| r.id.clone()).collect();
        prop_assert_eq!(loss.waiting, waiting);
        let large = cluster.state.replicas().filter(|r| r.service.as_str() == "large");
        let is_short = large.count() < counts[2] as usize;
        let told = loss.short.iter().any(|short| short.service.as_str() == "large");
        prop_assert_eq!(told, is_short);
    }
}

#[test]
fn the_loss_of_a_stranger_is_refused() {
    let cluster = Cluster::of(1);
    let error = forecast::lose(&cluster.state, &NodeName::new("n9"), cluster.now);
    assert_eq!(error.unwrap_err().code, ErrorCode::NodeNotFound);
}
