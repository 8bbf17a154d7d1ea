//! Rebalancing under pressure: every gate by itself, and peace where nothing is to be gained.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeMap;
use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::cluster::audit::EventType;
use jaco_core::cluster::command::{Skip, Step};
use jaco_core::cluster::usage::{Measured, pressure};
use jaco_core::id::NodeName;
use jaco_core::manifest::spec::{Attribute, Constraint, Placement, Resources, ServiceSpec};
use jaco_core::scheduler::plan;
use jaco_testkit::builders::{Cluster, capacity, data_mount, deployment, service};
use proptest::prelude::*;

const CYCLE: Duration = Duration::from_secs(30);
const TEN_MINUTES: Duration = Duration::from_secs(600);

fn cpu(cpu_millis: u64) -> Resources {
    Resources {
        cpu_millis,
        memory_bytes: 0,
    }
}

/// Four services of one replica, all on `n1`, placed ten minutes ago; then two empty nodes.
fn crowded(make: impl Fn() -> ServiceSpec) -> Cluster {
    let mut cluster = Cluster::of(1);
    let services = ["a", "b", "c", "d"].map(|name| (name, make()));
    cluster.deploy(deployment("d", services)).unwrap();
    cluster.settle();
    for node in ["n2", "n3"] {
        cluster.join(node);
        cluster.report(node, capacity());
    }
    cluster.settle();
    cluster.now = cluster.now + TEN_MINUTES;
    cluster
}

fn plain() -> ServiceSpec {
    service(1, "h")
}

/// What each node uses, and each replica, in every cycle.
#[derive(Clone)]
struct Load {
    nodes: BTreeMap<&'static str, Resources>,
    replica: Option<Resources>,
    cycle: Duration,
}

/// `n1` at 0.95, of which each replica is 0.25; `n2` at 0.05 and `n3` at 0.1.
fn hot() -> Load {
    Load {
        nodes: BTreeMap::from([("n1", cpu(1_900)), ("n2", cpu(100)), ("n3", cpu(200))]),
        replica: Some(cpu(500)),
        cycle: CYCLE,
    }
}

