//! Container logs as whole lines.
//!
//! The engine sends messages of at most 16 KiB, each with its time in front; a longer line
//! comes as several messages, of which only the last has a line end. With a TTY there is one
//! stream without frames, so that the times within a long line are found by their place.

use std::collections::VecDeque;
use std::pin::Pin;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::{InspectContainerOptions, LogsOptions, LogsOptionsBuilder};
use futures::{Stream, StreamExt};
use jaco_core::id::ReplicaId;
use jaco_core::ports::RuntimeError;
use jaco_core::ports::container_logs::{LogLine, LogLines, LogOptions};
use jaco_core::time::Timestamp;

use super::engine::{Engine, SHORT};
use super::error::Failure;
use super::observe::REPLICA_LABEL;

/// The longest message of the engine.
const MESSAGE: usize = 16 * 1024;
/// `2006-01-02T15:04:05.000000000Z`, and a space.
const STAMP: usize = 31;
/// Where an endless line is cut, so that it does not fill the memory.
const LONGEST_LINE: usize = 1024 * 1024;

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// A log being read from the engine.
pub(super) struct DockerLog {
    output: Option<Output>,
    lines: Lines,
}

/// Opens the log of a replica's container.
pub(super) async fn open(
    engine: &Engine,
    replica: &ReplicaId,
    options: &LogOptions,
) -> Result<DockerLog, RuntimeError> {
    let docker = engine.client().await?.docker;
    let name = replica.as_str();
    let inspection = docker.inspect_container(name, None::<InspectContainerOptions>);
    let container = engine.within(SHORT, inspection).await?;
    let labels = container.config.and_then(|config| config.labels);
    if labels.is_none_or(|labels| labels.get(REPLICA_LABEL).map(String::as_str) != Some(name)) {
        let reason = format!("container {name} is not a replica");
        return Err(RuntimeError::Refused(reason));
    }
    let output: Output = Box::pin(docker.logs(name, Some(engine_options(options))));
    Ok(DockerLog {
        output: Some(output),
        lines: Lines::since(options.since),
    })
}

fn engine_options(options: &LogOptions) -> LogsOptions {
    let tail = options
        .tail
        .map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    // Whole seconds are all that the client can say; `Lines` drops the rest.
    let since = options.since.map_or(0, |since| since.0 / 1000);
    LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .follow(options.follow)
        .since(i32::try_from(since).unwrap_or(i32::MAX))
        .tail(&tail)
        .build()
}

#[async_trait]
impl LogLines for DockerLog {
    async fn next(&mut self) -> Option<Result<LogLine, RuntimeError>> {
        loop {
            if let Some(line) = self.lines.ready.pop_front() {
                return Some(Ok(line));
            }
            match self.output.as_mut()?.next().await {
                Some(Ok(LogOutput::Console { message })) => self.lines.console(&message),
                Some(Ok(LogOutput::StdErr { message })) => self.lines.message(&message, true),
                Some(Ok(LogOutput::StdOut { message } | LogOutput::StdIn { message })) => {
                    self.lines.message(&message, false);
                }
                Some(Err(error)) => {
                    self.output = None;
                    return Some(Err(Failure::from(error).into()));
                }
                None => {
                    self.output = None;
                    self.lines.flush();
                }
            }
        }
    }
}

/// Messages made into lines.
#[derive(Debug, Default)]
struct Lines {
    since: Option<Timestamp>,
    stdout: Partial,
    stderr: Partial,
    ready: VecDeque<LogLine>,
}

/// The beginning of a line whose end has not come yet.
#[derive(Debug, Default)]
struct Partial {
    at: Option<Timestamp>,
    bytes: Vec<u8>,
}

impl Lines {
    fn since(since: Option<Timestamp>) -> Self {
        Self {
            since,
            ..Self::default()
        }
    }

    /// One framed message: a line or a part of one.
    fn message(&mut self, message: &[u8], stderr: bool) {
        for part in message.split_inclusive(|byte| *byte == b'\n') {
            self.part(part, stderr);
        }
    }

