//! `make conformance`: the requests of a public corpus through our ingress, byte by byte.
//!
//! gunicorn's source package holds what its own parser must take and what it must refuse, attempts
//! at request smuggling among it. Here each file goes to the ingress with the host of its route;
//! a server behind it notes what arrives. A request that must be refused is either refused, or
//! listed in [`PASSED`] with the reason; and the server never sees a request that the visitor got
//! no answer to, which is what smuggling comes down to.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use jaco_benches::front::{Front, Ours, PLAIN};
use jaco_benches::peer::install;
use tempfile::TempDir;

const CORPUS: &str = "gunicorn==27.0.1";
/// How long an answer may take before the ingress is thought to wait for more.
const SILENCE: Duration = Duration::from_millis(400);
/// How long the server is watched for more than was answered; nothing tells that no more will come.
const SETTLED: Duration = Duration::from_millis(30);

/// What that parser refuses and an ingress may pass on, with the reason.
const PASSED: [(&str, &str); 20] = [
    ("003c", OF_THE_SERVICE),
    ("006", LIMIT),
    ("007", LIMIT),
    ("008", LIMIT),
    ("010", LIMIT),
    ("011", LIMIT),
    ("012", LIMIT),
    ("017", LIMIT),
    ("limit_header_default_01", LIMIT),
    ("019", OVERWRITTEN),
    ("040", UNDERSCORE),
    ("chunked_07", UNDERSCORE),
    ("041", OF_THE_SERVICE),
    ("chunked_09", ANEW),
    ("rfc9110_trailer_forbidden_cl_01", ANEW),
    ("rfc9110_trailer_forbidden_host_01", ANEW),
    ("rfc9110_trailer_forbidden_te_01", ANEW),
    ("rfc9112_bare_lf_01", ANEW),
    ("rfc9112_leading_crlf_02", ANEW),
    ("rfc9112_target_non_ascii_02", OF_THE_SERVICE),
];
const LIMIT: &str = "within the limits of spec 08, which are wider";
const OVERWRITTEN: &str = "what the visitor says of the scheme is overwritten";
const UNDERSCORE: &str = "a name with an underscore is another name; a service may refuse it";
const OF_THE_SERVICE: &str = "unambiguous; for the service to refuse";
const ANEW: &str = "lengths, line ends and trailers are written anew, so the server never sees it";

pub(crate) fn main() -> Result<()> {
    install(&["python3-pip"])?;
    let files = TempDir::with_prefix("jaco-corpus-")?;
    let corpus = fetch(files.path())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let server = runtime.block_on(Server::start())?;
    let front = Ours::new(server.port)?.start("jaco", files.path())?;
    let valid = run(&front, &server, &corpus.join("valid"))?;
    let invalid = run(&front, &server, &corpus.join("invalid"))?;
    let mut odd = 0;
    for (kind, outcomes) in [("valid", &valid), ("invalid", &invalid)] {
        for outcome in outcomes {
            let known = PASSED.iter().find(|(name, _)| *name == outcome.name);
            let as_expected = match kind {
                "valid" => outcome.is_served(),
                _ => !outcome.is_served() || known.is_some(),
            };
            // A body that turns out to be malformed breaks off a request that was passed on.
            let smuggled = outcome.seen > outcome.statuses.len().max(1);
            if !as_expected || smuggled || known.is_some() {
                let reason = known.map_or("", |(_, reason)| reason);
                println!("{kind}/{outcome} {reason}");
            }
            odd += usize::from(smuggled || kind == "invalid" && !as_expected);
        }
        let served = outcomes
            .iter()
            .filter(|outcome| outcome.is_served())
            .count();
        let files = outcomes.len();
        println!(
            "corpus {kind} files={files} served={served} refused={}",
            files - served
        );
    }
    ensure!(odd == 0, "{odd} files pass that should not");
    Ok(())
}

/// What became of one file.
struct Outcome {
    name: String,
    /// The statuses of the answers.
    statuses: Vec<u16>,
    /// How many of them are the server's.
    answered: usize,
    /// How many requests the server saw.
    seen: usize,
}

impl Outcome {
    /// True when all that the file holds was passed on.
    fn is_served(&self) -> bool {
        self.answered > 0 && self.answered == self.statuses.len()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            statuses,
            seen,
            ..
        } = self;
        write!(f, "{name}: answers {statuses:?}, {seen} seen by the server")
    }
}

