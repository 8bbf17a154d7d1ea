//! One node: its diffs converge, leave alone what is right, and its health rules hold.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::{BTreeMap, BTreeSet};

use jaco_core::cluster::Command;
use jaco_core::cluster::addresses::Scope;
use jaco_core::cluster::deployment::{Phase, Replica, ReplicaState};
use jaco_core::cluster::node::NodeCondition;
use jaco_core::id::{NodeName, ReplicaId};
use jaco_core::manifest::spec::{
    Condition, Dependency, Healthcheck, NetworkAttachment, NetworkMode, ServiceKind,
};
use jaco_core::node::bridges::{self, ObservedBridge};
use jaco_core::node::containers::{self, Action, Desired};
use jaco_core::node::health::{self, Probe, Probes, SETTLED_AFTER};
use jaco_core::node::report::{self, Local};
use jaco_core::ports::container_runtime::{ContainerStatus, HealthStatus, ObservedContainer};
use jaco_core::time::Timestamp;
use jaco_testkit::builders::{Cluster, deployment, seen, service};
use proptest::prelude::*;

fn container(replica: &str, hash: &str, generation: u64) -> ObservedContainer {
    ObservedContainer {
        id: format!("{replica}/{hash}/{generation}"),
        replica: ReplicaId::new(replica),
        spec_hash: hash.to_owned(),
        generation,
        status: ContainerStatus::Running,
        health: None,
        started_at: Some(Timestamp(0)),
        finished_at: None,
        exit_code: 0,
        oom_killed: false,
        error: String::new(),
    }
}

fn containers() -> impl Strategy<Value = Vec<ObservedContainer>> {
    use ContainerStatus::{Created, Exited, Removing, Running};
    let status = prop::sample::select(vec![Created, Exited, Removing, Running]);
    let one = (0..8u8, 0..3u8, 0..3u64, status).prop_map(|(number, hash, generation, status)| {
        let hash = ["a", "b", "c"][hash as usize];
        let mut one = container(&format!("d-web-{number}"), hash, generation);
        one.status = status;
        one
    });
    prop::collection::vec(one, 0..12).prop_map(|all| {
        let by_id: BTreeMap<String, _> = all.into_iter().map(|c| (c.id.clone(), c)).collect();
        by_id.into_values().collect()
    })
}

fn only_node() -> NodeName {
    NodeName::new("n1")
}

/// A node with so many replicas of `web`, every third on its way out.
fn node(replicas: u32) -> Cluster {
    let mut cluster = Cluster::of(1);
    cluster
        .deploy(deployment("d", [("web", service(replicas, "a"))]))
        .unwrap();
    cluster.settle();
    cluster
        .deploy(deployment(
            "d",
            [("web", service(replicas - replicas / 3, "a"))],
        ))
        .unwrap();
    cluster.schedule();
    cluster
}

fn carry_out(
    engine: &mut Vec<ObservedContainer>,
    desired: &BTreeMap<ReplicaId, Desired>,
    action: &Action,
) {
    match action {
        Action::Remove { container_id, .. } => engine.retain(|c| c.id != *container_id),
        Action::Start { replica } => {
            let wanted = &desired[replica].replica;
            let hash = wanted.spec_hash.as_str();
            engine.push(container(replica.as_str(), hash, wanted.generation));
        }
    }
}

/// `side` shares the network of `web`, both on one node; the containers as they run.
fn pair() -> (BTreeMap<ReplicaId, Desired>, Vec<ObservedContainer>) {
    let mut side = service(1, "s");
    side.network_mode = NetworkMode::Service("web".into());
    side.networks.clear();
    let mut cluster = Cluster::of(1);
    let spec = deployment("d", [("side", side), ("web", service(1, "w"))]);
    cluster.deploy(spec).unwrap();
    cluster.settle();
    let mut side = container("d-side-1", "s", 1);
    side.started_at = Some(Timestamp(2_000));
    let mut web = container("d-web-1", "w", 1);
    web.started_at = Some(Timestamp(1_000));
    (
        containers::desired(&cluster.state, &only_node()),
        vec![side, web],
    )
}

#[test]
fn what_shares_a_network_is_made_anew_when_its_peer_was_started_again() {
    let (desired, mut engine) = pair();
    assert_eq!(containers::diff(&desired, &engine), vec![]);
    engine[1].started_at = Some(Timestamp(3_000));
    let actions = containers::diff(&desired, &engine);
    let [Action::Remove { replica, .. }] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(replica.as_str(), "d-side-1");
    engine.remove(0);
    let replica = replica.clone();
    let start = containers::diff(&desired, &engine);
    assert_eq!(start, vec![Action::Start { replica }]);
}

