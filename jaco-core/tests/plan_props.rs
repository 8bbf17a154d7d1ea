//! `plan`: repeatable, one step at a time, and never away from the data.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeMap;
use std::time::Duration;

use jaco_core::cluster::addresses::{ADDRESSES_PER_NETWORK, REST};
use jaco_core::cluster::command::Step;
use jaco_core::cluster::deployment::{Phase, Replica, ReplicaState};
use jaco_core::cluster::node::{Isolation, NodeCondition};
use jaco_core::cluster::rollout::RolloutStatus;
use jaco_core::cluster::{ClusterState, Command};
use jaco_core::id::{DeploymentName, NodeName, ServiceName};
use jaco_core::manifest::spec::{
    Attribute, Constraint, NetworkMode, Placement, Resources, ServiceKind, ServiceSpec,
};
use jaco_core::scheduler::{floor, plan, restart};
use jaco_testkit::builders::{Cluster, capacity, data_mount, deployment, seen, service};
use proptest::prelude::*;

/// One thing that happens to a cluster of four nodes and two deployments.
#[derive(Clone, Debug)]
enum Act {
    Deploy(u8, Kind, u32, u8),
    Delete(u8),
    Lose(u8),
    Return(u8),
    Report(usize, ReplicaState),
    Obey,
    Schedule,
    Wait(u64),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Spread,
    Pack,
    Hosts,
    Global,
    Stateful,
    Beside,
    Job,
    Large,
}

fn kinds() -> impl Strategy<Value = Kind> {
    use Kind::{Beside, Global, Hosts, Job, Large, Pack, Spread, Stateful};
    prop::sample::select(vec![
        Spread, Pack, Hosts, Global, Stateful, Beside, Job, Large,
    ])
}

fn states() -> impl Strategy<Value = ReplicaState> {
    use ReplicaState::{Completed, Degraded, Failed, Running, Starting};
    prop::sample::select(vec![Running, Failed, Degraded, Starting, Completed])
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..2u8, kinds(), 0..6u32, 0..3u8).prop_map(|(d, k, n, h)| Act::Deploy(d, k, n, h)),
        1 => (0..2u8).prop_map(Act::Delete),
        1 => (1..5u8).prop_map(Act::Lose),
        2 => (1..5u8).prop_map(Act::Return),
        3 => (0..12usize, states()).prop_map(|(i, state)| Act::Report(i, state)),
        5 => Just(Act::Obey),
        6 => Just(Act::Schedule),
        2 => (0..70_000u64).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..50)
}

fn stateful(replicas: u32, hash: &str) -> ServiceSpec {
    let mut service = service(replicas, hash);
    service.container.mounts.push(data_mount());
    service
}

fn of_kind(kind: Kind, replicas: u32, hash: &str) -> ServiceSpec {
    let mut spec = service(replicas, hash);
    match kind {
        Kind::Spread => {}
        Kind::Pack => spec.placement = Placement::Pack,
        Kind::Hosts => {
            spec.placement = Placement::Hosts(vec!["n1".into(), "n3".into()]);
            spec.replicas = replicas.min(2);
        }
        Kind::Global => spec.placement = Placement::Global,
        Kind::Stateful => return stateful(replicas, hash),
        Kind::Beside => {
            spec.network_mode = NetworkMode::Service("base".into());
            spec.networks.clear();
        }
        Kind::Job => spec.kind = ServiceKind::Job,
        Kind::Large => {
            spec.reservations.cpu_millis = 900;
            spec.replicas = replicas.min(3);
        }
    }
    spec
}

fn node(number: u8) -> NodeName {
    NodeName::new(format!("n{number}"))
}

/// Loses a node, or has it back with nothing old on it.
fn condition(cluster: &mut Cluster, node: NodeName, condition: NodeCondition) {
    let name = node.clone();
    cluster.must(Command::NodeCondition { node, condition });
    let (node, index) = (name, cluster.state.index);
    cluster.must(Command::Swept { node, index });
}

fn report(cluster: &mut Cluster, replica: &Replica, state: ReplicaState) {
    let observations = vec![seen(replica, state)];
    let node = replica.node.clone();
    cluster.must(Command::Observe { node, observations });
}

/// Only a job completes.
fn possible(cluster: &Cluster, replica: &Replica, state: ReplicaState) -> ReplicaState {
    let deployment = &cluster.state.deployments[&replica.deployment];
    let kind = deployment.service_of(replica).map(|service| service.kind);
    match (state, kind) {
        (ReplicaState::Completed, Some(ServiceKind::Service)) => ReplicaState::Running,
        _ => state,
    }
}

