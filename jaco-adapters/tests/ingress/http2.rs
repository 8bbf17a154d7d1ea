//! HTTP/2 to visitors, HTTP/1.1 to upstreams.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use jaco_adapters::ingress::Limits;
use jaco_core::id::Domain;

use super::support::{
    Authority, Body, DEADLINE, Rig, Upstream, large, ok, secure, speak, speak_with_window,
};

/// One upstream behind `a.test` within TLS.
fn rig(authority: &Authority, upstream: &Upstream, limits: Limits) -> Rig {
    let rig = Rig::with_limits(limits);
    rig.add("a.test", secure(upstream));
    let served = authority.issue("a.test", 1);
    rig.change(|table| {
        table
            .certificates
            .insert(Domain::from("a.test"), Arc::new(served));
    });
    rig
}

fn request(method: &str, path: &str, body: Body) -> Request<Body> {
    let uri = format!("https://a.test{path}");
    Request::builder()
        .method(method)
        .uri(uri)
        .body(body)
        .unwrap()
}

fn empty() -> Body {
    Full::default().boxed_unsync()
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn a_request_is_told_to_the_upstream_as_http_1() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = rig(&authority, &upstream, Limits::default());
    speak(&rig, &authority, |mut sender| async move {
        let mut request = request("GET", "/x?y", empty());
        for cookie in ["a=1", "b=2"] {
            request
                .headers_mut()
                .append("cookie", cookie.parse().unwrap());
        }
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response).await, "one");
    });
    let seen = upstream.request();
    assert_eq!(seen.first(), "GET /x?y HTTP/1.1");
    for (name, value) in [
        ("host", "a.test"),
        ("x-forwarded-host", "a.test"),
        ("x-forwarded-proto", "https"),
        ("cookie", "a=1; b=2"),
    ] {
        assert_eq!(seen.header(name), [value], "{name}");
    }
}

#[test]
fn a_body_of_unknown_length_and_its_trailers_arrive() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = rig(&authority, &upstream, Limits::default());
    speak(&rig, &authority, |mut sender| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let frames = [
            Frame::data(Bytes::from("ab")),
            Frame::data(Bytes::from("cd")),
            Frame::trailers(trailers),
        ];
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
        let mut request = request("POST", "/", body.boxed_unsync());
        let names = request.headers_mut();
        names.insert("trailer", "x-sum".parse().unwrap());
        names.insert("te", "trailers".parse().unwrap());
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(text(response).await, "one");
    });
    let seen = upstream.request();
    assert_eq!(seen.text(), "abcd");
    assert_eq!(seen.header("transfer-encoding"), ["chunked"]);
    assert!(seen.trailers.contains("x-sum: 7"), "{}", seen.trailers);
}

#[test]
fn the_upstreams_trailers_arrive() {
    let authority = Authority::new();
    let upstream = Upstream::answering(|_| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n";
        Some(format!("{head}3\r\none\r\n0\r\nx-sum: 9\r\n\r\n"))
    });
    let rig = rig(&authority, &upstream, Limits::default());
    let sum = speak(&rig, &authority, |mut sender| async move {
        let response = sender.send_request(request("GET", "/", empty())).await;
        let body = response.unwrap().into_body().collect().await.unwrap();
        let sum = body.trailers().map(|trailers| trailers["x-sum"].clone());
        (sum, body.to_bytes())
    });
    assert_eq!(sum.1, "one");
    assert_eq!(sum.0.unwrap(), "9");
}

#[test]
fn events_arrive_as_they_are_sent() {
    let authority = Authority::new();
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
    let rig = rig(&authority, &upstream, Limits::default());
    speak(&rig, &authority, |mut sender| async move {
        let response = sender.send_request(request("GET", "/", empty())).await;
        let mut body = response.unwrap().into_body();
        for _ in 0..3 {
            step.send(()).unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "data: x");
        }
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    });
}

