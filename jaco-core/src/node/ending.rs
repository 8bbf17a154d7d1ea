//! How a container's stop is paced (spec 06).

use std::time::Duration;

/// The engine's own grace period, for containers that set none.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// How long the engine may take beyond the grace period: it ends with a kill, which the kernel
/// carries out at once unless something hangs.
const OVERDUE: Duration = Duration::from_secs(20);

/// The pace of one stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Between the stop signal and the kill; hooks before the stop have as long.
    pub grace: Duration,
    /// When a stop that has not ended is given up, and the container removed by force.
    pub limit: Duration,
}

impl Ending {
    /// For a container with this stop timeout, in seconds as the engine tells it. A negative one
    /// would have the engine wait for ever, which a drain cannot.
    pub fn of(stop_timeout: Option<i64>) -> Self {
        let grace = stop_timeout.and_then(|seconds| u64::try_from(seconds).ok());
        let grace = grace.map_or(DEFAULT_GRACE, Duration::from_secs);
        Self {
            grace,
            limit: grace.saturating_add(OVERDUE),
        }
    }
}
