//! Load from wrk, h2load and our own client, and what they say about it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Front, HOST, PLAIN, handshakes};

/// What is asked of a front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// HTTP/1.1 on connections that stay.
    Http,
    /// The same within TLS.
    Https,
    /// A connection with a full handshake for each request.
    Handshakes,
    /// A connection for each request, with the session of the one before.
    Resumptions,
    /// HTTP/2 within TLS, ten requests at once on each connection.
    Http2,
    /// HTTP/1.1 through the port that forwards bytes.
    Tcp,
}

impl Load {
    /// How rows call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Handshakes => "handshakes",
            Self::Resumptions => "resumptions",
            Self::Http2 => "http2",
            Self::Tcp => "tcp",
        }
    }

    /// Where it goes; nowhere when the front has nothing of the kind.
    pub fn url(self, front: &Front) -> Option<String> {
        Some(match self {
            Self::Http => format!("http://{PLAIN}:{}/", front.http),
            Self::Tcp => format!("http://{PLAIN}:{}/", front.tcp?),
            Self::Https | Self::Handshakes | Self::Resumptions | Self::Http2 => {
                format!("https://{HOST}:{}/", front.https)
            }
        })
    }
}

/// What one run found.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests a second.
    pub rate: f64,
    /// Microseconds; zero where the program does not say.
    pub p50: f64,
    /// The same.
    pub p99: f64,
    /// Microseconds of the front's processor time per request.
    pub cpu: f64,
}

/// Loads a front for some seconds.
///
/// # Errors
/// When something was not answered with success.
pub fn run(front: &Front, load: Load, connections: usize, seconds: usize) -> Result<Sample> {
    let url = load.url(front).context("this front has no such port")?;
    let before = front.cpu()?;
    let (total, mut sample) = match load {
        Load::Http2 => h2load(&url, connections, seconds),
        Load::Handshakes => handshakes::run(front.https, connections, seconds),
        _ => wrk(&url, load == Load::Resumptions, connections, seconds),
    }
    .with_context(|| format!("{} {}", front.name, load.name()))?;
    let cpu: Duration = front.cpu()?.saturating_sub(before);
    sample.cpu = cpu.as_secs_f64() * 1e6 / total.max(1.0);
    Ok(sample)
}

/// What it closes it opens again with the ticket that it got, which spares both ends a signature.
fn wrk(url: &str, close: bool, connections: usize, seconds: usize) -> Result<(f64, Sample)> {
    let mut command = Command::new("wrk");
    command
        .args(["-t1", "--latency", "--timeout", "30s"])
        .args([format!("-c{connections}"), format!("-d{seconds}s")]);
    if close {
        command.args(["-H", "Connection: close"]);
    }
    let output = command.arg(url).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let failed = ["Non-2xx", "Socket errors"]
        .iter()
        .any(|w| text.contains(w));
    ensure!(output.status.success() && !failed, "{text}");
    // "120034 requests in 2.00s, …": the words are the other way round here.
    let summary = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in"));
    let total = summary.context("no summary from wrk")?.0.parse()?;
    let sample = Sample {
        rate: word_after(&text, "Requests/sec:")?.parse()?,
        p50: microseconds(word_after(&text, "50%")?)?,
        p99: microseconds(word_after(&text, "99%")?)?,
        cpu: 0.0,
    };
    Ok((total, sample))
}

fn h2load(url: &str, connections: usize, seconds: usize) -> Result<(f64, Sample)> {
    let output = Command::new("h2load")
        .args(["-t1", "-m10", "--warm-up-time=0"])
        .args([format!("-c{connections}"), format!("-D{seconds}")])
        .arg(url)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout"
    let summary = text
        .lines()
        .find_map(|line| line.strip_prefix("requests: "));
    let summary = summary.context("no summary from h2load")?;
    let count = |word: &str| {
        let part = summary.split(", ").find(|part| part.ends_with(word));
        part.and_then(|part| part.split(' ').next()?.parse::<f64>().ok())
    };
    let done = count("succeeded").unwrap_or_default();
    let failed = count("failed").unwrap_or(1.0);
    ensure!(
        output.status.success() && done > 0.0 && failed == 0.0,
        "{text}"
    );
    // "finished in 2.00s, 34563.50 req/s, 5.2MB/s"
    let finished = text
        .lines()
        .find_map(|line| line.strip_prefix("finished in "));
    let rate = finished.and_then(|line| line.split(", ").nth(1)?.strip_suffix(" req/s"));
    let sample = Sample {
        rate: rate.context("no rate from h2load")?.parse()?,
        p50: 0.0,
        p99: 0.0,
        cpu: 0.0,
    };
    Ok((done, sample))
}

/// The second word of the line whose first is `label`.
fn word_after<'a>(text: &'a str, label: &str) -> Result<&'a str> {
    let mut lines = text.lines().map(str::split_whitespace);
    let found = lines.find_map(|mut words| (words.next()? == label).then(|| words.next())?);
    found.with_context(|| format!("no {label} from wrk"))
}

/// wrk prints `12.34us`, `1.23ms` or `1.23s`.
fn microseconds(text: &str) -> Result<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let found = units
        .iter()
        .find_map(|&(unit, scale)| Some((text.strip_suffix(unit)?, scale)));
    let (number, scale) = found.with_context(|| format!("wrk's time {text} has no unit"))?;
    Ok(number.parse::<f64>()? * scale)
}
