//! Names of the node's own zones.

use std::net::Ipv4Addr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};
use jaco_core::cluster::Command;
use jaco_core::cluster::deployment::ReplicaState;
use jaco_core::id::NetworkName;
use jaco_core::manifest::spec::{NetworkAttachment, ServiceSpec};
use jaco_core::ports::DnsResponder;
use jaco_testkit::builders::{deployment, seen, service};

use super::support::{Rig, addresses, question, with_edns};

fn on(networks: &[&str], replicas: u32) -> ServiceSpec {
    let attached = networks.iter().map(NetworkName::new);
    ServiceSpec {
        networks: attached
            .map(|name| (name, NetworkAttachment::default()))
            .collect(),
        ..service(replicas, "a")
    }
}

#[test]
fn a_name_has_its_replicas_over_either_carrier() {
    let rig = Rig::new(&[]);
    let client = rig.client("web");
    let mut expected: Vec<Ipv4Addr> = rig
        .replicas("web")
        .iter()
        .filter_map(|r| r.address())
        .collect();
    expected.sort();
    assert_eq!(expected.len(), 2);
    for name in [
        "web",
        "WEB.Shop",
        "web.jaco.internal",
        "web.shop.JACO.internal",
    ] {
        let over_udp = client.ask(name, RecordType::A);
        for reply in [over_udp, client.tcp(name, RecordType::A)] {
            assert_eq!(addresses(&reply), expected, "{name}");
            assert!(reply.authoritative && reply.recursion_available);
            assert_eq!(reply.response_code, ResponseCode::NoError);
            assert!(reply.answers.iter().all(|record| record.ttl == 5));
            // Some resolvers put entropy into the case of letters, and check it.
            let asked = question(name, RecordType::A);
            assert!(reply.queries[0].name.eq_case(&asked.queries[0].name));
        }
    }
}

#[test]
fn what_has_no_address_and_what_does_not_exist_differ() {
    let rig = Rig::new(&[]);
    let client = rig.client("web");
    let cases = [
        ("web", RecordType::AAAA, ResponseCode::NoError),
        (
            "web.shop.jaco.internal",
            RecordType::MX,
            ResponseCode::NoError,
        ),
        ("nobody", RecordType::A, ResponseCode::NXDomain),
        (
            "web.blog.jaco.internal",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
        ("w\\.eb", RecordType::A, ResponseCode::NXDomain),
        (
            "web\\.shop.jaco.internal",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
        (
            "9.9.77.127.in-addr.arpa",
            RecordType::PTR,
            ResponseCode::NXDomain,
        ),
    ];
    for (name, kind, code) in cases {
        let reply = client.ask(name, kind);
        assert_eq!(reply.response_code, code, "{name} {kind}");
        assert!(reply.answers.is_empty(), "{name} {kind}");
    }
}

#[test]
fn an_address_has_the_name_of_its_replica() {
    let rig = Rig::new(&[]);
    let replica = &rig.replicas("web")[1];
    let [a, b, c, d] = replica.address().unwrap().octets();
    let name = format!("{d}.{c}.{b}.{a}.in-addr.arpa");
    let reply = rig.client("web").ask(&name, RecordType::PTR);
    let RData::PTR(target) = &reply.answers[0].data else {
        panic!("{reply:?}");
    };
    let expected = format!("{}.shop.jaco.internal.", replica.id);
    assert_eq!(target.0.to_ascii(), expected);
    let back = rig.client("web").addresses(&expected);
    assert_eq!(back, [replica.address().unwrap()]);
}

#[test]
fn who_asks_decides_what_is_seen_whatever_gateway_he_asks() {
    let spec = deployment(
        "shop",
        [
            ("web", on(&["front"], 1)),
            ("api", on(&["back", "front"], 1)),
            ("db", on(&["back"], 1)),
        ],
    );
    let rig = Rig::of([spec], &[]);
    let of = |asker: &str, name: &str| rig.client(asker).addresses(name).len();
    assert_eq!(
        [of("web", "web"), of("web", "api"), of("web", "db")],
        [1, 1, 0]
    );
    assert_eq!(
        [of("db", "web"), of("db", "api"), of("db", "db")],
        [0, 1, 1]
    );
    // It is asked through one gateway only, and is on both networks.
    assert_eq!([of("api", "web"), of("api", "db")], [1, 1]);
}

#[test]
fn a_change_of_the_zones_shows_at_once() {
    let mut rig = Rig::new(&[]);
    let client = rig.client("web");
    let leaving = rig.replicas("web")[1].clone();
    for (state, left) in [(ReplicaState::Degraded, 1), (ReplicaState::Running, 2)] {
        rig.cluster.must(Command::Observe {
            node: leaving.node.clone(),
            observations: vec![seen(&leaving, state)],
        });
        rig.publish();
        assert_eq!(client.addresses("web").len(), left);
    }
}

#[test]
fn what_does_not_fit_is_left_out_said_so_and_whole_over_tcp() {
    let many = deployment("shop", [("web", service(200, "a"))]);
    let rig = Rig::of([many], &[]);
    let client = rig.client("web");
    let plain = client.ask("web", RecordType::A);
    assert!(plain.truncation);
    let asked = with_edns(question("web", RecordType::A), 4096);
    let roomy = client.exchange(&asked);
    assert!(roomy.truncation && roomy.edns.is_some());
    assert!(roomy.answers.len() > plain.answers.len());
    assert!(!plain.answers.is_empty());
    let whole = client.tcp("web", RecordType::A);
    assert!(!whole.truncation);
    assert_eq!(addresses(&whole).len(), 200);
}

#[test]
fn dropping_the_responder_frees_its_addresses() {
    let rig = Rig::new(&[]);
    let client = rig.client("web");
    assert!(client.try_ask("web", RecordType::A).is_some());
    assert_eq!(rig.dns.failed_listeners(), []);
    drop(rig);
    assert!(client.try_ask("web", RecordType::A).is_none());
    assert!(client.try_tcp("web", RecordType::A).is_none());
}
