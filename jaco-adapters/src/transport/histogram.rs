//! Durations, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

/// Upper ends of the buckets, in microseconds; a last one has no end.
const ENDS: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000, 60_000_000,
];

/// How many durations were how long.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; ENDS.len() + 1],
    /// Microseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub(crate) fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = ENDS.iter().position(|&end| micros <= end);
        self.buckets[at.unwrap_or(ENDS.len())].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// Writes what was counted, in seconds.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        let counts = self.buckets.each_ref().map(|n| n.load(Ordering::Relaxed));
        // The writer adds the bucket without an end, from the count of all.
        let ends = ENDS.iter().map(|&end| seconds(end));
        let buckets: Vec<_> = ends.zip(counts).collect();
        let count = counts.iter().sum();
        let sum = seconds(self.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}
