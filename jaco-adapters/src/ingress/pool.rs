//! Connections to upstreams, and those of one worker that wait for the next request.
//!
//! A connection has no task of its own: who uses it drives it, together with the request, so
//! that a request wakes one task and not two. One that waits is driven by nobody; whether the
//! upstream has closed it shows when it is taken out.

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
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body::RequestBody;
use super::http::Busy;
use super::limits::Limits;
use super::live::{Flight, Live};
use super::worker::Worker;

/// Idle connections kept per upstream and worker.
const IDLE_PER_UPSTREAM: usize = 256;

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
    connection: Connection<TokioIo<TcpStream>, RequestBody>,
    /// The connection's future has finished and must not be polled again.
    ended: bool,
}

/// The use of a link for one request. Dropped after a complete exchange, it gives the link back
/// to the pool; dropped before, it closes the connection.
pub(super) struct Lease {
    link: Option<Box<Link>>,
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
    /// Takes the latest used connection that is still alive.
    pub(super) fn take(&self, address: SocketAddrV4, cx: &mut Context<'_>) -> Option<Box<Link>> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(&address)?;
        while let Some(Idle { mut link, .. }) = waiting.pop() {
            link.drive(cx);
            if link.is_idle() {
                return Some(link);
            }
        }
        None
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
        let stream = dial(address, limits.connect).await?;
        let handshake = Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        Ok(Box::new(Self {
            sender,
            connection,
            ended: false,
        }))
    }

    /// Lets the connection read and write. What goes wrong is told to whoever waits for the
    /// response or its body.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.ended {
            self.ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
    }

    fn is_idle(&self) -> bool {
        !self.ended && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the response. None when `overdue` says so
    /// before it has come.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
        mut overdue: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Option<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        let mut response = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            self.drive(cx);
            match response.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => overdue(cx).map(|()| None),
            }
        })
        .await
    }

    /// Takes the stream back after `101 Switching Protocols`, with what was read beyond.
    pub(super) async fn into_stream(mut self: Box<Self>) -> (TcpStream, Bytes) {
        poll_fn(|cx| {
            self.drive(cx);
            if self.ended {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        let parts = self.connection.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }
}

impl Lease {
    pub(super) fn new(
        link: Box<Link>,
        worker: Rc<Worker>,
        address: SocketAddrV4,
        flight: Flight,
        busy: Busy,
    ) -> Self {
        Self {
            link: Some(link),
            worker,
            address,
            _flight: flight,
            _busy: busy,
        }
    }

    /// See [`Link::drive`].
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = &mut self.link {
            link.drive(cx);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else {
            return;
        };
        // The last frame was taken; this lets the connection notice that the exchange is over.
        link.drive(&mut Context::from_waker(Waker::noop()));
        if link.is_idle() {
            self.worker.pool.put(self.address, link);
        }
    }
}
