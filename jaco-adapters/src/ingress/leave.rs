//! Leaving without turning a visitor away: requests under way end, connections end with them,
//! and only then is nobody new taken in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How often the requests under way are counted.
const LOOK: Duration = Duration::from_millis(10);
/// A connection just taken may not have been read yet; so long nothing must be under way.
const QUIET: Duration = Duration::from_millis(100);
/// For requests that began meanwhile. Whoever comes now waits for so long in the worst case, so it
/// is well below what clients have patience for.
const LAST: Duration = Duration::from_secs(8);

/// How far an ingress is with leaving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Stage {
    #[default]
    Serving,
    /// Each response is the last of its connection; new connections are taken.
    Draining,
    /// No connection is taken any more.
    Closing,
}

/// The requests of one worker whose responses have not ended. Only that worker writes the
/// counts, so that no two cores meet here.
#[derive(Default)]
pub(super) struct UnderWay {
    stage: AtomicU8,
    /// Began while serving.
    older: AtomicU32,
    newer: AtomicU32,
}

/// What [`UnderWay::began`] counted, for when it ends.
#[derive(Clone, Copy)]
pub(super) enum Counted {
    Older,
    Newer,
}

impl UnderWay {
    pub(super) fn is_leaving(&self) -> bool {
        self.stage.load(Ordering::Relaxed) != Stage::Serving as u8
    }

    pub(super) fn began(&self) -> Counted {
        let counted = if self.is_leaving() {
            Counted::Newer
        } else {
            Counted::Older
        };
        let count = self.count(counted);
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        counted
    }

    pub(super) fn ended(&self, counted: Counted) {
        let count = self.count(counted);
        count.store(
            count.load(Ordering::Relaxed).saturating_sub(1),
            Ordering::Relaxed,
        );
    }

    fn count(&self, counted: Counted) -> &AtomicU32 {
        match counted {
            Counted::Older => &self.older,
            Counted::Newer => &self.newer,
        }
    }

    fn older(&self) -> u32 {
        self.older.load(Ordering::Relaxed)
    }

    fn all(&self) -> u32 {
        self.older() + self.newer.load(Ordering::Relaxed)
    }
}

/// Tells all workers of one ingress to leave.
pub(super) struct Farewell {
    stage: watch::Sender<Stage>,
    workers: Vec<Arc<UnderWay>>,
}

impl Farewell {
    pub(super) fn new(stage: watch::Sender<Stage>, workers: Vec<Arc<UnderWay>>) -> Self {
        Self { stage, workers }
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Lets the requests under way end, at most for `grace`; new visitors are served meanwhile.
    pub(super) async fn drain(&self, grace: Duration) {
        self.enter(Stage::Draining);
        let done = || self.workers.iter().all(|worker| worker.older() == 0);
        hold_for(Duration::ZERO, grace, done).await;
    }

    /// The end, once nobody new is taken in.
    pub(super) async fn close(&self) {
        let done = || self.workers.iter().all(|worker| worker.all() == 0);
        hold_for(QUIET, LAST, done).await;
    }

    pub(super) fn enter(&self, stage: Stage) {
        for worker in &self.workers {
            worker.stage.store(stage as u8, Ordering::Relaxed);
        }
        self.stage.send_replace(stage);
    }
}

/// Waits until something has held for `time`, at most for `limit`.
async fn hold_for(time: Duration, limit: Duration, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    let mut since = None;
    while begin.elapsed() < limit {
        since = holds().then(|| since.unwrap_or_else(Instant::now));
        if since.is_some_and(|since: Instant| since.elapsed() >= time) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_waits_for_what_began_before_and_for_nothing_else() {
        let worker = Arc::new(UnderWay::default());
        let (stage, _) = watch::channel(Stage::default());
        let farewell = Arc::new(Farewell::new(stage, vec![Arc::clone(&worker)]));
        let older = worker.began();
        let draining = tokio::spawn({
            let farewell = Arc::clone(&farewell);
            async move { farewell.drain(Duration::from_secs(600)).await }
        });
        while farewell.stage() != Stage::Draining {
            tokio::task::yield_now().await;
        }
        let newer = worker.began();
        assert!(!draining.is_finished());
        worker.ended(older);
        draining.await.unwrap();
        assert_eq!((worker.older(), worker.all()), (0, 1));
        worker.ended(newer);
        farewell.enter(Stage::Closing);
        farewell.close().await;
        assert_eq!(worker.all(), 0);
    }
}
