//! `apply`: determinism, refusals that change nothing, addresses, snapshots.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeMap;
use std::sync::Arc;

use jaco_core::cluster::addresses::{Pool, REST};
use jaco_core::cluster::audit::EventType;
use jaco_core::cluster::mesh_pool::MeshPool;
use jaco_core::cluster::node::NodeCondition;
use jaco_core::cluster::{ClusterState, Command, apply};
use jaco_core::error::ErrorCode;
use jaco_core::id::{DeploymentName, Identity, NodeName, ServiceName};
use jaco_core::manifest::spec::{Placement, Protocol, PublishedPort};
use jaco_testkit::builders::{Cluster, bundle, deployment, service};
use proptest::prelude::*;

/// One thing that somebody does.
#[derive(Clone, Debug)]
enum Act {
    Deploy {
        name: u8,
        replicas: u32,
        hash: u8,
        network: bool,
    },
    Delete(u8),
    Scale(u8, u32),
    Rollback(u8, Option<u64>),
    Token(u8),
    Revoke(u8),
    Lose(u8),
    Return(u8),
    Remove(u8),
    Schedule,
    Obey,
    Wait(u16),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..4u8, 0..6u32, 0..4u8, any::<bool>()).prop_map(|(name, replicas, hash, network)| {
            Act::Deploy { name, replicas, hash, network }
        }),
        1 => (0..4u8).prop_map(Act::Delete),
        1 => (0..4u8, 0..8u32).prop_map(|(name, replicas)| Act::Scale(name, replicas)),
        1 => (0..4u8, prop::option::of(0..5u64)).prop_map(|(name, to)| Act::Rollback(name, to)),
        1 => (0..3u8).prop_map(Act::Token),
        1 => (0..3u8).prop_map(Act::Revoke),
        1 => (1..5u8).prop_map(Act::Lose),
        1 => (1..5u8).prop_map(Act::Return),
        1 => (1..5u8).prop_map(Act::Remove),
        6 => Just(Act::Schedule),
        4 => Just(Act::Obey),
        2 => (0..60_000u16).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..60)
}

fn perform(cluster: &mut Cluster, act: &Act) {
    let dep = |number: &u8| DeploymentName::new(format!("d{number}"));
    let node = |number: &u8| NodeName::new(format!("n{number}"));
    match act {
        Act::Deploy {
            name,
            replicas,
            hash,
            network,
        } => {
            let mut web = service(*replicas, &format!("h{hash}"));
            if *network {
                web.networks.insert("back".into(), Default::default());
            }
            let spec = deployment(&format!("d{name}"), [("web", web)]);
            let _ = cluster.deploy(spec);
        }
        Act::Delete(name) => drop(cluster.apply(Command::Delete {
            deployment: dep(name),
        })),
        Act::Scale(name, replicas) => {
            let service = ServiceName::new("web");
            let (deployment, replicas) = (dep(name), *replicas);
            let _ = cluster.apply(Command::Scale {
                deployment,
                service,
                replicas,
            });
        }
        Act::Rollback(name, to) => {
            let _ = cluster.apply(Command::Rollback {
                deployment: dep(name),
                to: *to,
            });
        }
        Act::Token(n) => {
            let name = Identity::new(format!("t{n}"));
            let hash = format!("hash{n}-{}", cluster.state.index);
            let _ = cluster.apply(Command::TokenIssue {
                hash,
                name,
                rights: jaco_core::access::Rights::default(),
                ttl: None,
            });
        }
        Act::Revoke(n) => {
            let name = Identity::new(format!("t{n}"));
            let _ = cluster.apply(Command::TokenRevoke { name, force: false });
        }
        Act::Lose(n) | Act::Return(n) => {
            let condition = match act {
                Act::Lose(_) => NodeCondition::Unreachable,
                _ => NodeCondition::Reachable,
            };
            let _ = cluster.apply(Command::NodeCondition {
                node: node(n),
                condition,
            });
        }
        Act::Remove(n) => {
            let _ = cluster.apply(Command::NodeRemove {
                node: node(n),
                force: true,
            });
        }
        Act::Schedule => drop(cluster.schedule()),
        Act::Obey => cluster.obey(),
        Act::Wait(millis) => cluster.now.0 += u64::from(*millis),
    }
}

