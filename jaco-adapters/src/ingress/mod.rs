//! The proxy in front of the replicas: HTTP by host and path, TCP and UDP by published port
//! (spec 08).
//!
//! Each worker is a thread with its own runtime, its own `SO_REUSEPORT` sockets and its own
//! pool of upstream connections; a connection stays on the worker that accepted it. What
//! workers share is read only: the table, behind an atomic pointer, and a few counters.
//! Decisions (route, replica, retry) are `jaco_core::node::{ingress, balance}`.

mod access;
mod answer;
mod body;
mod exchange;
mod framing;
#[cfg(test)]
mod fuzz;
mod gate;
mod h2c;
mod headers;
mod http;
mod http2;
mod kept;
mod leave;
mod limits;
mod listener;
mod live;
mod pool;
mod preamble;
mod proxy;
mod settling;
mod slowness;
mod stall;
mod stream;
mod tally;
mod target;
mod tcp;
mod tls;
mod turns;
mod udp;
mod upgrade;
mod worker;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use jaco_core::manifest::spec::Protocol;
use jaco_core::node::ingress::RouteTable;
use jaco_core::node::trust::TrustedPeers;
use jaco_core::ports::{IngressProxy, Sealer};
use prometheus_client::collector::Collector;
use tokio::sync::{mpsc, watch};

use crate::transport::listeners::{self, Listeners, Listening, Serving};
pub use kept::Kept;
use leave::{Farewell, Stage};
pub use limits::Limits;
use listener::{Opened, Purpose};
use live::Live;
use tally::Tallies;
use worker::{Own, Shared};

/// The ingress of one node, on hyper. Dropping it closes every listener and connection.
pub struct HyperIngress {
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
}

/// Opens and closes listeners as the table says.
struct Control {
    http: SocketAddr,
    https: SocketAddr,
    sealer: Arc<dyn Sealer>,
    tallies: Arc<Tallies>,
    metered: bool,
    table: Arc<ArcSwap<Live>>,
    workers: Mutex<Vec<mpsc::UnboundedSender<Opened>>>,
    farewell: Farewell,
    kept: Arc<Kept>,
    listeners: Mutex<Listeners<Purpose>>,
}

/// What an ingress is started with.
#[derive(Clone)]
pub struct Settings {
    /// Where HTTP will be served.
    pub http: SocketAddr,
    /// Where TLS will be served; visitors of plain HTTP are sent to its port.
    pub https: SocketAddr,
    /// Threads.
    pub workers: usize,
    /// Times and sizes.
    pub limits: Limits,
    /// Counts what each route answers; see [`HyperIngress::collector`].
    pub metered: bool,
    /// Load balancers whose word about a visitor's address counts.
    pub trusted: TrustedPeers,
    /// Opens the keys of certificates.
    pub sealer: Arc<dyn Sealer>,
    /// Listening sockets that outlive the daemon.
    pub kept: Arc<Kept>,
}

impl Settings {
    /// One worker per core, the limits of spec 08, and no socket that is kept.
    pub fn new(http: SocketAddr, https: SocketAddr, sealer: Arc<dyn Sealer>) -> Self {
        Self {
            http,
            https,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            limits: Limits::default(),
            metered: false,
            trusted: TrustedPeers::default(),
            sealer,
            kept: Arc::default(),
        }
    }
}

impl HyperIngress {
    /// Starts without a listener. Must be called within a tokio runtime, which tries failed
    /// listeners again.
    ///
    /// # Errors
    /// When TLS cannot be configured.
    pub fn start(settings: Settings) -> std::io::Result<Self> {
        let table = Arc::new(ArcSwap::from_pointee(Live::default()));
        let tls = tls::config(Arc::clone(&table)).map_err(std::io::Error::other)?;
        let (stage, stages) = watch::channel(Stage::default());
        let shared = Shared {
            limits: settings.limits,
            tls,
            http_port: settings.http.port(),
            https_port: settings.https.port(),
            trusted: Arc::new(settings.trusted),
            tallies: Arc::default(),
            metered: settings.metered,
            stage: stages,
            kept: Arc::clone(&settings.kept),
        };
        let mut orders = Vec::new();
        let mut counts = Vec::new();
        let mut threads = Vec::new();
        let mut pages = Vec::new();
        for number in 0..settings.workers.max(1) {
            let (sender, receiver) = mpsc::unbounded_channel();
            let own = Own::default();
            pages.push(Arc::downgrade(&own.page));
            let under_way = Arc::clone(&own.under_way);
            match worker::start(number, Arc::clone(&table), shared.clone(), own, receiver) {
                Ok(thread) => {
                    orders.push(sender);
                    counts.push(under_way);
                    threads.push(thread);
                }
                Err(error) => tracing::error!(%error, number, "ingress worker did not start"),
            }
        }
        access::start(pages, Arc::clone(&shared.tallies))?;
        let control = Arc::new(Control {
            http: settings.http,
            https: settings.https,
            sealer: settings.sealer,
            tallies: shared.tallies,
            metered: settings.metered,
            table,
            workers: Mutex::new(orders),
            farewell: Farewell::new(stage, counts),
            kept: settings.kept,
            listeners: Mutex::default(),
        });
        tokio::spawn(listeners::retry(Arc::downgrade(&control)));
        tokio::spawn(kept::give_up(Arc::downgrade(&control.kept)));
        Ok(Self { control, threads })
    }