impl Load {
    fn of(nodes: [(&'static str, Resources); 3]) -> Self {
        Self {
            nodes: nodes.into(),
            ..hot()
        }
    }

    /// One cycle: every node reports.
    fn report(&self, cluster: &mut Cluster) {
        cluster.now = cluster.now + self.cycle;
        for (name, used) in &self.nodes {
            let node = NodeName::new(name);
            let here = cluster.state.replicas().filter(|r| r.node == node);
            let measured = here.filter_map(|replica| {
                Some(Measured {
                    deployment: replica.deployment.clone(),
                    replica: replica.id.clone(),
                    used: self.replica?,
                })
            });
            let replicas = measured.collect();
            let (used, interval) = (*used, self.cycle);
            cluster.must(Command::NodeUsage {
                node,
                used,
                interval,
                replicas,
            });
        }
    }

    /// What is planned after so many cycles.
    fn after(&self, cycles: usize, cluster: &mut Cluster) -> Vec<Step> {
        for _ in 0..cycles {
            self.report(cluster);
        }
        plan(&cluster.state, cluster.now)
    }
}

/// The node that a plan moves a replica to.
fn target(steps: &[Step]) -> Option<(&str, &str)> {
    steps.iter().find_map(|step| match step {
        Step::Move { replica, to, .. } => Some((replica.as_str(), to.as_str())),
        _ => None,
    })
}

/// The reasons that a plan gives.
fn reasons(steps: &[Step]) -> Vec<Skip> {
    let reason = |step: &Step| match step {
        Step::Skip { reason, .. } => *reason,
        other => panic!("{other:?}"),
    };
    steps.iter().map(reason).collect()
}

#[test]
fn a_hot_node_gives_one_replica_to_the_coolest_and_tells_its_numbers() {
    let mut cluster = crowded(plain);
    let steps = hot().after(2, &mut cluster);
    assert_eq!(target(&steps), Some(("d-a-1", "n2")));
    cluster.carry_out(steps);
    let event = cluster.state.audit.last().unwrap();
    assert_eq!(event.kind, EventType::RebalanceMoved);
    let told: Vec<(&str, &str)> = event.payload.iter().map(|(k, v)| (&**k, &**v)).collect();
    let numbers = [
        ("cpu_millis", "500"),
        ("from", "n1"),
        ("memory_bytes", "0"),
        ("relief", "0.250"),
        ("replica", "d-a-1"),
        ("source_pressure", "0.950"),
        ("target_after", "0.300"),
        ("target_pressure", "0.050"),
        ("to", "n2"),
    ];
    assert_eq!(told, numbers);
    cluster.obey();
    cluster.settle();
    let here = |node: &str| {
        cluster
            .state
            .replicas()
            .filter(|r| r.node.as_str() == node)
            .count()
    };
    assert_eq!((here("n1"), here("n2"), here("n3")), (3, 1, 0));
    // The averages show at once what was moved, so that nothing follows it.
    let share = |node: &str| pressure(&cluster.state.nodes[node], cluster.now).unwrap().0;
    assert_eq!((share("n1"), share("n2")), (700, 300));
    assert_eq!(plan(&cluster.state, cluster.now), []);
}

#[test]
fn the_trigger_must_last_for_two_cycles_and_samples_must_be_fresh() {
    let mut cluster = crowded(plain);
    assert_eq!(hot().after(1, &mut cluster), []);
    let mut late = cluster.clone();
    assert_ne!(hot().after(1, &mut cluster), []);
    // Three intervals and a moment later nothing that was said counts.
    cluster.now = cluster.now + CYCLE * 3;
    assert_ne!(plan(&cluster.state, cluster.now), []);
    cluster.now.0 += 1;
    assert_eq!(plan(&cluster.state, cluster.now), []);
    // A pause begins the average and the count anew.
    late.now = late.now + CYCLE * 4;
    assert_eq!(hot().after(1, &mut late), []);
}

#[test]
fn a_node_below_the_trigger_or_not_far_above_the_others_keeps_what_it_has() {
    let warm = Load::of([("n1", cpu(1_700)), ("n2", cpu(100)), ("n3", cpu(200))]);
    assert_eq!(warm.after(3, &mut crowded(plain)), []);
    let all = Load::of([("n1", cpu(1_900)), ("n2", cpu(1_402)), ("n3", cpu(1_402))]);
    assert_eq!(all.after(3, &mut crowded(plain)), []);
}

#[test]
fn what_a_replica_is_holds_it() {
    let check = |make: &dyn Fn() -> ServiceSpec, reason| {
        let steps = hot().after(2, &mut crowded(make));
        assert_eq!(reasons(&steps), [reason; 4]);
    };
    let stateful = || {
        let mut spec = plain();
        spec.container.mounts.push(data_mount());
        spec
    };
    check(&stateful, Skip::Stateful);
    let pinned = || {
        let mut spec = plain();
        spec.placement = Placement::Hosts(vec!["n1".into()]);
        spec
    };
    check(&pinned, Skip::Bound);
    let constrained = || {
        let mut spec = plain();
        spec.constraints.push(Constraint {
            attribute: Attribute::Hostname,
            equal: true,
            value: "n1".to_owned(),
        });
        spec
    };
    check(&constrained, Skip::NoTarget);
}

#[test]
fn a_global_replica_stays() {
    let mut cluster = Cluster::of(3);
    let mut agent = plain();
    agent.placement = Placement::Global;
    cluster.deploy(deployment("d", [("agent", agent)])).unwrap();
    cluster.settle();
    cluster.now = cluster.now + TEN_MINUTES;
    assert_eq!(reasons(&hot().after(2, &mut cluster)), [Skip::Bound]);
}

#[test]
fn a_replica_of_a_service_that_lies_even_stays() {
    let mut cluster = Cluster::of(3);
    cluster
        .deploy(deployment("d", [("web", service(3, "h"))]))
        .unwrap();
    cluster.settle();
    cluster.now = cluster.now + TEN_MINUTES;
    assert_eq!(reasons(&hot().after(2, &mut cluster)), [Skip::NoTarget]);
}

#[test]
fn what_its_move_would_do_holds_it() {
    let check = |load: Load, reason| {
        let steps = load.after(2, &mut crowded(plain));
        assert_eq!(reasons(&steps), [reason; 4]);
    };
    let unmeasured = Load {
        replica: None,
        ..hot()
    };
    check(unmeasured, Skip::NotMeasured);
    let small = Load {
        replica: Some(cpu(199)),
        ..hot()
    };
    check(small, Skip::LittleRelief);
    let full = Load::of([("n1", cpu(1_900)), ("n2", cpu(1_000)), ("n3", cpu(1_100))]);
    check(full, Skip::TargetsFull);
    // Room in the scarce dimension is not enough.
    let memory = |share: u64| Resources {
        cpu_millis: 100,
        memory_bytes: capacity().memory_bytes / 100 * share,
    };
    let mut other = Load::of([("n1", cpu(1_900)), ("n2", memory(60)), ("n3", memory(65))]);
    other.replica = Some(Resources {
        cpu_millis: 500,
        memory_bytes: capacity().memory_bytes / 100 * 16,
    });
    check(other, Skip::TargetsFull);
}

#[test]
fn reservations_that_fit_nowhere_hold_it() {
    let mut cluster = crowded(|| {
        let mut spec = plain();
        spec.reservations.cpu_millis = 500;
        spec
    });
    // What came later takes the room of the other nodes.
    let mut large = service(2, "l");
    large.reservations.cpu_millis = 1_600;
    cluster.deploy(deployment("e", [("large", large)])).unwrap();
    cluster.settle();
    let steps = hot().after(2, &mut cluster);
    assert_eq!(reasons(&steps), [Skip::NoTarget; 4]);
}

#[test]
fn what_was_placed_a_moment_ago_stays() {
    let mut cluster = crowded(plain);
    cluster.now = cluster.now - CYCLE * 3;
    assert_eq!(
        reasons(&hot().after(2, &mut cluster)),
        [Skip::PlacedRecently; 4]
    );
    assert_eq!(target(&hot().after(1, &mut cluster)), Some(("d-a-1", "n2")));
}

#[test]
fn a_target_rests_and_a_cycle_has_one_move() {
    let quick = Load {
        cycle: Duration::from_secs(5),
        nodes: BTreeMap::from([("n1", cpu(8_000)), ("n2", cpu(0))]),
        ..hot()
    };
    let mut cluster = crowded(plain);
    let force = true;
    let node = NodeName::new("n3");
    cluster.must(Command::NodeRemove { node, force });
    let steps = quick.after(2, &mut cluster);
    assert_eq!(target(&steps), Some(("d-a-1", "n2")));
    cluster.carry_out(steps);
    assert_eq!(quick.after(1, &mut cluster), [], "the move is under way");
    cluster.obey();
    cluster.settle();
    assert_eq!(
        reasons(&quick.after(2, &mut cluster)),
        [Skip::TargetsBusy; 3]
    );
    let steps = quick.after(24, &mut cluster);
    assert_eq!(target(&steps), Some(("d-b-1", "n2")));
}

#[test]
fn what_is_declared_counts_before_what_was_seen_and_the_largest_relief_wins() {
    let mut cluster = Cluster::of(1);
    let limited = |cpu_millis, memory_bytes| {
        let mut spec = plain();
        spec.container.limits.cpu_millis = Some(cpu_millis);
        spec.container.limits.memory_bytes = Some(memory_bytes);
        spec
    };
    let services = [
        ("a", plain()),
        ("b", limited(900, 1)),
        ("c", limited(100, 1)),
    ];
    cluster.deploy(deployment("d", services)).unwrap();
    cluster.settle();
    cluster.join("n2");
    cluster.report("n2", capacity());
    cluster.now = cluster.now + TEN_MINUTES;
    let mut load = hot();
    load.nodes.remove("n3");
    assert_eq!(target(&load.after(2, &mut cluster)), Some(("d-b-1", "n2")));
}

#[test]
fn a_reason_is_told_once_in_ten_minutes() {
    let mut cluster = crowded(|| {
        let mut spec = plain();
        spec.container.mounts.push(data_mount());
        spec
    });
    for _ in 0..60 {
        hot().report(&mut cluster);
        cluster.schedule();
        assert_eq!(plan(&cluster.state, cluster.now), []);
    }
    let events = cluster.state.audit.iter();
    let skipped = events.filter(|event| event.kind == EventType::RebalanceSkipped);
    let told: Vec<_> = skipped
        .map(|event| (&event.payload["replica"], event.at))
        .collect();
    // Half an hour: three times for each of the four.
    assert_eq!(told.len(), 12, "{told:?}");
}

/// Five nodes with a service spread over them and single ones.
fn busy() -> Cluster {
    let mut cluster = Cluster::of(5);
    let services = [
        ("web", service(10, "w")),
        ("api", service(3, "a")),
        ("one", plain()),
    ];
    cluster.deploy(deployment("d", services)).unwrap();
    cluster.settle();
    cluster.now = cluster.now + TEN_MINUTES;
    cluster
}

const NODES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn an_idle_or_uniformly_busy_cluster_makes_no_move_in_1_000_cycles(
        level in prop::sample::select(vec![0_u64, 100, 900, 1_500, 1_800, 2_000]),
        noise in prop::collection::vec(0..200_u64, 500),
    ) {
        let mut cluster = busy();
        let mut noise = noise.iter().cycle();
        for _ in 0..1_000 {
            let nodes = NODES.map(|node| (node, cpu(level + noise.next().unwrap())));
            let load = Load { nodes: nodes.into(), replica: Some(cpu(level / 4)), cycle: CYCLE };
            load.report(&mut cluster);
            let steps = plan(&cluster.state, cluster.now);
            prop_assert_eq!(target(&steps), None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_move_passes_every_gate(
        loads in prop::collection::vec(prop::array::uniform5(0..2_400_u64), 1..30),
        each in 50..600_u64,
    ) {
        let mut cluster = busy();
        let mut last = None;
        for uses in loads {
            let nodes: BTreeMap<_, _> = NODES.into_iter().zip(uses.map(cpu)).collect();
            let load = Load { nodes, replica: Some(cpu(each)), cycle: CYCLE };
            load.report(&mut cluster);
            let (state, now) = (cluster.state.clone(), cluster.now);
            for step in plan(&state, now) {
                let Step::Move { replica, to, load: Some(load), .. } = step else { continue };
                let replica = state.replica(&replica).unwrap();
                let share = |node: &NodeName| pressure(&state.nodes[node], now).unwrap().0;
                let coolest = state.nodes.keys().map(share).min().unwrap();
                prop_assert!(share(&replica.node) > 850);
                prop_assert!(share(&replica.node) >= coolest + 250);
                prop_assert!(load.relief >= 100 && load.target_after < 750);
                prop_assert!(now >= replica.placed_at + TEN_MINUTES);
                let held = |node: &NodeName| {
                    let same = state.replicas().filter(|r| r.service == replica.service);
                    same.filter(|r| r.node == *node).count()
                };
                prop_assert!(replica.service.as_str() == "one" || held(&to) < held(&replica.node));
                let at_once = last.replace((to, now));
                prop_assert!(at_once.is_none_or(|(_, at)| now >= at + CYCLE));
            }
            cluster.settle();
        }
    }
}