/// Every address has one holder, and the subnets know exactly the replicas' addresses.
fn check_addresses(state: &ClusterState) {
    let mut holders = BTreeMap::new();
    for replica in state.replicas() {
        for (network, address) in &replica.addresses {
            let before = holders.insert(*address, replica.id.clone());
            assert_eq!(before, None, "{address} of {} on {network}", replica.id);
        }
    }
    let known: usize = state.subnets.values().map(|subnet| subnet.used.len()).sum();
    assert_eq!(known, holders.len());
    let bases: Vec<_> = state.subnets.values().map(|subnet| subnet.base).collect();
    let mut unique = bases.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), bases.len(), "two scopes share a /24");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn equal_logs_give_byte_identical_states(acts in acts()) {
        let mut cluster = Cluster::of(4);
        for act in &acts {
            perform(&mut cluster, act);
        }
        let mut replayed = ClusterState::default();
        for (i, entry) in cluster.log.iter().enumerate() {
            if i == cluster.log.len() / 2 {
                // A snapshot in between makes no difference.
                let bytes = serde_json::to_vec(&replayed).unwrap();
                replayed = serde_json::from_slice(&bytes).unwrap();
            }
            let _ = apply(&mut replayed, entry);
        }
        let bytes = |state: &ClusterState| serde_json::to_string(state).unwrap();
        prop_assert_eq!(bytes(&replayed), bytes(&cluster.state));
    }

    #[test]
    fn a_refused_command_changes_nothing(acts in acts()) {
        let mut cluster = Cluster::of(4);
        for act in &acts {
            let before = cluster.state.clone();
            let entries = cluster.log.len();
            perform(&mut cluster, act);
            if cluster.log.len() != entries + 1 {
                continue;
            }
            let mut again = before.clone();
            if apply(&mut again, &cluster.log[entries]).is_err() {
                let mut expected = before;
                expected.index = cluster.state.index;
                expected.clock = cluster.state.clock;
                prop_assert_eq!(&cluster.state, &expected);
            }
        }
    }

    #[test]
    fn no_two_replicas_share_an_address(acts in acts()) {
        let mut cluster = Cluster::of(4);
        for act in &acts {
            perform(&mut cluster, act);
            check_addresses(&cluster.state);
        }
    }

    #[test]
    fn an_address_rests_before_it_is_given_out_again(acts in acts()) {
        let mut cluster = Cluster::of(4);
        let mut released = BTreeMap::new();
        for act in &acts {
            let held = |state: &ClusterState| -> BTreeMap<_, _> {
                state
                    .replicas()
                    .flat_map(|r| r.addresses.values().map(|a| (*a, r.id.clone())))
                    .collect()
            };
            let before = held(&cluster.state);
            perform(&mut cluster, act);
            let after = held(&cluster.state);
            for (address, replica) in &before {
                if after.get(address) != Some(replica) {
                    released.insert(*address, cluster.state.clock);
                }
            }
            for (address, _) in after.iter().filter(|(a, r)| before.get(*a) != Some(*r)) {
                if let Some(at) = released.get(address) {
                    prop_assert!(cluster.state.clock >= *at + REST, "{} too soon", address);
                }
            }
        }
    }
}

fn refused(cluster: &mut Cluster, spec: jaco_core::manifest::spec::DeploymentSpec) -> ErrorCode {
    cluster.deploy(spec).unwrap_err().code
}

#[test]
fn what_another_deployment_owns_is_refused_by_name() {
    let mut cluster = Cluster::of(1);
    let port = PublishedPort {
        host: 6379,
        container: 6379,
        protocol: Protocol::Tcp,
        proxy_protocol: false,
    };
    let mut cache = service(1, "a");
    cache.ports = vec![port];
    cluster
        .deploy(deployment("one", [("cache", cache.clone())]))
        .unwrap();
    let error = cluster
        .deploy(deployment("two", [("cache", cache)]))
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::PortConflict);
    assert_eq!(error.details["owner"], "one/cache");

    let pinned = |host: &str| {
        let mut web = service(1, "a");
        web.placement = Placement::Hosts(vec![NodeName::new(host)]);
        deployment("pinned", [("web", web)])
    };
    let error = cluster.deploy(pinned("n9")).unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownHost);
    assert_eq!(error.details["members"], "n1");
    cluster.deploy(pinned("n1")).unwrap();

    // `a-b` with `c` and `a` with `b-c` would name the same containers.
    cluster
        .deploy(deployment("a-b", [("c", service(1, "a"))]))
        .unwrap();
    let code = refused(&mut cluster, deployment("a", [("b-c", service(1, "a"))]));
    assert_eq!(code, ErrorCode::ValidationFailed);
}

#[test]
fn regression_subnet_pool_exhausted_and_freed_by_a_delete() {
    let mut cluster = Cluster::of(1);
    for number in 0..256 {
        let spec = deployment(&format!("d{number}"), [("idle", service(0, "a"))]);
        cluster.deploy(spec).unwrap();
    }
    let one_more = || deployment("late", [("idle", service(0, "a"))]);
    let error = cluster.deploy(one_more()).unwrap_err();
    assert_eq!(error.code, ErrorCode::SubnetPoolExhausted);
    assert_eq!(error.details["allocated"], "256");
    cluster.must(Command::Delete {
        deployment: DeploymentName::new("d7"),
    });
    cluster.deploy(one_more()).unwrap();
}