#[test]
fn requests_of_one_connection_run_beside_each_other() {
    const COUNT: usize = 20;
    let authority = Authority::new();
    // Nobody is answered before all have asked.
    let all = Arc::new(std::sync::Barrier::new(COUNT));
    let upstream = Upstream::answering(move |request| {
        all.wait();
        Some(ok(request.first().split(' ').nth(1).unwrap()))
    });
    let rig = rig(&authority, &upstream, Limits::default());
    let answers = speak(&rig, &authority, |sender| async move {
        let ask = |number: usize| {
            let mut sender = sender.clone();
            async move {
                let request = request("GET", &format!("/{number}"), empty());
                text(sender.send_request(request).await.unwrap()).await
            }
        };
        join_all((0..COUNT).map(ask)).await
    });
    let expected: Vec<String> = (0..COUNT).map(|number| format!("/{number}")).collect();
    assert_eq!(answers, expected);
}

#[test]
fn large_bodies_pass_both_ways() {
    const SIZE: usize = 5_000_000;
    let authority = Authority::new();
    let upstream = large(SIZE);
    let rig = rig(&authority, &upstream, Limits::default());
    let length = speak(&rig, &authority, |mut sender| async move {
        let body = Full::from("x".repeat(SIZE)).boxed_unsync();
        let response = sender.send_request(request("POST", "/", body)).await;
        text(response.unwrap()).await.len()
    });
    assert_eq!(length, SIZE);
}

#[test]
fn what_cannot_be_forwarded_is_answered_here() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = rig(&authority, &upstream, Limits::default());
    rig.route("plain.test", "", &[&upstream]);
    speak(&rig, &authority, |mut sender| async move {
        for uri in ["https://nobody.test/", "https://plain.test/"] {
            let request = Request::get(uri).body(empty()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{uri}");
            assert_eq!(response.headers()["server"], "jaco");
        }
    });
}

#[test]
fn a_connection_without_requests_is_closed() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let limits = Limits {
        idle: Duration::from_millis(200),
        ..Limits::default()
    };
    let rig = rig(&authority, &upstream, limits);
    speak(&rig, &authority, |mut sender| async move {
        let response = sender.send_request(request("GET", "/", empty())).await;
        assert_eq!(text(response.unwrap()).await, "one");
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    });
}

/// How long a client may take nothing in these tests.
const SHORT: Duration = Duration::from_millis(500);

fn impatient() -> Limits {
    Limits {
        idle: SHORT,
        ..Limits::default()
    }
}

#[test]
fn a_stream_whose_client_takes_nothing_is_reset_and_the_others_go_on() {
    let authority = Authority::new();
    let upstream = Upstream::answering(|_| Some(ok(&"x".repeat(16 << 20))));
    let rig = rig(&authority, &upstream, impatient());
    speak(&rig, &authority, |mut sender| async move {
        let stuck = sender
            .send_request(request("GET", "/", empty()))
            .await
            .unwrap();
        // Meanwhile the connection is in use, and answers pings.
        for _ in 0..8 {
            tokio::time::sleep(SHORT / 2).await;
            let other = sender
                .send_request(request("GET", "/", empty()))
                .await
                .unwrap();
            let body = other.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), 16 << 20);
        }
        assert!(
            stuck.into_body().collect().await.is_err(),
            "it was not reset"
        );
    });
}

#[test]
fn a_stream_whose_upstream_pauses_goes_on() {
    let authority = Authority::new();
    let upstream = Upstream::raw(|mut wire| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na");
        std::thread::sleep(4 * SHORT);
        wire.send("b");
    });
    let rig = rig(&authority, &upstream, impatient());
    speak(&rig, &authority, |mut sender| async move {
        let response = sender
            .send_request(request("GET", "/", empty()))
            .await
            .unwrap();
        assert_eq!(text(response).await, "ab");
    });
}

#[test]
fn a_slow_stream_that_takes_something_goes_on() {
    let authority = Authority::new();
    let upstream = Upstream::answering(|_| Some(ok(&"x".repeat(1 << 20))));
    let rig = rig(&authority, &upstream, impatient());
    // Room for one frame of the protocol at a time.
    let window = 16 * 1024;
    speak_with_window(&rig, &authority, window, |mut sender| async move {
        let response = sender
            .send_request(request("GET", "/", empty()))
            .await
            .unwrap();
        let mut body = response.into_body();
        let mut taken = 0;
        while let Some(frame) = body.frame().await {
            taken += frame.unwrap().into_data().unwrap().len();
            tokio::time::sleep(SHORT / 10).await;
        }
        assert_eq!(taken, 1 << 20);
    });
}
