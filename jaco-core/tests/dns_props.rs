//! Names: whatever the cluster, who asks learns what he may and nothing else.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use jaco_core::cluster::Command;
use jaco_core::cluster::deployment::{Replica, ReplicaState};
use jaco_core::id::{NetworkName, NodeName, ServiceName};
use jaco_core::manifest::spec::{DeploymentSpec, NetworkAttachment, NetworkMode, ServiceSpec};
use jaco_core::node::dns::{Answer, Kind, Question, Zones, zones};
use jaco_testkit::builders::{Cluster, deployment, seen, service};
use proptest::prelude::*;

const SERVICES: [&str; 3] = ["web", "api", "db"];
const NETWORKS: [&str; 2] = ["back", "front"];
const DEPLOYMENTS: [&str; 2] = ["blog", "shop"];

/// A service: which networks, how many replicas, an alias on each network.
type Shape = (u8, u32, Option<u8>);

fn shaped((networks, replicas, alias): Shape, hash: &str) -> ServiceSpec {
    let mut spec = service(replicas, hash);
    let aliases: Vec<_> = alias.iter().map(|n| format!("Alias{n}")).collect();
    let on = NETWORKS.iter().enumerate();
    let on = on.filter(|(bit, _)| networks & (1 << bit) != 0);
    let attachment = NetworkAttachment { aliases };
    spec.networks = on
        .map(|(_, name)| (NetworkName::new(name), attachment.clone()))
        .collect();
    spec
}

/// Services of that shape, and `tail`, which shares the network of `web`.
fn spec(name: &str, shapes: &[Shape]) -> DeploymentSpec {
    let services = SERVICES.iter().zip(shapes);
    let services = services.map(|(name, shape)| (*name, shaped(*shape, name)));
    let mut tail = service(1, "tail");
    tail.networks.clear();
    tail.network_mode = NetworkMode::Service(ServiceName::new("web"));
    deployment(name, services.chain([("tail", tail)]))
}

fn observe(cluster: &mut Cluster, replica: &Replica, state: ReplicaState) {
    cluster.must(Command::Observe {
        node: replica.node.clone(),
        observations: vec![seen(replica, state)],
    });
}

/// Two deployments on two nodes; some replicas run, others do not.
fn clusters() -> impl Strategy<Value = Cluster> {
    let shape = || (1..4_u8, 0..3_u32, prop::option::of(0..2_u8));
    let shapes = prop::collection::vec(shape(), 3);
    let running = prop::collection::vec(any::<bool>(), 20);
    (shapes.clone(), shapes, running).prop_map(|(one, two, running)| {
        let mut cluster = Cluster::of(2);
        for (name, shapes) in DEPLOYMENTS.iter().zip([one, two]) {
            cluster.deploy(spec(name, &shapes)).unwrap();
        }
        cluster.settle();
        let replicas: Vec<_> = cluster.state.replicas().cloned().collect();
        for (replica, running) in replicas.iter().zip(running) {
            if !running {
                observe(&mut cluster, replica, ReplicaState::Starting);
            }
        }
        cluster
    })
}

fn node() -> NodeName {
    NodeName::new("n1")
}

fn ask(zones: &Zones, asker: &Replica, name: &str) -> Option<BTreeSet<Ipv4Addr>> {
    let from = asker.address().unwrap();
    match answered(zones, from, name, Kind::A) {
        Answer::Addresses(addresses) => {
            let set: BTreeSet<_> = addresses.iter().copied().collect();
            assert_eq!(set.len(), addresses.len(), "{name}: {addresses:?}");
            Some(set)
        }
        Answer::Empty => Some(BTreeSet::new()),
        _ => None,
    }
}

fn answered<'a>(zones: &'a Zones, from: Ipv4Addr, name: &str, kind: Kind) -> Answer<'a> {
    let gateway = zones.gateways().next().unwrap_or(Ipv4Addr::UNSPECIFIED);
    zones.answer(gateway, from, &Question { name, kind }, 7)
}

/// The replicas of this node that have an address to ask from.
fn askers(cluster: &Cluster) -> Vec<Arc<Replica>> {
    let all = cluster.state.replicas();
    let here = all.filter(|replica| replica.node == node() && replica.address().is_some());
    here.cloned().collect()
}

/// Every name that the asker may know, with its addresses, found the long way.
fn expected(cluster: &Cluster, asker: &Replica) -> BTreeMap<String, BTreeSet<Ipv4Addr>> {
    let deployment = &cluster.state.deployments[&asker.deployment];
    let web = ServiceName::new("web");
    let mut names: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for network in asker.addresses.keys() {
        for (name, service) in &deployment.spec().services {
            let with = &deployment.spec().services["web"].networks;
            let shares = service.networks.is_empty();
            let attached_by = if shares { with } else { &service.networks };
            if !attached_by.contains_key(network) {
                continue;
            }
            let mut of_service = vec![name.to_string()];
            let attached = service.networks.get(network);
            of_service.extend(attached.iter().flat_map(|on| on.aliases.clone()));
            for replica in deployment.replicas_of(name) {
                let mut beside = deployment.replicas_of(&web);
                let holder = match shares {
                    true => beside.find(|other| other.node == replica.node),
                    false => Some(replica),
                };
                let Some(address) = holder.and_then(|holder| holder.addresses.get(network)) else {
                    continue;
                };
                let own = [replica.id.to_string()];
                for name in of_service.iter().chain(&own) {
                    let known = names.entry(name.clone()).or_default();
                    known.extend(replica.is_serving().then_some(*address));
                }
            }
            for name in of_service {
                names.entry(name).or_default();
            }
        }
    }
    names
}

