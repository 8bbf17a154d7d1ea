//! Which route a request takes, and what is answered when there is none.

use super::support::{Rig, Upstream, get, nowhere, route};

#[test]
fn the_host_chooses_the_service() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let rig = Rig::new();
    rig.route("one.test", "", &[&one]);
    rig.route("two.test", "", &[&two]);
    for (host, text) in [
        ("one.test", "one"),
        ("two.test", "two"),
        ("TWO.Test", "two"),
        ("one.test:8080", "one"),
        ("One.TEST:80", "one"),
    ] {
        assert_eq!(rig.ask(&get(host, "/")).text(), text, "{host}");
    }
}

#[test]
fn the_longest_path_on_a_segment_boundary_wins() {
    let (all, api, v2) = (
        Upstream::text("all"),
        Upstream::text("api"),
        Upstream::text("v2"),
    );
    let rig = Rig::new();
    rig.route("a.test", "/api", &[&api]);
    rig.route("a.test", "", &[&all]);
    rig.route("a.test", "/api/v2", &[&v2]);
    for (path, text) in [
        ("/", "all"),
        ("/apix", "all"),
        ("/api", "api"),
        ("/api?x=/api/v2", "api"),
        ("/api/v1", "api"),
        ("/api/v2", "v2"),
        ("/api/v2/", "v2"),
        ("/api/v2x", "api"),
    ] {
        assert_eq!(rig.get(path).text(), text, "{path}");
    }
}

#[test]
fn a_stripped_prefix_leaves_the_rest_byte_for_byte() {
    let upstream = Upstream::answering(|request| {
        let target = request.first().split(' ').nth(1).unwrap();
        Some(super::support::ok(target))
    });
    let rig = Rig::new();
    rig.strip("a.test", "/api", &[&upstream]);
    for (asked, told) in [
        ("/api", "/"),
        ("/api/", "/"),
        ("/api/x", "/x"),
        ("/api?", "/?"),
        ("/api?a=%2F%2f&b=+//;'!*", "/?a=%2F%2f&b=+//;'!*"),
        ("/api/%41/./..//x?/api/&&=", "/%41/./..//x?/api/&&="),
        ("http://a.test/api/x?y", "/x?y"),
    ] {
        assert_eq!(rig.get(asked).text(), told, "{asked}");
    }
}

#[test]
fn an_absolute_target_names_the_host() {
    let upstream = Upstream::text("one");
    let rig = Rig::single(&upstream);
    assert_eq!(
        rig.ask(&get("other.test", "http://A.test:80/x?y")).status(),
        200
    );
    let request = upstream.request();
    assert_eq!(request.first(), "GET /x?y HTTP/1.1");
    assert_eq!(request.header("host"), ["A.test:80"]);
    assert_eq!(rig.ask(&get("a.test", "http://other.test/")).status(), 404);
}

#[test]
fn an_unknown_host_or_path_is_not_found() {
    let upstream = Upstream::text("one");
    let rig = Rig::new();
    rig.route("a.test", "/only", &[&upstream]);
    for request in [
        get("b.test", "/only"),
        get("sub.a.test", "/only"),
        get("127.0.0.1", "/only"),
        get("[::1]:80", "/only"),
        get("a.test", "/other"),
    ] {
        let answer = rig.ask(&request);
        assert_eq!(answer.status(), 404, "{request}");
        assert_eq!(answer.header("server"), ["jaco"]);
        assert_eq!(answer.header("date").len(), 1);
        assert_eq!(
            answer.text(),
            "no service is routed at this host and path\n"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_service_without_a_healthy_replica_is_a_bad_gateway() {
    let rig = Rig::new();
    rig.add("none.test", route("", false, &[]));
    rig.add("gone.test", route("", false, &[nowhere()]));
    for (host, text) in [
        ("none.test", "the service has no healthy replica\n"),
        ("gone.test", "no replica of the service could be reached\n"),
    ] {
        let answer = rig.ask(&get(host, "/"));
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.header("server"), ["jaco"]);
        assert_eq!(answer.header("retry-after"), ["1"]);
        assert_eq!(answer.text(), text);
    }
}

#[test]
fn a_request_must_name_one_host() {
    let upstream = Upstream::text("one");
    let rig = Rig::single(&upstream);
    for headers in [
        "",
        "Host: a.test\r\nHost: a.test\r\n",
        "Host: a.test\r\nHost: b.test\r\n",
        "Host:\r\n",
        "Host: a.test:x\r\n",
        "Host: a.test:80:80\r\n",
        "Host: a.test/x\r\n",
        "Host: a.test, b.test\r\n",
        "Host: user@a.test\r\n",
    ] {
        let answer = rig.ask(&format!("GET / HTTP/1.1\r\n{headers}\r\n"));
        assert_eq!(answer.status(), 400, "{headers}");
        assert_eq!(answer.header("server"), ["jaco"]);
        assert_eq!(answer.header("connection"), ["close"]);
    }
    assert_eq!(rig.ask("GET / HTTP/1.0\r\n\r\n").status(), 400);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn no_tunnel_is_opened_for_connect() {
    let upstream = Upstream::text("one");
    let rig = Rig::single(&upstream);
    let answer = rig.ask("CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(answer.status(), 405);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_new_table_counts_from_the_next_request_of_an_open_connection() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let rig = Rig::single(&one);
    let mut client = rig.client();
    client.send(&get("a.test", "/"));
    assert_eq!(client.response().text(), "one");
    rig.change(|table| table.domains.clear());
    client.send(&get("a.test", "/"));
    assert_eq!(client.response().status(), 404);
    rig.route("a.test", "", &[&two]);
    client.send(&get("a.test", "/"));
    assert_eq!(client.response().text(), "two");
}