#[test]
fn what_shares_a_network_waits_for_a_peer_that_is_down_and_stays_when_it_has_ended() {
    let (desired, mut engine) = pair();
    engine[1].started_at = Some(Timestamp(3_000));
    engine[1].status = ContainerStatus::Exited;
    assert_eq!(containers::diff(&desired, &engine), vec![]);
    engine[1].status = ContainerStatus::Running;
    engine[0].status = ContainerStatus::Exited;
    assert_eq!(containers::diff(&desired, &engine), vec![]);
}

proptest! {
    #[test]
    fn a_node_has_swept_when_nothing_is_left_to_remove(count in 0..8u32, engine in containers()) {
        let mut cluster = node(count);
        let observed = |cluster: &Cluster| {
            let desired = containers::desired(&cluster.state, &only_node());
            let removes = |action: &Action| matches!(action, Action::Remove { .. });
            let left = containers::diff(&desired, &engine).iter().any(removes);
            (left, containers::swept(&cluster.state, &only_node(), &desired, &engine))
        };
        prop_assert_eq!(observed(&cluster).1, None, "nobody asks");
        for condition in [NodeCondition::Unreachable, NodeCondition::Reachable] {
            cluster.must(Command::NodeCondition { node: only_node(), condition });
        }
        let (left, swept) = observed(&cluster);
        prop_assert_eq!(swept, (!left).then_some(cluster.state.index));
    }

    #[test]
    fn carrying_out_a_diff_ends_with_nothing_to_do(count in 0..8u32, engine in containers()) {
        let desired = containers::desired(&node(count).state, &only_node());
        let mut engine = engine;
        for _ in 0..20 {
            for action in containers::diff(&desired, &engine) {
                carry_out(&mut engine, &desired, &action);
            }
        }
        prop_assert_eq!(containers::diff(&desired, &engine), vec![]);
        let is_active = |wanted: &&containers::Desired| {
            let there = engine.iter().any(|c| c.replica == wanted.replica.id);
            match wanted.replica.phase {
                Phase::Active => true,
                Phase::Draining { .. } => there,
                Phase::Stopping => false,
            }
        };
        let active = desired.values().filter(is_active).count();
        prop_assert_eq!(engine.len(), active);
    }

    #[test]
    fn what_is_wanted_is_never_touched(count in 0..8u32, engine in containers()) {
        let desired = containers::desired(&node(count).state, &only_node());
        let wanted = |c: &ObservedContainer| desired.get(&c.replica).is_some_and(|d| {
            d.replica.phase != Phase::Stopping
                && (c.spec_hash.as_str(), c.generation)
                    == (d.replica.spec_hash.as_str(), d.replica.generation)
                && matches!(c.status, ContainerStatus::Running | ContainerStatus::Exited)
        });
        let kept: BTreeSet<&String> = engine.iter().filter(|c| wanted(c)).map(|c| &c.id).collect();
        for action in containers::diff(&desired, &engine) {
            if let Action::Remove { container_id, .. } = &action {
                prop_assert!(!kept.contains(container_id));
            }
        }
    }

    #[test]
    fn a_replica_has_one_action_at_most(count in 0..8u32, engine in containers()) {
        let desired = containers::desired(&node(count).state, &only_node());
        let actions = containers::diff(&desired, &engine);
        let replicas: BTreeSet<_> = actions.iter().map(Action::replica).collect();
        prop_assert_eq!(replicas.len(), actions.len());
    }

    #[test]
    fn bridges_converge_under_short_unique_names(
        networks in prop::collection::btree_set("[a-z][a-z0-9-]{0,30}", 1..40),
        observed in prop::collection::vec((0..40usize, any::<bool>()), 0..10),
    ) {
        let mut cluster = Cluster::of(1);
        let mut web = service(1, "a");
        let attached = |name: &String| (name.as_str().into(), NetworkAttachment::default());
        web.networks = networks.iter().map(attached).collect();
        cluster.deploy(deployment("d", [("web", web)])).unwrap();
        cluster.settle();
        let desired = bridges::desired(&cluster.state, &only_node());
        prop_assert_eq!(desired.len(), networks.len());
        let interfaces: BTreeSet<_> = desired.values().map(|b| &b.interface).collect();
        prop_assert_eq!(interfaces.len(), desired.len());
        prop_assert!(interfaces.iter().all(|name| name.len() <= 15));

        let mut engine: BTreeMap<String, ObservedBridge> = BTreeMap::new();
        for (i, right) in observed {
            let known = desired.values().nth(i);
            let name = known.map_or(format!("jaco_old_{i}"), |bridge| bridge.engine_name.clone());
            let subnet = match known {
                Some(bridge) if right => bridge.subnet.clone(),
                _ => "10.9.9.0/24".to_owned(),
            };
            let interface = known.map_or_else(String::new, |bridge| bridge.interface.clone());
            engine.insert(name.clone(), ObservedBridge { engine_name: name, interface, subnet });
        }
        let list = |engine: &BTreeMap<_, ObservedBridge>| -> Vec<ObservedBridge> {
            engine.values().cloned().collect()
        };
        for action in bridges::diff(&desired, &list(&engine)) {
            match action {
                bridges::Action::Remove(name) => drop(engine.remove(&name)),
                bridges::Action::Ensure(bridge) => {
                    let (engine_name, interface) = (bridge.engine_name.clone(), bridge.interface);
                    let subnet = bridge.subnet;
                    let made = ObservedBridge { engine_name, interface, subnet };
                    prop_assert!(engine.insert(bridge.engine_name, made).is_none());
                }
            }
        }
        prop_assert_eq!(bridges::diff(&desired, &list(&engine)), vec![]);
        prop_assert_eq!(engine.len(), desired.len());
    }
}

