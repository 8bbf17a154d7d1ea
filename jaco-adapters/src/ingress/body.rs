//! Bodies on their way through: a client's to an upstream, an upstream's to a client. Nothing
//! is collected; a frame is taken from one side when the other wants it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::ext::on_informational;
use hyper::{Request, StatusCode};
use tokio::time::Sleep;

use super::access::Visit;
use super::pool::Lease;

/// The body of a request, kept apart from the message so that a failed attempt leaves it whole.
pub(super) struct Upload {
    body: RefCell<Incoming>,
    begun: Cell<bool>,
    ended: Cell<bool>,
    /// The last time that the client sent some of it.
    moved: Cell<Instant>,
    hold: Option<Hold>,
}

/// A body that the client sends only when told to (`Expect: 100-continue`). Reading it would
/// tell the client; so it waits for the upstream to say the same, which it need not.
struct Hold {
    released: Arc<AtomicBool>,
    patience: RefCell<Pin<Box<Sleep>>>,
}

/// How long an upstream may think about an expectation (RFC 9110, 10.1.1: not indefinitely).
const EXPECTATION: Duration = Duration::from_secs(1);

/// What an upstream connection reads a request's body from.
pub(super) enum RequestBody {
    Empty,
    Upload(Rc<Upload>),
}

impl Upload {
    /// A body, read only when the upstream wants it if the client `expects` to be told.
    pub(super) fn new(body: Incoming, expects: bool) -> Self {
        Self {
            body: RefCell::new(body),
            begun: Cell::new(false),
            ended: Cell::new(false),
            moved: Cell::new(Instant::now()),
            hold: expects.then(Hold::new),
        }
    }

    /// Lets the upstream's `100 Continue` release a body that waits for it.
    pub(super) fn listen(&self, request: &mut Request<RequestBody>) {
        if let Some(hold) = &self.hold {
            let released = Arc::clone(&hold.released);
            on_informational(request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    released.store(true, Ordering::Relaxed);
                }
            });
        }
    }

    /// True once some of the body may have been taken: it cannot be sent again.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// True once all of it has been taken.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get() || self.body.borrow().is_end_stream()
    }

    /// When the client last sent some of it.
    pub(super) fn moved(&self) -> Instant {
        self.moved.get()
    }
}

impl Hold {
    fn new() -> Self {
        Self {
            released: Arc::default(),
            patience: RefCell::new(Box::pin(tokio::time::sleep(EXPECTATION))),
        }
    }

    /// The upstream's connection reads and writes in one poll, so a release needs no waker.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.released.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        self.patience.borrow_mut().as_mut().poll(cx)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Upload(upload) = &*self else {
            return Poll::Ready(None);
        };
        if let Some(hold) = &upload.hold {
            ready!(hold.poll(cx));
        }
        upload.begun.set(true);
        let frame = Pin::new(&mut *upload.body.borrow_mut()).poll_frame(cx);
        if frame.is_ready() {
            upload.moved.set(Instant::now());
        }
        if matches!(frame, Poll::Ready(None)) {
            upload.ended.set(true);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(upload) => upload.body.borrow().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(upload) => upload.body.borrow().size_hint(),
        }
    }
}

/// The body of a response, and who follows it to its end.
pub(super) struct Body {
    kind: Kind,
    visit: Option<Box<Visit>>,
}

enum Kind {
    /// Of an own answer; nothing once it was taken.
    Text(Option<Bytes>),
    /// An upstream's.
    Download(Download),
}

/// The body of an upstream's response, with the connection that it comes from.
struct Download {
    incoming: Incoming,
    lease: Lease,
    broken: Option<hyper::Error>,
}

impl Body {
    pub(super) fn text(text: Bytes) -> Self {
        Kind::Text(Some(text)).into()
    }

    pub(super) fn empty() -> Self {
        Kind::Text(None).into()
    }

    pub(super) fn download(incoming: Incoming, lease: Lease) -> Self {
        let download = Download {
            incoming,
            lease,
            broken: None,
        };
        Kind::Download(download).into()
    }

    /// Takes along who follows it.
    pub(super) fn with(mut self, visit: Box<Visit>) -> Self {
        self.visit = Some(visit);
        self
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self { kind, visit: None }
    }
}

impl Download {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = self.lease.poll_frame(&mut self.incoming, cx);
        if let Poll::Ready(Some(Err(error))) = frame {
            // hyper closes at once when it is told; a pause lets it send what came before.
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        frame
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.kind {
            Kind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Download(download) => download.poll_frame(cx),
        };
        if let (Some(visit), Poll::Ready(Some(Ok(frame)))) = (&mut self.visit, &frame)
            && let Some(data) = frame.data_ref()
        {
            visit.bytes += data.len() as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Text(text) => text.is_none(),
            Kind::Download(download) => download.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64)),
            Kind::Download(download) => download.incoming.size_hint(),
        }
    }
}
