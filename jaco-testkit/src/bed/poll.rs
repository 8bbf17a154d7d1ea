//! Waiting with a deadline: the only place of the bed that sleeps.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longer than any wait that ends well, on a machine that is slow and busy too: a test that gives
/// up later only fails later.
pub const SOON: Duration = Duration::from_secs(150);

const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; after `deadline` fails with `what` in the message.
pub fn poll_until(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    let start = Instant::now();
    loop {
        if condition() {
            return Ok(());
        }
        if start.elapsed() >= deadline {
            bail!("gave up after {deadline:?} waiting until {what}");
        }
        thread::sleep(INTERVAL);
    }
}

/// Repeats `attempt` until it succeeds and returns its value; after `deadline` fails with
/// `what` and the last error.
pub fn poll_ok<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= deadline => {
                return Err(error)
                    .with_context(|| format!("gave up after {deadline:?} waiting until {what}"));
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}
