//! HTTP/2 clients that take nothing: a stream whose client has given no room for a frame for too
//! long is reset, and with it what it holds of the upstream (spec 08, limits).
//!
//! Over HTTP/1.1 the connection's own watch does this. Here a stream waits inside the library, for
//! room or for the upstream, and only its body knows which: for room it waits when it has given a
//! frame and is not asked for the next.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::Sleep;

use super::body::Body;

/// A frame is given in pieces of this size, as HTTP/2 sends it: a client that takes one of them
/// shows that it takes something, however slow it is.
const PIECE: usize = 16 * 1024;

thread_local! {
    /// The stream whose task runs; the library calls the service within it.
    static RUNNING: RefCell<Option<Rc<Stream>>> = const { RefCell::new(None) };
}

/// What the task of a stream and its response's body share.
#[derive(Default)]
struct Stream {
    /// Since when a frame waits to be taken.
    given: Cell<Option<Instant>>,
}

/// Runs the streams of a connection on the worker's own thread.
#[derive(Clone, Copy)]
pub(super) struct Streams {
    /// How long a client may take nothing.
    pub(super) limit: Duration,
}

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(Task {
            future: Box::pin(future),
            stream: Rc::default(),
            limit: self.limit,
            alarm: None,
        });
    }
}

/// The task of one stream. Dropping its future resets the stream.
struct Task<F> {
    future: Pin<Box<F>>,
    stream: Rc<Stream>,
    limit: Duration,
    /// Made by the first wait for room.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        let outer = RUNNING.replace(Some(Rc::clone(&task.stream)));
        let done = task.future.as_mut().poll(cx);
        RUNNING.replace(outer);
        if done.is_ready() {
            return Poll::Ready(());
        }
        let Some(due) = task
            .stream
            .given
            .get()
            .and_then(|it| it.checked_add(task.limit))
        else {
            return Poll::Pending;
        };
        let alarm = task
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due.into())));
        if alarm.deadline() != due.into() {
            alarm.as_mut().reset(due.into());
        }
        alarm.as_mut().poll(cx)
    }
}

/// A response's body that knows whether its client takes it.
pub(super) struct Watched {
    body: Body,
    /// What is left of the body's last frame.
    rest: Bytes,
    stream: Option<Rc<Stream>>,
}

impl Watched {
    /// To be made within the task of the stream.
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            stream: RUNNING.with_borrow(Clone::clone),
        }
    }

    /// The first piece of a frame; the others are kept.
    fn piece(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        frame.map_data(|mut data| {
            if data.len() > PIECE {
                self.rest = data.split_off(PIECE);
            }
            data
        })
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match self.rest.is_empty() {
            true => Pin::new(&mut self.body).poll_frame(cx),
            false => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest))))),
        };
        let frame = frame.map_ok(|frame| self.piece(frame));
        if let Some(stream) = &self.stream {
            let is_given = matches!(frame, Poll::Ready(Some(Ok(_))));
            stream.given.set(is_given.then(Instant::now));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