fn perform(cluster: &mut Cluster, act: &Act) {
    match act {
        Act::Deploy(name, kind, replicas, hash) => {
            let web = of_kind(*kind, *replicas, &format!("h{hash}"));
            let services = [("base", service(2, "base")), ("web", web)];
            let _ = cluster.deploy(deployment(&format!("d{name}"), services));
        }
        Act::Delete(name) => {
            let deployment = DeploymentName::new(format!("d{name}"));
            let _ = cluster.apply(Command::Delete { deployment });
        }
        Act::Lose(number) => condition(cluster, node(*number), NodeCondition::Unreachable),
        Act::Return(number) => condition(cluster, node(*number), NodeCondition::Reachable),
        Act::Report(i, state) => {
            let replica = cluster.state.replicas().nth(*i).cloned();
            if let Some(replica) = replica.filter(|r| r.phase == Phase::Active) {
                report(cluster, &replica, possible(cluster, &replica, *state));
            }
        }
        Act::Obey => cluster.obey(),
        Act::Schedule => drop(cluster.schedule()),
        Act::Wait(millis) => cluster.now.0 += millis,
    }
}

fn replicas_of<'a>(state: &'a ClusterState, name: &str, service: &str) -> Vec<&'a Replica> {
    let deployment = &state.deployments[&DeploymentName::new(name)];
    let service = ServiceName::new(service);
    let replicas = deployment.replicas.values().map(AsRef::as_ref);
    replicas.filter(|r| r.service == service).collect()
}

/// What serves never falls under the number wanted but the one that is being replaced.
fn check_floor(state: &ClusterState, steps: &[Step]) {
    let mut outgoing: BTreeMap<_, Vec<&Replica>> = BTreeMap::new();
    for step in steps {
        if let Step::Stop {
            deployment,
            replica,
        }
        | Step::Drain {
            deployment,
            replica,
        } = step
        {
            let deployment = &state.deployments[deployment];
            let replica = &deployment.replicas[replica];
            let services = outgoing.entry((&deployment.name, &replica.service));
            services.or_default().push(replica);
        }
    }
    for ((name, service), outgoing) in outgoing {
        let deployment = &state.deployments[name];
        let spec = deployment.spec().services.get(service);
        let Some(spec) = spec.filter(|spec| {
            spec.placement != Placement::Global && spec.kind == ServiceKind::Service
        }) else {
            continue;
        };
        let stays = |r: &&std::sync::Arc<Replica>| {
            r.is_serving() && outgoing.iter().all(|out| out.id != r.id)
        };
        let floor = spec.replicas.saturating_sub(1) as usize;
        let taken = outgoing.iter().any(|replica| replica.is_serving());
        let serving = deployment.replicas_of(service).filter(stays).count();
        assert!(
            deployment.deleting || !taken || serving >= floor,
            "{service} of {name} falls to {serving} of {floor}"
        );
    }
}

