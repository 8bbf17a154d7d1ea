//! Jobs: done once for each spec hash, whatever becomes of their containers and nodes; tried again
//! within their budget; awaited in the revision that awaits them.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::cluster::command::Step;
use jaco_core::cluster::deployment::{Replica, ReplicaState};
use jaco_core::cluster::node::{NodeCondition, NodeStatus};
use jaco_core::id::NodeName;
use jaco_core::manifest::spec::{Condition, Dependency, ServiceKind, ServiceSpec};
use jaco_core::node::containers;
use jaco_core::node::gates::gates;
use jaco_core::node::report::{self, Local};
use jaco_core::scheduler::{drain, plan};
use jaco_core::view::replica::row;
use jaco_testkit::builders::{Cluster, deployment, seen, service};

fn job(hash: &str) -> ServiceSpec {
    ServiceSpec {
        kind: ServiceKind::Job,
        ..service(1, hash)
    }
}

fn only(cluster: &Cluster, service: &str) -> Replica {
    let mut found = cluster
        .state
        .replicas()
        .filter(|r| r.service.as_str() == service);
    let one = Replica::clone(found.next().unwrap());
    assert_eq!(found.next(), None);
    one
}

fn report(cluster: &mut Cluster, replica: &Replica, state: ReplicaState) {
    let (node, observations) = (replica.node.clone(), vec![seen(replica, state)]);
    cluster.must(Command::Observe { node, observations });
}

/// A cluster of three whose job is done, and that job.
fn done() -> (Cluster, Replica) {
    let mut cluster = Cluster::of(3);
    cluster
        .deploy(deployment("d", [("job", job("a"))]))
        .unwrap();
    cluster.schedule();
    let replica = only(&cluster, "job");
    report(&mut cluster, &replica, ReplicaState::Completed);
    (cluster, replica)
}

/// Plans until there is nothing left; no step may do the job again.
fn stays_done(cluster: &mut Cluster, replica: &Replica) {
    while cluster.schedule() {}
    let kept = only(cluster, "job");
    assert_eq!(
        (&kept.id, kept.state()),
        (&replica.id, ReplicaState::Completed)
    );
}

#[test]
fn a_job_that_is_done_stays_so_without_its_node() {
    let (mut cluster, replica) = done();
    let node = replica.node.clone();
    cluster.must(Command::NodeDrain {
        node: node.clone(),
        drain: true,
    });
    stays_done(&mut cluster, &replica);
    assert_eq!(drain::remaining(&cluster.state, &node).count(), 0);
    let condition = NodeCondition::Unreachable;
    cluster.must(Command::NodeCondition {
        node: node.clone(),
        condition,
    });
    stays_done(&mut cluster, &replica);
    cluster.must(Command::NodeRemove {
        node: node.clone(),
        force: true,
    });
    stays_done(&mut cluster, &replica);
    // Not even the next host of that name does it again.
    cluster.join(node.as_str());
    cluster.report(node.as_str(), jaco_testkit::builders::capacity());
    assert_eq!(cluster.state.nodes[&node].status(), NodeStatus::Ready);
    stays_done(&mut cluster, &replica);
    let desired = containers::desired(&cluster.state, &node);
    assert_eq!(containers::diff(&desired, &[]), []);

    // Another spec is another job.
    cluster
        .deploy(deployment("d", [("job", job("b"))]))
        .unwrap();
    for _ in 0..5 {
        cluster.schedule();
        let old = cluster
            .state
            .replica(&replica.id)
            .map(|r| Replica::clone(r));
        if let Ok(old) = old {
            report(&mut cluster, &old, ReplicaState::Stopped);
        }
    }
    assert_ne!(only(&cluster, "job").id, replica.id);
    cluster.must(Command::Delete {
        deployment: "d".into(),
    });
    let new = only(&cluster, "job");
    cluster.schedule();
    report(&mut cluster, &new, ReplicaState::Stopped);
    while cluster.schedule() {}
    assert!(cluster.state.deployments.is_empty());
}

#[test]
fn a_job_that_is_done_stays_so_without_its_container() {
    let (cluster, replica) = done();
    let desired = containers::desired(&cluster.state, &replica.node);
    assert_eq!(containers::diff(&desired, &[]), []);
    assert_eq!(
        report::changes(&desired, &Local::default(), cluster.now),
        []
    );
}

#[test]
fn a_job_that_fails_after_a_long_run_is_tried_within_its_budget() {
    let mut cluster = Cluster::of(1);
    cluster
        .deploy(deployment("d", [("job", job("a"))]))
        .unwrap();
    cluster.schedule();
    let mut tries = 0;
    for _ in 0..20 {
        let replica = only(&cluster, "job");
        let started = cluster.now;
        cluster.now = cluster.now + Duration::from_secs(60);
        let mut failed = seen(&replica, ReplicaState::Failed);
        failed.observation.started_at = Some(started);
        failed.observation.since = Some(cluster.now);
        let (node, observations) = (replica.node.clone(), vec![failed]);
        cluster.must(Command::Observe { node, observations });
        cluster.now = cluster.now + Duration::from_secs(120);
        let steps = plan(&cluster.state, cluster.now);
        tries += steps
            .iter()
            .filter(|step| matches!(step, Step::Restart { .. }))
            .count();
        cluster.schedule();
    }
    assert_eq!(tries, 3, "max_attempts");
    let replica = only(&cluster, "job");
    let told = row(&cluster.state, &cluster.state.deployments["d"], &replica);
    assert_eq!(told.code.unwrap().as_str(), "restart_exhausted");
}

