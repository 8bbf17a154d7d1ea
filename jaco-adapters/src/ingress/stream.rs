//! The byte streams as hyper reads and writes them: a client's, checked for ambiguous requests
//! and watched for slowness, and an upstream's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::framing::{Ambiguous, Framing};
use super::http::{Client, Io};
use super::worker::Worker;

/// Nowhere in a head is a zero byte allowed: hyper answers 400 when it reads this instead of an
/// ambiguous request, after the answers to the requests before.
const POISON: &[u8] = b"\0\r\n\r\n";
/// For how long a closed client's bytes are still read.
const LINGER: Duration = Duration::from_secs(2);

/// So much of a client's next request is taken while the one before is answered.
const AHEAD: usize = 4096;

/// A head and a body of so many bytes together are written as one.
const JOINED: usize = 1024;

/// One client's stream.
pub(super) struct ClientStream<S> {
    stream: S,
    framing: Framing,
    refused: bool,
    /// What came from the client while it was only looked whether it is still there.
    ahead: Bytes,
    worker: Rc<Worker>,
    client: Rc<Client>,
}

impl<S: Io> ClientStream<S> {
    pub(super) fn new(stream: S, worker: Rc<Worker>, client: Rc<Client>) -> Self {
        let framing = Framing::default();
        Self {
            stream,
            framing,
            refused: false,
            ahead: Bytes::new(),
            worker,
            client,
        }
    }

    /// The stream, and what was read of it ahead.
    pub(super) fn into_inner(self) -> (S, Bytes) {
        (self.stream, self.ahead)
    }

    /// Reads for a moment what nobody wants, when the client is still sending. Closing a socket
    /// with unread bytes resets it, and the client would lose the answer that says why.
    pub(super) async fn linger(mut self) {
        if !self.refused && !self.framing.in_body() {
            return;
        }
        let mut bytes = vec![0; 16 * 1024];
        let ended = async { while let Ok(1..) = self.stream.read(&mut bytes).await {} };
        let _ = tokio::time::timeout(LINGER, ended).await;
    }

    /// Whether a client that waits for an answer has closed its side. hyper would look, too, with
    /// a buffer of its own for each connection.
    fn has_left(&mut self, cx: &mut Context<'_>) -> bool {
        let waits = self.client.watch.is_waiting() && !self.framing.in_body();
        if !waits || self.refused || !self.ahead.is_empty() {
            return false;
        }
        let mut scratch = self.worker.scratch.borrow_mut();
        let mut bytes = ReadBuf::new(&mut scratch[..AHEAD]);
        match Pin::new(&mut self.stream).poll_read(cx, &mut bytes) {
            Poll::Ready(Ok(())) => {
                self.ahead = Bytes::copy_from_slice(bytes.filled());
                self.ahead.is_empty()
            }
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// Hands bytes on, up to an ambiguous head.
    fn pass(&mut self, bytes: &[u8], room: &mut ReadBufCursor<'_>) {
        match self.framing.scan(bytes) {
            Ok(()) => room.put_slice(bytes),
            Err(Ambiguous(at)) => {
                self.refused = true;
                room.put_slice(&bytes[..at]);
                // Zero bytes would say that the client has ended.
                if at == 0 {
                    poison(room);
                }
            }
        }
    }
}

fn poison(room: &mut ReadBufCursor<'_>) {
    room.put_slice(&POISON[..POISON.len().min(room.remaining())]);
}

impl<S: Io> Read for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut room: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.refused {
            poison(&mut room);
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let length = this.ahead.len().min(room.remaining());
            let bytes = this.ahead.split_to(length);
            this.pass(&bytes, &mut room);
            this.client.watch.received(this.framing.in_head());
            return Poll::Ready(Ok(()));
        }
        let worker = Rc::clone(&this.worker);
        let mut scratch = worker.scratch.borrow_mut();
        let size = scratch.len().min(room.remaining());
        let mut bytes = ReadBuf::new(&mut scratch[..size]);
        match Pin::new(&mut this.stream).poll_read(cx, &mut bytes) {
            Poll::Ready(Ok(())) => {
                this.pass(bytes.filled(), &mut room);
                this.client.watch.received(this.framing.in_head());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if this.framing.in_body() {
                    this.client.watch.stalled();
                }
                Poll::Pending
            }
        }
    }
}

impl<S: Io> ClientStream<S> {
    fn wrote(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match wrote {
            Poll::Ready(_) => self.client.watch.sent(),
            Poll::Pending => self.client.watch.stalled(),
        }
        wrote
    }
}

impl<S: Io> Write for ClientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = write_slices(Pin::new(&mut self.stream), cx, bytes);
        self.wrote(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Comes last each time that hyper has done what it can, so here it is seen who has left.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_left(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// One upstream's stream.
pub(super) struct UpstreamStream(TokioIo<TcpStream>);

impl UpstreamStream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(TokioIo::new(stream))
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.0.into_inner()
    }
}

impl Read for UpstreamStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, room)
    }
}

impl Write for UpstreamStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.0.inner_mut()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        write_slices(Pin::new(self.0.inner_mut()), cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.inner_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.inner_mut()).poll_shutdown(cx)
    }
}

/// Writes some slices. A head alone, or with a small body, goes out as one: copying that much
/// costs less than what the kernel does for a list.
fn write_slices<S: AsyncWrite>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = slices {
        return stream.poll_write(cx, only);
    }
    let mut joined = [0; JOINED];
    let mut length = 0;
    for slice in slices {
        match joined.get_mut(length..length + slice.len()) {
            Some(room) => room.copy_from_slice(slice),
            None => return stream.poll_write_vectored(cx, slices),
        }
        length += slice.len();
    }
    stream.poll_write(cx, &joined[..length])
}