/// Where the data of a stateful service is: the nodes of the replicas that it has had.
fn check_data(before: &ClusterState, after: &ClusterState) {
    for (name, deployment) in &after.deployments {
        let Some(was) = before.deployments.get(name) else {
            continue;
        };
        let (now, then) = (deployment.spec(), was.spec());
        for (service, spec) in &now.services {
            let kept = then.services.get(service).is_some_and(|then| {
                then.is_stateful() && then.replicas == spec.replicas && spec.replicas > 0
            });
            let count = was.replicas_of(service).count();
            if !kept || !spec.is_stateful() || was.deleting || count != spec.replicas as usize {
                continue;
            }
            let nodes = |deployment: &jaco_core::cluster::deployment::Deployment| {
                let mut nodes: Vec<NodeName> = deployment
                    .replicas_of(service)
                    .map(|r| r.node.clone())
                    .collect();
                nodes.sort();
                nodes
            };
            assert_eq!(
                nodes(was),
                nodes(deployment),
                "{name}/{service} left its data"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_applied_plan_leaves_nothing_to_plan(acts in acts()) {
        let mut cluster = Cluster::of(4);
        for act in &acts {
            perform(&mut cluster, act);
            let mut tried = cluster.clone();
            let ended = |step: &Step| {
                matches!(step, Step::RollBack { .. } | Step::EndRollout { .. })
            };
            let steps = plan(&tried.state, tried.now);
            tried.schedule();
            if steps.iter().any(ended) {
                // What ends a rollout opens the way for the next plan.
                continue;
            }
            let mut again = plan(&tried.state, tried.now);
            if !steps.is_empty() && matches!(again.first(), Some(Step::Move { .. })) {
                // Whatever brought rest allows one move.
                tried.schedule();
                again = plan(&tried.state, tried.now);
            }
            prop_assert!(again.is_empty(), "after {act:?}: {steps:?} then {again:?}");
        }
    }

    #[test]
    fn what_serves_stays_above_the_floor(acts in acts()) {
        let mut cluster = Cluster::of(4);
        for act in &acts {
            let steps = plan(&cluster.state, cluster.now);
            check_floor(&cluster.state, &steps);
            // The check beside the planner agrees.
            let passed = floor::guard(&cluster.state, steps.clone(), cluster.now);
            prop_assert_eq!(passed, steps);
            perform(&mut cluster, act);
        }
    }

    #[test]
    fn a_stateful_replica_stays_with_its_data(acts in acts()) {
        let mut cluster = Cluster::of(4);
        for act in &acts {
            let before = cluster.state.clone();
            cluster.schedule();
            check_data(&before, &cluster.state);
            perform(&mut cluster, act);
        }
    }

    #[test]
    fn every_cluster_settles_once_its_nodes_obey(acts in acts()) {
        let mut cluster = Cluster::of(4);
        for act in &acts {
            perform(&mut cluster, act);
        }
        for number in 1..=4 {
            condition(&mut cluster, node(number), NodeCondition::Reachable);
        }
        cluster.now.0 += u64::try_from(REST.as_millis()).unwrap();
        cluster.obey();
        cluster.settle();
        for (name, deployment) in &cluster.state.deployments {
            prop_assert!(!deployment.deleting, "{name} is not finished");
            let spec = deployment.spec();
            for replica in deployment.replicas.values() {
                // A rollout that failed and paused waits for the next apply.
                let rollout = deployment.rollouts.get(&replica.service);
                if rollout.is_some_and(|rollout| rollout.status == RolloutStatus::Paused) {
                    continue;
                }
                let wanted = spec.services.get(&replica.service).map(|s| &s.spec_hash);
                prop_assert_eq!(wanted, Some(&replica.spec_hash));
                let service = deployment.service_of(replica).unwrap();
                prop_assert!(!replica.has_completed() || replica.is_done(service));
            }
            let base = deployment.replicas_of(&"base".into()).count();
            prop_assert_eq!(base, 2);
        }
    }
}

fn web(cluster: &mut Cluster, service: ServiceSpec) {
    cluster.deploy(deployment("d", [("web", service)])).unwrap();
}

fn hashes(cluster: &Cluster) -> Vec<String> {
    let replicas = replicas_of(&cluster.state, "d", "web");
    replicas.iter().map(|r| r.spec_hash.to_string()).collect()
}

#[test]
fn a_service_that_left_the_spec_is_stopped_and_a_delete_finishes() {
    let mut cluster = Cluster::of(2);
    let both = [("web", service(2, "a")), ("old", service(2, "b"))];
    cluster.deploy(deployment("d", both)).unwrap();
    cluster.settle();
    web(&mut cluster, service(2, "a"));
    cluster.settle();
    assert!(replicas_of(&cluster.state, "d", "old").is_empty());
    assert_eq!(hashes(&cluster), ["a", "a"]);
    let deployment = DeploymentName::new("d");
    cluster.must(Command::Delete { deployment });
    cluster.settle();
    assert!(cluster.state.deployments.is_empty() && cluster.state.subnets.is_empty());
}

#[test]
fn what_a_lost_node_held_is_replaced_and_forgotten() {
    let mut cluster = Cluster::of(3);
    web(&mut cluster, service(6, "a"));
    cluster.settle();
    condition(&mut cluster, node(2), NodeCondition::Unreachable);
    cluster.settle();
    let replicas = replicas_of(&cluster.state, "d", "web");
    assert_eq!(replicas.len(), 6);
    assert!(replicas.iter().all(|replica| replica.node != node(2)));
}

#[test]
fn regression_a_daemon_that_starts_again_keeps_what_runs() {
    for isolation in [Isolation::Pending, Isolation::Verified] {
        let mut cluster = Cluster::of(3);
        web(&mut cluster, service(6, "a"));
        cluster.settle();
        let mut report = cluster.state.nodes[&node(2)].report.clone().unwrap();
        report.isolation = isolation;
        let node = node(2);
        cluster.must(Command::NodeReport { node, report });
        assert_eq!(plan(&cluster.state, cluster.now), Vec::new());
    }
}

#[test]
fn a_stateful_replica_waits_for_its_node_and_is_updated_there() {
    let mut cluster = Cluster::of(3);
    web(&mut cluster, stateful(1, "a"));
    cluster.settle();
    let home = replicas_of(&cluster.state, "d", "web")[0].node.clone();
    condition(&mut cluster, home.clone(), NodeCondition::Unreachable);
    web(&mut cluster, stateful(1, "b"));
    assert!(!cluster.schedule(), "nothing may be placed elsewhere");
    condition(&mut cluster, home.clone(), NodeCondition::Reachable);
    cluster.settle();
    assert_eq!(hashes(&cluster), ["b"]);
    assert_eq!(replicas_of(&cluster.state, "d", "web")[0].node, home);
}

#[test]
fn a_stateful_update_waits_when_its_node_goes_halfway() {
    let mut cluster = Cluster::of(3);
    web(&mut cluster, stateful(1, "a"));
    cluster.settle();
    let home = replicas_of(&cluster.state, "d", "web")[0].node.clone();
    web(&mut cluster, stateful(1, "b"));
    cluster.schedule();
    cluster.obey();
    condition(&mut cluster, home.clone(), NodeCondition::Unreachable);
    assert!(!cluster.schedule(), "the data is on the lost node");
    condition(&mut cluster, home.clone(), NodeCondition::Reachable);
    cluster.settle();
    assert_eq!(replicas_of(&cluster.state, "d", "web")[0].node, home);
}

#[test]
fn a_completed_job_is_not_run_again_because_its_node_is_lost() {
    let mut cluster = Cluster::of(2);
    web(&mut cluster, of_kind(Kind::Job, 1, "a"));
    cluster.schedule();
    let job = replicas_of(&cluster.state, "d", "web")[0].clone();
    report(&mut cluster, &job, ReplicaState::Completed);
    condition(&mut cluster, job.node.clone(), NodeCondition::Unreachable);
    assert!(!cluster.schedule());
}

#[test]
fn restarts_come_at_once_then_wait_and_end_with_the_budget() {
    let mut cluster = Cluster::of(1);
    web(&mut cluster, service(1, "a"));
    cluster.schedule();
    let mut waits = Vec::new();
    for _ in 0..restart::BUDGET {
        let replica = replicas_of(&cluster.state, "d", "web")[0].clone();
        report(&mut cluster, &replica, ReplicaState::Failed);
        let failed_at = cluster.now;
        while !cluster.schedule() {
            cluster.now = cluster.now + Duration::from_millis(500);
        }
        waits.push(cluster.now.since(failed_at).as_millis());
    }
    assert_eq!(waits, [0, 1_000, 2_000]);
    let replica = replicas_of(&cluster.state, "d", "web")[0].clone();
    report(&mut cluster, &replica, ReplicaState::Failed);
    cluster.now = cluster.now + Duration::from_secs(3_600);
    assert!(!cluster.schedule(), "the budget is spent");
    web(&mut cluster, service(2, "a"));
    assert!(cluster.schedule(), "an apply starts the count anew");
}

#[test]
fn regression_a_global_service_leaves_a_node_that_no_longer_suits_it() {
    let mut cluster = Cluster::of(3);
    let mut agent = of_kind(Kind::Global, 0, "a");
    web(&mut cluster, agent.clone());
    cluster.settle();
    agent.constraints.push(Constraint {
        attribute: Attribute::Hostname,
        equal: false,
        value: "n1".to_owned(),
    });
    web(&mut cluster, agent);
    cluster.settle();
    let nodes: Vec<_> = replicas_of(&cluster.state, "d", "web")
        .iter()
        .map(|r| r.node.to_string())
        .collect();
    assert_eq!(nodes, ["n2", "n3"]);
}

#[test]
fn regression_a_service_that_became_global_has_one_replica_a_node() {
    let mut cluster = Cluster::of(2);
    condition(&mut cluster, node(2), NodeCondition::Unreachable);
    web(&mut cluster, service(2, "a"));
    cluster.settle();
    condition(&mut cluster, node(2), NodeCondition::Reachable);
    web(&mut cluster, of_kind(Kind::Global, 0, "a"));
    cluster.settle();
    let replicas = replicas_of(&cluster.state, "d", "web");
    let nodes: Vec<_> = replicas.iter().map(|r| r.node.to_string()).collect();
    assert_eq!(nodes, ["n1", "n2"]);
}

#[test]
fn regression_a_full_network_is_not_planned_into_for_ever() {
    let mut cluster = Cluster::of(2);
    let full = u32::try_from(ADDRESSES_PER_NETWORK).unwrap();
    web(&mut cluster, service(full, "a"));
    cluster.settle();
    condition(&mut cluster, node(1), NodeCondition::Unreachable);
    cluster.schedule();
    assert!(
        !cluster.schedule(),
        "addresses rest, so there is nothing to do"
    );
    cluster.now = cluster.now + REST;
    cluster.settle();
    assert_eq!(hashes(&cluster).len(), ADDRESSES_PER_NETWORK);
}

#[test]
fn room_that_a_stopped_replica_leaves_is_used_in_the_same_plan() {
    let mut cluster = Cluster::of(1);
    let mut whole = service(1, "a");
    whole.reservations = Resources {
        cpu_millis: capacity().cpu_millis,
        memory_bytes: 0,
    };
    web(&mut cluster, whole.clone());
    cluster.settle();
    whole.spec_hash = "b".into();
    web(&mut cluster, whole);
    cluster.settle();
    assert_eq!(hashes(&cluster), ["b"]);
}