fn run(front: &Front, server: &Server, folder: &Path) -> Result<Vec<Outcome>> {
    let entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let paths = entries.into_iter().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "http"))
        .collect();
    paths.sort();
    let outcome = |path: &PathBuf| {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let before = server.seen.load(Ordering::SeqCst);
        let answers = ask(front.http, &routed(&unescaped(&fs::read(path)?)))?;
        let statuses = statuses(&answers);
        thread::sleep(SETTLED);
        Ok(Outcome {
            name,
            answered: statuses.iter().filter(|status| **status == 200).count(),
            statuses,
            seen: server.seen.load(Ordering::SeqCst) - before,
        })
    };
    paths.iter().map(outcome).collect()
}

/// The corpus, fetched by pip from the index that it is set up for.
fn fetch(folder: &Path) -> Result<PathBuf> {
    let call = |arguments: &[&str]| -> Result<()> {
        let status = Command::new(arguments[0])
            .args(&arguments[1..])
            .current_dir(folder)
            .status()?;
        ensure!(status.success(), "{} failed", arguments.join(" "));
        Ok(())
    };
    call(&[
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary=:all:",
        CORPUS,
    ])?;
    let name = CORPUS.replace("==", "-");
    call(&["tar", "xzf", &format!("{name}.tar.gz")])?;
    Ok(folder.join(name).join("tests/requests"))
}

/// The bytes that a file of the corpus stands for: its line ends are for the eye.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\n').collect();
    let mut bytes = Vec::new();
    let mut rest = text.as_slice();
    while let [first, others @ ..] = rest {
        let (byte, after) = match rest {
            [b'\\', b'r', after @ ..] => (b'\r', after),
            [b'\\', b'n', after @ ..] => (b'\n', after),
            [b'\\', b't', after @ ..] => (b'\t', after),
            [b'\\', b'0', after @ ..] => (0, after),
            [b'\\', b'x', high, low, after @ ..] => (hexadecimal([*high, *low]), after),
            _ => (*first, others),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

fn hexadecimal(digits: [u8; 2]) -> u8 {
    let digits = std::str::from_utf8(&digits).unwrap_or_default();
    u8::from_str_radix(digits, 16).unwrap_or_default()
}

/// The same requests for the host that has a route. Only what follows a line of the form
/// `... HTTP/1.x` is touched.
fn routed(bytes: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    // Where a head began that has no host yet.
    let mut begun = None;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let is_host = text
            .get(..5)
            .is_some_and(|name| name.eq_ignore_ascii_case("host:"));
        if is_host && text.trim().len() > 5 {
            begun = None;
            lines.push(format!("{}{PLAIN}\r\n", &text[..5]).into_bytes());
            continue;
        }
        if line == b"\r\n"
            && let Some(place) = begun.take()
        {
            lines.insert(place, format!("Host: {PLAIN}\r\n").into_bytes());
        }
        lines.push(line.to_vec());
        if text.trim_end().ends_with(" HTTP/1.1") || text.trim_end().ends_with(" HTTP/1.0") {
            begun = Some(lines.len());
        }
    }
    lines.concat()
}

fn ask(port: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(SILENCE))?;
    // An ingress that has refused does not read on.
    let _ = stream.write_all(bytes);
    let mut answers = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answers.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    Ok(answers)
}

/// No body here holds anything like a status line.
fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let lines = text.match_indices("HTTP/1.").filter(|(at, _)| {
        let before = text[..*at].chars().next_back();
        before.is_none_or(|it| it == '\n' || it == 'k')
    });
    let status = |(at, _): (usize, &str)| text.get(at + 9..at + 12)?.parse().ok();
    lines.filter_map(status).collect()
}

/// A server that takes what its library takes, and counts.
struct Server {
    port: u16,
    seen: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                let service = service_fn(move |request| answer(request, Arc::clone(&counter)));
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { port, seen })
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<AtomicUsize>,
) -> Result<Response<Full<Bytes>>> {
    seen.fetch_add(1, Ordering::SeqCst);
    request
        .into_body()
        .collect()
        .await
        .context("a body breaks off")?;
    Ok(Response::new(Full::from("ok")))
}
