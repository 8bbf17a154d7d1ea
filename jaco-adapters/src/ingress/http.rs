//! A client's connection, plain or within TLS: HTTP/1.1, from accept to close or to a tunnel.

use std::cell::{RefCell, RefMut};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Buf;
use hyper::header::HeaderValue;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::leave::{Counted, UnderWay};
use super::limits::Limits;
use super::slowness::{Alarm, Watch};
use super::stream::ClientStream;
use super::upgrade::Tunnel;
use super::worker::Worker;
use super::{headers, http2, proxy, tls};

/// What a connection runs over.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Io for T {}

/// Who is at the other end of a connection.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// What it says about those before it counts.
    pub(super) trusted: bool,
}

impl Peer {
    /// A visitor who is known by nothing but the connection.
    pub(super) fn direct(address: SocketAddr) -> Self {
        Self {
            address,
            trusted: false,
        }
    }
}

/// What the requests of one connection share.
pub(super) struct Client {
    /// The address for `X-Forwarded-For`.
    pub(super) address: HeaderValue,
    /// The addresses that it adds its own to count.
    pub(super) trusted: bool,
    /// True within TLS.
    pub(super) secure: bool,
    pub(super) watch: Rc<Watch>,
    under_way: Arc<UnderWay>,
    /// Set by the request whose upstream changed the protocol.
    pub(super) tunnel: RefCell<Option<Tunnel>>,
    /// Rings when the upstream of the request under way is too slow.
    patience: RefCell<Option<Alarm>>,
}

/// One request whose response has not ended.
pub(super) struct Busy(Rc<Client>, Counted);

impl Client {
    pub(super) fn new(worker: &Worker, peer: Peer, secure: bool) -> Self {
        Self {
            address: headers::value(format_args!("{}", peer.address.ip().to_canonical()), 45),
            trusted: peer.trusted,
            secure,
            watch: Rc::new(Watch::new()),
            under_way: Arc::clone(&worker.under_way),
            tunnel: RefCell::new(None),
            patience: RefCell::new(None),
        }
    }

    /// The same client for a request that runs beside others.
    pub(super) fn beside(&self) -> Self {
        Self {
            address: self.address.clone(),
            trusted: self.trusted,
            secure: self.secure,
            watch: Rc::clone(&self.watch),
            under_way: Arc::clone(&self.under_way),
            tunnel: RefCell::new(None),
            patience: RefCell::new(None),
        }
    }

    /// The alarm for upstreams, which the connection's requests use one after the other.
    pub(super) fn patience(&self, limits: &Limits) -> RefMut<'_, Alarm> {
        RefMut::map(self.patience.borrow_mut(), |alarm| {
            alarm.get_or_insert_with(|| Alarm::new(limits.response_header))
        })
    }
}

impl Busy {
    pub(super) fn new(client: &Rc<Client>) -> Self {
        client.watch.request_began();
        Self(Rc::clone(client), client.under_way.began())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.watch.response_ended();
        self.0.under_way.ended(self.1);
    }
}

/// Serves a connection that begins with a TLS handshake.
pub(super) async fn serve_tls(worker: Rc<Worker>, stream: TcpStream, peer: Peer) {
    let handshake = TlsAcceptor::from(Arc::clone(&worker.tls)).accept(stream);
    let stream = match tokio::time::timeout(worker.limits.header_read, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return tracing::debug!(peer = %peer.address, %error, "TLS handshake failed");
        }
        Err(_) => return tracing::debug!(peer = %peer.address, "TLS handshake timed out"),
    };
    if stream.get_ref().1.alpn_protocol() == Some(tls::H2) {
        http2::serve(worker, stream, peer).await;
    } else {
        serve(worker, stream, peer, true).await;
    }
}

/// Serves one HTTP/1.1 connection until it ends.
pub(super) async fn serve(worker: Rc<Worker>, stream: impl Io, peer: Peer, secure: bool) {
    let client = Rc::new(Client::new(&worker, peer, secure));
    let limits = worker.limits;
    let requests = {
        let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
        service_fn(move |request| {
            let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
            async move { Ok::<_, Infallible>(proxy::answer(worker, client, request).await) }
        })
    };
    let stream = ClientStream::new(stream, worker, Rc::clone(&client));
    let mut connection = Builder::new()
        .max_header_size(limits.header_size)
        // The stream itself looks for the client's end meanwhile, at less expense.
        .half_close(true)
        .serve_connection(stream, requests);
    let mut alarm = Alarm::new(limits.idle);
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(Some(ended));
        }
        alarm
            .poll(cx, client.watch.due(&limits), limits.idle)
            .map(|()| None)
    });
    match ended.await {
        None => return tracing::debug!(peer = %peer.address, "client too slow, connection closed"),
        Some(Err(error)) => tracing::debug!(peer = %peer.address, %error, "connection closed"),
        Some(Ok(())) => {}
    }
    let parts = connection.into_parts();
    let tunnel = client.tunnel.borrow_mut().take();
    match tunnel {
        Some(tunnel) => {
            let (stream, ahead) = parts.io.into_inner();
            tunnel.run(stream, parts.read_buf.chain(ahead)).await;
        }
        None => parts.io.linger().await,
    }
}
