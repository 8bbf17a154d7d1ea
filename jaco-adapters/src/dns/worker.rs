//! The worker: one thread with every socket, the zones, the forwarder and its cache.

use std::cell::{Cell, RefCell, RefMut};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use arc_swap::{ArcSwap, Cache};
use hickory_proto::op::{Message, ResponseCode};
use jaco_core::node::dns::{Answer, Question, Zones};
use jaco_core::ports::{Measured, Meter};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use super::batch::Batch;
use super::forwarder::Forwarder;
use super::listener::Opened;
use super::message::{self, Carrier, Handled, Pending, Received};
use super::{Control, Settings};
use crate::transport::listeners;

/// What the sockets share.
pub(super) struct Worker {
    zones: RefCell<Cache<Arc<ArcSwap<Zones>>, Arc<Zones>>>,
    forwarder: Forwarder,
    batch: RefCell<Batch>,
    /// Counts answers; the core makes an order of it.
    random: Cell<u64>,
    meter: Arc<dyn Meter>,
}

/// Starts the worker; it ends when the sender of the orders is dropped.
pub(super) fn start(
    settings: Settings,
    zones: Arc<ArcSwap<Zones>>,
    orders: mpsc::UnboundedReceiver<Opened>,
    control: Weak<Control>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("dns".to_owned())
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let worker = Rc::new(Worker::new(settings, zones));
                    runtime.block_on(run(worker, orders, control));
                }
                Err(error) => {
                    tracing::error!(subsystem = "dns", %error, "the responder has no runtime");
                }
            }
        })
}

async fn run(
    worker: Rc<Worker>,
    mut orders: mpsc::UnboundedReceiver<Opened>,
    control: Weak<Control>,
) {
    tokio::task::spawn_local(listeners::retry(control));
    while let Some(opened) = orders.recv().await {
        opened.serve(&worker);
    }
}

impl Worker {
    fn new(settings: Settings, zones: Arc<ArcSwap<Zones>>) -> Self {
        Self {
            zones: RefCell::new(Cache::new(zones)),
            forwarder: Forwarder::new(settings.upstreams, settings.timeout),
            batch: RefCell::new(Batch::new()),
            meter: settings.meter,
            random: Cell::new(RandomState::new().build_hasher().finish()),
        }
    }

    pub(super) fn batch(&self) -> RefMut<'_, Batch> {
        self.batch.borrow_mut()
    }

    /// Answers a message that came to a gateway, unless an upstream must be asked first.
    pub(super) fn handle(
        &self,
        gateway: Ipv4Addr,
        asker: Ipv4Addr,
        bytes: &[u8],
        carrier: Carrier,
        into: &mut Vec<u8>,
    ) -> Handled {
        let (request, reply) = match message::receive(bytes) {
            Received::Noise => return Handled::Ignored,
            Received::Refused(request, code) => {
                let reply = message::reply(&request, code);
                (request, reply)
            }
            Received::Request(request) => match self.answer(gateway, asker, &request) {
                Some(reply) => (request, reply),
                None => {
                    return Handled::Pending(Pending {
                        request,
                        carrier,
                        asker,
                    });
                }
            },
        };
        match message::write(&reply, &request, carrier, into) {
            Ok(()) => Handled::Replied,
            Err(_) => Handled::Ignored,
        }
    }

    /// The reply from the zones or the cache.
    fn answer(&self, gateway: Ipv4Addr, asker: Ipv4Addr, request: &Message) -> Option<Message> {
        self.meter.record(Measured::NameAsked);
        let query = &request.queries[0];
        let name = message::name_of(query);
        let question = Question {
            name: &name,
            kind: message::kind_of(query),
        };
        let random = self.random.get();
        self.random.set(random.wrapping_add(1));
        let mut zones = self.zones.borrow_mut();
        match zones.load().answer(gateway, asker, &question, random) {
            Answer::Forward => self.forwarder.cached(request),
            answer => Some(message::own(request, answer)),
        }
    }

    /// Asks the upstreams; the reply is ready to be sent.
    pub(super) async fn forward(&self, pending: Pending) -> Vec<u8> {
        let Pending {
            request,
            carrier,
            asker,
        } = pending;
        let reply = self.forwarder.resolve(&request, asker).await;
        let mut bytes = Vec::new();
        if message::write(&reply, &request, carrier, &mut bytes).is_err() {
            bytes.clear();
            let failed = message::reply(&request, ResponseCode::ServFail);
            // A header and a question always fit.
            let _ = message::write(&failed, &request, carrier, &mut bytes);
        }
        bytes
    }
}