#[test]
fn the_254th_replica_of_a_network_is_refused_by_name() {
    let mut cluster = Cluster::of(1);
    cluster
        .deploy(deployment("full", [("web", service(253, "a"))]))
        .unwrap();
    let code = refused(
        &mut cluster,
        deployment("over", [("web", service(254, "a"))]),
    );
    assert_eq!(code, ErrorCode::SubnetPoolExhausted);
    cluster.settle();
    assert_eq!(cluster.state.replicas().count(), 253);
}

#[test]
fn regression_rollback_of_an_unknown_or_single_revision_deployment() {
    let mut cluster = Cluster::of(1);
    let rollback = |name: &str| Command::Rollback {
        deployment: name.into(),
        to: None,
    };
    let unknown = cluster.apply(rollback("nowhere")).unwrap_err();
    assert_eq!(unknown.code, ErrorCode::DeploymentNotFound);
    cluster
        .deploy(deployment("web", [("web", service(1, "a"))]))
        .unwrap();
    let single = cluster.apply(rollback("web")).unwrap_err();
    assert_eq!(single.code, ErrorCode::NoPreviousRevision);
    cluster
        .deploy(deployment("web", [("web", service(1, "b"))]))
        .unwrap();
    cluster.must(rollback("web"));
    let spec = cluster.state.deployments[&DeploymentName::new("web")]
        .spec()
        .clone();
    assert_eq!(
        spec.services[&ServiceName::new("web")].spec_hash.as_str(),
        "a"
    );
}

#[test]
fn regression_the_last_active_token_is_revoked_with_force_only() {
    let mut cluster = Cluster::of(1);
    let name = Identity::new("bootstrap");
    let revoke = |force| Command::TokenRevoke {
        name: name.clone(),
        force,
    };
    let error = cluster.apply(revoke(false)).unwrap_err();
    assert_eq!(error.code, ErrorCode::ValidationFailed);
    assert!(error.message.contains("--force"), "{error}");
    cluster.must(revoke(true));
    let error = cluster
        .state
        .authenticate("bootstrap", cluster.now)
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::TokenRevoked);
    assert_eq!(
        cluster
            .state
            .authenticate("else", cluster.now)
            .unwrap_err()
            .code,
        ErrorCode::TokenInvalid
    );
}

#[test]
fn regression_privileges_need_a_token_that_allows_them() {
    let mut cluster = Cluster::of(1);
    let mut asking = service(1, "a");
    asking.container.privileged = true;
    let spec = deployment("web", [("plain", service(1, "p")), ("web", asking)]);
    let apply = |privileged| Command::Apply {
        bundle: Arc::new(bundle()),
        spec: Arc::new(spec.clone()),
        privileged,
    };
    let error = cluster.apply(apply(false)).unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert_eq!(error.details["service"], "web");
    cluster.must(apply(true));
}

#[test]
fn regression_init_twice() {
    let mut cluster = Cluster::of(1);
    let Command::ClusterInit(init) = cluster.log[0].proposal.command.clone() else {
        panic!("the first entry forms the cluster")
    };
    let error = cluster.apply(Command::ClusterInit(init)).unwrap_err();
    assert_eq!(error.code, ErrorCode::ClusterAlreadyInitialized);
    assert!(error.code.hint().contains("destroys"));
}

#[test]
fn regression_any_command_before_init() {
    let mut cluster = Cluster::empty();
    cluster.state = ClusterState::default();
    let error = cluster
        .deploy(deployment("web", [("web", service(1, "a"))]))
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::ClusterUninitialized);
    let hint = error.code.hint();
    assert!(hint.contains("cluster init") && hint.contains("node join"));
}

#[test]
fn a_join_token_works_once_and_in_time() {
    let mut cluster = Cluster::of(1);
    cluster.join("n2");
    let again = Command::NodeJoin {
        token_hash: "join-n2".to_owned(),
        node: jaco_testkit::builders::new_node("n3"),
    };
    assert_eq!(
        cluster.apply(again).unwrap_err().code,
        ErrorCode::JoinTokenInvalid
    );
    let twice = Command::NodeJoin {
        token_hash: "join-n2".to_owned(),
        node: jaco_testkit::builders::new_node("n2"),
    };
    assert_eq!(
        cluster.apply(twice).unwrap_err().code,
        ErrorCode::NodeAlreadyMember
    );
}

#[test]
fn a_leader_that_says_twice_that_it_leads_is_told_of_once() {
    let mut cluster = Cluster::of(1);
    let told = |cluster: &Cluster| {
        let events = cluster.state.audit.iter();
        events
            .filter(|event| event.kind == EventType::LeaderElected)
            .count()
    };
    let before = told(&cluster);
    for (term, more) in [(8, 1), (8, 1), (9, 2)] {
        cluster.must(Command::Lead {
            node: "n1".into(),
            term,
            ipam_pool: Pool::parse("10.244.0.0/16").unwrap(),
            mesh_pool: MeshPool::parse("10.240.0.0/16").unwrap(),
            audit_retention: 100,
        });
        assert_eq!(told(&cluster) - before, more);
    }
}
