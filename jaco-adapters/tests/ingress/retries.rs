//! Which replica is asked, and when another one is asked instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jaco_adapters::ingress::Limits;

use super::support::{DEADLINE, Rig, Upstream, addresses, get, nowhere, ok, post, route, until};

/// Reads a request and closes without an answer.
fn silent() -> Upstream {
    Upstream::answering(|_| None)
}

/// Answers once on each connection and closes it when the next request has come.
fn forgetful() -> Upstream {
    Upstream::raw(|mut wire| {
        if let Some(request) = wire.request() {
            wire.send(&ok(request.first()));
            wire.request();
        }
    })
}

#[test]
fn a_replica_that_cannot_be_reached_is_passed_over() {
    let upstream = Upstream::text("one");
    let rig = Rig::new();
    rig.add("a.test", route("", false, &[nowhere(), upstream.address]));
    for _ in 0..20 {
        assert_eq!(rig.get("/").text(), "one");
        assert_eq!(rig.ask(&post("nothing was sent")).text(), "one");
    }
}

#[test]
fn a_replica_that_could_not_be_reached_is_left_out_for_a_while() {
    let limits = Limits {
        ejection: Duration::from_millis(500),
        ..Limits::default()
    };
    let rig = Rig::with_limits(limits);
    let other = Upstream::text("other");
    let gone = nowhere();
    rig.add("a.test", route("", false, &[gone, other.address]));
    // Enough for one of them to have drawn the absent replica first.
    for _ in 0..40 {
        assert_eq!(rig.get("/").text(), "other");
    }
    let start = Instant::now();
    let _back = Upstream::at(gone, "back");
    until("the replica is tried again", || {
        rig.get("/").text() == "back"
    });
    // Some of the 40 requests may have taken long.
    assert!(start.elapsed() > Duration::from_millis(50));
}

#[test]
fn a_lost_request_is_repeated_when_that_does_no_harm() {
    for (method, repeated) in [
        ("GET", true),
        ("DELETE", true),
        ("POST", false),
        ("PATCH", false),
    ] {
        let (silent, other) = (silent(), Upstream::text("other"));
        let rig = Rig::new();
        rig.route("a.test", "", &[&silent, &other]);
        let mut lost = 0;
        while silent.requests().is_empty() {
            let request = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let status = rig.ask(&request).status();
            lost += usize::from(status == 502);
            assert!(repeated || status == 200 || lost == 1, "{method}: {status}");
        }
        assert_eq!(lost == 0, repeated, "{method}");
    }
}

#[test]
fn a_request_goes_to_three_replicas_at_most() {
    let upstreams: Vec<_> = (0..5).map(|_| silent()).collect();
    let rig = Rig::new();
    let all: Vec<_> = upstreams.iter().collect();
    rig.route("a.test", "", &all);
    let answer = rig.get("/");
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.header("retry-after"), ["1"]);
    let asked: Vec<_> = upstreams.iter().map(|one| one.requests().len()).collect();
    assert_eq!(asked.iter().sum::<usize>(), 3, "{asked:?}");
    assert!(asked.iter().all(|&count| count <= 1), "{asked:?}");
}

#[test]
fn a_body_that_was_begun_is_not_sent_twice() {
    let upstreams = [silent(), silent()];
    let rig = Rig::new();
    rig.route("a.test", "", &[&upstreams[0], &upstreams[1]]);
    let put = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(rig.ask(put).status(), 502);
    let asked: usize = upstreams.iter().map(|one| one.requests().len()).sum();
    assert_eq!(asked, 1);
}

#[test]
fn a_pooled_connection_that_was_closed_is_replaced_by_a_fresh_one() {
    // One closes while its connection waits, the other when it has the next request.
    let closing = Upstream::raw(|mut wire| {
        if let Some(request) = wire.request() {
            wire.send(&ok(request.first()));
        }
    });
    for upstream in [closing, forgetful()] {
        let rig = Rig::single(&upstream);
        for round in 0..10 {
            let response = rig.get(&format!("/{round}"));
            assert_eq!(response.text(), format!("GET /{round} HTTP/1.1"));
        }
    }
}

#[test]
fn a_post_is_not_lost_to_a_connection_that_was_closed_while_it_waited() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let upstream = Upstream::raw(move |mut wire| {
        if wire.request().is_some() {
            wire.send(&ok("one"));
            drop(wire);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let rig = Rig::single(&upstream);
    for round in 1..=10 {
        assert_eq!(rig.ask(&post("body")).text(), "one");
        until("the connection is closed", || {
            ended.load(Ordering::SeqCst) == round
        });
    }
}

#[test]
fn requests_spread_over_the_replicas_by_their_load() {
    let (free, waiting) = (
        std::sync::mpsc::channel::<()>(),
        Arc::new(AtomicUsize::new(0)),
    );
    let release = std::sync::Mutex::new(free.1);
    let count = Arc::clone(&waiting);
    let slow = Upstream::answering(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let _ = release.lock().unwrap().recv_timeout(DEADLINE);
        Some(ok("slow"))
    });
    let quick = Upstream::text("quick");
    let rig = Rig::new();
    rig.add("a.test", route("", false, &addresses(&[&slow, &quick])));
    let mut stuck = rig.client();
    while waiting.load(Ordering::SeqCst) == 0 {
        stuck = rig.client();
        stuck.send(&get("a.test", "/"));
        let _ = stuck
            .stream()
            .set_read_timeout(Some(Duration::from_millis(50)));
        let mut byte = [0];
        let _ = stuck.stream().peek(&mut byte);
    }
    for _ in 0..30 {
        assert_eq!(rig.get("/").text(), "quick");
    }
    stuck.stream().set_read_timeout(Some(DEADLINE)).unwrap();
    free.0.send(()).unwrap();
    assert_eq!(stuck.response().text(), "slow");
}

#[test]
fn an_upstream_that_changes_the_protocol_unasked_is_a_bad_gateway() {
    let upstream = Upstream::answering(|_| {
        Some("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".into())
    });
    assert_eq!(Rig::single(&upstream).get("/").status(), 502);
}

#[test]
fn nonsense_from_an_upstream_is_a_bad_gateway() {
    for nonsense in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
    ] {
        let upstream = Upstream::answering(move |_| Some(nonsense.to_owned()));
        let answer = Rig::single(&upstream).ask(&post("x"));
        assert_eq!(answer.status(), 502, "{nonsense}");
        assert_eq!(answer.header("server"), ["jaco"]);
    }
}