    /// Output of a TTY: a line with all its parts, each with its time in front.
    fn console(&mut self, mut line: &[u8]) {
        while line.len() > STAMP + MESSAGE && stamp(&line[STAMP + MESSAGE..]).is_some() {
            let (part, rest) = line.split_at(STAMP + MESSAGE);
            self.part(part, false);
            line = rest;
        }
        self.part(line.strip_suffix(b"\r\n").unwrap_or(line), false);
        self.end(false);
    }

    fn part(&mut self, part: &[u8], stderr: bool) {
        let (at, text) = stamp(part).map_or((None, part), |(at, text)| (Some(at), text));
        let partial = self.partial(stderr);
        partial.at = partial.at.or(at);
        let (text, ended) = match text.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (text, false),
        };
        partial.bytes.extend_from_slice(text);
        if ended || partial.bytes.len() >= LONGEST_LINE {
            self.end(stderr);
        }
    }

    fn end(&mut self, stderr: bool) {
        let Partial { at, bytes } = std::mem::take(self.partial(stderr));
        if at.is_none() && bytes.is_empty() {
            return;
        }
        if at < self.since && at.is_some() {
            return;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.ready.push_back(LogLine { at, stderr, text });
    }

    fn flush(&mut self) {
        self.end(false);
        self.end(true);
    }

    fn partial(&mut self, stderr: bool) -> &mut Partial {
        if stderr {
            &mut self.stderr
        } else {
            &mut self.stdout
        }
    }
}

/// The time in front of a message, and the message.
fn stamp(message: &[u8]) -> Option<(Timestamp, &[u8])> {
    let space = message
        .iter()
        .take(STAMP + 5)
        .position(|byte| *byte == b' ')?;
    let (time, text) = message.split_at(space);
    let at = Timestamp::parse(std::str::from_utf8(time).ok()?)?;
    Some((at, &text[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-01-02T03:04:05.000000000Z";
    const LATER: &str = "2026-01-02T03:04:06.500000000Z";

    fn texts(lines: &Lines) -> Vec<(bool, &str)> {
        let ready = lines.ready.iter();
        ready
            .map(|line| (line.stderr, line.text.as_str()))
            .collect()
    }

    #[test]
    fn parts_of_a_line_are_joined_per_stream_under_the_first_time() {
        let mut lines = Lines::default();
        lines.message(format!("{AT} one ").as_bytes(), false);
        lines.message(format!("{AT} error\n").as_bytes(), true);
        lines.message(format!("{LATER} line\n").as_bytes(), false);
        lines.message(format!("{LATER} no end").as_bytes(), false);
        lines.flush();
        assert_eq!(
            texts(&lines),
            [(true, "error"), (false, "one line"), (false, "no end")]
        );
        assert_eq!(lines.ready[1].at, Timestamp::parse(AT));
        assert_eq!(lines.ready[2].at, Timestamp::parse(LATER));
    }

    #[test]
    fn a_long_line_of_a_tty_loses_its_inner_times_and_its_carriage_return() {
        let long = "x".repeat(MESSAGE);
        let mut lines = Lines::default();
        lines.console(format!("{AT} {long}{LATER} rest\r\n").as_bytes());
        lines.console(format!("{AT} \r\n").as_bytes());
        let expected = format!("{long}rest");
        assert_eq!(texts(&lines), [(false, expected.as_str()), (false, "")]);
        assert_eq!(lines.ready[0].at, Timestamp::parse(AT));
    }

    #[test]
    fn lines_before_the_asked_moment_are_dropped() {
        let mut lines = Lines::since(Timestamp::parse(LATER));
        lines.message(format!("{AT} old\n").as_bytes(), false);
        lines.message(format!("{LATER} new\n").as_bytes(), false);
        assert_eq!(texts(&lines), [(false, "new")]);
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced_and_endless_lines_cut() {
        let mut lines = Lines::default();
        lines.message(&[AT.as_bytes(), b" a\xffb\n"].concat(), false);
        assert_eq!(texts(&lines), [(false, "a\u{fffd}b")]);
        lines.message("y".repeat(LONGEST_LINE).as_bytes(), false);
        assert_eq!(lines.ready.len(), 2);
    }
}