    /// What is counted, for a page of metrics.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(Arc::clone(&self.control.tallies))
    }

    /// Where HTTP is being served; none while no domain is routed.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.control.listeners().address(Purpose::Http)
    }

    /// Where TLS is being served; none while there is no certificate.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.control.listeners().address(Purpose::Https)
    }
}

#[async_trait]
impl IngressProxy for HyperIngress {
    fn publish(&self, table: Arc<RouteTable>) {
        self.control.publish(table);
    }

    fn failed_listeners(&self) -> Vec<(String, String)> {
        self.control.failed()
    }

    async fn leave(&self, grace: Duration) {
        let control = &self.control;
        control.farewell.drain(grace).await;
        control.farewell.enter(Stage::Closing);
        control.reconcile(&mut control.listeners());
        control.farewell.close().await;
    }
}

impl Drop for HyperIngress {
    fn drop(&mut self) {
        self.control.workers().clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Serving for Control {
    type Key = Purpose;

    fn shared(&self) -> &Mutex<Listeners<Purpose>> {
        &self.listeners
    }

    fn reconcile(&self, listeners: &mut Listeners<Purpose>) {
        let wanted = match self.farewell.stage() {
            Stage::Closing => BTreeSet::new(),
            Stage::Serving | Stage::Draining => wanted(&self.table.load()),
        };
        listeners.reconcile(&wanted, |purpose| self.open(purpose));
    }

    fn address(&self, purpose: Purpose) -> SocketAddr {
        match purpose {
            Purpose::Http => self.http,
            Purpose::Https => self.https,
            Purpose::Tcp(port) | Purpose::Udp(port) => {
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
            }
        }
    }
}

impl Control {
    fn publish(&self, table: Arc<RouteTable>) {
        let mut listeners = self.listeners();
        let tallies = self.metered.then_some(&*self.tallies);
        let live = Live::new(table, &self.table.load(), &*self.sealer, tallies);
        self.table.store(Arc::new(live));
        self.tallies.forget();
        self.reconcile(&mut listeners);
    }

    fn open(&self, purpose: Purpose) -> std::io::Result<Listening> {
        let workers = self.workers();
        let address = self.address(purpose);
        let name = purpose.kept_as();
        let mut sockets = name
            .as_ref()
            .map_or_else(Vec::new, |name| self.kept.take(name, address));
        if sockets.is_empty() {
            sockets = listener::bind(purpose, address, workers.len())?;
            if let Some(name) = &name {
                self.kept.keep(name, &sockets);
            }
        }
        let Some(first) = sockets.first() else {
            return Err(std::io::Error::other("no ingress worker is running"));
        };
        let address = listener::address(first)?;
        let (open, closing) = watch::channel(true);
        for (worker, socket) in workers.iter().cycle().zip(sockets) {
            let open = closing.clone();
            // A worker that is gone closes its socket, and its share goes to the others.
            let _ = worker.send(Opened {
                purpose,
                socket,
                open,
            });
        }
        Ok(Listening { address, open })
    }

    fn workers(&self) -> MutexGuard<'_, Vec<mpsc::UnboundedSender<Opened>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listeners that a table needs.
fn wanted(live: &Live) -> BTreeSet<Purpose> {
    let table = &live.routes;
    let ports = table.ports.keys().map(|&(port, protocol)| match protocol {
        Protocol::Tcp => Purpose::Tcp(port),
        Protocol::Udp => Purpose::Udp(port),
    });
    let mut wanted: BTreeSet<_> = ports.collect();
    if table.needs_http() {
        wanted.insert(Purpose::Http);
    }
    if live.shows_certificates() {
        wanted.insert(Purpose::Https);
    }
    wanted
}
