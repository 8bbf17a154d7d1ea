//! The PROXY protocol: from load balancers that are trusted, and to replicas that want it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use jaco_adapters::ingress::{Limits, Settings};
use jaco_core::id::Domain;
use jaco_core::node::trust::TrustedPeers;

use super::support::{
    Authority, Rig, Upstream, Visitor, Wire, addresses, free_port, get, port, route, sealer,
    secure, tcp,
};

/// 192.0.2.7 in version 2, as `version 2` of the protocol has it.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x30\x39\0\x50";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n";

fn rig(trusted: &[&str], limits: Limits) -> Rig {
    let trusted: Vec<_> = trusted.iter().map(|text| (*text).to_owned()).collect();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Rig::start(Settings {
        workers: 1,
        limits,
        trusted: TrustedPeers::read(&trusted).unwrap(),
        ..Settings::new(any, any, Arc::new(sealer()))
    })
}

/// What an upstream behind `a.test` is told of whom a request came from.
fn told(rig: &Rig, before: &[u8], more: &str) -> String {
    let upstream = Upstream::text("one");
    rig.change(|table| {
        let routes = vec![route("", false, &addresses(&[&upstream]))];
        table.domains.insert(Domain::from("a.test"), routes);
    });
    let mut client = rig.client();
    client.write(before).unwrap();
    client.send(&format!("GET / HTTP/1.1\r\nHost: a.test\r\n{more}\r\n"));
    assert_eq!(client.response().text(), "one");
    upstream.request().header("x-forwarded-for").join(" | ")
}

#[test]
fn a_trusted_balancer_tells_whom_a_connection_is_for() {
    let rig = rig(&["127.0.0.0/8"], Limits::default());
    let local_v2 = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let v6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n";
    for (header, address) in [
        (V1, "192.0.2.7"),
        (V2, "192.0.2.7"),
        (v6.as_slice(), "2001:db8::7"),
        // It speaks for itself, to see whether we live.
        (local_v2, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        // It says nothing.
        (b"", "127.0.0.1"),
    ] {
        assert_eq!(told(&rig, header, ""), address, "{header:?}");
    }
}

#[test]
fn a_header_may_come_in_pieces() {
    let rig = rig(&["127.0.0.1"], Limits::default());
    let upstream = Upstream::text("one");
    rig.route("a.test", "", &[&upstream]);
    for header in [V1, V2] {
        let mut client = rig.client();
        for byte in header {
            client.write(&[*byte]).unwrap();
            std::thread::yield_now();
        }
        client.send(&get("a.test", "/"));
        assert_eq!(client.response().text(), "one");
    }
    for request in upstream.requests() {
        assert_eq!(request.header("x-forwarded-for"), ["192.0.2.7"]);
    }
}

#[test]
fn what_a_balancer_says_of_those_before_counts_when_it_is_trusted() {
    let before = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8, 9.9.9.9\r\n";
    let open = rig(&["127.0.0.1"], Limits::default());
    let chain = "1.2.3.4, 5.6.7.8, 9.9.9.9, 127.0.0.1";
    assert_eq!(told(&open, b"", before), chain);
    // The visitor behind it is not.
    assert_eq!(told(&open, V1, before), "192.0.2.7");
    let closed = rig(&["10.0.0.0/8"], Limits::default());
    assert_eq!(told(&closed, b"", before), "127.0.0.1");
}

#[test]
fn nobody_else_is_believed() {
    let upstream = Upstream::text("one");
    for trusted in [&[][..], &["10.0.0.0/8"]] {
        let rig = rig(trusted, Limits::default());
        rig.route("a.test", "", &[&upstream]);
        for header in [V1, V2] {
            let mut client = rig.client();
            client.write(header).unwrap();
            client.send(&get("a.test", "/"));
            // To HTTP it is no request.
            let first = client.line().unwrap_or_default();
            assert!(first.is_empty() || first.contains("400"), "{first}");
        }
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_wrong_header_or_a_slow_one_ends_the_connection() {
    let limits = Limits {
        header_read: Duration::from_millis(200),
        ..Limits::default()
    };
    let rig = rig(&["127.0.0.1"], limits);
    rig.route("a.test", "", &[&Upstream::text("one")]);
    for wrong in [
        &b"PROXY TCP4 a b c d\r\n"[..],
        b"PROXY TCP4 1.2.3.4",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ] {
        let mut client = rig.client();
        client.write(wrong).unwrap();
        assert!(client.ended(), "{wrong:?}");
    }
}

#[test]
fn a_header_comes_before_a_handshake() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = rig(&["127.0.0.1"], Limits::default());
    rig.add("a.test", secure(&upstream));
    let served = Arc::new(authority.issue("a.test", 1));
    rig.change(|table| drop(table.certificates.insert(Domain::from("a.test"), served)));
    let address = rig.ingress.https_address().unwrap();
    for (header, expected) in [(V2, "192.0.2.7"), (&[], "127.0.0.1")] {
        let before = upstream.requests().len();
        let visitor = Visitor::introduced(address, "a.test", authority.client(&[]), header);
        let mut wire = visitor.unwrap().wire();
        wire.send(&get("a.test", "/"));
        assert_eq!(wire.response().text(), "one");
        let request = &upstream.requests()[before];
        assert_eq!(request.header("x-forwarded-for"), [expected]);
    }
}

#[test]
fn a_replica_that_wants_it_is_told_the_clients_address() {
    let upstream = Upstream::raw(|mut wire| {
        let mut header = [0; 28];
        wire.read_exact(&mut header);
        wire.send(&format!("{header:?}\n"));
        let line = wire.line().unwrap();
        wire.send(&format!("{line}\n"));
    });
    let rig = Rig::new();
    let number = free_port();
    rig.change(|table| {
        let mut route = port(&[upstream.address]);
        route.proxy_protocol = true;
        table.ports.insert(tcp(number), route);
    });
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, number)).unwrap();
    let from = stream.local_addr().unwrap();
    let mut client = Wire::new(stream);
    client.send("hello\n");
    let IpAddr::V4(address) = from.ip() else {
        panic!("{from} is not IPv4")
    };
    let mut expected = V2[..16].to_vec();
    expected.extend(address.octets());
    expected.extend(Ipv4Addr::LOCALHOST.octets());
    expected.extend(from.port().to_be_bytes());
    expected.extend(number.to_be_bytes());
    assert_eq!(client.line().unwrap(), format!("{expected:?}"));
    assert_eq!(client.line().unwrap(), "hello");
}
