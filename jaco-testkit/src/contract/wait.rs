//! Waiting with a deadline, on any async runtime.

use std::thread;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::{Either, select};
use std::pin::pin;

/// Generous: a slow machine is no broken promise.
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// Asks again and again until there is an answer; panics when none comes.
pub(super) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        pause(PAUSE).await;
    }
}

/// Waits for one event; panics when it does not come.
pub(super) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    within(DEADLINE, event)
        .await
        .unwrap_or_else(|| panic!("waited in vain: {what}"))
}

/// What an event gives, or nothing when it takes longer than this.
pub(super) async fn within<T>(time: Duration, event: impl Future<Output = T>) -> Option<T> {
    match select(pin!(event), pin!(pause(time))).await {
        Either::Left((answer, _)) => Some(answer),
        Either::Right(_) => None,
    }
}

/// A thread keeps the time, since a suite knows no runtime's timer.
async fn pause(time: Duration) {
    let (wake, woken) = oneshot::channel::<()>();
    thread::spawn(move || {
        thread::sleep(time);
        drop(wake);
    });
    // Dropping the sender is the signal.
    let _ = woken.await;
}
