//! The responder on the gateway of every bridge, and the forwarder behind it (spec 07, DNS).
//!
//! One thread with its own runtime holds every socket, so that nothing is locked on the way of
//! a question. What is answered and who is asked next is decided by `jaco_core::node::{dns,
//! forward}`; hickory reads and writes the messages.

mod batch;
mod cache;
mod exchange;
mod forwarder;
mod listener;
mod lookup;
mod message;
mod worker;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use jaco_core::node::dns::Zones;
use jaco_core::ports::{DnsResponder, Meter};
use tokio::sync::{mpsc, watch};

use crate::transport::listeners::{Listeners, Listening, Serving};
use listener::Opened;
pub use lookup::UpstreamLookup;

/// Where a responder listens and whom it asks.
#[derive(Clone)]
pub struct Settings {
    /// The port on every gateway; 53 but for tests.
    pub port: u16,
    /// In the order of asking.
    pub upstreams: Vec<SocketAddr>,
    /// How long one upstream may take.
    pub timeout: Duration,
    /// Told of every question.
    pub meter: Arc<dyn Meter>,
}

/// The responder of one node, on hickory. Dropping it closes every listener.
pub struct HickoryDns {
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

/// Opens and closes listeners as the zones say.
struct Control {
    port: u16,
    zones: Arc<ArcSwap<Zones>>,
    /// Absent while the responder is being dropped.
    worker: Mutex<Option<mpsc::UnboundedSender<Opened>>>,
    listeners: Mutex<Listeners<Ipv4Addr>>,
}

impl HickoryDns {
    /// Starts without a zone, and so without a listener.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(settings: Settings) -> std::io::Result<Self> {
        let (orders, opened) = mpsc::unbounded_channel();
        let control = Arc::new(Control {
            port: settings.port,
            zones: Arc::default(),
            worker: Mutex::new(Some(orders)),
            listeners: Mutex::default(),
        });
        let zones = Arc::clone(&control.zones);
        let thread = worker::start(settings, zones, opened, Arc::downgrade(&control))?;
        Ok(Self {
            control,
            thread: Some(thread),
        })
    }
}

impl DnsResponder for HickoryDns {
    fn publish(&self, zones: Arc<Zones>) {
        let mut listeners = self.control.listeners();
        self.control.zones.store(zones);
        self.control.reconcile(&mut listeners);
    }

    fn failed_listeners(&self) -> Vec<(String, String)> {
        self.control.failed()
    }
}

impl Drop for HickoryDns {
    fn drop(&mut self) {
        *self.control.worker() = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Serving for Control {
    type Key = Ipv4Addr;

    fn shared(&self) -> &Mutex<Listeners<Ipv4Addr>> {
        &self.listeners
    }

    fn reconcile(&self, listeners: &mut Listeners<Ipv4Addr>) {
        let wanted = self.zones.load().gateways().collect();
        listeners.reconcile(&wanted, |gateway| self.open(gateway));
    }

    fn address(&self, gateway: Ipv4Addr) -> SocketAddr {
        self.on(gateway).into()
    }
}

impl Control {
    fn open(&self, gateway: Ipv4Addr) -> std::io::Result<Listening> {
        let (open, closing) = watch::channel(true);
        let address = self.on(gateway);
        let opened = Opened::bind(address, closing)?;
        if let Some(worker) = &*self.worker() {
            let _ = worker.send(opened);
        }
        Ok(Listening {
            address: address.into(),
            open,
        })
    }

    fn on(&self, gateway: Ipv4Addr) -> SocketAddrV4 {
        SocketAddrV4::new(gateway, self.port)
    }

    fn worker(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Opened>>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