#[test]
fn what_awaits_a_job_awaits_that_of_its_own_revision() {
    let chain = |extract: &str| {
        let done = Dependency {
            condition: Condition::ServiceCompletedSuccessfully,
            required: true,
        };
        let mut load = job("load");
        load.depends_on.insert("extract".into(), done);
        deployment("d", [("extract", job(extract)), ("load", load)])
    };
    let mut cluster = Cluster::of(1);
    cluster.deploy(chain("a")).unwrap();
    cluster.schedule();
    let node = NodeName::new("n1");
    let starts = |cluster: &Cluster, service: &str| {
        let id = only(cluster, service).id;
        let desired = containers::desired(&cluster.state, &node);
        let actions = containers::diff(&desired, &[]);
        actions.iter().any(|action| *action.replica() == id)
    };
    assert!(starts(&cluster, "extract") && !starts(&cluster, "load"));
    // The first one is done just as another is asked for.
    let extract = only(&cluster, "extract");
    cluster.deploy(chain("b")).unwrap();
    report(&mut cluster, &extract, ReplicaState::Completed);
    assert!(!starts(&cluster, "load"), "before the plan");
    cluster.schedule();
    report(&mut cluster, &extract, ReplicaState::Stopped);
    cluster.schedule();
    assert!(!starts(&cluster, "load"), "after it");
    let extract = only(&cluster, "extract");
    report(&mut cluster, &extract, ReplicaState::Completed);
    assert!(starts(&cluster, "load"));
}

#[test]
fn what_awaits_a_job_of_two_replicas_awaits_both() {
    let done = Dependency {
        condition: Condition::ServiceCompletedSuccessfully,
        required: true,
    };
    let mut load = service(1, "load");
    load.depends_on.insert("extract".into(), done);
    let mut extract = job("extract");
    extract.replicas = 2;
    let mut cluster = Cluster::of(1);
    cluster
        .deploy(deployment("d", [("extract", extract), ("load", load)]))
        .unwrap();
    while cluster.schedule() {}
    let both: Vec<Replica> = cluster
        .state
        .replicas()
        .filter(|r| r.service.as_str() == "extract")
        .map(|r| Replica::clone(r))
        .collect();
    let waits = |cluster: &Cluster| {
        let load = only(cluster, "load");
        let gates = gates(&cluster.state.deployments["d"], &load);
        !gates.iter().all(|gate| gate.satisfied)
    };
    assert_eq!(both.len(), 2);
    report(&mut cluster, &both[0], ReplicaState::Completed);
    assert!(waits(&cluster));
    report(&mut cluster, &both[1], ReplicaState::Completed);
    assert!(!waits(&cluster));
}

#[test]
fn a_job_is_not_done_again_when_another_kind_of_it_is_called_off() {
    let (mut cluster, replica) = done();
    let mut two = job("b");
    two.replicas = 2;
    cluster.deploy(deployment("d", [("job", two)])).unwrap();
    // The first of the new kind begins while what was done is still kept.
    let mut steps = plan(&cluster.state, cluster.now);
    steps.retain(|step| matches!(step, Step::Place { .. }));
    cluster.carry_out(steps);
    cluster
        .deploy(deployment("d", [("job", job("a"))]))
        .unwrap();
    let others = cluster.state.replicas().filter(|r| r.id != replica.id);
    let others: Vec<Replica> = others.map(|r| Replica::clone(r)).collect();
    assert!(!others.is_empty());
    for other in &others {
        report(&mut cluster, other, ReplicaState::Running);
    }
    while cluster.schedule() {
        cluster.obey();
        report(&mut cluster, &replica, ReplicaState::Completed);
    }
    stays_done(&mut cluster, &replica);
}

/// Deploys `count` of the service that the job was, or is again.
fn deploy(cluster: &mut Cluster, kind: ServiceKind, count: u32) {
    let spec = ServiceSpec {
        kind,
        ..service(count, "a")
    };
    cluster.deploy(deployment("d", [("job", spec)])).unwrap();
}

#[test]
fn what_was_done_as_a_job_runs_once_it_is_a_service() {
    let (mut cluster, replica) = done();
    deploy(&mut cluster, ServiceKind::Service, 1);
    cluster.schedule();
    let desired = containers::desired(&cluster.state, &replica.node);
    let start = containers::Action::Start {
        replica: replica.id.clone(),
    };
    assert_eq!(containers::diff(&desired, &[]), [start]);
    cluster.obey();
    cluster.settle();
    assert!(only(&cluster, "job").is_serving());
    // Without its node it runs elsewhere, like any service.
    let (mut cluster, replica) = done();
    let (node, condition) = (replica.node.clone(), NodeCondition::Unreachable);
    cluster.must(Command::NodeCondition { node, condition });
    deploy(&mut cluster, ServiceKind::Service, 1);
    cluster.settle();
    let moved = only(&cluster, "job");
    assert!(moved.is_serving() && moved.node != replica.node);
}

#[test]
fn a_job_whose_spec_changed_does_not_wait_for_the_node_that_did_it() {
    let (mut cluster, replica) = done();
    let (node, condition) = (replica.node.clone(), NodeCondition::Unreachable);
    cluster.must(Command::NodeCondition { node, condition });
    cluster
        .deploy(deployment("d", [("job", job("b"))]))
        .unwrap();
    while cluster.schedule() {}
    assert_ne!(only(&cluster, "job").node, replica.node);
}

#[test]
fn what_is_too_many_and_done_on_a_lost_node_goes_in_one_plan() {
    let (mut cluster, replica) = done();
    let (node, condition) = (replica.node.clone(), NodeCondition::Unreachable);
    cluster.must(Command::NodeCondition { node, condition });
    deploy(&mut cluster, ServiceKind::Job, 0);
    assert!(cluster.schedule() && !cluster.schedule());
    assert_eq!(cluster.state.replicas().count(), 0);
}
