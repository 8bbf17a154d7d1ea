//! HTTP/2 to upstreams, in the clear and with prior knowledge: few connections per upstream,
//! each with many requests at once.
//!
//! Whether an upstream speaks it shows on the connection itself: a server of HTTP/2 begins with
//! its settings, before it has read anything. Until it has, no request is sent on it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddrV4;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioTimer;
use tokio::sync::{Mutex, oneshot};

use super::body::RequestBody;
use super::http2::{CONNECTION_WINDOW, OnWorker, PING, SEND_BUFFER, STREAM_WINDOW};
use super::limits::Limits;
use super::live::Live;
use super::pool;
use super::settling::Settling;

/// Requests at once on one connection, if the upstream allows as many.
const STREAMS: usize = 250;

type Wire = Connection<Settling, RequestBody, OnWorker>;

/// The connections of one worker, by upstream.
#[derive(Default)]
pub(super) struct Channels {
    upstreams: RefCell<HashMap<SocketAddrV4, Rc<Upstream>>>,
}

#[derive(Default)]
struct Upstream {
    channels: RefCell<Vec<Rc<Channel>>>,
    /// Held while one is opened: who waits for it may find room on it.
    opening: Mutex<()>,
    /// When one could last not be opened, and why: who waited meanwhile need not try as well.
    failed: Cell<Option<(Instant, Unopened)>>,
}

/// One connection, which a task of the worker drives.
struct Channel {
    sender: RefCell<SendRequest<RequestBody>>,
    streams: Cell<usize>,
    /// What the upstream allows at this moment.
    room: Rc<Cell<usize>>,
    used: Cell<Instant>,
}

/// The place of one request on a connection.
pub(super) struct Stream(Rc<Channel>);

/// Why there is no place for a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unopened {
    /// The upstream cannot be reached.
    Unreachable(io::ErrorKind),
    /// It can, and speaks something else.
    NotHttp2,
}

impl Channels {
    /// A place on a connection to an upstream, which is opened when there is none with room.
    pub(super) async fn take(
        &self,
        address: SocketAddrV4,
        limits: &Limits,
    ) -> Result<Stream, Unopened> {
        let upstream = {
            let mut upstreams = self.upstreams.borrow_mut();
            Rc::clone(upstreams.entry(address).or_default())
        };
        if let Some(stream) = upstream.room() {
            return Ok(stream);
        }
        let began = Instant::now();
        let _opening = upstream.opening.lock().await;
        if let Some(stream) = upstream.room() {
            return Ok(stream);
        }
        if let Some((at, why)) = upstream.failed.get()
            && at >= began
        {
            return Err(why);
        }
        let opened = open(address, limits).await;
        let channel = Rc::new(opened.inspect_err(|why| {
            upstream.failed.set(Some((Instant::now(), *why)));
        })?);
        let stream = Stream::on(&channel);
        upstream.channels.borrow_mut().push(channel);
        Ok(stream)
    }

    /// Gives up connections that waited too long or lead to an upstream no longer in the table.
    /// What runs on them goes on.
    pub(super) fn sweep(&self, table: &Live, limit: Duration) {
        self.upstreams.borrow_mut().retain(|address, upstream| {
            upstream.channels.borrow_mut().retain(|channel| {
                let wanted = channel.streams.get() > 0 || channel.used.get().elapsed() < limit;
                table.knows(address) && wanted && !channel.sender.borrow().is_closed()
            });
            // Somebody who opens one holds the upstream beside the map.
            Rc::strong_count(upstream) > 1 || !upstream.channels.borrow().is_empty()
        });
    }
}

impl Upstream {
    /// A place on the first connection with room: the later ones fall idle when few are needed.
    fn room(&self) -> Option<Stream> {
        let mut channels = self.channels.borrow_mut();
        channels.retain(|channel| !channel.sender.borrow().is_closed());
        let free = |channel: &&Rc<Channel>| channel.streams.get() < channel.room.get().min(STREAMS);
        channels.iter().find(free).map(Stream::on)
    }
}

/// Connects, and waits until the upstream has shown what it speaks.
async fn open(address: SocketAddrV4, limits: &Limits) -> Result<Channel, Unopened> {
    let stream = pool::dial(address, limits.connect).await;
    let stream = stream.map_err(|error| Unopened::Unreachable(error.kind()))?;
    let (told, shown) = oneshot::channel();
    let header_size = u32::try_from(limits.header_size).unwrap_or(u32::MAX);
    let handshake = Builder::new(OnWorker)
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PING))
        .keep_alive_timeout(PING)
        .max_header_list_size(header_size)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .handshake(Settling::new(stream, told))
        .await;
    let (sender, wire) = handshake.map_err(|_| Unopened::NotHttp2)?;
    let room = Rc::new(Cell::new(STREAMS));
    tokio::task::spawn_local(drive(wire, Rc::clone(&room), address));
    match tokio::time::timeout(limits.connect, shown).await {
        Ok(Ok(())) => Ok(Channel {
            sender: RefCell::new(sender),
            streams: Cell::new(0),
            room,
            used: Cell::new(Instant::now()),
        }),
        // Dropping the sender ends the connection.
        _ => Err(Unopened::NotHttp2),
    }
}

async fn drive(mut wire: Wire, room: Rc<Cell<usize>>, address: SocketAddrV4) {
    let ended = poll_fn(|cx| {
        let ended = Pin::new(&mut wire).poll(cx);
        room.set(wire.current_max_send_streams());
        ended
    });
    if let Err(error) = ended.await {
        tracing::debug!(%address, %error, "HTTP/2 connection to an upstream ended");
    }
}

impl Stream {
    fn on(channel: &Rc<Channel>) -> Self {
        channel.streams.set(channel.streams.get() + 1);
        Self(Rc::clone(channel))
    }

    /// Sends a request and waits for the head of the response. None when `overdue` says so
    /// before it has come.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
        mut overdue: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Option<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        let response = self.0.sender.borrow_mut().try_send_request(request);
        let mut response = pin!(response);
        poll_fn(|cx| match response.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => overdue(cx).map(|()| None),
        })
        .await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.used.set(Instant::now());
    }
}
