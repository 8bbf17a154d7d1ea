//! A client's HTTP/1.1 connection, from accept to close or to a tunnel.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use hyper::header::HeaderValue;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::upgrade::Tunnel;
use super::worker::Worker;
use super::{headers, proxy};

/// What the requests of one connection share.
pub(super) struct Client {
    /// The address for `X-Forwarded-For`.
    pub(super) address: HeaderValue,
    /// Set by the request whose upstream changed the protocol.
    pub(super) tunnel: RefCell<Option<Tunnel>>,
}

/// Serves one connection until it ends.
pub(super) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let client = Rc::new(Client {
        address: headers::value(format_args!("{}", peer.ip().to_canonical()), 45),
        tunnel: RefCell::new(None),
    });
    let requests = {
        let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
        service_fn(move |request| {
            let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
            async move { Ok::<_, Infallible>(proxy::answer(worker, &client, request).await) }
        })
    };
    let mut connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(worker.limits.header_read)
        .max_header_size(worker.limits.header_size)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), requests);
    if let Err(error) = Pin::new(&mut connection).await {
        return tracing::debug!(%peer, %error, "connection closed");
    }
    let tunnel = client.tunnel.borrow_mut().take();
    if let Some(tunnel) = tunnel {
        let parts = connection.into_parts();
        tunnel.run(parts.io.into_inner(), parts.read_buf).await;
    }
}