fn replica(cluster: &Cluster, id: &str) -> Replica {
    Replica::clone(cluster.state.replica(&id.into()).unwrap())
}

fn state_at(
    millis: u64,
    container: &ObservedContainer,
    ports: &[u16],
    probes: &Probes,
) -> ReplicaState {
    let cluster = node(1);
    let replica = replica(&cluster, "d-web-1");
    let spec = service(1, "a");
    let ports = ports.iter().copied().collect();
    health::assess(
        &replica,
        &spec,
        container,
        &ports,
        probes,
        Timestamp(millis),
    )
    .state
}

#[test]
fn regression_the_running_count_survives_redispatch_and_disabled_checks_count_as_none() {
    let settled = u64::try_from(SETTLED_AFTER.as_millis()).unwrap();
    let one = container("d-web-1", "a", 1);
    let fresh = Probes::new();
    assert_eq!(
        state_at(settled - 1, &one, &[], &fresh),
        ReplicaState::Starting
    );
    assert_eq!(state_at(settled, &one, &[], &fresh), ReplicaState::Running);

    // A daemon that has just started knows no probes; the same container is running all the same.
    let mut cluster = Cluster::of(1);
    let mut web = service(1, "a");
    web.container.healthcheck = Some(Healthcheck::Disabled);
    cluster.deploy(deployment("d", [("web", web)])).unwrap();
    cluster.schedule();
    let desired = containers::desired(&cluster.state, &only_node());
    let restarted = Local {
        containers: BTreeMap::from([(one.replica.clone(), one)]),
        ..Local::default()
    };
    let seen = report::changes(&desired, &restarted, Timestamp(settled));
    assert_eq!(seen[0].observation.state, ReplicaState::Running);
}

#[test]
fn what_serves_goes_on_serving_when_its_daemon_starts_again() {
    let mut cluster = node(1);
    let one = container("d-web-1", "a", 1);
    let mut running = seen(&replica(&cluster, "d-web-1"), ReplicaState::Running);
    running.observation.container_id = Some(one.id.clone());
    let (node, observations) = (only_node(), vec![running]);
    cluster.must(Command::Observe { node, observations });
    let desired = containers::desired(&cluster.state, &only_node());
    // No port was asked yet, and the container has not run for long.
    let restarted = Local {
        containers: BTreeMap::from([(one.replica.clone(), one.clone())]),
        ..Local::default()
    };
    assert_eq!(told(&desired, &restarted), None);
    let another = ObservedContainer {
        id: "another".to_owned(),
        ..one
    };
    let restarted = Local {
        containers: BTreeMap::from([(another.replica.clone(), another)]),
        ..Local::default()
    };
    assert_eq!(told(&desired, &restarted), Some(ReplicaState::Starting));
}

/// The state that a node tells of its one replica a second after its container started, when it is
/// another than is known.
fn told(desired: &BTreeMap<ReplicaId, Desired>, local: &Local) -> Option<ReplicaState> {
    let changes = report::changes(desired, local, Timestamp(1_000));
    let state = changes.first().map(|change| change.observation.state);
    state.filter(|state| *state != ReplicaState::Running)
}

#[test]
fn the_engine_s_health_check_decides_where_there_is_one() {
    let late = 1_000_000;
    for (health, expect) in [
        (HealthStatus::Starting, ReplicaState::Starting),
        (HealthStatus::Healthy, ReplicaState::Running),
        (HealthStatus::Unhealthy, ReplicaState::Degraded),
    ] {
        let mut one = container("d-web-1", "a", 1);
        one.health = Some(health);
        assert_eq!(state_at(late, &one, &[], &Probes::new()), expect);
    }
}

