//! Connections to upstreams, and those of one worker that wait for the next request.
//!
//! A connection has no task of its own: who uses it drives it, together with the request, so
//! that a request wakes one task and not two. One that waits is driven by nobody; whether the
//! upstream has closed it shows when it is used.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use tokio::net::TcpStream;

use super::body::RequestBody;
use super::gate::Gate;
use super::h2c;
use super::http::Busy;
use super::limits::Limits;
use super::live::{Flight, Live};
use super::stream::UpstreamStream;
use super::worker::Worker;

/// Idle connections kept per upstream and worker.
const IDLE_PER_UPSTREAM: usize = 1024;

/// The idle connections of one worker by upstream, the latest used last.
#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<HashMap<SocketAddrV4, Vec<Idle>>>,
}

struct Idle {
    link: Box<Link>,
    since: Instant,
}

/// One HTTP/1.1 connection to an upstream.
pub(super) struct Link {
    sender: SendRequest<RequestBody>,
    wire: Wire,
    gate: Gate,
}

/// A connection's future and how far it is.
enum Wire {
    Running(Connection<UpstreamStream, RequestBody>),
    /// Finished; what is left is the stream, for a tunnel.
    Ended(Connection<UpstreamStream, RequestBody>),
    Gone,
}

/// What a request and its response go over.
pub(super) enum Carried {
    /// A connection of its own, for the time.
    Alone(Box<Link>),
    /// A stream beside others; here it only keeps its place.
    Beside { _stream: h2c::Stream },
}

/// The use of a connection for one request. Dropped after a complete exchange, it gives a link
/// back to the pool; dropped before, it closes the connection.
pub(super) struct Lease {
    carried: Option<Carried>,
    worker: Rc<Worker>,
    address: SocketAddrV4,
    _flight: Flight,
    _busy: Busy,
}

/// Connects within `limit`; not to be Nagled.
pub(super) async fn dial(address: SocketAddrV4, limit: Duration) -> io::Result<TcpStream> {
    let connect = TcpStream::connect(SocketAddr::V4(address));
    let stream = tokio::time::timeout(limit, connect).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Pool {
    /// Takes the latest used connection. Whether the upstream has closed it meanwhile shows when
    /// it is used, before anything was sent.
    pub(super) fn take(&self, address: SocketAddrV4) -> Option<Box<Link>> {
        let mut idle = self.idle.borrow_mut();
        Some(idle.get_mut(&address)?.pop()?.link)
    }

    fn put(&self, address: SocketAddrV4, link: Box<Link>) {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.entry(address).or_default();
        if waiting.len() < IDLE_PER_UPSTREAM {
            let since = Instant::now();
            waiting.push(Idle { link, since });
        }
    }

    /// Closes connections that waited too long or lead to an upstream no longer in the table.
    pub(super) fn sweep(&self, table: &Live, limit: Duration) {
        self.idle.borrow_mut().retain(|address, waiting| {
            waiting.retain(|idle| table.knows(address) && idle.since.elapsed() < limit);
            !waiting.is_empty()
        });
    }
}

impl Link {
    /// Connects to an upstream.
    pub(super) async fn open(address: SocketAddrV4, limits: &Limits) -> io::Result<Box<Self>> {
        let stream = UpstreamStream::new(dial(address, limits.connect).await?);
        let handshake = Builder::new().handshake(stream).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        Ok(Box::new(Self {
            sender,
            wire: Wire::Running(connection),
            gate: Gate::new(),
        }))
    }

    /// Lets the connection read and write. What goes wrong is told to whoever waits for the
    /// response or its body.
    fn drive(&mut self, cx: &Context<'_>) {
        self.wire.poll(self.gate.open_for(cx));
    }

    /// True when the next request may be sent, as far as is known.
    fn is_idle(&mut self) -> bool {
        let cx = self.gate.forget();
        if !self.sender.is_ready() {
            // The last frame was taken; now the connection can notice that the exchange is over.
            self.wire.poll(cx);
        }
        matches!(self.wire, Wire::Running(_)) && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the response. None when `overdue` says so
    /// before it has come.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
        mut overdue: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Option<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        let sender = &mut self.sender;
        let mut response = pin!(self.gate.quietly(|| sender.try_send_request(request)));
        poll_fn(|cx| {
            self.drive(cx);
            // The response comes while the connection is driven, so it need not wake the task.
            let mut quiet = Context::from_waker(Waker::noop());
            let mut answer = response.as_mut().poll(&mut quiet);
            if answer.is_pending() && matches!(self.wire, Wire::Ended(_)) {
                // It was closed before it took the request, which comes back when it is gone.
                self.wire = Wire::Gone;
                answer = response.as_mut().poll(&mut quiet);
            }
            match answer {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => overdue(cx).map(|()| None),
            }
        })
        .await
    }

    /// Takes the stream back after `101 Switching Protocols`, with what was read beyond.
    pub(super) async fn into_stream(mut self: Box<Self>) -> Option<(TcpStream, Bytes)> {
        poll_fn(|cx| {
            self.drive(cx);
            match self.wire {
                Wire::Running(_) => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
        let Wire::Ended(connection) = self.wire else {
            return None;
        };
        let parts = connection.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}

impl Wire {
    fn poll(&mut self, mut cx: Context<'_>) {
        let Self::Running(connection) = self else {
            return;
        };
        if Pin::new(connection).poll(&mut cx).is_ready()
            && let Self::Running(connection) = std::mem::replace(self, Self::Gone)
        {
            *self = Self::Ended(connection);
        }
    }
}

impl Lease {
    pub(super) fn new(
        carried: Carried,
        worker: Rc<Worker>,
        address: SocketAddrV4,
        flight: Flight,
        busy: Busy,
    ) -> Self {
        Self {
            carried: Some(carried),
            worker,
            address,
            _flight: flight,
            _busy: busy,
        }
    }

    /// The next frame of the response's body.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let link = match &mut self.carried {
            Some(Carried::Alone(link)) => link,
            Some(Carried::Beside { .. }) => return Pin::new(body).poll_frame(cx),
            None => return Poll::Ready(None),
        };
        // The question tells the connection that there is room for a frame.
        let ready = link.gate.quietly(|| Pin::new(&mut *body).poll_frame(cx));
        if ready.is_ready() {
            return ready;
        }
        link.drive(cx);
        link.gate.quietly(|| Pin::new(body).poll_frame(cx))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(Carried::Alone(mut link)) = self.carried.take()
            && link.is_idle()
        {
            self.worker.pool.put(self.address, link);
        }
    }
}
