//! Clients and upstreams that are too slow or too large.

use std::time::{Duration, Instant};

use jaco_adapters::ingress::Limits;

use super::support::{DEADLINE, Rig, Upstream, get, post};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(3600);

/// Nothing is limited but what a test sets.
fn patient() -> Limits {
    Limits {
        header_read: LONG,
        idle: LONG,
        response_header: LONG,
        ..Limits::default()
    }
}

fn rig(limits: Limits, upstream: &Upstream) -> Rig {
    let rig = Rig::with_limits(limits);
    rig.route("a.test", "", &[upstream]);
    rig
}

fn at_least(limit: Duration, start: Instant) {
    let took = start.elapsed();
    assert!(took >= limit && took < DEADLINE, "{took:?}");
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let upstream = Upstream::text("one");
    let rig = Rig::single(&upstream);
    let request = |size| {
        let padding = "x".repeat(size);
        format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {padding}\r\n\r\n")
    };
    assert_eq!(rig.ask(&request(60_000)).text(), "one");
    assert_eq!(rig.ask(&request(65_536)).status(), 431);
    let many = "X: y\r\n".repeat(10_000);
    let many = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n");
    assert_eq!(rig.ask(&many).status(), 431);
}

#[test]
fn a_head_that_does_not_end_is_closed() {
    let limits = Limits {
        header_read: SHORT,
        ..patient()
    };
    let upstream = Upstream::text("one");
    let rig = rig(limits, &upstream);
    let mut client = rig.client();
    client.send(&get("a.test", "/"));
    assert_eq!(client.response().text(), "one");
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a.t");
    assert!(client.ended());
    at_least(SHORT, start);
}

#[test]
fn a_connection_without_a_request_is_closed() {
    let limits = Limits {
        idle: SHORT,
        ..patient()
    };
    let upstream = Upstream::text("one");
    let rig = rig(limits, &upstream);
    let mut client = rig.client();
    for used in [false, true] {
        if used {
            client = rig.client();
            client.send(&get("a.test", "/"));
            assert_eq!(client.response().text(), "one");
        }
        let start = Instant::now();
        assert!(client.ended());
        at_least(SHORT / 2, start);
    }
}

#[test]
fn a_client_that_stops_in_its_body_is_closed() {
    let limits = Limits {
        idle: SHORT,
        ..patient()
    };
    let upstream = Upstream::text("one");
    let rig = rig(limits, &upstream);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nab");
    assert!(client.ended());
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_response_may_pause_for_longer_than_a_client_may_idle() {
    let limits = Limits {
        idle: SHORT,
        ..patient()
    };
    let upstream = Upstream::raw(|mut wire| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na");
        wire.stream().set_read_timeout(Some(4 * SHORT)).unwrap();
        let _ = wire.stream().peek(&mut [0]);
        wire.send("b");
    });
    assert_eq!(rig(limits, &upstream).get("/").text(), "ab");
}

#[test]
fn an_upstream_that_does_not_answer_is_a_gateway_timeout() {
    let limits = Limits {
        response_header: SHORT,
        ..patient()
    };
    let upstream = Upstream::raw(|mut wire| {
        wire.request();
        wire.rest();
    });
    let rig = rig(limits, &upstream);
    for request in [get("a.test", "/"), post("body")] {
        let start = Instant::now();
        let answer = rig.ask(&request);
        assert_eq!(answer.status(), 504);
        assert_eq!(answer.header("server"), ["jaco"]);
        at_least(SHORT, start);
    }
}

#[test]
fn an_upstream_s_time_runs_from_the_end_of_the_request() {
    let limits = Limits {
        response_header: SHORT,
        ..patient()
    };
    let upstream = Upstream::answering(|_| Some(super::support::ok("late")));
    let rig = rig(limits, &upstream);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\n\r\n");
    for byte in ["a", "b", "c", "d", "e", "f"] {
        client.stream().set_read_timeout(Some(SHORT / 3)).unwrap();
        assert!(client.stream().peek(&mut [0]).is_err(), "answered early");
        client.send(byte);
    }
    client.stream().set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(client.response().text(), "late");
}
