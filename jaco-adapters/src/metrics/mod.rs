//! Prometheus metrics: what was measured, and the page that tells it (spec 11, Telemetry).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jaco_core::ports::meter::{Measured, Meter};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};

use crate::transport::histogram::Histogram;
use crate::transport::seats::{Seated, Seats};

/// The version of the text format.
const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// A scraper sends its request at once.
const HEADER_READ: Duration = Duration::from_secs(10);
/// Connections at once.
const CONNECTIONS: usize = 16;
/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Counts replicas by service (`deployment/service`) and state.
pub type ReplicaStates = Box<dyn Fn() -> BTreeMap<(String, String), u64> + Send + Sync>;

/// Everything that is measured on one node.
#[derive(Default)]
pub struct Metrics {
    measured: Arc<Numbers>,
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Numbers {
    commits: Histogram,
    applies: Histogram,
    reconciles: Histogram,
    certificates: AtomicU64,
    starts: AtomicU64,
    names: AtomicU64,
}

impl Metrics {
    /// With nothing measured yet.
    pub fn new() -> Self {
        let metrics = Self::default();
        metrics.add(Box::new(Arc::clone(&metrics.measured)));
        metrics
    }

    /// Tells more on the page.
    pub fn add(&self, collector: Box<dyn Collector>) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(collector);
    }

    /// Tells how many replicas are in which state.
    pub fn add_replicas(&self, states: ReplicaStates) {
        self.add(Box::new(Replicas(states)));
    }

    /// The page.
    pub fn page(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = String::new();
        // Writing into a string does not fail, and our own collectors do not.
        if prometheus_text::encode(&mut page, &registry).is_err() {
            page.clear();
        }
        page
    }

    /// Serves the page at `/metrics` until the task is dropped. Where there are too many
    /// connections, the longest idle one is closed.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let seats = Seats::new(CONNECTIONS);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(Arc::clone(&self).connection(seats.take(stream)));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: Seated<TcpStream>) {
        let serve = service_fn(|request| {
            let answer = self.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ)
            .serve_connection(TokioIo::new(stream), serve)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a scrape ended");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut answer = Response::default();
        if request.uri().path() == "/metrics" {
            answer.headers_mut().insert(CONTENT_TYPE, FORMAT);
            *answer.body_mut() = self.page().into();
        } else {
            *answer.status_mut() = StatusCode::NOT_FOUND;
        }
        answer
    }
}

impl Meter for Metrics {
    fn record(&self, measured: Measured) {
        let numbers = &self.measured;
        let one = |count: &AtomicU64| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        match measured {
            Measured::Commit(took) => numbers.commits.observe(took),
            Measured::Apply(took) => numbers.applies.observe(took),
            Measured::Reconcile(took) => numbers.reconciles.observe(took),
            Measured::CertificateIssued => one(&numbers.certificates),
            Measured::ContainerStarted => one(&numbers.starts),
            Measured::NameAsked => one(&numbers.names),
        }
    }
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, histogram) in [
            (
                "jaco_raft_commit_latency_seconds",
                "From a proposal on this node to its commit",
                &self.commits,
            ),
            (
                "jaco_apply_duration_seconds",
                "Applying committed entries on this node",
                &self.applies,
            ),
            (
                "jaco_scheduler_reconcile_seconds",
                "Planning on the leader, with the commit of the plan",
                &self.reconciles,
            ),
        ] {
            let kind = MetricType::Histogram;
            histogram.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        for (name, help, count) in [
            (
                "jaco_cert_renewals",
                "Certificates that a CA issued through this node",
                &self.certificates,
            ),
            (
                "jaco_runtime_container_starts",
                "Containers started on this node",
                &self.starts,
            ),
            (
                "jaco_dns_queries",
                "Names that containers of this node asked for",
                &self.names,
            ),
        ] {
            let kind = MetricType::Counter;
            let mut counter = encoder.encode_descriptor(name, help, None, kind)?;
            let count = count.load(Ordering::Relaxed);
            counter.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}

struct Replicas(ReplicaStates);

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replicas")
    }
}

impl Collector for Replicas {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = ("jaco_replica_state", "Replicas of the cluster by state");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for ((service, state), count) in (self.0)() {
            let labels = [("service", service), ("state", state)];
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            family.encode_family(&labels)?.encode_gauge(&count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_what_was_measured_under_the_names_of_the_specification() {
        let metrics = Metrics::new();
        metrics.add_replicas(Box::new(|| {
            let key = ("shop/web".to_owned(), "running".to_owned());
            BTreeMap::from([(key, 3)])
        }));
        metrics.record(Measured::Commit(Duration::from_millis(3)));
        metrics.record(Measured::Commit(Duration::from_secs(100)));
        metrics.record(Measured::NameAsked);
        let page = metrics.page();
        for line in [
            "# TYPE jaco_raft_commit_latency_seconds histogram",
            "jaco_raft_commit_latency_seconds_bucket{le=\"0.0025\"} 0",
            "jaco_raft_commit_latency_seconds_bucket{le=\"0.005\"} 1",
            "jaco_raft_commit_latency_seconds_bucket{le=\"60\"} 1",
            "jaco_raft_commit_latency_seconds_bucket{le=\"+Inf\"} 2",
            "jaco_raft_commit_latency_seconds_count 2",
            "jaco_raft_commit_latency_seconds_sum 100.003",
            "jaco_apply_duration_seconds_count 0",
            "jaco_scheduler_reconcile_seconds_count 0",
            "jaco_dns_queries_total 1",
            "jaco_cert_renewals_total 0",
            "jaco_runtime_container_starts_total 0",
            "jaco_replica_state{service=\"shop/web\",state=\"running\"} 3",
        ] {
            assert!(page.lines().any(|own| own == line), "{line}\n{page}");
        }
    }

    #[tokio::test]
    async fn strangers_that_say_nothing_keep_no_scrape_out() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = tokio::spawn(Arc::new(Metrics::new()).serve(listener));
        let mut silent = Vec::new();
        for _ in 0..3 * CONNECTIONS {
            silent.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let mut scrape = TcpStream::connect(address).await.expect("a connection");
        let request = b"GET /metrics HTTP/1.0\r\n\r\n";
        scrape.write_all(request).await.expect("sent");
        let mut page = String::new();
        scrape.read_to_string(&mut page).await.expect("a page");
        assert!(page.contains("jaco_dns_queries_total"), "{page}");
        // The first of the others was closed for it.
        assert_eq!(silent[0].read(&mut [0]).await.ok(), Some(0));
        served.abort();
    }
}
