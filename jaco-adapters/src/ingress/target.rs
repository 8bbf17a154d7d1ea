//! Which host a request is for, and what an upstream is asked for.

use std::fmt::Display;

use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri, Version};

use super::answer::Answer;
use super::headers;

const NO_HOST: Answer = Answer::BadRequest("the request has no Host header\n");
const HOSTS: Answer = Answer::BadRequest("the request has more than one Host header\n");
const BAD_TARGET: Answer = Answer::BadRequest("the request target is not a path\n");
const BAD_HOST: Answer = Answer::BadRequest("the Host header is not a host name\n");

/// The host that a request is for, without the port. An absolute URI wins over the header
/// (RFC 9112, 3.2.2).
pub(super) fn host(head: &Parts) -> Result<&str, Answer> {
    if head.method == Method::CONNECT {
        return Err(Answer::NoTunnels);
    }
    // What is neither a path nor a URL reads as an authority, which belongs to CONNECT.
    if head.uri.authority().is_some() && head.uri.scheme().is_none() {
        return Err(BAD_TARGET);
    }
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(BAD_TARGET);
    }
    let mut named = head.headers.get_all(HOST).iter();
    let header = match (named.next(), named.next()) {
        (Some(only), None) => Some(only.to_str().map_err(|_| BAD_HOST)?),
        (Some(_), Some(_)) => return Err(HOSTS),
        (None, _) => None,
    };
    match (head.uri.authority(), header) {
        (_, None) if head.version == Version::HTTP_11 => Err(NO_HOST),
        (Some(authority), _) => without_port(authority.as_str()),
        (None, Some(header)) => without_port(header),
        (None, None) => Err(NO_HOST),
    }
}

/// `host` of `host[:port]`; an IPv6 address keeps its brackets.
fn without_port(authority: &str) -> Result<&str, Answer> {
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => (&authority[..colon], &authority[colon + 1..]),
        _ => (authority, ""),
    };
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=[]:".contains(&byte);
    let plain = host.starts_with('[') || !host.contains(':');
    // A final dot says that the name is whole, and so it is.
    let host = host.strip_suffix('.').unwrap_or(host);
    let valid = !host.is_empty() && plain && host.bytes().all(in_host);
    if valid && port.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(host)
    } else {
        Err(BAD_HOST)
    }
}

/// The same target with another path.
pub(super) fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    format!("{path}{query}").parse().ok()
}

/// The target for the upstream: origin form, without the first `strip` bytes of the path. What
/// remains, the query above all, stays byte for byte.
pub(super) fn forwarded(uri: &Uri, strip: usize) -> Uri {
    if strip == 0 && uri.authority().is_none() {
        return uri.clone();
    }
    let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = whole.get(strip..).unwrap_or_default();
    let target = if rest.starts_with('/') {
        rest.parse()
    } else {
        format!("/{rest}").parse()
    };
    // A tail of a valid target is valid; if it were not, the whole would do no harm.
    target.unwrap_or_else(|_| uri.clone())
}

/// Where a visitor of plain HTTP finds the same within TLS.
pub(super) fn secure(host: &str, port: u16, uri: &Uri) -> HeaderValue {
    let rest = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let port: &dyn Display = if port == 443 {
        &""
    } else {
        &format!(":{port}")
    };
    headers::value(format_args!("https://{host}{port}{rest}"), 64)
}
