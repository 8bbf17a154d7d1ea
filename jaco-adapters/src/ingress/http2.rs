//! A client's HTTP/2 connection. Its requests run beside each other as tasks of the worker.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::http::{Client, Io, Peer};
use super::proxy;
use super::slowness::Alarm;
use super::stall::{Streams, Watched};
use super::worker::Worker;

/// Requests of one connection at once.
const STREAMS: u32 = 256;
/// Who does not answer a ping for so long is gone.
pub(super) const PING: Duration = Duration::from_secs(20);
/// What one stream, and all of a connection together, may send before it is read.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
pub(super) const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is kept of a message that the other side does not take.
pub(super) const SEND_BUFFER: usize = 128 * 1024;

/// Runs tasks on the worker's own thread.
#[derive(Clone, Copy)]
pub(super) struct OnWorker;

impl<F: Future + 'static> Executor<F> for OnWorker {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(worker: Rc<Worker>, stream: impl Io, peer: Peer) {
    let limits = worker.limits;
    let mut stage = worker.stage.clone();
    stage.mark_unchanged();
    let client = Rc::new(Client::new(&worker, peer, true));
    let requests = {
        let client = Rc::clone(&client);
        service_fn(move |request| {
            let (worker, client) = (Rc::clone(&worker), Rc::new(client.beside()));
            async move {
                let answer = proxy::answer(worker, client, request).await;
                Ok::<_, Infallible>(answer.map(Watched::new))
            }
        })
    };
    let header_size = u32::try_from(limits.header_size).unwrap_or(u32::MAX);
    let mut connection = Builder::new(Streams { limit: limits.idle })
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(limits.idle / 2))
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(header_size)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), requests);
    let mut alarm = Alarm::new(limits.idle);
    let mut leaving = false;
    let mut left = pin!(async move { stage.changed().await.is_ok() });
    let mut told = false;
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Some(ended));
            }
            if !told && let Poll::Ready(leaves) = left.as_mut().poll(cx) {
                told = true;
                if leaves {
                    Pin::new(&mut connection).graceful_shutdown();
                    continue;
                }
            }
            if alarm
                .poll(cx, client.watch.due(&limits), limits.idle)
                .is_pending()
            {
                return Poll::Pending;
            }
            if leaving {
                return Poll::Ready(None);
            }
            // First it is told; what it has sent by then is still answered.
            leaving = true;
            client.watch.response_ended();
            Pin::new(&mut connection).graceful_shutdown();
        }
    });
    match ended.await {
        None => tracing::debug!(peer = %peer.address, "client without requests, connection closed"),
        Some(Err(error)) => tracing::debug!(peer = %peer.address, %error, "connection closed"),
        Some(Ok(())) => {}
    }
}
