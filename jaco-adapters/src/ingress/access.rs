//! The access log: one line per request (spec 08, spec 11).
//!
//! A worker only appends what is to be told to its own page; a thread takes the pages from time
//! to time and writes the lines. A writer that is slow therefore holds up no request: a full
//! page takes no more, and what it did not take is counted and told.

use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Uri};

use super::tally::{Tallies, Tally};
use super::worker::Worker;

/// How often pages are taken.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines on a page, and bytes of their texts.
const LINES: usize = 16 * 1024;
const TEXT: usize = 4 * 1024 * 1024;
/// More of a host or a path is not told.
const LONGEST: usize = 1024;

/// The status of a request whose client went before it was answered, as nginx has it.
const GONE: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

/// True when lines are written at all.
pub(super) fn is_on() -> bool {
    tracing::enabled!(tracing::Level::INFO)
}

/// What one worker has yet to tell.
#[derive(Default)]
pub(super) struct Page(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    /// The texts of all lines, one behind the other.
    text: String,
}

/// One line; its texts are host, path, client and request id.
struct Line {
    method: Method,
    status: StatusCode,
    bytes: u64,
    took: Duration,
    upstream: Option<SocketAddrV4>,
    lengths: [usize; 4],
}

/// What is told of one request.
pub(super) struct Told {
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    client: HeaderValue,
    pub(super) id: Option<HeaderValue>,
    pub(super) upstream: Option<SocketAddrV4>,
}

impl Told {
    pub(super) fn new(head: &Parts, client: HeaderValue) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            host: head.headers.get(HOST).cloned(),
            client,
            id: None,
            upstream: None,
        }
    }
}

/// One request from its coming to the end of its answer, when it is counted and told.
pub(super) struct Visit {
    worker: Rc<Worker>,
    began: Instant,
    pub(super) status: StatusCode,
    pub(super) bytes: u64,
    /// Of its route, once that is known.
    pub(super) tally: Option<Arc<Tally>>,
    /// None while no lines are written.
    pub(super) told: Option<Told>,
}

impl Visit {
    pub(super) fn begin(worker: Rc<Worker>, told: Option<Told>) -> Self {
        Self {
            worker,
            began: Instant::now(),
            status: GONE,
            bytes: 0,
            tally: None,
            told,
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let tallies = &self.worker.tallies;
        let tally = self.tally.as_ref().unwrap_or(&tallies.unrouted);
        tally.add(self.status, took);
        if let Some(told) = &self.told
            && !self.worker.page.add(told, self.status, self.bytes, took)
        {
            tallies.unlogged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Page {
    /// False when there is no room.
    fn add(&self, told: &Told, status: StatusCode, bytes: u64, took: Duration) -> bool {
        let mut page = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if page.lines.len() >= LINES || page.text.len() >= TEXT {
            return false;
        }
        let host = told.host.as_ref().and_then(|host| host.to_str().ok());
        let authority = told.uri.authority().map(|authority| authority.as_str());
        let texts = [
            authority.or(host).unwrap_or_default(),
            told.uri.path(),
            told.client.to_str().unwrap_or_default(),
            told.id
                .as_ref()
                .and_then(|id| id.to_str().ok())
                .unwrap_or_default(),
        ];
        let texts = texts.map(|text| &text[..text.floor_char_boundary(LONGEST)]);
        for text in texts {
            page.text.push_str(text);
        }
        page.lines.push(Line {
            method: told.method.clone(),
            status,
            bytes,
            took,
            upstream: told.upstream,
            lengths: texts.map(str::len),
        });
        true
    }

    /// Takes what there is, and leaves the empty pages that were given.
    fn swap(&self, other: &mut Lines) {
        let mut page = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *page, other);
    }
}

/// Writes the lines of these pages for as long as there is a worker.
///
/// # Errors
/// When there can be no thread.
pub(super) fn start(pages: Vec<Weak<Page>>, tallies: Arc<Tallies>) -> std::io::Result<()> {
    let name = "ingress-log".to_owned();
    let mut unlogged = 0;
    let mut taken = Lines::default();
    thread::Builder::new().name(name).spawn(move || {
        loop {
            thread::sleep(PAUSE);
            let alive: Vec<_> = pages.iter().filter_map(Weak::upgrade).collect();
            if alive.is_empty() {
                return;
            }
            for page in alive {
                page.swap(&mut taken);
                taken.write();
            }
            tell_unlogged(&tallies.unlogged, &mut unlogged);
        }
    })?;
    Ok(())
}

fn tell_unlogged(count: &AtomicU64, before: &mut u64) {
    let now = count.load(Ordering::Relaxed);
    if now > *before {
        let requests = now - *before;
        tracing::warn!(
            subsystem = "ingress",
            requests,
            "the access log is too slow; left out"
        );
        *before = now;
    }
}

impl Lines {
    /// Writes all, and is empty then.
    fn write(&mut self) {
        let mut rest = self.text.as_str();
        for line in self.lines.drain(..) {
            let [host, path, client, id] = line.lengths.map(|length| {
                let (text, after) = rest.split_at(length);
                rest = after;
                text
            });
            let upstream = line.upstream.map(tracing::field::display);
            tracing::info!(
                subsystem = "ingress",
                method = line.method.as_str(),
                host,
                path,
                status = line.status.as_u16(),
                bytes = line.bytes,
                micros = u64::try_from(line.took.as_micros()).unwrap_or(u64::MAX),
                upstream,
                client,
                request_id = id,
                "request"
            );
        }
        self.text.clear();
    }
}
