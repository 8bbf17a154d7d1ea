//! Bodies, their framing, and connections that serve more than one request.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};

use super::support::{DEADLINE, Rig, Upstream, Wire, get, ok, post, until};

#[test]
fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::text("one");
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    for _ in 0..10 {
        client.send(&get("a.test", "/"));
        assert_eq!(client.response().text(), "one");
    }
    for _ in 0..10 {
        assert_eq!(rig.get("/").text(), "one");
    }
    assert_eq!(upstream.requests().len(), 20);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::answering(|request| Some(ok(request.first())));
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    let requests: Vec<_> = (0..30).map(|n| get("a.test", &format!("/{n}"))).collect();
    client.send(&requests.concat());
    for n in 0..30 {
        assert_eq!(client.response().text(), format!("GET /{n} HTTP/1.1"));
    }
}

#[test]
fn what_comes_during_the_answer_to_another_request_is_answered_next() {
    let (asked, asks) = mpsc::channel();
    let (step, steps) = mpsc::channel::<()>();
    let steps = Mutex::new(steps);
    let upstream = Upstream::answering(move |request| {
        if request.first().contains("/first") {
            asked.send(()).unwrap();
            steps.lock().unwrap().recv().unwrap();
        }
        Some(ok(&format!("{} {}", request.first(), request.body.len())))
    });
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    client.send(&get("a.test", "/first"));
    asks.recv_timeout(DEADLINE).unwrap();
    let body = "b".repeat(10_000);
    client.send(&post(&body));
    client.send(&get("a.test", "/third"));
    step.send(()).unwrap();
    assert_eq!(client.response().text(), "GET /first HTTP/1.1 0");
    assert_eq!(client.response().text(), "POST / HTTP/1.1 10000");
    assert_eq!(client.response().text(), "GET /third HTTP/1.1 0");
}

#[test]
fn requests_wait_for_their_turn_and_not_for_the_answers_of_others() {
    const CLIENTS: usize = 200;
    let all = Arc::new(Barrier::new(CLIENTS));
    let upstream = Upstream::answering(move |_| {
        all.wait();
        Some(ok("all are here"))
    });
    let rig = Rig::single(&upstream);
    let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send(&get("a.test", "/"));
    }
    for client in &mut clients {
        assert_eq!(client.response().text(), "all are here");
    }
}

#[test]
fn a_client_of_http_1_0_is_closed_after_the_answer() {
    let upstream = Upstream::answering(|_| {
        Some("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n".into())
    });
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "one");
    assert!(response.header("transfer-encoding").is_empty());
    assert!(client.ended());
    assert_eq!(upstream.request().first(), "GET / HTTP/1.1");
}

#[test]
fn an_upstream_of_http_1_0_ends_its_body_by_closing() {
    let upstream = Upstream::raw(|mut wire| {
        wire.request();
        wire.send("HTTP/1.0 200 OK\r\n\r\nold ");
        wire.send("news");
    });
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    for _ in 0..2 {
        client.send(&get("a.test", "/"));
        let response = client.response();
        assert_eq!(response.first(), "HTTP/1.1 200 OK");
        assert_eq!(response.text(), "old news");
    }
}

#[test]
fn a_response_is_streamed_as_it_comes() {
    let (step, steps) = mpsc::channel::<()>();
    let steps = Mutex::new(steps);
    let upstream = Upstream::raw(move |mut wire| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n");
        wire.send("Transfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            steps.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            wire.send("7\r\ndata: x\r\n");
        }
        wire.send("0\r\n\r\n");
    });
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    client.send(&get("a.test", "/"));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    for _ in 0..3 {
        step.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"data: x");
    }
    assert!(client.chunk().is_none());
}

#[test]
fn a_request_is_streamed_as_it_comes() {
    let upstream = Upstream::raw(|mut wire| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while let Some(chunk) = wire.chunk() {
            let echo = format!(
                "{:x}\r\n{}\r\n",
                chunk.len(),
                String::from_utf8(chunk).unwrap()
            );
            wire.send(&echo);
        }
        wire.send("0\r\n\r\n");
    });
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head();
    for text in ["one", "twelve", "x"] {
        client.send(&format!("{:x};ext=1\r\n{text}\r\n", text.len()));
        assert_eq!(client.chunk().unwrap(), text.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert!(client.chunk().is_none());
}

#[test]
fn a_large_body_arrives_whole_both_ways() {
    let upstream = Upstream::answering(|request| Some(ok(request.text())));
    let rig = Rig::single(&upstream);
    let body: String = (0..1_000_000)
        .map(|n: u32| char::from(b'a' + (n % 26) as u8))
        .collect();
    let mut client = rig.client();
    let mut sender = Wire::new(client.stream().try_clone().unwrap());
    let request = post(&body);
    let sending = std::thread::spawn(move || sender.send(&request));
    assert!(client.response().text() == body);
    sending.join().unwrap();
}

#[test]
fn a_client_that_does_not_read_holds_the_upstream_back() {
    let blocked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&blocked);
    let upstream = Upstream::raw(move |mut wire| {
        wire.request();
        wire.stream()
            .set_write_timeout(Some(std::time::Duration::from_secs(1)))
            .unwrap();
        wire.send("HTTP/1.1 200 OK\r\n\r\n");
        let block = vec![b'x'; 1 << 20];
        // No kernel buffers as much.
        for _ in 0..256 {
            if let Err(error) = wire.write(&block) {
                let full = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                seen.store(full, Ordering::SeqCst);
                return;
            }
        }
    });
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    client.send(&get("a.test", "/"));
    until("the upstream is held back", || {
        blocked.load(Ordering::SeqCst)
    });
    assert!(client.head().is_some());
}

