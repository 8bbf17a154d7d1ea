//! Container logs in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use jaco_core::id::ReplicaId;
use jaco_core::ports::container_logs::{LogLine, LogLines, LogOptions};
use jaco_core::ports::{Clock, ContainerLogs, RuntimeError};

/// The logs of one node; lines carry the given clock's time.
pub struct FakeLogs {
    clock: Arc<dyn Clock>,
    logs: Mutex<BTreeMap<ReplicaId, Log>>,
}

#[derive(Default)]
struct Log {
    lines: Vec<LogLine>,
    ended: bool,
    followers: Vec<UnboundedSender<LogLine>>,
}

impl FakeLogs {
    /// No container has written anything yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            logs: Mutex::default(),
        }
    }

    /// Gives a replica a container with an empty log.
    pub fn open_log(&self, replica: &ReplicaId) {
        self.lock().entry(replica.clone()).or_default();
    }

    /// Writes a line as the replica's container.
    pub fn write(&self, replica: &ReplicaId, stderr: bool, text: &str) {
        let line = LogLine {
            at: Some(self.clock.now()),
            stderr,
            text: text.to_owned(),
        };
        let mut logs = self.lock();
        let log = logs.entry(replica.clone()).or_default();
        log.lines.push(line.clone());
        log.followers
            .retain(|follower| follower.unbounded_send(line.clone()).is_ok());
    }

    /// Ends the container, and with it the logs of those who follow.
    pub fn end(&self, replica: &ReplicaId) {
        if let Some(log) = self.lock().get_mut(replica) {
            log.ended = true;
            log.followers.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Log>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ContainerLogs for FakeLogs {
    async fn open(
        &self,
        replica: &ReplicaId,
        options: &LogOptions,
    ) -> Result<Box<dyn LogLines>, RuntimeError> {
        let mut logs = self.lock();
        let log = logs
            .get_mut(replica)
            .ok_or_else(|| RuntimeError::Refused(format!("No such container: {replica}")))?;
        let (sender, coming) = mpsc::unbounded();
        if options.follow && !log.ended {
            log.followers.push(sender);
        }
        let tail = options.tail.map_or(usize::MAX, |tail| tail as usize);
        let from = log.lines.len().saturating_sub(tail);
        let since = |line: &&LogLine| options.since.is_none() || line.at >= options.since;
        let written = log.lines[from..].iter().filter(since).cloned().collect();
        Ok(Box::new(FakeLines { written, coming }))
    }
}

struct FakeLines {
    written: VecDeque<LogLine>,
    coming: UnboundedReceiver<LogLine>,
}

#[async_trait]
impl LogLines for FakeLines {
    async fn next(&mut self) -> Option<Result<LogLine, RuntimeError>> {
        let line = match self.written.pop_front() {
            Some(line) => line,
            None => self.coming.next().await?,
        };
        Some(Ok(line))
    }
}
