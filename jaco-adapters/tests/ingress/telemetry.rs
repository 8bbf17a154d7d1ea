//! What the ingress tells of its requests: the access log, and numbers for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};

use jaco_adapters::ingress::Settings;
use jaco_adapters::metrics::Metrics;
use jaco_core::ports::ingress_proxy::IngressProxy;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::support::{Rig, Upstream, get, nowhere, ok, route, sealer, until};

type Line = BTreeMap<String, String>;

/// Keeps what is logged at info, for all tests of the process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    fn start() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let start = || {
            let log = Self::default();
            tracing::subscriber::set_global_default(log.clone()).unwrap();
            log
        };
        LOG.get_or_init(start).clone()
    }

    /// The first line about a host, which comes a little later than the answer.
    fn of(&self, host: &str) -> Line {
        let mut found = None;
        until("the line is written", || {
            let lines = self.0.lock().unwrap();
            let of_host = |line: &&Line| line.get("host").is_some_and(|own| own == host);
            found = lines.iter().find(of_host).cloned();
            found.is_some()
        });
        found.unwrap()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= &Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Fields::default();
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Fields(Line);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

#[test]
fn every_request_is_one_line_of_the_access_log() {
    let log = Log::start();
    let upstream = Upstream::answering(|_| {
        Some("HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello".to_owned())
    });
    let rig = Rig::new();
    rig.route("logged.test", "/api", &[&upstream]);
    rig.ask("DELETE /api/x?secret=1 HTTP/1.1\r\nHost: logged.test\r\nContent-Length: 0\r\n\r\n");
    let line = log.of("logged.test");
    let request = upstream.request();
    for (name, value) in [
        ("message", "request"),
        ("subsystem", "ingress"),
        ("method", "DELETE"),
        // Not the query, which may hold what nobody should keep.
        ("path", "/api/x"),
        ("status", "201"),
        ("bytes", "5"),
        ("upstream", &upstream.address.to_string()),
        ("client", "127.0.0.1"),
        ("request_id", request.header("x-request-id")[0]),
    ] {
        assert_eq!(
            line.get(name).map(String::as_str),
            Some(value),
            "{name}: {line:?}"
        );
    }
    assert!(line["micros"].parse::<u64>().is_ok(), "{line:?}");
}

#[test]
fn a_request_that_nobody_answers_is_told_without_an_upstream() {
    let log = Log::start();
    let rig = Rig::new();
    rig.add("refused.test", route("", false, &[nowhere()]));
    rig.ask(&get("refused.test", "/x"));
    rig.ask(&get("unknown.test", "/y"));
    let line = log.of("refused.test");
    assert_eq!(
        (line["status"].as_str(), line.get("upstream")),
        ("502", None)
    );
    let line = log.of("unknown.test");
    assert_eq!(
        (line["status"].as_str(), line["path"].as_str()),
        ("404", "/y")
    );
}

#[test]
fn answers_are_counted_by_route_and_status_over_changes_of_the_table() {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let rig = Rig::start(Settings {
        workers: 2,
        metered: true,
        ..Settings::new(any, any, Arc::new(sealer()))
    });
    let metrics = Metrics::new();
    metrics.add(rig.ingress.collector());
    let upstream = Upstream::answering(|request| {
        Some(match request.first().contains("missing") {
            true => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            false => ok("one"),
        })
    });
    rig.route("a.test", "/api", &[&upstream]);
    rig.route("a.test", "", &[&upstream]);
    for path in ["/api/x", "/x", "/api/missing", "/y"] {
        rig.get(path);
    }
    rig.ask(&get("b.test", "/"));
    rig.route("c.test", "", &[&upstream]);
    rig.get("/api/z");
    let expected = [
        "jaco_ingress_requests_total{route=\"\",code=\"404\"} 1",
        "jaco_ingress_requests_total{route=\"a.test\",code=\"200\"} 2",
        "jaco_ingress_requests_total{route=\"a.test/api\",code=\"200\"} 2",
        "jaco_ingress_requests_total{route=\"a.test/api\",code=\"404\"} 1",
        "jaco_ingress_duration_seconds_count{route=\"a.test/api\"} 3",
        "jaco_ingress_duration_seconds_count{route=\"c.test\"} 0",
        "jaco_ingress_wrong_proxy_headers_total 0",
    ];
    // An answer is counted when its end has been sent, which its client may see before.
    until("all are counted", || {
        let page = metrics.page();
        expected
            .iter()
            .all(|line| page.lines().any(|own| own == *line))
    });
    // What is routed no more is told no more.
    rig.ingress.publish(Arc::default());
    let gone = || !metrics.page().contains("a.test");
    until("the workers have let go of the old table", gone);
}
