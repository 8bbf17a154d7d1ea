//! Headers between a client and an upstream: those of one hop end here, those that tell the
//! upstream about the client are written here (spec 08).

use std::fmt::Write;

use bytes::{Bytes, BytesMut};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, Entry, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Response, StatusCode};

use super::answer::Answer;
use super::body::Body;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

const CODINGS: Answer = Answer::BadRequest("the request has a transfer coding besides chunked\n");

/// Headers that concern one connection only. `Trailer` is not among them: it belongs to the
/// message, and without it hyper sends no trailers.
const HOP_BY_HOP: [HeaderName; 6] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    UPGRADE,
];

/// Headers that a client cannot have removed by naming them in `Connection`.
const LASTING: [HeaderName; 3] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];

/// What an upstream is told about the client.
pub(super) struct Forwarded<'a> {
    /// The client's address.
    pub(super) client: &'a HeaderValue,
    /// What it says about those before it counts.
    pub(super) trusted: bool,
    /// It came within TLS.
    pub(super) secure: bool,
    /// The port that it came to.
    pub(super) port: HeaderValue,
    /// The host that was asked for, when the `Host` header does not say it.
    pub(super) host: Option<HeaderValue>,
    pub(super) request_id: HeaderValue,
}

/// The protocol that a client wants to change to. `h2c` is not one: behind a tunnel of that
/// kind requests would pass that no route was asked about.
pub(super) fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let asked = headers
        .get_all(CONNECTION)
        .iter()
        .any(|line| names(line, "upgrade"));
    let refused = tokens(protocol).any(|name| name.eq_ignore_ascii_case("h2c"));
    (asked && !refused).then(|| protocol.clone())
}

/// Makes a client's headers an upstream's.
pub(super) fn to_upstream(headers: &mut HeaderMap, told: Forwarded<'_>) -> Result<(), Answer> {
    let chunked = match headers.get(TRANSFER_ENCODING) {
        None => false,
        Some(coding) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        Some(_) => return Err(CODINGS),
    };
    let trailers = headers
        .get_all(TE)
        .iter()
        .any(|line| names(line, "trailers"));
    remove_hop_by_hop(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if chunked {
        // hyper sends a GET without a body unless told.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(host) = told.host {
        headers.insert(HOST, host);
    }
    let chain = match told.trusted {
        true => chained(headers, told.client),
        false => {
            remove_tales(headers);
            told.client.clone()
        }
    };
    headers.insert(X_FORWARDED_FOR, chain);
    let proto = if told.secure { "https" } else { "http" };
    let host = headers.get(HOST).cloned();
    let mut tell = |name: HeaderName, value: HeaderValue| {
        // What a trusted peer says of the visitor stands.
        if !(told.trusted && headers.contains_key(&name)) {
            headers.insert(name, value);
        }
    };
    tell(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    tell(X_FORWARDED_PORT, told.port);
    if let Some(host) = host {
        tell(X_FORWARDED_HOST, host);
    }
    headers.insert(X_REQUEST_ID, told.request_id);
    Ok(())
}

/// Removes what a stranger says of who it is and how it came: some programs believe that. Those
/// that turn names into variables read `_` like `-`.
fn remove_tales(headers: &mut HeaderMap) {
    let mut tales = headers
        .keys()
        .filter(|name| is_tale(name.as_str()))
        .peekable();
    if tales.peek().is_none() {
        return;
    }
    let tales: Vec<HeaderName> = tales.cloned().collect();
    for name in tales {
        headers.remove(name);
    }
}

fn is_tale(name: &str) -> bool {
    // Nearly every name is none by its first letter.
    if !name.starts_with(['x', 'f']) {
        return false;
    }
    let starts = |start: &str| {
        let same = |(ours, theirs): (u8, u8)| ours == theirs || ours == b'-' && theirs == b'_';
        name.len() >= start.len() && start.bytes().zip(name.bytes()).all(same)
    };
    name == "forwarded" || starts("x-forwarded-") || starts("x-real-ip") && name.len() == 9
}

/// The scheme that a trusted peer says the visitor used.
pub(super) fn told_secure(headers: &HeaderMap) -> bool {
    let said = headers.get(X_FORWARDED_PROTO);
    let said = said.and_then(|said| said.to_str().ok()).unwrap_or_default();
    // Of several balancers the first one saw the visitor.
    let first = said.split(',').next().unwrap_or_default();
    first.trim().eq_ignore_ascii_case("https")
}

/// The addresses that a trusted client tells, and its own behind them.
fn chained(headers: &HeaderMap, client: &HeaderValue) -> HeaderValue {
    let before = headers.get_all(X_FORWARDED_FOR).iter();
    let mut all: Vec<&[u8]> = before.map(|line| line.as_bytes()).collect();
    all.push(client.as_bytes());
    HeaderValue::from_bytes(&all.join(&b", "[..])).unwrap_or_else(|_| client.clone())
}

/// Makes the headers of an HTTP/2 request those of an HTTP/1.1 one that says the same.
pub(super) fn from_http2(headers: &mut HeaderMap, has_body: bool) {
    if has_body && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // There each cookie may have a line of its own (RFC 9113, 8.2.3).
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let lines: Vec<&[u8]> = headers
            .get_all(COOKIE)
            .iter()
            .map(|c| c.as_bytes())
            .collect();
        if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// Makes an upstream's headers a client's.
pub(super) fn to_client(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    if headers.remove(TRANSFER_ENCODING).is_some() {
        // The coding was what counted (RFC 9112, 6.3); a length beside it would be believed.
        headers.remove(CONTENT_LENGTH);
    }
}

/// Asks the other side to change to `protocol`, or says that it is done.
pub(super) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Makes a response the last of its connection; one that changes the protocol already is.
pub(super) fn end_connection(response: &mut Response<Body>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let Entry::Occupied(entry) = headers.entry(CONNECTION) {
        let (_, lines) = entry.remove_entry_mult();
        let lines: Vec<HeaderValue> = lines.collect();
        for name in lines.iter().flat_map(tokens) {
            if !LASTING
                .iter()
                .any(|lasting| lasting.as_str().eq_ignore_ascii_case(name))
            {
                headers.remove(name);
            }
        }
    }
    // Looking through the few headers that there are is cheaper than six searches for nothing.
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

fn names(line: &HeaderValue, token: &str) -> bool {
    tokens(line).any(|name| name.eq_ignore_ascii_case(token))
}

fn tokens(line: &HeaderValue) -> impl Iterator<Item = &str> {
    line.to_str()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// A request's own id: 32 hexadecimal digits.
pub(super) fn request_id(high: u64, low: u64) -> HeaderValue {
    value(format_args!("{high:016x}{low:016x}"), 32)
}

/// A header value of plain characters, `length` of them at most.
pub(super) fn value(text: std::fmt::Arguments<'_>, length: usize) -> HeaderValue {
    let mut buffer = BytesMut::with_capacity(length);
    let _ = buffer.write_fmt(text);
    let bytes: Bytes = buffer.freeze();
    HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
