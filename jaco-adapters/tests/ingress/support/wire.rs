//! One side of a connection, speaking HTTP/1.1 by hand.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::DEADLINE;

/// A connection that is read with a deadline.
pub(crate) struct Wire {
    reader: BufReader<Box<dyn Duplex>>,
    tcp: TcpStream,
}

/// What bytes go over: TCP, or TLS over it.
pub(crate) trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// A request or a response as it came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The head, without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Trailer lines.
    pub(crate) trailers: String,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let tcp = stream.try_clone().unwrap();
        Self::over(Box::new(stream), tcp)
    }

    /// Over something that runs over a connection.
    pub(crate) fn over(duplex: Box<dyn Duplex>, tcp: TcpStream) -> Self {
        let reader = BufReader::new(duplex);
        Self { reader, tcp }
    }

    /// Sends text. A peer that has gone already shows when reading.
    pub(crate) fn send(&mut self, text: &str) {
        let _ = self.write(text.as_bytes());
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Ends the own direction. A peer that has gone already shows when reading.
    pub(crate) fn finish(&self) {
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.tcp
    }

    /// So many bytes.
    pub(crate) fn read_exact(&mut self, bytes: &mut [u8]) {
        self.reader.read_exact(bytes).unwrap();
    }

    /// One line without its end; none at the end of the stream.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line came: {error}"),
        }
    }

    /// A head up to its empty line; none at the end of the stream.
    pub(crate) fn head(&mut self) -> Option<String> {
        let mut head = self.line()?;
        loop {
            match self.line()? {
                line if line.is_empty() => return Some(head),
                line => head = format!("{head}\n{line}"),
            }
        }
    }

    /// Exactly so many bytes.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// True when the peer has ended or reset the connection, and said nothing before.
    pub(crate) fn ended(&mut self) -> bool {
        match self.reader.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("neither a byte nor an end: {error}"),
        }
    }

    /// Everything until the end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.reader.read_to_end(&mut bytes) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end: {error}"),
            _ => bytes,
        }
    }

    /// A whole request; none at the end of the stream.
    pub(crate) fn request(&mut self) -> Option<Message> {
        let head = self.head()?;
        Some(self.message(head, false))
    }

    /// A whole response, to something else than HEAD.
    pub(crate) fn response(&mut self) -> Message {
        let head = self.head().expect("a response");
        self.message(head, true)
    }

    /// A response to HEAD, or one that has no body for its status.
    pub(crate) fn bodiless(&mut self) -> Message {
        let head = self.head().expect("a response");
        Message {
            head,
            body: Vec::new(),
            trailers: String::new(),
        }
    }

    fn message(&mut self, head: String, to_the_end: bool) -> Message {
        let mut message = Message {
            head,
            body: Vec::new(),
            trailers: String::new(),
        };
        if message.header("transfer-encoding") == ["chunked"] {
            while let Some(chunk) = self.chunk() {
                message.body.extend(chunk);
            }
            message.trailers = self.head_or_nothing();
        } else if let Some(length) = message.header("content-length").first() {
            message.body = self.take(length.parse().unwrap());
        } else if to_the_end {
            message.body = self.rest();
        }
        message
    }

    /// One chunk; none for the last.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line().expect("a chunk");
        let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
        if size == 0 {
            return None;
        }
        let chunk = self.take(size);
        assert_eq!(self.take(2), b"\r\n");
        Some(chunk)
    }

    fn head_or_nothing(&mut self) -> String {
        match self.line().expect("the end of a body") {
            line if line.is_empty() => line,
            line => format!("{line}\n{}", self.head_or_nothing()),
        }
    }
}

impl Message {
    /// The status of a response.
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The first line.
    pub(crate) fn first(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    /// The values of all lines with a name, in lower case.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1);
        lines
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}
