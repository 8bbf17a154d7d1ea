//! What the core costs: reading manifests, hashing, placing a million replicas, planning again
//! after a loss, applying entries, writing a snapshot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use jaco_core::cluster::Command;
use jaco_core::cluster::node::NodeCondition;
use jaco_core::id::NodeName;
use jaco_core::manifest::spec::{NetworkMode, Resources, ServiceSpec};
use jaco_core::manifest::{Bundle, hash, parse};
use jaco_core::node::dns::zones;
use jaco_core::scheduler::{Planner, plan};
use jaco_testkit::builders::{Cluster, deployment, service};

const SERVICES: usize = 1_000;
const NODES: usize = 10_000;
const DEPLOYMENTS: usize = 1_000;
const REPLICAS: u32 = 1_000;

criterion_group! {
    name = core;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(2));
    targets = manifests, applying, placing
}
criterion_main!(core);

/// A compose file of so many services.
fn thousand_services() -> Bundle {
    let mut compose = String::from("services:\n");
    for n in 0..SERVICES {
        write!(
            compose,
            "  s{n}:\n    image: registry.example/app:{n}\n    \
             environment: {{A: '1', N: '{n}'}}\n    \
             healthcheck: {{test: [CMD, curl, localhost], interval: 5s, retries: 3}}\n    \
             ports: ['{}:80']\n    deploy: {{replicas: 2}}\n",
            10_000 + n
        )
        .expect("a string takes everything");
    }
    Bundle {
        jaco: "deployment: shop\n".to_owned(),
        compose,
        ..Bundle::default()
    }
}

fn manifests(criterion: &mut Criterion) {
    let bundle = thousand_services();
    let spec = parse(&bundle).expect("a valid bundle");
    assert_eq!(spec.services.len(), SERVICES);
    let mut group = criterion.benchmark_group("manifest");
    group.throughput(Throughput::Elements(SERVICES as u64));
    group.bench_function("parse_and_validate_1000_services", |b| {
        b.iter(|| parse(black_box(&bundle)));
    });
    let container = &spec.services["s0"].container;
    group.throughput(Throughput::Elements(1));
    group.bench_function("spec_hash", |b| {
        let (networks, volumes) = (BTreeMap::new(), BTreeMap::new());
        b.iter(|| {
            let mode = &NetworkMode::Networks;
            hash::spec_hash(black_box(container), mode, &networks, &volumes)
        });
    });
    group.finish();
}

fn applying(criterion: &mut Criterion) {
    let mut cluster = Cluster::of(10);
    for number in 0..100 {
        let spec = deployment(&format!("d{number}"), [("web", service(10, "a"))]);
        cluster.deploy(spec).expect("a valid deployment");
    }
    cluster.settle();
    let mut group = criterion.benchmark_group("state");
    group.throughput(Throughput::Elements(1));
    let mut revision = 0;
    group.bench_function("apply_one_revision", |b| {
        b.iter_batched_ref(
            || cluster.clone(),
            |cluster| {
                revision += 1;
                let web = service(10, &format!("h{revision}"));
                cluster.deploy(deployment("d50", [("web", web)]))
            },
            BatchSize::LargeInput,
        );
    });
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("dns_zones_of_1000_replicas", |b| {
        let node = NodeName::new("n1");
        b.iter(|| zones(black_box(&cluster.state), &node));
    });
    let mut big = thousand_deployments(10, 3, 200);
    big.schedule();
    big.obey();
    assert_eq!(big.state.replicas().count(), 3 * DEPLOYMENTS);
    group.throughput(Throughput::Elements(DEPLOYMENTS as u64));
    group.bench_function("snapshot_1000_deployments_of_3_replicas", |b| {
        b.iter(|| serde_json::to_vec(black_box(&big.state)).expect("a plain structure"));
    });
    group.finish();
}

/// A thousand deployments of one service, none of them placed. So many have a network; a pool
/// has no more than 256.
fn thousand_deployments(nodes: usize, replicas: u32, networked: usize) -> Cluster {
    let mut cluster = Cluster::of(nodes);
    for number in 1..=nodes {
        let large = Resources {
            cpu_millis: 64_000,
            memory_bytes: 256 << 30,
        };
        cluster.report(&format!("n{number}"), large);
    }
    for number in 0..DEPLOYMENTS {
        let web = match number < networked {
            true => reserving(replicas),
            false => unconnected(replicas),
        };
        let spec = deployment(&format!("d{number}"), [("web", web)]);
        cluster.deploy(spec).expect("a valid deployment");
    }
    cluster
}

fn reserving(replicas: u32) -> ServiceSpec {
    let mut web = service(replicas, "a");
    web.reservations = Resources {
        cpu_millis: 100,
        memory_bytes: 128 << 20,
    };
    web
}

fn unconnected(replicas: u32) -> ServiceSpec {
    let mut web = reserving(replicas);
    web.networks.clear();
    web.network_mode = NetworkMode::None;
    web
}

fn placing(criterion: &mut Criterion) {
    let mut cluster = thousand_deployments(NODES, REPLICAS, 0);
    let count = DEPLOYMENTS * REPLICAS as usize;
    assert_eq!(plan(&cluster.state, cluster.now).len(), count);
    let mut group = criterion.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("place_1000000_replicas_on_10000_nodes", |b| {
        b.iter(|| plan(black_box(&cluster.state), cluster.now));
    });
    let planner = at_rest(&mut cluster);
    group.bench_function("plan_1000000_replicas_at_rest", |b| {
        b.iter(|| Planner::default().plan(black_box(&cluster.state), cluster.now));
    });
    let (node, condition) = (NodeName::new("n5000"), NodeCondition::Unreachable);
    cluster.must(Command::NodeCondition { node, condition });
    group.bench_function("plan_after_the_loss_of_one_node", |b| {
        b.iter_batched(
            || planner.clone(),
            |mut planner| planner.plan(black_box(&cluster.state), cluster.now),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    one_change(criterion);
}

/// Places everything and lets it run; gives the planner that did.
fn at_rest(cluster: &mut Cluster) -> Planner {
    let mut planner = Planner::default();
    let steps = planner.plan(&cluster.state, cluster.now);
    cluster.carry_out(steps);
    cluster.obey();
    assert!(planner.plan(&cluster.state, cluster.now).is_empty());
    planner
}

/// One more replica wanted, among 100,000 on 1,000 nodes and among ten times fewer of both: what
/// it costs is to follow the change, not the size.
fn one_change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scheduler");
    for (nodes, replicas) in [(100, 10), (1_000, 100)] {
        let mut cluster = thousand_deployments(nodes, replicas, 0);
        let planner = at_rest(&mut cluster);
        let spec = deployment("d500", [("web", unconnected(replicas + 1))]);
        cluster.deploy(spec).expect("a valid deployment");
        let all = DEPLOYMENTS * replicas as usize;
        group.bench_function(format!("plan_one_change_among_{all}_replicas"), |b| {
            b.iter_batched(
                || planner.clone(),
                |mut planner| planner.plan(black_box(&cluster.state), cluster.now),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}
