//! Requests that two servers could read differently, and bytes that are no requests at all.

use std::net::{Ipv4Addr, SocketAddr};

use jaco_adapters::ingress::Limits;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::{Rig, Upstream, get, ok};

/// Headers after a good request line and host, and a body that would be a second request to
/// whoever read the length the other way.
const AMBIGUOUS: [&str; 22] = [
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\nX: y\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    "Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "Content-Length: 5, 5\r\n\r\nabcde",
    "Content-Length: +5\r\n\r\nabcde",
    "Content-Length: 0x5\r\n\r\nabcde",
    "Content-Length: -1\r\n\r\nabcde",
    "Content-Length: \r\n\r\nabcde",
    "Content-Length: 99999999999999999999\r\n\r\nabcde",
    "Content-Length : 5\r\n\r\nabcde",
    "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    " X: y\r\n\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "X\0: y\r\n\r\n",
];

#[test]
fn ambiguous_lengths_are_refused_and_the_connection_closed() {
    let upstream = Upstream::text("smuggled");
    let rig = Rig::single(&upstream);
    for headers in AMBIGUOUS {
        let mut client = rig.client();
        let request = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{headers}");
        client.send(&format!("{request}{}", get("a.test", "/smuggled")));
        let answer = client.response();
        assert_eq!(answer.status(), 400, "{headers:?}");
        assert!(client.ended(), "{headers:?}");
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
}

#[test]
fn an_ambiguous_request_is_refused_however_it_is_cut() {
    let upstream = Upstream::answering(|request| Some(ok(request.first())));
    let rig = Rig::single(&upstream);
    let request = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{}", AMBIGUOUS[0]);
    for cut in (1..request.len() - 5).step_by(7) {
        let mut client = rig.client();
        let (first, second) = request.split_at(cut);
        client.send(&format!("{}{first}", get("a.test", "/before")));
        assert_eq!(client.response().text(), "GET /before HTTP/1.1");
        client.send(second);
        assert_eq!(client.response().status(), 400, "cut at {cut}");
        assert!(client.ended());
    }
}

#[test]
fn requests_before_an_ambiguous_one_are_answered() {
    let upstream = Upstream::answering(|request| Some(ok(request.first())));
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    let bad = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{}", AMBIGUOUS[1]);
    client.send(&format!(
        "{}{}{bad}",
        get("a.test", "/1"),
        get("a.test", "/2")
    ));
    assert_eq!(client.response().text(), "GET /1 HTTP/1.1");
    assert_eq!(client.response().text(), "GET /2 HTTP/1.1");
    assert_eq!(client.response().status(), 400);
    assert!(client.ended());
}

#[test]
fn a_coding_is_not_for_http_1_0() {
    let upstream = Upstream::text("smuggled");
    let rig = Rig::single(&upstream);
    let request = "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(rig.ask(request).status(), 400);
}

#[test]
fn bad_chunks_end_the_connection() {
    for chunks in [
        "x\r\n",
        "\r\n",
        "-1\r\na\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1 1\r\na\r\n0\r\n\r\n",
    ] {
        let upstream = Upstream::text("smuggled");
        let rig = Rig::single(&upstream);
        let mut client = rig.client();
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(&format!("{head}{chunks}{}", get("a.test", "/smuggled")));
        let answer = String::from_utf8(client.rest()).unwrap();
        assert!(!answer.contains(" 200 "), "{chunks:?}: {answer}");
        assert!(
            upstream.requests().is_empty(),
            "{chunks:?}: {:?}",
            upstream.requests()
        );
    }
}

#[test]
fn bad_request_lines_are_refused() {
    let upstream = Upstream::text("smuggled");
    let rig = Rig::single(&upstream);
    for line in [
        "GET  / HTTP/1.1",
        "GET /\tx HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / http/1.1",
        "GET /",
        "GET / HTTP/1.1 x",
        "G\"T / HTTP/1.1",
        "GET x HTTP/1.1",
        "GET * HTTP/1.1",
        "\0",
    ] {
        let mut client = rig.client();
        client.send(&format!("{line}\r\nHost: a.test\r\n\r\n"));
        assert_eq!(client.response().status(), 400, "{line:?}");
        assert!(client.ended(), "{line:?}");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_coding_of_a_response_wins_over_its_length() {
    let upstream = Upstream::answering(|_| {
        Some(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
             7\r\nwhole o\r\n2\r\nne\r\n0\r\n\r\n"
                .to_owned(),
        )
    });
    let response = Rig::single(&upstream).get("/");
    assert!(response.header("content-length").is_empty());
    assert_eq!(response.text(), "whole one");
}

#[test]
fn no_bytes_bring_the_ingress_down() {
    let upstream = Upstream::text("one");
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let rig = Rig::on(http, 2, Limits::default());
    rig.route("a.test", "", &[&upstream]);
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        Just(get("a.test", "/").into_bytes()),
        Just(b"POST / HTTP/1.1\r\nHost: a.test\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n\r\n".to_vec()),
        Just(b"Content-Length: 7\r\n\r\n".to_vec()),
        Just(b"Connection: upgrade\r\nUpgrade: x\r\nExpect: 100-continue\r\n".to_vec()),
        Just(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        Just(b"5\r\nabcde\r\n0\r\n\r\n".to_vec()),
    ];
    let config = Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = proptest::collection::vec(piece, 0..6);
    let outcome = TestRunner::new(config).run(&strategy, |pieces| {
        let mut client = rig.client();
        for piece in pieces {
            // The ingress may have closed already; that is an answer too.
            let _ = client.write(&piece);
        }
        client.finish();
        client.rest();
        prop_assert_eq!(rig.get("/").status(), 200);
        Ok(())
    });
    outcome.unwrap();
}
