//! Which protocol carries a request to a replica: HTTP/1.1, or HTTP/2 in the clear with prior
//! knowledge, which gRPC needs (spec 08).
//!
//! Invariants (`tests/ingress_props.rs`): who does not speak HTTP/2 is never forwarded over it;
//! a replica that answers HTTP/1.1 is never asked for anything else, but for gRPC.

use std::time::Duration;

/// For how long a replica that did not answer HTTP/2 is not asked again: it may have been on its
/// way up.
pub const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What a node knows of the protocol of one replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spoken {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It was asked for HTTP/2 a moment ago and did not answer it.
    Http1,
    /// It answered HTTP/2 without being asked twice.
    H2c,
}

/// What counts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The visitor speaks HTTP/2.
    pub http2: bool,
    /// It is gRPC, which HTTP/1.1 cannot carry.
    pub grpc: bool,
    /// The replica took it over HTTP/1.1, and what came back was no HTTP/1.1.
    pub not_understood: bool,
}

/// How a request goes to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Over HTTP/1.1.
    Http1,
    /// Over HTTP/2 if the replica answers it, else over HTTP/1.1. A replica is asked on a
    /// connection that carries nothing else until it has answered.
    H2c,
}

/// Decides how a request goes to a replica.
pub fn carrier(spoken: Spoken, wish: Wish) -> Carrier {
    match spoken {
        _ if !wish.http2 => Carrier::Http1,
        Spoken::H2c => Carrier::H2c,
        // One that answers HTTP/1.1 might not take well what it does not know.
        Spoken::Unknown if wish.grpc || wish.not_understood => Carrier::H2c,
        Spoken::Unknown | Spoken::Http1 => Carrier::Http1,
    }
}

/// True for a request of gRPC itself; what browsers speak (`application/grpc-web`) is plain HTTP.
pub fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// True for the first nine bytes of what a server of HTTP/2 says: its settings, before all else
/// (RFC 9113, 3.4 and 6.5).
pub fn begins_http2(head: [u8; 9]) -> bool {
    let [a, b, c, kind, flags, stream @ ..] = head;
    let length = u32::from_be_bytes([0, a, b, c]);
    kind == 4 && flags & 1 == 0 && stream == [0; 4] && length.is_multiple_of(6)
}
