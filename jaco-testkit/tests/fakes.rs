//! The fakes keep the promises of their ports.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use futures::{FutureExt, future};
use jaco_core::access::Author;
use jaco_core::cluster::addresses::Pool;
use jaco_core::cluster::{ClusterState, Command};
use jaco_core::id::{ClusterId, Domain, NodeName, ReplicaId};
use jaco_core::manifest::spec::ContainerSpec;
use jaco_core::ports::container_runtime::{ContainerStatus, HealthStatus};
use jaco_core::ports::{
    BridgeNetworks, Clock, Consensus, ConsensusError, ContainerRuntime, RuntimeError,
};
use jaco_core::time::Timestamp;
use jaco_testkit::contract;
use jaco_testkit::contract::container_runtime::request;
use jaco_testkit::fakes::{
    Behaviour, FakeAuthority, FakeBridges, FakeClock, FakeConsensus, FakeDns, FakeHost,
    FakeIngress, FakeLogs, FakeLookup, FakeRuntime, FakeWeb,
};

const CLUSTER: &str = "0c0ffee0";

fn clock() -> Arc<FakeClock> {
    Arc::new(FakeClock::at(Timestamp(1_800_000_000_000)))
}

fn image(image: &str) -> ContainerSpec {
    ContainerSpec {
        image: image.to_owned(),
        ..ContainerSpec::default()
    }
}

fn engine() -> (FakeRuntime, contract::container_runtime::World) {
    let runtime = FakeRuntime::new(clock());
    runtime.load("runs", Behaviour::Runs);
    runtime.load("ends", Behaviour::Ends(3));
    runtime.load("stuck", Behaviour::CannotStart("no such file".to_owned()));
    runtime.publish("remote", Behaviour::Runs);
    let world = contract::container_runtime::World {
        cluster: ClusterId::from(CLUSTER),
        running: image("runs"),
        ending: image("ends"),
        unstartable: image("stuck"),
        pullable: "remote".to_owned(),
        missing: "nowhere".to_owned(),
    };
    (runtime, world)
}

#[test]
fn the_fake_runtime_keeps_the_contract() {
    let (runtime, world) = engine();
    block_on(contract::container_runtime::suite(&runtime, &world));
}

#[test]
fn the_fake_ingress_keeps_the_contract() {
    let proxy = FakeIngress::default();
    proxy.take(443);
    let world = contract::ingress_proxy::World {
        free: 6379,
        taken: 443,
        listens: &|port| proxy.listening().contains(&port),
    };
    block_on(contract::ingress_proxy::suite(&proxy, &world));
    assert_eq!(proxy.tables().len(), 8);
}

#[test]
fn the_fake_dns_keeps_the_contract() {
    let responder = FakeDns::default();
    let pool = Pool::parse("10.244.0.0/16").unwrap();
    responder.take(contract::dns_responder::gateways(pool)[1]);
    let world = contract::dns_responder::World {
        pool,
        answers: &|gateway| responder.listening().contains(&gateway),
    };
    block_on(contract::dns_responder::suite(&responder, &world));
    assert_eq!(responder.zones().unwrap().gateways().count(), 1);
}

#[test]
fn the_fake_bridges_keep_the_contract() {
    let networks = FakeBridges::default();
    let world = contract::bridge_networks::World {
        cluster: ClusterId::from(CLUSTER),
        occupy: &|name| networks.occupy(name),
        vacate: &|name| networks.vacate(name),
    };
    block_on(contract::bridge_networks::suite(&networks, &world));
}

#[test]
fn the_fake_logs_keep_the_contract() {
    let clock = clock();
    let logs = FakeLogs::new(clock.clone());
    let (ended, running) = (ReplicaId::from("ended"), ReplicaId::from("running"));
    let written = [(false, "one"), (true, "two"), (false, ""), (false, "four")];
    for (stderr, text) in written {
        logs.write(&ended, stderr, text);
        clock.advance(Duration::from_secs(1));
    }
    logs.end(&ended);
    logs.open_log(&running);
    let world = contract::container_logs::World {
        ended,
        written: written
            .map(|(stderr, text)| (stderr, text.to_owned()))
            .to_vec(),
        running: running.clone(),
        write: &|text| logs.write(&running, false, text),
        absent: ReplicaId::from("absent"),
    };
    block_on(contract::container_logs::suite(&logs, &world));
}

#[test]
fn a_fake_engine_without_connection_fails_every_call_and_breaks_subscriptions() {
    let (runtime, world) = engine();
    let start = request(&world, "web-1", &world.running);
    let mut events = block_on(runtime.watch(&world.cluster)).unwrap();
    block_on(runtime.start(&start)).unwrap();
    block_on(events.changed()).unwrap();
    runtime.set_reachable(false);
    let unreachable = |error| matches!(error, RuntimeError::Unreachable(_));
    assert!(unreachable(block_on(events.changed()).unwrap_err()));
    assert!(unreachable(
        block_on(runtime.observe(&world.cluster)).unwrap_err()
    ));
    assert!(unreachable(block_on(runtime.start(&start)).unwrap_err()));
    runtime.set_reachable(true);
    let seen = block_on(runtime.observe(&world.cluster)).unwrap();
    assert_eq!(seen[0].status, ContainerStatus::Running);
}

