//! One worker: a thread with its own runtime, listeners and pool. Nothing in it is shared with
//! another worker but the table and the load of the upstreams.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use jaco_core::node::trust::TrustedPeers;
use rustls::ServerConfig;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use super::access::{self, Page, Told, Visit};
use super::h2c::Channels;
use super::http::Client;
use super::kept::Kept;
use super::leave::{Stage, UnderWay};
use super::limits::Limits;
use super::listener::{self, Opened};
use super::live::Live;
use super::pool::Pool;
use super::tally::Tallies;
use super::turns::Turns;

/// How often pooled connections that nobody wants are closed.
const SWEEP: Duration = Duration::from_secs(5);

/// Tasks polled between two looks at the sockets. When a thousand connections are ready at once,
/// looking more often asks the kernel again and again for what one answer holds.
const POLLS_PER_LOOK: u32 = 512;

/// Bytes read from a client at once.
const SCRATCH: usize = 64 * 1024;

/// What the connections of one worker share.
pub(super) struct Worker {
    table: RefCell<Cache<Arc<ArcSwap<Live>>, Arc<Live>>>,
    pub(super) pool: Pool,
    pub(super) channels: Channels,
    pub(super) turns: Turns,
    pub(super) limits: Limits,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) http_port: u16,
    /// Where visitors of plain HTTP are sent.
    pub(super) https_port: u16,
    pub(super) trusted: Arc<TrustedPeers>,
    pub(super) under_way: Arc<UnderWay>,
    /// Changes when this ingress leaves.
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) kept: Arc<Kept>,
    /// What a client sent, on its way to hyper's buffer.
    pub(super) scratch: RefCell<Vec<u8>>,
    pub(super) tallies: Arc<Tallies>,
    metered: bool,
    pub(super) page: Arc<Page>,
    random: Cell<u64>,
}

/// What all workers are told alike.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) http_port: u16,
    pub(super) https_port: u16,
    pub(super) trusted: Arc<TrustedPeers>,
    pub(super) tallies: Arc<Tallies>,
    pub(super) metered: bool,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) kept: Arc<Kept>,
}

/// What one worker has alone, and others read.
#[derive(Default)]
pub(super) struct Own {
    pub(super) page: Arc<Page>,
    pub(super) under_way: Arc<UnderWay>,
}

/// Starts a worker; it ends when the sender of the orders is dropped.
pub(super) fn start(
    number: usize,
    table: Arc<ArcSwap<Live>>,
    shared: Shared,
    own: Own,
    orders: mpsc::UnboundedReceiver<Opened>,
) -> io::Result<JoinHandle<()>> {
    let name = format!("ingress-{number}");
    thread::Builder::new().name(name).spawn(move || {
        let runtime = Builder::new_current_thread()
            .event_interval(POLLS_PER_LOOK)
            .enable_all()
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(run(Rc::new(Worker::new(table, shared, own)), orders)),
            Err(error) => tracing::error!(%error, "ingress worker has no runtime"),
        }
    })
}

async fn run(worker: Rc<Worker>, mut orders: mpsc::UnboundedReceiver<Opened>) {
    let at = Rc::clone(&worker);
    tokio::task::spawn_local(async move { at.turns.hand_out().await });
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(opened) => {
                    tokio::task::spawn_local(listener::accept(Rc::clone(&worker), opened));
                }
                None => return,
            },
            _ = sweep.tick() => worker.sweep(),
        }
    }
}

impl Worker {
    /// The port that visitors come to, for the upstream.
    pub(super) fn port(&self, secure: bool) -> HeaderValue {
        match (secure, self.http_port, self.https_port) {
            (true, _, 443 | 0) => HeaderValue::from_static("443"),
            (false, 80 | 0, _) => HeaderValue::from_static("80"),
            (true, _, port) | (false, port, _) => HeaderValue::from(port),
        }
    }

    fn new(table: Arc<ArcSwap<Live>>, shared: Shared, own: Own) -> Self {
        // Odd, because the generator stays at zero once it is there.
        let seed = RandomState::new().build_hasher().finish() | 1;
        Self {
            table: RefCell::new(Cache::new(table)),
            pool: Pool::default(),
            channels: Channels::default(),
            turns: Turns::new(),
            limits: shared.limits,
            tls: shared.tls,
            http_port: shared.http_port,
            https_port: shared.https_port,
            trusted: shared.trusted,
            tallies: shared.tallies,
            metered: shared.metered,
            page: own.page,
            under_way: own.under_way,
            stage: shared.stage,
            kept: shared.kept,
            scratch: RefCell::new(vec![0; SCRATCH]),
            random: Cell::new(seed),
        }
    }

    /// Follows a request to the end of its answer, if anybody wants to know of it.
    pub(super) fn visit(self: &Rc<Self>, client: &Client, head: &Parts) -> Option<Box<Visit>> {
        let told = access::is_on().then(|| Told::new(head, client.address.clone()));
        let wanted = told.is_some() || self.metered;
        wanted.then(|| Box::new(Visit::begin(Rc::clone(self), told)))
    }

    /// Closes connections to upstreams that nobody needs.
    fn sweep(&self) {
        let (table, limit) = (self.table(), self.limits.idle);
        self.pool.sweep(&table, limit);
        self.channels.sweep(&table, limit);
    }

    /// The table of this moment, without touching shared memory while it stays the same.
    pub(super) fn table(&self) -> Arc<Live> {
        Arc::clone(self.table.borrow_mut().load())
    }

    /// The next number of a xorshift generator: for choices and request ids, not for secrets.
    pub(super) fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
