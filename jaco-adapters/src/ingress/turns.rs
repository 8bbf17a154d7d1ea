//! Which requests may start: a worker finishes what it has begun before it begins much more.
//!
//! When a thousand clients ask at once, beginning all of their requests first would have each
//! one's state, and that of as many connections to upstreams, leave the caches of the processor
//! long before the response comes. A few at a time find all of it there. Nobody waits for a slow
//! upstream: there are new turns after every look at the sockets.

use tokio::sync::{Notify, Semaphore};
use tokio::task::yield_now;

/// Requests that may start between two looks at the sockets.
const PER_LOOK: usize = 32;

/// The turns of one worker's requests, first come, first served.
pub(super) struct Turns {
    left: Semaphore,
    none_left: Notify,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            left: Semaphore::new(PER_LOOK),
            none_left: Notify::new(),
        }
    }

    /// Waits for a turn.
    pub(super) async fn take(&self) {
        let turn = match self.left.try_acquire() {
            Ok(turn) => Ok(turn),
            Err(_) => {
                self.none_left.notify_one();
                self.left.acquire().await
            }
        };
        turn.expect("the semaphore is never closed").forget();
    }

    /// Hands out turns for as long as the worker lives.
    pub(super) async fn hand_out(&self) {
        loop {
            self.none_left.notified().await;
            while self.left.available_permits() == 0 {
                // The runtime looks at the sockets before it goes on with who has yielded.
                yield_now().await;
                self.left.add_permits(PER_LOOK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::spawn_local;

    use super::*;

    #[test]
    fn all_get_a_turn_and_few_between_two_looks() {
        const REQUESTS: usize = 10 * PER_LOOK + 1;
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default());
        runtime.expect("a runtime").block_on(async {
            let turns = Rc::new(Turns::new());
            let started = Rc::new(Cell::new(0));
            let at = Rc::clone(&turns);
            spawn_local(async move { at.hand_out().await });
            for _ in 0..REQUESTS {
                let (turns, started) = (Rc::clone(&turns), Rc::clone(&started));
                spawn_local(async move {
                    turns.take().await;
                    started.set(started.get() + 1);
                });
            }
            let mut before = 0;
            while before < REQUESTS {
                yield_now().await;
                assert!(started.get() - before <= PER_LOOK);
                before = started.get();
            }
        });
    }
}
