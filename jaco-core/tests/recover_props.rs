//! One member goes on alone with the state of all.
#![allow(clippy::unwrap_used)] // a test that fails says where

use jaco_core::cluster::ClusterState;
use jaco_core::cluster::recover::Recovery;
use jaco_core::error::ErrorCode;
use jaco_testkit::builders::{Cluster, data_mount, deployment, service};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_survivor_is_alone_with_every_deployment_as_it_was(
        members in 2..7usize,
        survivor in 1..7u64,
        counts in prop::array::uniform3(0..6u32),
    ) {
        let mut cluster = Cluster::of(members);
        let survivor = survivor.min(members as u64);
        let mut store = service(counts[0], "store");
        store.container.mounts = vec![data_mount()];
        let web = service(counts[1], "web");
        cluster.deploy(deployment("a", [("store", store), ("web", web)])).unwrap();
        cluster.deploy(deployment("b", [("web", service(counts[2], "web"))])).unwrap();
        cluster.settle();
        let before = cluster.state.clone();
        let recovery = Recovery::of(&before, survivor).unwrap();
        prop_assert_eq!(recovery.last_index, before.index);
        prop_assert_eq!(recovery.lost.len(), members - 1);
        for command in recovery.commands() {
            cluster.must(command);
        }
        let state = &cluster.state;
        let left: Vec<_> = state.nodes.values().map(|node| node.member).collect();
        prop_assert_eq!(left, vec![survivor]);
        for node in before.nodes.values() {
            let revoked = state.revoked_serials.contains_key(&node.serial);
            prop_assert_eq!(revoked, node.member != survivor);
        }
        for (name, deployment) in &before.deployments {
            prop_assert_eq!(&state.deployments[name].revisions, &deployment.revisions);
        }
        let here = &recovery.node;
        prop_assert!(state.replicas().all(|replica| replica.node == *here));
        let kept = before.replicas().filter(|replica| replica.node == *here);
        prop_assert!(kept.eq(state.replicas()), "what ran on the survivor runs on");
        prop_assert_eq!(&state.tokens, &before.tokens);
        // Everything comes to run on the one node.
        cluster.settle();
        prop_assert_eq!(cluster.state.replicas().count() as u32, counts.iter().sum::<u32>());
        let alone = Recovery::of(&cluster.state, survivor).unwrap_err();
        prop_assert_eq!(alone.code, ErrorCode::ValidationFailed);
    }
}

#[test]
fn only_the_index_that_was_shown_confirms() {
    let cluster = Cluster::of(3);
    let recovery = Recovery::of(&cluster.state, 1).unwrap();
    let index = cluster.state.index;
    for wrong in ["", "yes", &(index + 1).to_string(), "-1"] {
        let error = recovery.confirm(wrong).unwrap_err();
        assert_eq!(error.code, ErrorCode::ValidationFailed, "{wrong:?}");
    }
    recovery.confirm(&format!(" {index}\n")).unwrap();
}

#[test]
fn strangers_and_empty_states_are_told_so() {
    let state = ClusterState::default();
    let error = Recovery::of(&state, 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::ClusterUninitialized);
    let error = Recovery::of(&Cluster::of(3).state, 9).unwrap_err();
    assert_eq!(error.code, ErrorCode::NodeNotFound);
}
