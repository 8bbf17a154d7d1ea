//! What an upstream is told, and what stays on one hop.

use super::support::{Rig, Upstream, get};

#[test]
fn an_upstream_is_told_about_the_client() {
    let upstream = Upstream::text("one");
    let rig = Rig::single(&upstream);
    rig.ask(
        "GET /x HTTP/1.1\r\nHost: A.test:80\r\nX-Forwarded-For: 1.2.3.4\r\n\
         x-forwarded-for: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
         X-Request-Id: mine\r\nAccept: */*\r\n\r\n",
    );
    let request = upstream.request();
    assert_eq!(request.first(), "GET /x HTTP/1.1");
    assert_eq!(request.header("host"), ["A.test:80"]);
    assert_eq!(request.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.header("x-forwarded-proto"), ["http"]);
    assert_eq!(request.header("x-forwarded-host"), ["A.test:80"]);
    assert_eq!(request.header("accept"), ["*/*"]);
    let id = request.header("x-request-id");
    assert_eq!(id.len(), 1);
    assert_eq!(id[0].len(), 32);
    assert!(id[0].bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?}");
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let upstream = Upstream::text("one");
    let rig = Rig::single(&upstream);
    for _ in 0..20 {
        rig.get("/");
    }
    let requests = upstream.requests();
    let ids = requests
        .iter()
        .map(|request| request.header("x-request-id")[0]);
    let ids: std::collections::BTreeSet<_> = ids.collect();
    assert_eq!(ids.len(), 20);
}

#[test]
fn headers_of_one_hop_end_here() {
    let upstream = Upstream::answering(|_| {
        Some(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, x-hop\r\n\
             Connection: X-Other\r\nX-Hop: 1\r\nX-Other: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Authenticate: Basic\r\nX-Lasting: 1\r\nServer: theirs\r\n\r\n"
                .to_owned(),
        )
    });
    let rig = Rig::single(&upstream);
    let response = rig.ask(
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Hop,, host\r\n\
         Connection: x-other, Content-Length, X-Forwarded-For\r\nX-Hop: 1\r\nX-Other: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\n\
         TE: gzip\r\nUpgrade: websocket\r\nContent-Length: 2\r\nX-Lasting: 1\r\n\r\nab",
    );
    let request = upstream.request();
    for message in [&request, &response] {
        for name in [
            "connection",
            "x-hop",
            "x-other",
            "keep-alive",
            "te",
            "upgrade",
        ] {
            assert!(message.header(name).is_empty(), "{name}: {message:?}");
        }
        for name in [
            "proxy-connection",
            "proxy-authorization",
            "proxy-authenticate",
        ] {
            assert!(message.header(name).is_empty(), "{name}: {message:?}");
        }
        assert_eq!(message.header("x-lasting"), ["1"]);
    }
    assert_eq!(request.header("host"), ["a.test"]);
    assert_eq!(request.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.text(), "ab");
    assert_eq!(response.header("server"), ["theirs"]);
}

#[test]
fn a_date_is_added_when_the_upstream_has_none() {
    let dated = Upstream::answering(|_| {
        Some("HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n".to_owned())
    });
    let rig = Rig::single(&dated);
    assert_eq!(rig.get("/").header("date"), ["then"]);
    let upstream = Upstream::text("one");
    rig.route("b.test", "", &[&upstream]);
    let date = rig.ask(&get("b.test", "/"));
    assert!(date.header("date")[0].ends_with("GMT"), "{date:?}");
}

#[test]
fn repeated_headers_and_reasons_come_through() {
    let upstream = Upstream::answering(|_| {
        Some(
            "HTTP/1.1 299 Very Well\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
             Content-Length: 0\r\n\r\n"
                .to_owned(),
        )
    });
    let rig = Rig::single(&upstream);
    let response = rig.get("/");
    assert_eq!(response.first(), "HTTP/1.1 299 Very Well");
    assert_eq!(response.header("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn what_strangers_say_of_themselves_does_not_pass() {
    let upstream = Upstream::text("one");
    let rig = Rig::single(&upstream);
    rig.ask(
        "GET / HTTP/1.1\r\nHost: a.test:8443\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\
         X-Forwarded-Prefix: /admin\r\nX_Forwarded_For: 1.2.3.4\r\nX-Forwarded_Ssl: on\r\n\
         x_real_ip: 1.2.3.4\r\nX-Forwarded-Port: 1\r\nX-Realm: kept\r\nX_Custom: kept\r\n\r\n",
    );
    let request = upstream.request();
    for name in [
        "forwarded",
        "x-real-ip",
        "x-forwarded-prefix",
        "x_forwarded_for",
        "x-forwarded_ssl",
        "x_real_ip",
    ] {
        assert_eq!(request.header(name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(request.header("x-forwarded-port"), ["80"]);
    assert_eq!(request.header("x-realm"), ["kept"]);
    assert_eq!(request.header("x_custom"), ["kept"]);
}
