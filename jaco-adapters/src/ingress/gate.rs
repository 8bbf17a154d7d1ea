//! A waker between an upstream connection and the task that drives it.
//!
//! hyper's connection and its body talk to each other through channels that wake the other
//! side. Here both sides are the same task in the same poll, so each such wake would only have
//! the task polled once more for nothing: with a small response that is every second poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures::task::AtomicWaker;

/// Passes wakes on to whoever drives the connection at the time.
pub(super) struct Gate {
    shared: Arc<Shared>,
    waker: Waker,
}

#[derive(Default)]
struct Shared {
    task: AtomicWaker,
    shut: AtomicBool,
}

impl Gate {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let waker = Waker::from(Arc::clone(&shared));
        Self { shared, waker }
    }

    /// Makes the polling task the one to be woken.
    pub(super) fn open_for(&self, cx: &Context<'_>) -> Context<'_> {
        self.shared.task.register(cx.waker());
        Context::from_waker(&self.waker)
    }

    /// Nobody is to be woken any more.
    pub(super) fn forget(&self) -> Context<'_> {
        self.shared.task.take();
        Context::from_waker(&self.waker)
    }

    /// Does something whose wakes the caller makes up for by driving the connection.
    pub(super) fn quietly<T>(&self, act: impl FnOnce() -> T) -> T {
        self.shared.shut.store(true, Ordering::Relaxed);
        let result = act();
        self.shared.shut.store(false, Ordering::Relaxed);
        result
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.shut.load(Ordering::Relaxed) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_the_last_task_is_woken_and_not_for_what_it_does_quietly() {
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        let woken = || {
            counts
                .each_ref()
                .map(|count| count.0.load(Ordering::Relaxed))
        };
        let gate = Gate::new();
        let mut inner = Waker::noop().clone();
        for count in &counts {
            let task = Waker::from(Arc::clone(count));
            inner.clone_from(gate.open_for(&Context::from_waker(&task)).waker());
        }
        gate.quietly(|| inner.wake_by_ref());
        assert_eq!(woken(), [0, 0]);
        inner.wake_by_ref();
        assert_eq!(woken(), [0, 1]);
        let task = Waker::from(Arc::clone(&counts[0]));
        gate.open_for(&Context::from_waker(&task));
        gate.forget();
        inner.wake_by_ref();
        assert_eq!(woken(), [0, 1]);
    }
}
