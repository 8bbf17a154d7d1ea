//! A forecast is what then happens.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jaco_core::cluster::Command;
use jaco_core::cluster::node::NodeCondition;
use jaco_core::error::ErrorCode;
use jaco_core::id::{Identity, NodeName};
use jaco_core::manifest::spec::{Placement, Protocol, PublishedPort, Resources};
use jaco_core::scheduler::forecast::{self, Thought};
use jaco_testkit::builders::{Cluster, bundle, data_mount, deployment, service};
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
        let thought = Thought { loss: Some(node.clone()), change: None };
        let loss = forecast::foresee(&cluster.state, &thought, cluster.now).unwrap();
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_forecast_of_an_apply_is_what_then_happens(
        counts in prop::array::uniform4(0..6u32),
        now_wanted in prop::array::uniform2(0..7u32),
        changed in any::<bool>(),
    ) {
        let mut cluster = cluster(&counts, 300);
        let mut large = service(now_wanted[0], "large");
        large.reservations.cpu_millis = 1_100;
        let web = service(now_wanted[1], if changed { "new" } else { "web" });
        let spec = Arc::new(deployment("b", [("large", large), ("web", web)]));
        let command = Command::Apply { bundle: Arc::new(bundle()), spec, privileged: false };
        let change = Some((Identity::new("tester"), command.clone()));
        let thought = Thought { change, loss: None };
        cluster.now.0 += 1;
        let told = forecast::foresee(&cluster.state, &thought, cluster.now).unwrap();
        let before: BTreeSet<_> = cluster.state.replicas().map(|r| r.id.clone()).collect();
        cluster.must(command);
        cluster.settle();
        let after: BTreeMap<_, _> =
            cluster.state.replicas().map(|r| (r.id.clone(), r.node.clone())).collect();
        let placed = told.placed.into_iter().map(|placed| (placed.replica, placed.node));
        let mut new = after.clone();
        new.retain(|id, _| !before.contains(id));
        prop_assert_eq!(placed.collect::<BTreeMap<_, _>>(), new);
        let gone: Vec<_> = before.into_iter().filter(|id| !after.contains_key(id)).collect();
        let told_gone: BTreeSet<_> = told.removed.into_iter().collect();
        prop_assert_eq!(told_gone, gone.into_iter().collect());
        let large = cluster.state.replicas().filter(|r| r.service.as_str() == "large").count();
        let is_short = large < now_wanted[0] as usize;
        prop_assert_eq!(told.short.iter().any(|s| s.service.as_str() == "large"), is_short);
        prop_assert_eq!(told.revision, Some(cluster.state.deployments["b"].current));
    }
}

#[test]
fn what_would_be_refused_is_refused() {
    let mut cluster = Cluster::of(1);
    let port = |name| {
        let mut web = service(1, "a");
        web.ports.push(PublishedPort {
            host: 9_000,
            container: 80,
            protocol: Protocol::Tcp,
            proxy_protocol: false,
        });
        deployment(name, [("web", web)])
    };
    cluster.deploy(port("a")).unwrap();
    let command = Command::Apply {
        bundle: Arc::new(bundle()),
        spec: Arc::new(port("b")),
        privileged: false,
    };
    let thought = Thought {
        change: Some((Identity::new("tester"), command)),
        loss: None,
    };
    let error = forecast::foresee(&cluster.state, &thought, cluster.now);
    assert_eq!(error.unwrap_err().code, ErrorCode::PortConflict);
}

#[test]
fn the_loss_of_a_stranger_is_refused() {
    let cluster = Cluster::of(1);
    let thought = Thought {
        loss: Some(NodeName::new("n9")),
        change: None,
    };
    let error = forecast::foresee(&cluster.state, &thought, cluster.now);
    assert_eq!(error.unwrap_err().code, ErrorCode::NodeNotFound);
}
