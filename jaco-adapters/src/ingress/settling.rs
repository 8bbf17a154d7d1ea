//! A stream to an upstream that tells whether it begins as one of HTTP/2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use jaco_core::node::carrier::begins_http2;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// The head of a frame.
const HEAD: usize = 9;

/// Fails when the first bytes are not the settings of HTTP/2, and tells when they are.
pub(super) struct Settling {
    stream: TokioIo<TcpStream>,
    head: [u8; HEAD],
    /// How much of the head was read.
    read: usize,
    told: Option<oneshot::Sender<()>>,
}

impl Settling {
    pub(super) fn new(stream: TcpStream, told: oneshot::Sender<()>) -> Self {
        Self {
            stream: TokioIo::new(stream),
            head: [0; HEAD],
            read: 0,
            told: Some(told),
        }
    }

    /// Reads some of the head.
    fn settle(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let end = HEAD.min(self.read + room.remaining());
        let mut bytes = ReadBuf::new(&mut self.head[self.read..end]);
        ready!(Pin::new(self.stream.inner_mut()).poll_read(cx, &mut bytes))?;
        let new = bytes.filled().len();
        room.put_slice(&self.head[self.read..self.read + new]);
        self.read += new;
        if self.read == HEAD
            && let Some(told) = self.told.take()
        {
            if !begins_http2(self.head) {
                let error = io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2");
                return Poll::Ready(Err(error));
            }
            let _ = told.send(());
        }
        Poll::Ready(Ok(()))
    }
}

impl Read for Settling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut room: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.told.is_some() {
            return self.settle(cx, &mut room);
        }
        Pin::new(&mut self.stream).poll_read(cx, room)
    }
}

impl Write for Settling {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
