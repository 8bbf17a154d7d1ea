//! TLS: the certificate by name, its exchange, and what plain HTTP does meanwhile (spec 08).

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use jaco_adapters::ingress::{Limits, Settings};
use jaco_core::cluster::certs::Issued;
use jaco_core::id::Domain;
use rustls::version::{TLS12, TLS13};

use super::support::{
    Authority, DEADLINE, Message, Rig, Upstream, Visitor, Wire, free_port, get, large, sealer,
    secure, until,
};

fn show(rig: &Rig, domain: &str, served: Issued) {
    rig.change(|table| {
        table
            .certificates
            .insert(Domain::from(domain), Arc::new(served));
    });
}

/// One upstream behind `a.test`, with a certificate of serial 1.
fn rig(authority: &Authority, upstream: &Upstream) -> Rig {
    let rig = Rig::new();
    rig.add("a.test", secure(upstream));
    show(&rig, "a.test", authority.issue("a.test", 1));
    rig
}

fn visit(rig: &Rig, authority: &Authority) -> Visitor {
    let address = rig.ingress.https_address().unwrap();
    Visitor::connect(address, "a.test", authority.client(&["http/1.1"])).unwrap()
}

fn ask(rig: &Rig, authority: &Authority, request: &str) -> Message {
    let mut wire = visit(rig, authority).wire();
    wire.send(request);
    wire.response()
}

#[test]
fn both_versions_are_spoken_and_the_upstream_learns_of_it() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = rig(&authority, &upstream);
    for version in [&TLS12, &TLS13] {
        let config = authority.client_of(&[version], &[]);
        let address = rig.ingress.https_address().unwrap();
        let visitor = Visitor::connect(address, "a.test", config).unwrap();
        assert_eq!(visitor.serial(), "01");
        let mut wire = visitor.wire();
        wire.send(&get("a.test", "/"));
        assert_eq!(wire.response().text(), "one");
    }
    for request in upstream.requests() {
        assert_eq!(request.header("x-forwarded-proto"), ["https"]);
    }
}

#[test]
fn each_name_has_its_certificate_and_an_unknown_one_has_none() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = rig(&authority, &upstream);
    rig.add("b.test", secure(&upstream));
    show(&rig, "b.test", authority.issue("b.test", 2));
    let address = rig.ingress.https_address().unwrap();
    for (host, serial) in [("a.test", "01"), ("b.test", "02"), ("B.test", "02")] {
        let visitor = Visitor::connect(address, host, authority.client(&[])).unwrap();
        assert_eq!(visitor.serial(), serial);
    }
    for host in ["c.test", "127.0.0.1"] {
        assert!(
            Visitor::connect(address, host, authority.client(&[])).is_err(),
            "{host}"
        );
    }
}

#[test]
fn regression_the_next_handshake_shows_the_new_certificate_without_a_restart() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = rig(&authority, &upstream);
    let mut open = visit(&rig, &authority).wire();
    for serial in 2..5 {
        show(&rig, "a.test", authority.issue("a.test", serial));
        assert_eq!(visit(&rig, &authority).serial(), format!("{serial:02}"));
        // Who is connected stays so.
        open.send(&get("a.test", "/"));
        assert_eq!(open.response().text(), "one");
    }
}

#[test]
fn tls_is_served_from_the_first_certificate_to_the_last() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = Rig::new();
    rig.add("a.test", secure(&upstream));
    assert_eq!(rig.ingress.https_address(), None);
    // Until there is one, and when it cannot be used, plain HTTP is served.
    assert_eq!(rig.get("/").text(), "one");
    let mut broken = authority.issue("a.test", 1);
    broken.key_sealed = authority.issue("b.test", 1).key_sealed;
    show(&rig, "a.test", broken);
    assert_eq!(rig.ingress.https_address(), None);
    assert_eq!(rig.get("/").text(), "one");
    show(&rig, "a.test", authority.issue("a.test", 2));
    assert_eq!(ask(&rig, &authority, &get("a.test", "/")).text(), "one");
    assert_eq!(rig.get("/").status(), 308);
    let address = rig.ingress.https_address().unwrap();
    rig.change(|table| table.certificates.clear());
    until("TLS is not served any more", || {
        TcpStream::connect(address).is_err()
    });
    assert_eq!(rig.get("/").text(), "one");
}