fn forms(name: &str, deployment: &str) -> Vec<String> {
    vec![
        name.to_owned(),
        format!("{name}.{deployment}"),
        format!("{name}.jaco.internal"),
        format!("{name}.{deployment}.jaco.internal"),
        format!("{name}.{deployment}.jaco.internal.").to_uppercase(),
    ]
}

proptest! {
    #[test]
    fn a_replica_learns_what_serves_on_its_networks_by_every_form(cluster in clusters()) {
        let zones = zones(&cluster.state, &node());
        for asker in askers(&cluster) {
            for (name, addresses) in expected(&cluster, &asker) {
                for form in forms(&name, asker.deployment.as_str()) {
                    let told = ask(&zones, &asker, &form);
                    prop_assert_eq!(told.as_ref(), Some(&addresses), "{}", form);
                }
            }
        }
    }

    #[test]
    fn no_name_of_another_deployment_or_network_is_told(cluster in clusters()) {
        let zones = zones(&cluster.state, &node());
        let everything: BTreeSet<String> = cluster
            .state
            .replicas()
            .flat_map(|replica| [replica.id.to_string(), replica.service.to_string()])
            .chain(["alias0".to_owned(), "alias1".to_owned(), "nobody".to_owned()])
            .collect();
        for asker in askers(&cluster) {
            let known = expected(&cluster, &asker);
            let known: BTreeSet<String> = known.keys().map(|name| name.to_lowercase()).collect();
            for name in everything.difference(&known) {
                for form in [name.clone(), format!("{name}.jaco.internal")] {
                    let from = asker.address().unwrap();
                    let answer = answered(&zones, from, &form, Kind::A);
                    prop_assert_eq!(answer, Answer::NxDomain, "{}", form);
                }
            }
            for other in DEPLOYMENTS.iter().filter(|other| **other != asker.deployment.as_str()) {
                for name in &everything {
                    let form = format!("{name}.{other}.jaco.internal");
                    let from = asker.address().unwrap();
                    prop_assert_eq!(answered(&zones, from, &form, Kind::A), Answer::NxDomain);
                    // Outside our domain it may be anybody's name.
                    let form = format!("{name}.{other}");
                    prop_assert_eq!(answered(&zones, from, &form, Kind::A), Answer::Forward);
                }
            }
        }
    }

    #[test]
    fn the_name_of_an_address_leads_back_to_it(cluster in clusters()) {
        let zones = zones(&cluster.state, &node());
        for asker in askers(&cluster) {
            for replica in cluster.state.replicas() {
                for (network, address) in &replica.addresses {
                    let [a, b, c, d] = address.octets();
                    let question = format!("{d}.{c}.{b}.{a}.In-Addr.Arpa");
                    let from = asker.address().unwrap();
                    let shared = replica.deployment == asker.deployment
                        && asker.addresses.contains_key(network);
                    match answered(&zones, from, &question, Kind::Ptr) {
                        Answer::Pointer(name) => {
                            prop_assert!(shared, "{name} is told");
                            let back = ask(&zones, &asker, name).unwrap();
                            prop_assert_eq!(back.contains(address), replica.is_serving());
                        }
                        answer => prop_assert!(!shared && answer == Answer::NxDomain),
                    }
                }
            }
        }
    }

    #[test]
    fn an_asker_who_is_no_replica_learns_what_the_bridge_serves(cluster in clusters()) {
        let zones = zones(&cluster.state, &node());
        for (scope, subnet) in &cluster.state.subnets {
            let of_scope = |replica: &&Arc<Replica>| {
                replica.deployment == scope.deployment
                    && replica.addresses.contains_key(&scope.network)
            };
            let gateway = subnet.gateway();
            let bridged = askers(&cluster).iter().any(|replica| of_scope(&replica));
            prop_assert_eq!(zones.gateways().any(|other| other == gateway), bridged);
            if !bridged {
                continue;
            }
            for name in SERVICES {
                let serving = cluster.state.replicas().filter(of_scope);
                let serving = serving.filter(|r| r.service.as_str() == name && r.is_serving());
                let serving: BTreeSet<_> = serving.map(|r| r.addresses[&scope.network]).collect();
                let question = Question { name, kind: Kind::A };
                // The host itself, for one.
                let told = match zones.answer(gateway, gateway, &question, 1) {
                    Answer::Addresses(told) => told.into_iter().collect(),
                    _ => BTreeSet::new(),
                };
                prop_assert_eq!(told, serving, "{} on {}", name, scope);
            }
        }
    }

    #[test]
    fn other_kinds_of_a_known_name_are_empty(cluster in clusters()) {
        let zones = zones(&cluster.state, &node());
        for asker in askers(&cluster) {
            for name in expected(&cluster, &asker).keys() {
                for kind in [Kind::Other, Kind::Ptr] {
                    let from = asker.address().unwrap();
                    prop_assert_eq!(answered(&zones, from, name, kind), Answer::Empty);
                }
            }
        }
    }

    #[test]
    fn no_question_makes_it_panic(name in "\\PC{0,80}", random in any::<u64>()) {
        let mut cluster = Cluster::of(1);
        cluster.deploy(spec("shop", &[(3, 1, None); 3])).unwrap();
        cluster.settle();
        let zones = zones(&cluster.state, &node());
        for kind in [Kind::A, Kind::Ptr, Kind::Other] {
            let question = Question { name: &name, kind };
            let gateway = zones.gateways().next().unwrap();
            let _ = zones.answer(gateway, gateway, &question, random);
            let _ = Zones::default().answer(gateway, gateway, &question, random);
        }
    }
}

