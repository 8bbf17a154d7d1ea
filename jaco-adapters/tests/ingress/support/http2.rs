//! Upstreams that speak HTTP/2 only, and visitors who do.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self as client, SendRequest};
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::{Authority, DEADLINE, Rig};

/// A body of either side.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server of HTTP/2 in the clear. Its thread ends with the test's process.
pub(crate) struct Http2Upstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Http2Upstream {
    /// Answers every request with what a function makes of it, so many at once.
    pub(crate) fn answering<F, B>(
        streams: u32,
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Response<B>> + Send + 'static,
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
        };
        let count = Arc::clone(&upstream.connections);
        thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = answer.clone();
                    let serve = service_fn(move |request| {
                        let answered = answer(request);
                        async move { Ok::<_, Infallible>(answered.await) }
                    });
                    let connection = server::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(streams)
                        .serve_connection(TokioIo::new(stream), serve);
                    tokio::spawn(connection);
                }
            });
        });
        upstream
    }

    /// Connections accepted until now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Speaks HTTP/2 with the ingress, as a visitor of `a.test`.
pub(crate) fn speak<B, F>(
    rig: &Rig,
    authority: &Authority,
    talk: impl FnOnce(SendRequest<B>) -> F,
) -> F::Output
where
    B: hyper::body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Future,
{
    speak_with_window(rig, authority, 2 << 20, talk)
}

/// The same, with so much room for each response.
pub(crate) fn speak_with_window<B, F>(
    rig: &Rig,
    authority: &Authority,
    window: u32,
    talk: impl FnOnce(SendRequest<B>) -> F,
) -> F::Output
where
    B: hyper::body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Future,
{
    runtime().block_on(async {
        let address = rig.ingress.https_address().unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(authority.client(&["h2"])));
        let name = ServerName::try_from("a.test").unwrap();
        let tls = connector.connect(name, tcp).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let handshake = client::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .handshake(TokioIo::new(tls));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        tokio::time::timeout(DEADLINE, talk(sender)).await.unwrap()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
