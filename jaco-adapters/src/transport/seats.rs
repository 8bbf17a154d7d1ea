//! A bound on the connections of a listener: when it is full, the longest idle one is closed.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The seats of one listener.
pub(crate) struct Seats {
    size: usize,
    began: Instant,
    taken: Mutex<(u64, BTreeMap<u64, Arc<Seat>>)>,
}

/// One connection's seat.
struct Seat {
    /// Milliseconds from the listener's begin to the last byte that the client sent.
    heard: AtomicU64,
    is_lost: AtomicBool,
    waiting: AtomicWaker,
}

/// A connection that has a seat, and loses it when another one needs it more.
pub struct Seated<S> {
    inner: S,
    seat: Arc<Seat>,
    number: u64,
    seats: Arc<Seats>,
}

impl Seats {
    pub(crate) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self {
            size,
            began: Instant::now(),
            taken: Mutex::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Arc<Seat>>)> {
        self.taken.lock().expect("no holder of this lock panics")
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Gives a connection a seat.
    pub(crate) fn take<S>(self: &Arc<Self>, inner: S) -> Seated<S> {
        let seat = Arc::new(Seat {
            heard: AtomicU64::new(self.now()),
            is_lost: AtomicBool::new(false),
            waiting: AtomicWaker::new(),
        });
        let mut taken = self.taken();
        if taken.1.len() >= self.size {
            let idle = |(_, seat): &(&u64, &Arc<Seat>)| seat.heard.load(Ordering::Relaxed);
            if let Some(number) = taken.1.iter().min_by_key(idle).map(|(number, _)| *number)
                && let Some(seat) = taken.1.remove(&number)
            {
                seat.is_lost.store(true, Ordering::Release);
                seat.waiting.wake();
            }
        }
        taken.0 += 1;
        let number = taken.0;
        taken.1.insert(number, Arc::clone(&seat));
        Seated {
            inner,
            seat,
            number,
            seats: Arc::clone(self),
        }
    }
}

impl<S> Drop for Seated<S> {
    fn drop(&mut self) {
        self.seats.taken().1.remove(&self.number);
    }
}

impl<S> Seated<S> {
    /// The connection itself.
    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Fails once the seat is lost, for whichever way the connection waits: a client that reads
    /// nothing has it wait in writing.
    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        self.seat.waiting.register(cx.waker());
        match self.seat.is_lost.load(Ordering::Acquire) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() {
            self.seat.heard.store(self.seats.now(), Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_longest_idle_connection_makes_room() {
        let seats = Seats::new(2);
        let mut clients = Vec::new();
        let mut seated = Vec::new();
        for _ in 0..2 {
            let (client, server) = duplex(64);
            clients.push(client);
            seated.push(seats.take(server));
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        clients[0].write_all(b"x").await.expect("sent");
        let mut byte = [0];
        seated[0].read_exact(&mut byte).await.expect("heard");
        let (_client, server) = duplex(64);
        seated.push(seats.take(server));
        let lost = seated[1]
            .read(&mut byte)
            .await
            .map_err(|error| error.kind());
        assert_eq!(lost, Err(io::ErrorKind::ConnectionAborted));
        clients[0].write_all(b"y").await.expect("sent");
        seated[0].read_exact(&mut byte).await.expect("still there");
        drop(seated);
        assert!(seats.taken().1.is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_waits_to_write_loses_its_seat_too() {
        let seats = Seats::new(1);
        let (_silent, server) = duplex(8);
        let mut stuck = seats.take(server);
        let writing = tokio::spawn(async move { stuck.write_all(&[0; 64]).await });
        tokio::task::yield_now().await;
        let (_client, server) = duplex(8);
        let _other = seats.take(server);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), writing).await;
        let ended = ended.expect("it is woken").expect("it does not panic");
        let kind = ended.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::ConnectionAborted));
    }
}
