//! What every `ContainerLogs` promises.

use std::time::Duration;

use jaco_core::id::ReplicaId;
use jaco_core::ports::container_logs::{LogLine, LogLines, LogOptions};
use jaco_core::ports::{ContainerLogs, RuntimeError};

use super::wait::{soon, within};

/// How long nothing may come before a followed log counts as waiting.
const QUIET: Duration = Duration::from_millis(300);

/// The world around the logs of one node.
pub struct World<'a> {
    /// A replica whose container has ended.
    pub ended: ReplicaId,
    /// What it wrote, at least three lines, with true for standard error.
    pub written: Vec<(bool, String)>,
    /// A replica whose container runs and has written nothing.
    pub running: ReplicaId,
    /// Makes it write a line to its standard output.
    pub write: &'a (dyn Fn(&str) + Sync),
    /// A replica that has no container.
    pub absent: ReplicaId,
}

/// Runs every check.
pub async fn suite(logs: &dyn ContainerLogs, world: &World<'_>) {
    a_log_is_read_whole_and_in_each_stream_s_order(logs, world).await;
    a_tail_is_the_last_lines(logs, world).await;
    lines_before_the_asked_moment_are_left_out(logs, world).await;
    following_an_ended_container_ends(logs, world).await;
    a_followed_log_waits_for_the_next_line(logs, world).await;
    a_log_that_is_not_followed_ends(logs, world).await;
    a_replica_without_a_container_has_no_log(logs, world).await;
}

async fn a_log_is_read_whole_and_in_each_stream_s_order(
    logs: &dyn ContainerLogs,
    world: &World<'_>,
) {
    let lines = read(logs, &world.ended, &LogOptions::default()).await;
    assert_eq!(lines.len(), world.written.len(), "{lines:?}");
    for stderr in [false, true] {
        // Between the two streams a container has no order of its own.
        let seen: Vec<_> = lines.iter().filter(|line| line.stderr == stderr).collect();
        let written = world.written.iter().filter(|line| line.0 == stderr);
        assert!(
            seen.iter()
                .map(|line| &line.text)
                .eq(written.map(|line| &line.1))
        );
        assert!(seen.iter().all(|line| line.at.is_some()), "{seen:?}");
        assert!(seen.is_sorted_by_key(|line| line.at), "{seen:?}");
    }
}

async fn a_tail_is_the_last_lines(logs: &dyn ContainerLogs, world: &World<'_>) {
    let all = read(logs, &world.ended, &LogOptions::default()).await;
    for tail in [0, 2, 1000] {
        let options = LogOptions {
            tail: Some(tail),
            ..LogOptions::default()
        };
        let lines = read(logs, &world.ended, &options).await;
        let from = all.len().saturating_sub(tail as usize);
        assert_eq!(lines, all[from..], "the last {tail}");
    }
}

async fn lines_before_the_asked_moment_are_left_out(logs: &dyn ContainerLogs, world: &World<'_>) {
    let all = read(logs, &world.ended, &LogOptions::default()).await;
    let last = all
        .last()
        .and_then(|line| line.at)
        .expect("lines have times");
    let since = |since| LogOptions {
        since: Some(since),
        ..LogOptions::default()
    };
    let lines = read(logs, &world.ended, &since(last)).await;
    let expected: Vec<_> = all
        .iter()
        .filter(|line| line.at == Some(last))
        .cloned()
        .collect();
    assert_eq!(lines, expected);
    let later = last + Duration::from_millis(1);
    assert_eq!(read(logs, &world.ended, &since(later)).await, []);
}

async fn following_an_ended_container_ends(logs: &dyn ContainerLogs, world: &World<'_>) {
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let lines = soon("the log ends", read(logs, &world.ended, &options)).await;
    assert_eq!(lines.len(), world.written.len());
}

async fn a_followed_log_waits_for_the_next_line(logs: &dyn ContainerLogs, world: &World<'_>) {
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let mut log = open(logs, &world.running, &options).await;
    assert_eq!(within(QUIET, log.next()).await, None, "nothing was written");
    for text in ["first", "second"] {
        (world.write)(text);
        let line = soon("the line comes", log.next()).await;
        let line = line.expect("the log goes on").expect("the stream is whole");
        assert_eq!((line.text.as_str(), line.stderr), (text, false));
    }
}

async fn a_log_that_is_not_followed_ends(logs: &dyn ContainerLogs, world: &World<'_>) {
    let options = LogOptions::default();
    let lines = soon("the log ends", read(logs, &world.running, &options)).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
}

async fn a_replica_without_a_container_has_no_log(logs: &dyn ContainerLogs, world: &World<'_>) {
    let opened = logs.open(&world.absent, &LogOptions::default()).await;
    assert!(matches!(opened, Err(RuntimeError::Refused(_))));
}

async fn open(
    logs: &dyn ContainerLogs,
    replica: &ReplicaId,
    options: &LogOptions,
) -> Box<dyn LogLines> {
    let opened = logs.open(replica, options).await;
    opened.unwrap_or_else(|error| panic!("the log of {replica}: {error}"))
}

async fn read(logs: &dyn ContainerLogs, replica: &ReplicaId, options: &LogOptions) -> Vec<LogLine> {
    let mut log = open(logs, replica, options).await;
    let mut lines = Vec::new();
    while let Some(line) = log.next().await {
        lines.push(line.expect("the stream is whole"));
    }
    lines
}
