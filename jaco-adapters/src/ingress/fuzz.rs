//! Bytes of visitors: no head, PROXY header or server name brings a worker down.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hyper::Request;
use hyper::header::{HeaderName, HeaderValue};
use rustls::server::Acceptor;

use super::headers::{Forwarded, to_client, to_upstream, wanted_upgrade};
use super::live::Live;
use super::{framing, preamble, target, tls};
use crate::fuzz::each;

const HEADS: &[&[u8]] = &[
    b"GET /a/b?c=d HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a.test:80\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT http://a.test/x HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n\
      5;x=y\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: upgrade, x-y\r\nUpgrade: websocket\r\n\
      TE: trailers\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\n\r\n",
];

#[test]
fn no_request_head_brings_a_worker_down() {
    each(HEADS, |bytes| {
        let mut framing = framing::Framing::default();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let _ = framing.scan(first).and_then(|()| framing.scan(second));
        if let Some(request) = parse(bytes) {
            take(request);
        }
    });
}

/// A request of the first line and the headers, as far as they make one. hyper itself refuses
/// more than this does.
fn parse(bytes: &[u8]) -> Option<Request<()>> {
    let mut lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let mut words = lines.next()?.split(|&byte| byte == b' ');
    let mut request = Request::new(());
    *request.method_mut() = hyper::Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = hyper::Uri::try_from(words.next()?).ok()?;
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

fn take(request: Request<()>) {
    let (mut head, ()) = request.into_parts();
    let Ok(host) = target::host(&head).map(str::to_owned) else {
        return;
    };
    let _ = target::secure(&host, 8443, &head.uri);
    for strip in [0, 2] {
        let _ = target::forwarded(&head.uri, strip);
    }
    let _ = wanted_upgrade(&head.headers);
    let told = Forwarded {
        client: &HeaderValue::from_static("192.0.2.1"),
        trusted: true,
        secure: false,
        port: HeaderValue::from_static("80"),
        host: None,
        request_id: HeaderValue::from_static("0"),
    };
    let _ = to_upstream(&mut head.headers, told);
    to_client(&mut head.headers);
}

#[test]
fn no_proxy_header_brings_a_worker_down() {
    const HEADERS: &[&[u8]] = &[
        b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\nGET /",
        b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x30\x39\0\x50GET /",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb\
          \0\x01\0\x02\x20\0\x01x",
        b"\x16\x03\x01\x02\0\x01\0",
    ];
    each(HEADERS, |bytes| {
        if let preamble::Beginning::Header(length, _) = preamble::beginning(bytes) {
            assert!(length <= bytes.len());
        }
    });
}

#[test]
fn no_server_name_brings_a_worker_down() {
    let config = tls::config(Arc::new(ArcSwap::from_pointee(Live::default()))).expect("TLS");
    let hellos = [hello("a.test"), hello("a-much-longer.name.example.org")];
    let corpus: Vec<&[u8]> = hellos.iter().map(Vec::as_slice).collect();
    let live = Live::default();
    each(&corpus, |bytes| {
        let name = String::from_utf8_lossy(bytes);
        assert!(live.certificate(&name).is_none());
        let mut acceptor = Acceptor::default();
        let mut rest = bytes;
        if acceptor.read_tls(&mut rest).is_ok()
            && let Ok(Some(accepted)) = acceptor.accept()
        {
            let _ = accepted.client_hello().server_name().map(str::to_owned);
            let _ = accepted.into_connection(Arc::clone(&config));
        }
    });
}

/// What a client says first.
fn hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of both versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(client), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory takes it");
    hello
}
