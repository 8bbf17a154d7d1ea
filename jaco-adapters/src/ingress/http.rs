//! A client's HTTP/1.1 connection, from accept to close or to a tunnel.

use std::cell::{RefCell, RefMut};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use hyper::header::HeaderValue;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use tokio::net::TcpStream;

use super::limits::Limits;
use super::slowness::{Alarm, Watch};
use super::stream::ClientStream;
use super::upgrade::Tunnel;
use super::worker::Worker;
use super::{headers, proxy};

/// What the requests of one connection share.
pub(super) struct Client {
    /// The address for `X-Forwarded-For`.
    pub(super) address: HeaderValue,
    pub(super) watch: Watch,
    /// Set by the request whose upstream changed the protocol.
    pub(super) tunnel: RefCell<Option<Tunnel>>,
    /// Rings when the upstream of the request under way is too slow.
    patience: RefCell<Option<Alarm>>,
}

/// One request whose response has not ended.
pub(super) struct Busy(Rc<Client>);

impl Client {
    fn new(peer: SocketAddr) -> Self {
        Self {
            address: headers::value(format_args!("{}", peer.ip().to_canonical()), 45),
            watch: Watch::new(),
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
        Self(Rc::clone(client))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.watch.response_ended();
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let client = Rc::new(Client::new(peer));
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
        None => return tracing::debug!(%peer, "client too slow, connection closed"),
        Some(Err(error)) => tracing::debug!(%peer, %error, "connection closed"),
        Some(Ok(())) => {}
    }
    let parts = connection.into_parts();
    let tunnel = client.tunnel.borrow_mut().take();
    match tunnel {
        Some(tunnel) => tunnel.run(parts.io.into_inner(), parts.read_buf).await,
        None => parts.io.linger().await,
    }
}
