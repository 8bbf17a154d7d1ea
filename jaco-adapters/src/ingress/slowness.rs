//! When a client has been slow for too long (spec 08, limits).

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::limits::Limits;

/// A timer for a deadline that moves with every request. It is set anew only when it rings too
/// early, or would ring too late: moving a deadline back costs nothing.
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    pub(super) fn new(limit: Duration) -> Self {
        Self(Box::pin(tokio::time::sleep(limit)))
    }

    /// Ready once `due` has passed; none stands for a deadline not known yet, which lies at
    /// least `limit` ahead.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        due: Option<Instant>,
        limit: Duration,
    ) -> Poll<()> {
        if due.is_some_and(|due| due < self.0.deadline().into_std()) {
            self.set(due);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) {
                return Poll::Ready(());
            }
            self.set(due.or_else(|| now.checked_add(limit)));
        }
    }

    fn set(&mut self, due: Option<Instant>) {
        if let Some(due) = due {
            self.0.as_mut().reset(due.into());
        }
    }
}

/// What one client is being waited for.
pub(super) struct Watch {
    /// Requests taken whose response has not ended.
    requests: Cell<u32>,
    idle_since: Cell<Instant>,
    head_since: Cell<Option<Instant>>,
    stalled_since: Cell<Option<Instant>>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            requests: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            head_since: Cell::new(None),
            stalled_since: Cell::new(None),
        }
    }

    pub(super) fn request_began(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    pub(super) fn response_ended(&self) {
        self.requests.set(self.requests.get().saturating_sub(1));
        self.idle_since.set(Instant::now());
    }

    /// True while the client waits for an answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.requests.get() > 0
    }

    /// Bytes came from the client, and the head that they belong to is complete or not.
    pub(super) fn received(&self, in_head: bool) {
        self.stalled_since.set(None);
        if !in_head {
            self.head_since.set(None);
        } else if self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// Bytes went to the client.
    pub(super) fn sent(&self) {
        self.stalled_since.set(None);
    }

    /// The client does not take what is to be sent, or does not send the body that is wanted.
    pub(super) fn stalled(&self) {
        if self.stalled_since.get().is_none() {
            self.stalled_since.set(Some(Instant::now()));
        }
    }

    /// When the client will have been slow for too long; none while it is waiting itself.
    pub(super) fn due(&self, limits: &Limits) -> Option<Instant> {
        let (since, limit) = match (self.stalled_since.get(), self.head_since.get()) {
            (Some(stalled), _) => (stalled, limits.idle),
            _ if self.is_waiting() => return None,
            (None, Some(head)) => (head, limits.header_read),
            (None, None) => (self.idle_since.get(), limits.idle),
        };
        since.checked_add(limit)
    }
}