#[test]
fn a_port_that_answers_twice_in_a_row_shortens_the_wait() {
    let one = container("d-web-1", "a", 1);
    let mut probe = Probe::default();
    for (answered, expect) in [
        (true, ReplicaState::Starting),
        (false, ReplicaState::Starting),
        (true, ReplicaState::Starting),
        (true, ReplicaState::Running),
    ] {
        probe.note(answered);
        let probes = Probes::from([(80, probe)]);
        assert_eq!(state_at(600, &one, &[80], &probes), expect);
    }
}

#[test]
fn a_job_that_ends_well_is_completed_and_any_other_end_is_a_failure() {
    let cluster = node(1);
    let replica = replica(&cluster, "d-web-1");
    let assess = |kind, exit_code| {
        let mut spec = service(1, "a");
        spec.kind = kind;
        let mut one = container("d-web-1", "a", 1);
        (one.status, one.exit_code) = (ContainerStatus::Exited, exit_code);
        let (ports, probes) = (BTreeSet::new(), Probes::new());
        health::assess(&replica, &spec, &one, &ports, &probes, Timestamp(9)).state
    };
    assert_eq!(assess(ServiceKind::Job, 0), ReplicaState::Completed);
    assert_eq!(assess(ServiceKind::Job, 1), ReplicaState::Failed);
    assert_eq!(assess(ServiceKind::Service, 0), ReplicaState::Failed);
}

#[test]
fn a_replica_waits_for_what_it_depends_on() {
    let mut cluster = Cluster::of(1);
    let mut web = service(1, "a");
    let condition = Condition::ServiceHealthy;
    web.depends_on.insert(
        "db".into(),
        Dependency {
            condition,
            required: true,
        },
    );
    let both = [("db", service(1, "b")), ("web", web)];
    cluster.deploy(deployment("d", both)).unwrap();
    cluster.schedule();
    let startable = |cluster: &Cluster| {
        let desired = containers::desired(&cluster.state, &only_node());
        let actions = containers::diff(&desired, &[]);
        actions
            .iter()
            .map(|a| a.replica().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(startable(&cluster), ["d-db-1"]);
    cluster.obey();
    assert_eq!(startable(&cluster), ["d-db-1", "d-web-1"]);
}

#[test]
fn regression_a_failed_pull_is_told_and_holds_the_start_until_it_is_due() {
    let mut cluster = Cluster::of(1);
    cluster
        .deploy(deployment("d", [("web", service(1, "a"))]))
        .unwrap();
    cluster.schedule();
    let desired = containers::desired(&cluster.state, &only_node());
    let wanted = &desired[&ReplicaId::new("d-web-1")];
    let mut local = Local::default();
    local.pulls.failed("image:a", 1, "no route", Timestamp(0));
    assert!(!report::may_start(wanted, &local, Timestamp(999)));
    let seen = report::changes(&desired, &local, Timestamp(999));
    let cause = seen[0].observation.cause.clone().unwrap();
    assert_eq!(
        cause.message,
        "pulling \"image:a\" failed (attempt 1): no route"
    );
    assert!(report::may_start(wanted, &local, Timestamp(1_000)));
}

#[test]
fn a_container_asks_the_gateway_of_its_first_network_unless_it_says_whom() {
    let mut cluster = Cluster::of(1);
    let mut both = service(1, "a");
    both.networks = ["back", "front"]
        .map(|name| (name.into(), NetworkAttachment::default()))
        .into();
    let mut own = service(1, "b");
    own.container.dns = vec!["192.0.2.7".to_owned()];
    let mut beside = service(1, "c");
    beside.networks.clear();
    beside.network_mode = NetworkMode::Service("both".into());
    let mut alone = beside.clone();
    alone.network_mode = NetworkMode::None;
    let services = [
        ("both", both),
        ("own", own),
        ("beside", beside),
        ("alone", alone),
    ];
    cluster.deploy(deployment("shop", services)).unwrap();
    cluster.settle();
    let desired = containers::desired(&cluster.state, &only_node());
    let back = &cluster.state.subnets[&Scope {
        deployment: "shop".into(),
        network: "back".into(),
    }];
    for (name, expected) in [
        ("both", vec![back.gateway().to_string()]),
        ("own", vec!["192.0.2.7".to_owned()]),
        // The engine refuses it for a container that has no network of its own.
        ("beside", vec![]),
        ("alone", vec![]),
    ] {
        let of_service = |wanted: &&Desired| wanted.replica.service.as_str() == name;
        let wanted = desired.values().find(of_service).unwrap();
        let request = containers::request(
            &"cluster".into(),
            &desired,
            &wanted.replica.id,
            &Default::default(),
        );
        assert_eq!(request.unwrap().spec.dns, expected, "{name}");
    }
}
