//! A plan holds only for the ground that it was made on, whoever commits it and however late.
#![allow(clippy::unwrap_used)] // a test that fails says where

use jaco_core::cluster::addresses::Pool;
use jaco_core::cluster::command::Step;
use jaco_core::cluster::deployment::{Deployment, ReplicaState};
use jaco_core::cluster::mesh_pool::MeshPool;
use jaco_core::cluster::node::NodeCondition;
use jaco_core::cluster::{Applied, ClusterState, Command};
use jaco_core::error::ErrorCode;
use jaco_core::id::{DeploymentName, NodeName};
use jaco_core::scheduler::plan;
use jaco_testkit::builders::{Cluster, capacity, deployment, node_report, seen, service};
use proptest::prelude::*;

/// `d` and `e` run `running` replicas each; of both `wanted` are wanted now.
fn at_work(running: u32, wanted: u32) -> Cluster {
    let mut cluster = Cluster::of(3);
    for replicas in [running, wanted] {
        for name in ["d", "e"] {
            let web = service(replicas, &format!("{replicas}"));
            cluster.deploy(deployment(name, [("web", web)])).unwrap();
        }
        if replicas == running {
            cluster.settle();
        }
    }
    cluster
}

fn commit(cluster: &mut Cluster, after: u64, steps: &[Step]) -> Applied {
    let steps = steps.to_vec();
    cluster.apply(Command::Schedule { after, steps })
}

/// What happens between a plan and its entry, and voids all of it.
fn upheaval(kind: usize) -> Command {
    let node = NodeName::new("n3");
    match kind {
        0 => Command::Lead {
            node,
            term: 7,
            ipam_pool: Pool::parse("10.244.0.0/16").unwrap(),
            mesh_pool: MeshPool::parse("10.240.0.0/16").unwrap(),
            audit_retention: 100,
        },
        1 => Command::NodeCondition {
            node,
            condition: NodeCondition::Unreachable,
        },
        2 => Command::NodeDrain { node, drain: true },
        3 => Command::NodeRemove { node, force: true },
        _ => {
            let mut report = node_report("n3", capacity());
            report.engine = None;
            Command::NodeReport { node, report }
        }
    }
}

fn of_deployment<'a>(state: &'a ClusterState, name: &str) -> &'a Deployment {
    &state.deployments[&DeploymentName::new(name)]
}

proptest! {
    #[test]
    fn a_plan_is_carried_out_once(running in 1_u32..4, wanted in 1_u32..6) {
        let mut cluster = at_work(running, wanted);
        let (after, steps) = (cluster.state.index, plan(&cluster.state, cluster.now));
        prop_assert!(commit(&mut cluster, after, &steps).is_ok());
        let done = cluster.state.deployments.clone();
        let refused = commit(&mut cluster, after, &steps).unwrap_err();
        prop_assert_eq!(refused.code, ErrorCode::NoLeader);
        prop_assert!(cluster.state.deployments == done);
    }

    #[test]
    fn a_plan_from_before_an_upheaval_is_void(
        running in 1_u32..4,
        wanted in 1_u32..6,
        kind in 0_usize..5,
    ) {
        let mut cluster = at_work(running, wanted);
        let (after, steps) = (cluster.state.index, plan(&cluster.state, cluster.now));
        cluster.must(upheaval(kind));
        let before = cluster.state.deployments.clone();
        prop_assert!(commit(&mut cluster, after, &steps).is_err());
        prop_assert!(cluster.state.deployments == before);
    }

    #[test]
    fn what_was_planned_for_a_changed_deployment_is_left_out(
        running in 1_u32..4,
        wanted in 4_u32..6,
        applied: bool,
    ) {
        let mut cluster = at_work(running, wanted);
        let (after, steps) = (cluster.state.index, plan(&cluster.state, cluster.now));
        if applied {
            let web = service(wanted, "another");
            cluster.deploy(deployment("d", [("web", web)])).unwrap();
        } else {
            let mut replicas = of_deployment(&cluster.state, "d").replicas.values();
            let replica = replicas.next().unwrap();
            let (node, failed) = (replica.node.clone(), seen(replica, ReplicaState::Failed));
            cluster.must(Command::Observe { node, observations: vec![failed] });
        }
        let before = of_deployment(&cluster.state, "d").clone();
        prop_assert!(commit(&mut cluster, after, &steps).is_ok());
        prop_assert!(*of_deployment(&cluster.state, "d") == before);
        let placed = of_deployment(&cluster.state, "e").replicas.len();
        prop_assert!(placed > running as usize, "the other one goes on");
    }
}
