//! A second opinion on where a client's requests begin and end.
//!
//! hyper answers most ambiguous requests with 400. What it mends instead, and does not tell the
//! service, is refused here: a `Content-Length` beside a `Transfer-Encoding` (hyper removes the
//! length) and either of them more than once. A server before or behind this one might mend it
//! the other way, and then disagree about where the next request begins (RFC 9112, 11.2).
//!
//! The bytes pass through here on their way to hyper, which parses them for good. So this needs
//! to be exact about valid requests only; an invalid one ends the connection there.

use memchr::memchr;

/// More of a line than this is not looked at: the longest name of interest and its value fit.
const LINE: usize = 64;

/// Follows the requests on one connection.
#[derive(Default)]
pub(super) struct Framing {
    at: At,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    head: Head,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// No request; empty lines are skipped.
    #[default]
    Between,
    Head,
    /// A body with so many bytes to come.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailers,
}

/// What a request's headers said about its body.
#[derive(Clone, Copy, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    ambiguous: bool,
}

/// A head that must be refused. It begins at this position of the bytes last scanned, or before
/// them when that is zero.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ambiguous(pub(super) usize);

impl Framing {
    /// Follows some more bytes.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<(), Ambiguous> {
        let mut at = 0;
        let mut began = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.at == At::Between {
                let blank = rest
                    .iter()
                    .take_while(|&byte| matches!(byte, b'\r' | b'\n'))
                    .count();
                at += blank;
                if blank < rest.len() {
                    began = at;
                    self.head = Head::default();
                    self.at = At::Head;
                }
                continue;
            }
            at += match self.at {
                At::Body(left) | At::Chunk(left) => self.skip(left, rest.len()),
                _ => self.line(rest).map_err(|Refused| Ambiguous(began))?,
            };
        }
        Ok(())
    }

    /// A request's head has begun and not ended.
    pub(super) fn in_head(&self) -> bool {
        self.at == At::Head
    }

    /// A request's body has not ended.
    pub(super) fn in_body(&self) -> bool {
        !matches!(self.at, At::Between | At::Head)
    }

    /// Passes over the data of a body or a chunk with `left` bytes to come.
    fn skip(&mut self, left: u64, available: usize) -> usize {
        let passed = usize::try_from(left).map_or(available, |left| left.min(available));
        let left = left - passed as u64;
        self.at = match (self.at, left) {
            (At::Chunk(_), 0) => At::ChunkEnd,
            (At::Chunk(_), left) => At::Chunk(left),
            (_, 0) => At::Between,
            (_, left) => At::Body(left),
        };
        passed
    }

    /// Takes one line, or what there is of it.
    fn line(&mut self, rest: &[u8]) -> Result<usize, Refused> {
        let Some(end) = memchr(b'\n', rest) else {
            keep(&mut self.line, rest);
            return Ok(rest.len());
        };
        if self.line.is_empty() {
            self.ended(&rest[..end])?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            keep(&mut line, &rest[..end]);
            let ended = self.ended(&line);
            line.clear();
            self.line = line;
            ended?;
        }
        Ok(end + 1)
    }

    fn ended(&mut self, line: &[u8]) -> Result<(), Refused> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.at = match self.at {
            At::Head if line.is_empty() => self.head.body()?,
            At::Head => {
                self.head.read(line);
                At::Head
            }
            At::ChunkSize => match chunk_size(line) {
                0 => At::Trailers,
                size => At::Chunk(size),
            },
            At::ChunkEnd => At::ChunkSize,
            At::Trailers if line.is_empty() => At::Between,
            at => at,
        };
        Ok(())
    }
}

struct Refused;

impl Head {
    fn read(&mut self, line: &[u8]) {
        // Nearly every line ends here.
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
            return;
        }
        let Some(colon) = memchr(b':', line) else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.ambiguous |= self.length.is_some();
            self.length = Some(decimal(value));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.ambiguous |= self.chunked;
            self.chunked = true;
        }
    }

    /// Where the end of the head leads.
    fn body(self) -> Result<At, Refused> {
        match (self.chunked, self.length) {
            _ if self.ambiguous => Err(Refused),
            (true, Some(_)) => Err(Refused),
            (true, None) => Ok(At::ChunkSize),
            (false, Some(1..)) => Ok(At::Body(self.length.unwrap_or_default())),
            (false, _) => Ok(At::Between),
        }
    }
}

fn keep(line: &mut Vec<u8>, more: &[u8]) {
    let room = LINE.saturating_sub(line.len());
    line.extend_from_slice(&more[..more.len().min(room)]);
    // A line that is longer must not look as if it ended in what was kept.
    if let (true, Some(last)) = (more.len() > room, line.last_mut()) {
        *last = b'.';
    }
}

/// The number, or zero for what hyper refuses anyway.
fn decimal(digits: &[u8]) -> u64 {
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    digits.parse().unwrap_or_default()
}

fn chunk_size(line: &[u8]) -> u64 {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let digits = std::str::from_utf8(&line[..digits]).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab\r\n\r";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
         1a;x=y\r\ncontent-length: 1\r\nhost: b\r\n\r\n0\r\nTrailer-Field: x\r\n\r\n";
    const BOTH: &str = "GET / HTTP/1.1\r\nContent-Length: 3\r\ntransfer-encoding: chunked\r\n\r\n";

    fn scan(pieces: &[&str]) -> Result<Framing, Ambiguous> {
        let mut framing = Framing::default();
        for piece in pieces {
            framing.scan(piece.as_bytes())?;
        }
        Ok(framing)
    }

    #[test]
    fn a_request_ends_where_its_lengths_say() {
        for request in [GET, POST, CHUNKED, "\r\n\r\nGET / HTTP/1.0\n\n"] {
            assert_eq!(scan(&[request]).unwrap().at, At::Between, "{request}");
            assert!(scan(&[request, "GET"]).unwrap().in_head(), "{request}");
        }
        assert!(scan(&[&POST[..POST.len() - 1]]).unwrap().in_body());
        assert!(scan(&[&CHUNKED[..CHUNKED.len() - 1]]).unwrap().in_body());
    }

    #[test]
    fn two_statements_about_the_length_are_refused_where_the_head_begins() {
        assert_eq!(scan(&[BOTH]).err(), Some(Ambiguous(0)));
        let twice = "GET / HTTP/1.1\r\nContent-Length: 3\r\nContent-length: 3\r\n\r\n";
        let (first, second) = (format!("{GET}{BOTH}"), format!("{POST}{twice}"));
        assert_eq!(scan(&[&first]).err(), Some(Ambiguous(GET.len())));
        assert_eq!(scan(&[&second]).err(), Some(Ambiguous(POST.len())));
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_makes_no_difference(
            order in proptest::collection::vec(0..3_usize, 1..6),
            cuts in proptest::collection::vec(1..40_usize, 1..60),
            last in any::<bool>(),
        ) {
            let mut stream: String = order.iter().map(|&at| [GET, POST, CHUNKED][at]).collect();
            if last {
                stream.push_str(BOTH);
            }
            let mut framing = Framing::default();
            let mut rest = stream.as_bytes();
            let mut cuts = cuts.iter().cycle();
            let mut refused = false;
            while !rest.is_empty() && !refused {
                let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                refused = framing.scan(piece).is_err();
                rest = after;
            }
            prop_assert_eq!(refused, last);
            prop_assert!(refused || framing.at == At::Between);
        }

        #[test]
        fn no_bytes_confuse_it_for_long(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut framing = Framing::default();
            let _ = framing.scan(&bytes);
            prop_assert!(framing.line.len() <= LINE);
        }
    }
}
