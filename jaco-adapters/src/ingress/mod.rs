//! The proxy in front of the replicas: HTTP by host and path, TCP by published port (spec 08).
//!
//! Each worker is a thread with its own runtime, its own `SO_REUSEPORT` sockets and its own
//! pool of upstream connections; a connection stays on the worker that accepted it. What
//! workers share is read only: the table, behind an atomic pointer, and a few counters.
//! Decisions (route, replica, retry) are `jaco_core::node::{ingress, balance}`.

mod answer;
mod body;
mod framing;
mod gate;
mod headers;
mod http;
mod limits;
mod listener;
mod live;
mod pool;
mod proxy;
mod slowness;
mod stream;
mod target;
mod tcp;
mod upgrade;

mod worker;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use jaco_core::manifest::spec::Protocol;
use jaco_core::node::ingress::RouteTable;
use jaco_core::ports::ingress_proxy::IngressProxy;
use tokio::sync::{mpsc, watch};

use crate::transport::listeners::{self, Listeners, Listening, Serving};
pub use limits::Limits;
use listener::{Opened, Purpose};
use live::Live;

/// The ingress of one node, on hyper. Dropping it closes every listener and connection.
pub struct HyperIngress {
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
}

/// Opens and closes listeners as the table says.
struct Control {
    http: SocketAddr,
    table: Arc<ArcSwap<Live>>,
    workers: Mutex<Vec<mpsc::UnboundedSender<Opened>>>,
    listeners: Mutex<Listeners<Purpose>>,
}

impl HyperIngress {
    /// Starts with one worker per core and no listener. `http` is where HTTP will be served.
    /// Must be called within a tokio runtime, which tries failed listeners again.
    pub fn start(http: SocketAddr) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_workers(http, cores)
    }

    /// Starts with a given number of workers.
    pub fn with_workers(http: SocketAddr, workers: usize) -> Self {
        Self::with_limits(http, workers, Limits::default())
    }

    /// Starts with limits other than spec 08's.
    pub fn with_limits(http: SocketAddr, workers: usize, limits: Limits) -> Self {
        let table = Arc::new(ArcSwap::from_pointee(Live::default()));
        let mut orders = Vec::new();
        let mut threads = Vec::new();
        for number in 0..workers.max(1) {
            let (sender, receiver) = mpsc::unbounded_channel();
            match worker::start(number, Arc::clone(&table), limits, receiver) {
                Ok(thread) => {
                    orders.push(sender);
                    threads.push(thread);
                }
                Err(error) => tracing::error!(%error, number, "ingress worker did not start"),
            }
        }
        let control = Arc::new(Control {
            http,
            table,
            workers: Mutex::new(orders),
            listeners: Mutex::default(),
        });
        tokio::spawn(listeners::retry(Arc::downgrade(&control)));
        Self { control, threads }
    }

    /// Where HTTP is being served; none while no domain is routed.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.control.listeners().address(Purpose::Http)
    }
}

impl IngressProxy for HyperIngress {
    fn publish(&self, table: Arc<RouteTable>) {
        self.control.publish(table);
    }

    fn failed_listeners(&self) -> Vec<(String, String)> {
        self.control.failed()
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
        let wanted = wanted(&self.table.load().routes);
        listeners.reconcile(&wanted, |purpose| self.open(purpose));
    }

    fn address(&self, purpose: Purpose) -> SocketAddr {
        match purpose {
            Purpose::Http => self.http,
            Purpose::Tcp(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        }
    }
}

impl Control {
    fn publish(&self, table: Arc<RouteTable>) {
        let mut listeners = self.listeners();
        let live = Live::new(table, &self.table.load());
        self.table.store(Arc::new(live));
        self.reconcile(&mut listeners);
    }

    fn open(&self, purpose: Purpose) -> std::io::Result<Listening> {
        let workers = self.workers();
        let sockets = listener::bind(self.address(purpose), workers.len())?;
        let Some(first) = sockets.first() else {
            return Err(std::io::Error::other("no ingress worker is running"));
        };
        let address = first.local_addr()?;
        let (open, closing) = watch::channel(true);
        for (worker, listener) in workers.iter().zip(sockets) {
            let open = closing.clone();
            // A worker that is gone closes its socket, and its share goes to the others.
            let _ = worker.send(Opened {
                purpose,
                listener,
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
fn wanted(table: &RouteTable) -> BTreeSet<Purpose> {
    let tcp = table
        .ports
        .keys()
        .filter(|(_, protocol)| *protocol == Protocol::Tcp);
    let mut wanted: BTreeSet<_> = tcp.map(|&(port, _)| Purpose::Tcp(port)).collect();
    if table.needs_http() {
        wanted.insert(Purpose::Http);
    }
    wanted
}