#[test]
fn plain_http_is_sent_to_the_same_address_within_tls() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let port = free_port();
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let rig = Rig::start(Settings {
        workers: 1,
        ..Settings::new(local(0), local(port), Arc::new(sealer()))
    });
    rig.add("a.test", secure(&upstream));
    rig.route("plain.test", "", &[&upstream]);
    show(&rig, "a.test", authority.issue("a.test", 1));
    let to = |request: &str| {
        let response = rig.ask(request);
        assert_eq!(response.status(), 308, "{}", response.head);
        response.header("location")[0].to_owned()
    };
    let at = format!("https://a.test:{port}");
    assert_eq!(
        to(&get("a.test", "/x/y?q=%2f&r")),
        format!("{at}/x/y?q=%2f&r")
    );
    assert_eq!(to(&get("a.test:8080", "/")), format!("{at}/"));
    let post = "POST /f HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(to(post), format!("{at}/f"));
    // Each way has its domains.
    assert_eq!(rig.ask(&get("plain.test", "/")).text(), "one");
    assert_eq!(ask(&rig, &authority, &get("plain.test", "/")).status(), 404);
}

#[test]
fn regression_a_challenge_is_answered_at_any_host_before_routes_and_redirects() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = rig(&authority, &upstream);
    rig.change(|table| {
        table
            .challenges
            .insert("tok-1".to_owned(), "tok-1.print".to_owned());
    });
    for host in ["a.test", "nobody.test"] {
        let path = "/.well-known/acme-challenge/tok-1";
        let response = rig.ask(&get(host, path));
        assert_eq!((response.status(), response.text()), (200, "tok-1.print"));
    }
    assert_eq!(upstream.requests().len(), 0);
    // What is not ours may be the service's own.
    let other = "/.well-known/acme-challenge/tok-2";
    assert_eq!(ask(&rig, &authority, &get("a.test", other)).text(), "one");
    assert_eq!(rig.ask(&get("nobody.test", other)).status(), 404);
}

#[test]
fn a_handshake_that_does_not_end_is_closed() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = Rig::with_limits(Limits {
        header_read: Duration::from_millis(200),
        ..Limits::default()
    });
    rig.add("a.test", secure(&upstream));
    show(&rig, "a.test", authority.issue("a.test", 1));
    let mut silent = Wire::connect(rig.ingress.https_address().unwrap());
    assert!(silent.ended());
}

#[test]
fn a_visitor_that_says_goodbye_ends_its_request_upstream() {
    let authority = Authority::new();
    let (left, leaves) = mpsc::channel();
    let upstream = Upstream::raw(move |mut wire| {
        wire.request();
        left.send(()).unwrap();
        assert!(wire.ended());
        left.send(()).unwrap();
    });
    let rig = rig(&authority, &upstream);
    let mut stream = visit(&rig, &authority).stream;
    stream.write_all(get("a.test", "/").as_bytes()).unwrap();
    leaves.recv_timeout(DEADLINE).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    leaves.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn a_websocket_passes_through_tls() {
    let authority = Authority::new();
    let upstream = Upstream::raw(|mut wire| {
        if wire.head().is_some() {
            wire.send("HTTP/1.1 101 Switching Protocols\r\n");
            wire.send("Connection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            let said = wire.take(4);
            wire.write(&said).unwrap();
        }
    });
    let rig = rig(&authority, &upstream);
    let mut wire = visit(&rig, &authority).wire();
    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\n");
    wire.send("Upgrade: websocket\r\n\r\n");
    let head = wire.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    wire.send("ping");
    assert_eq!(wire.take(4), b"ping");
}

#[test]
fn large_bodies_pass_both_ways() {
    const SIZE: usize = 5_000_000;
    let authority = Authority::new();
    let upstream = large(SIZE);
    let rig = rig(&authority, &upstream);
    let body = "x".repeat(SIZE);
    let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n");
    let response = ask(&rig, &authority, &(head + &body));
    assert_eq!(response.body.len(), SIZE);
}