/// One node, one deployment `shop`, everything running.
fn shop(shapes: &[Shape]) -> (Cluster, Zones) {
    let mut cluster = Cluster::of(1);
    cluster.deploy(spec("shop", shapes)).unwrap();
    cluster.settle();
    let zones = zones(&cluster.state, &node());
    (cluster, zones)
}

#[test]
fn what_is_not_ours_is_forwarded_and_what_is_below_our_domain_is_not() {
    let (cluster, zones) = shop(&[(1, 1, None); 3]);
    let from = askers(&cluster)[0].address().unwrap();
    let cases = [
        ("example.com", Kind::A, Answer::Forward),
        ("example.com", Kind::Other, Answer::Forward),
        // `shop` is a top-level domain, too.
        ("example.shop", Kind::A, Answer::Forward),
        ("", Kind::Other, Answer::Forward),
        ("jaco.internal", Kind::Other, Answer::Empty),
        ("shop.jaco.internal", Kind::A, Answer::Empty),
        ("nobody.jaco.internal", Kind::A, Answer::NxDomain),
        ("nobody.shop.jaco.internal", Kind::Other, Answer::NxDomain),
        ("web.blog.jaco.internal", Kind::A, Answer::NxDomain),
        ("notjaco.internal", Kind::A, Answer::Forward),
        ("nobody", Kind::A, Answer::NxDomain),
        ("nobody", Kind::Other, Answer::NxDomain),
        ("1.1.168.192.in-addr.arpa", Kind::Ptr, Answer::Forward),
        ("200.0.244.10.in-addr.arpa", Kind::Ptr, Answer::NxDomain),
        ("1.0.244.10.in-addr.arpa", Kind::Ptr, Answer::NxDomain),
        ("0.244.10.in-addr.arpa", Kind::Ptr, Answer::Forward),
    ];
    for (name, kind, expected) in cases {
        assert_eq!(
            answered(&zones, from, name, kind),
            expected,
            "{name} {kind:?}"
        );
    }
}

#[test]
fn a_replica_on_its_way_out_is_not_named() {
    let (mut cluster, _) = shop(&[(1, 2, Some(1)); 3]);
    let asker = askers(&cluster)[0].clone();
    let command = Command::Scale {
        deployment: "shop".into(),
        service: "web".into(),
        replicas: 1,
    };
    cluster.must(command);
    cluster.schedule();
    let after = zones(&cluster.state, &node());
    let serving = cluster
        .state
        .replicas()
        .filter(|r| r.service.as_str() == "web");
    let (serving, leaving): (Vec<_>, Vec<_>) = serving.partition(|replica| replica.is_serving());
    assert_eq!((serving.len(), leaving.len()), (1, 1));
    let told = ask(&after, &asker, "web").unwrap();
    assert_eq!(told, BTreeSet::from([serving[0].address().unwrap()]));
    // Its own name is known until it is gone.
    assert_eq!(
        ask(&after, &asker, leaving[0].id.as_str()),
        Some(BTreeSet::new())
    );
}

#[test]
fn every_address_comes_first_about_as_often_as_any_other() {
    let (cluster, zones) = shop(&[(1, 3, None); 3]);
    let from = askers(&cluster)[0].address().unwrap();
    let mut first: BTreeMap<Vec<Ipv4Addr>, u32> = BTreeMap::new();
    for random in 0..6_000 {
        let question = Question {
            name: "web",
            kind: Kind::A,
        };
        let Answer::Addresses(order) = zones.answer(from, from, &question, random) else {
            panic!("web is known");
        };
        *first.entry(order).or_default() += 1;
    }
    assert_eq!(first.len(), 6, "{first:?}");
    assert!(
        first.values().all(|count| (800..1_200).contains(count)),
        "{first:?}"
    );
}