#[test]
fn a_get_may_have_a_body_and_keeps_its_framing() {
    let upstream = Upstream::answering(|request| Some(ok(request.text())));
    let rig = Rig::single(&upstream);
    let head = "GET / HTTP/1.1\r\nHost: a.test\r\n";
    let chunked = format!("{head}Transfer-Encoding: Chunked\r\n\r\n3\r\none\r\n0\r\n\r\n");
    assert_eq!(rig.ask(&chunked).text(), "one");
    assert_eq!(
        rig.ask(&format!("{head}Content-Length: 3\r\n\r\ntwo"))
            .text(),
        "two"
    );
    let framings: Vec<_> = upstream.requests();
    assert_eq!(framings[0].header("transfer-encoding"), ["chunked"]);
    assert_eq!(framings[1].header("content-length"), ["3"]);
}

#[test]
fn head_and_statuses_without_a_body_stay_without() {
    let upstream = Upstream::answering(|request| {
        let status = request.first().split(['/', ' ']).nth(2).unwrap();
        let length = if status == "204" {
            ""
        } else {
            "Content-Length: 5\r\n"
        };
        Some(format!("HTTP/1.1 {status} X\r\n{length}ETag: x\r\n\r\n"))
    });
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)] {
        let request = format!("{method} /{status} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        client.send(&request);
        let response = client.bodiless();
        assert_eq!(response.status(), status);
        assert_eq!(response.header("etag"), ["x"]);
        assert!(response.header("transfer-encoding").is_empty());
        if method == "HEAD" {
            assert_eq!(response.header("content-length"), ["5"]);
        }
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn an_own_answer_to_head_has_no_body() {
    let rig = Rig::single(&Upstream::text("one"));
    let mut client = rig.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: b.test\r\n\r\n");
        assert_eq!(client.bodiless().status(), 404);
    }
}

#[test]
fn trailers_come_through_both_ways() {
    let upstream = Upstream::answering(|request| {
        assert_eq!(request.trailers, "x-sum: 1\n");
        Some(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Total\r\n\r\n\
             1\r\na\r\n0\r\nX-Total: 2\r\n\r\n"
                .to_owned(),
        )
    });
    let rig = Rig::single(&upstream);
    let response = rig.ask(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
         Trailer: X-Sum\r\nConnection: TE\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    assert_eq!(response.text(), "a");
    assert_eq!(response.trailers, "x-total: 2\n");
    assert_eq!(upstream.request().header("te"), ["trailers"]);
}

#[test]
fn an_upstream_decides_about_an_expectation() {
    let upstream = Upstream::raw(|mut wire| {
        while let Some(head) = wire.head() {
            let head = head.to_ascii_lowercase();
            assert!(head.contains("expect: 100-continue"), "{head}");
            if head.contains("post /no") {
                wire.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
            } else {
                wire.send("HTTP/1.1 100 Continue\r\n\r\n");
                let body = wire.take(4);
                wire.send(&ok(&String::from_utf8(body).unwrap()));
            }
        }
    });
    let rig = Rig::single(&upstream);
    let request = |path| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    let mut client = rig.client();
    client.send(&request("/yes"));
    assert_eq!(client.head().unwrap(), "HTTP/1.1 100 Continue");
    client.send("body");
    assert_eq!(client.response().text(), "body");
    assert_eq!(rig.ask(&request("/no")).status(), 413);
}

#[test]
fn an_upstream_that_ignores_an_expectation_gets_the_body() {
    let upstream = Upstream::answering(|request| Some(ok(request.text())));
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.head().unwrap(), "HTTP/1.1 100 Continue");
    client.send("body");
    assert_eq!(client.response().text(), "body");
}

#[test]
fn a_response_that_breaks_off_is_not_taken_for_whole() {
    let upstream = Upstream::raw(|mut wire| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    });
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    client.send(&get("a.test", "/"));
    client.head();
    assert_eq!(client.chunk().unwrap(), b"one");
    assert!(client.ended());
}

#[test]
fn an_answer_to_a_body_that_nobody_reads_still_arrives() {
    let rig = Rig::single(&Upstream::text("one"));
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: b.test\r\nContent-Length: 100000000\r\n\r\n");
    let mut sender = Wire::new(client.stream().try_clone().unwrap());
    let sending = std::thread::spawn(move || {
        let block = vec![b'x'; 1 << 16];
        for _ in 0..100 {
            if sender.write(&block).is_err() {
                break;
            }
        }
    });
    assert_eq!(client.response().status(), 404);
    let _ = client.stream().shutdown(Shutdown::Both);
    sending.join().unwrap();
}

#[test]
fn a_client_that_leaves_ends_its_request_upstream() {
    let (left, leaves) = mpsc::channel();
    let upstream = Upstream::raw(move |mut wire| {
        wire.request();
        left.send(()).unwrap();
        assert!(wire.ended());
        left.send(()).unwrap();
    });
    let rig = Rig::single(&upstream);
    let mut client = rig.client();
    client.send(&get("a.test", "/"));
    leaves.recv_timeout(DEADLINE).unwrap();
    drop(client);
    leaves.recv_timeout(DEADLINE).unwrap();
}