#[test]
fn what_a_test_does_to_a_fake_container_is_seen() {
    let (runtime, world) = engine();
    let observe = || block_on(runtime.observe(&world.cluster)).unwrap().remove(0);
    block_on(runtime.start(&request(&world, "web-1", &world.running))).unwrap();
    runtime.set_health("web-1", HealthStatus::Unhealthy);
    assert_eq!(observe().health, Some(HealthStatus::Unhealthy));
    runtime.run_out_of_memory("web-1");
    let seen = observe();
    assert_eq!((seen.exit_code, seen.oom_killed), (137, true));
    runtime.vanish("web-1");
    assert_eq!(block_on(runtime.observe(&world.cluster)).unwrap(), []);

    runtime.fail_pulls("remote", "denied");
    let denied = block_on(runtime.pull("remote", None, &|_| ()));
    assert_eq!(denied, Err(RuntimeError::Pull("denied".to_owned())));
    runtime.publish("remote", Behaviour::Runs);
    assert_eq!(block_on(runtime.pull("remote", None, &|_| ())), Ok(()));
    assert_eq!(runtime.pulls(), ["remote", "remote"]);
}

#[test]
fn fake_bridges_share_no_subnet() {
    let networks = FakeBridges::default();
    let world = contract::bridge_networks::World {
        cluster: ClusterId::from(CLUSTER),
        occupy: &|_| (),
        vacate: &|_| (),
    };
    let bridge = |network| contract::bridge_networks::bridge(&world, network, 7);
    block_on(networks.ensure(&bridge("front"))).unwrap();
    assert!(block_on(networks.ensure(&bridge("back"))).is_err());
}

#[test]
fn the_fake_consensus_applies_at_once_and_wakes_those_who_wait() {
    let clock = clock();
    let consensus = FakeConsensus::leading(ClusterState::default(), clock.clone());
    let command = || Command::Schedule {
        after: 0,
        steps: Vec::new(),
    };
    let system = Author::Member(NodeName::new("n1"));
    let write = async { consensus.write(&system, command()).await.unwrap() };
    let (_, refused) = block_on(future::join(consensus.applied_after(0), write));
    assert!(refused.is_err(), "there is no cluster yet");
    let snapshot = consensus.snapshot();
    assert_eq!((snapshot.index, snapshot.clock), (1, clock.now()));
    assert_eq!(consensus.status().applied, 1);
    assert_eq!(consensus.applied_after(1).now_or_never(), None);
    consensus.set_failure(Some(ConsensusError::QuorumLost));
    let lost = block_on(consensus.write(&system, command()));
    assert_eq!(lost.unwrap_err(), ConsensusError::QuorumLost);
}

#[test]
fn the_fake_host_keeps_the_contracts() {
    let host = FakeHost::default();
    block_on(contract::host_network::mesh(&host));
    block_on(contract::host_network::host_network(&host, "bridge0"));
    block_on(contract::host_network::firewall(&host));
}

#[test]
fn the_fake_authority_keeps_the_contract() {
    let directory = "https://ca.test/dir".to_owned();
    let authority = FakeAuthority::new(&directory, clock());
    let world = contract::certificate_authority::World {
        directory,
        nowhere: "https://nowhere.test/dir".to_owned(),
        strange: b"account 99".to_vec(),
    };
    block_on(contract::certificate_authority::suite(&authority, &world));
}

#[test]
fn the_fake_lookup_keeps_the_contract() {
    let addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
    let addresses = addresses.map(|text| text.parse::<IpAddr>().unwrap());
    let known = ("known.test".to_owned(), addresses.into());
    let names = [known.clone(), ("bare.test".to_owned(), [].into())];
    let world = contract::host_lookup::World {
        known,
        bare: "bare.test".to_owned(),
        missing: "missing.test".to_owned(),
    };
    let (lookup, silent) = (FakeLookup(names.into()), FakeLookup::default());
    block_on(contract::host_lookup::suite(&lookup, &silent, &world));
}

#[test]
fn the_fake_web_keeps_the_contract() {
    let [server, nobody, mute] =
        ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|text| text.parse::<IpAddr>().unwrap());
    let host = Domain::from("ours.test");
    let page = |path: &str| (host.clone(), path.to_owned());
    let pages = BTreeMap::from([
        (page("/page"), (200, "ours".to_owned())),
        (page("/elsewhere"), (302, String::new())),
    ]);
    let world = contract::web_probe::World {
        server,
        host,
        nobody,
        mute,
    };
    let web = FakeWeb([(server, pages)].into());
    block_on(contract::web_probe::suite(&web, &world));
}
