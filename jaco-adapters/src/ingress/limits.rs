//! How long and how large a client or an upstream may be (spec 08).

use std::time::Duration;

/// The limits of one ingress; the default is spec 08's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request line with its headers; at least 8 KiB.
    pub header_size: usize,
    /// From the first byte of a header to its end.
    pub header_read: Duration,
    /// A client's connection without a request, a client that stopped sending or taking, a
    /// pooled connection without use, and a flow of UDP.
    pub idle: Duration,
    /// Until an upstream has accepted.
    pub connect: Duration,
    /// From the end of sending until an upstream's response begins.
    pub response_header: Duration,
    /// How long a flow of UDP lasts that its replica has not answered.
    pub unanswered: Duration,
    /// Flows of one published UDP port and worker; another one takes the place of the oldest
    /// without an answer. Each has a socket.
    pub flows: usize,
    /// For how long a replica that could not be reached is left out.
    pub ejection: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_size: 64 * 1024,
            header_read: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            connect: Duration::from_secs(2),
            response_header: Duration::from_secs(60),
            unanswered: Duration::from_secs(10),
            flows: 4096,
            ejection: Duration::from_secs(2),
        }
    }
}
