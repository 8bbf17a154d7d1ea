//! Connections that change their protocol.

use std::sync::{Mutex, mpsc};

use super::support::{DEADLINE, Rig, Upstream, Wire, ok};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n";

/// Switches and repeats what it reads until the client has ended; then it says goodbye.
fn echo() -> Upstream {
    Upstream::raw(|mut wire| {
        let head = wire.head().unwrap().to_ascii_lowercase();
        assert!(head.contains("connection: upgrade"), "{head}");
        assert!(head.contains("upgrade: websocket"), "{head}");
        assert!(head.contains("sec-websocket-key: k"), "{head}");
        // What comes with the answer must not be lost.
        wire.send(&format!("{SWITCH}hello\n"));
        while let Some(line) = wire.line() {
            wire.send(&format!("{line}\n"));
        }
        wire.send("goodbye\n");
    })
}

fn switched(rig: &Rig) -> Wire {
    let mut client = rig.client();
    client.send(ASK);
    let response = client.bodiless();
    assert_eq!(response.status(), 101);
    assert_eq!(response.header("connection"), ["upgrade"]);
    assert_eq!(response.header("upgrade"), ["websocket"]);
    assert_eq!(response.header("sec-websocket-accept"), ["a"]);
    assert_eq!(client.line().unwrap(), "hello");
    client
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways() {
    let rig = Rig::single(&echo());
    let mut client = switched(&rig);
    for text in ["one", "GET / HTTP/1.1", "Content-Length: 1", ""] {
        client.send(&format!("{text}\n"));
        assert_eq!(client.line().unwrap(), text);
    }
}

#[test]
fn what_the_client_says_before_the_answer_is_carried_on() {
    let (asked, asks) = mpsc::channel();
    let (step, steps) = mpsc::channel::<()>();
    let steps = Mutex::new(steps);
    let upstream = Upstream::raw(move |mut wire| {
        wire.head().unwrap();
        asked.send(()).unwrap();
        steps.lock().unwrap().recv().unwrap();
        wire.send(SWITCH);
        while let Some(line) = wire.line() {
            wire.send(&format!("{line}\n"));
        }
    });
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    client.send(ASK);
    asks.recv_timeout(DEADLINE).unwrap();
    client.send("early\n");
    step.send(()).unwrap();
    assert_eq!(client.bodiless().status(), 101);
    client.send("late\n");
    assert_eq!(client.line().unwrap(), "early");
    assert_eq!(client.line().unwrap(), "late");
}

#[test]
fn either_side_of_a_tunnel_may_end_first() {
    let rig = Rig::single(&echo());
    let mut client = switched(&rig);
    client.send("last\n");
    client.finish();
    assert_eq!(client.line().unwrap(), "last");
    assert_eq!(client.line().unwrap(), "goodbye");
    assert!(client.ended());
}

#[test]
fn a_tunnel_outlives_its_route() {
    let rig = Rig::single(&echo());
    let mut client = switched(&rig);
    rig.change(|table| table.domains.clear());
    client.send("still here\n");
    assert_eq!(client.line().unwrap(), "still here");
}

#[test]
fn an_upstream_may_decline_to_upgrade() {
    let upstream = Upstream::text("no");
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    for _ in 0..2 {
        client.send(ASK);
        assert_eq!(client.response().text(), "no");
    }
}

#[test]
fn no_tunnel_is_opened_for_http_2_in_clear_text() {
    let upstream = Upstream::answering(|request| {
        assert!(request.header("upgrade").is_empty(), "{request:?}");
        assert!(request.header("http2-settings").is_empty(), "{request:?}");
        Some(ok("plain"))
    });
    let rig = Rig::single(&upstream);
    let answer = rig.ask(
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Upgrade: H2C\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    );
    assert_eq!(answer.text(), "plain");
}
