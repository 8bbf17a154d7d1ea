//! One question to one upstream. The caller sets the deadline.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::rand;
use hickory_proto::op::{Message, MessageType};
use tokio::net::{TcpStream, UdpSocket};

use super::listener::{read_message, write_message};
use super::message::DATAGRAM;

/// An id that nobody guesses.
pub(super) fn id() -> u16 {
    let mut bytes = [0; 2];
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    u16::from_be_bytes(bytes)
}

/// Over a datagram, from a port of its own: an id alone is soon guessed.
pub(super) async fn udp(question: &Message, upstream: SocketAddr) -> io::Result<Message> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Only what comes from there is received, and a refusal is an error at once.
    socket.connect(upstream).await?;
    socket
        .send(&question.to_vec().map_err(io::Error::other)?)
        .await?;
    let mut buffer = [0; DATAGRAM as usize];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // A late answer to somebody else's question, or a forged one, is not waited on.
        if let Some(answer) = answer(question, &buffer[..length])? {
            return Ok(answer);
        }
    }
}

/// Over a connection.
pub(super) async fn tcp(question: &Message, upstream: SocketAddr) -> io::Result<Message> {
    let mut stream = TcpStream::connect(upstream).await?;
    let bytes = question.to_vec().map_err(io::Error::other)?;
    write_message(&mut stream, &bytes).await?;
    let mut buffer = Vec::new();
    read_message(&mut stream, &mut buffer).await?;
    answer(question, &buffer)?.ok_or_else(|| io::Error::other("an answer to another question"))
}

/// The answer in some bytes; none when they answer something else. An answer to our question
/// that makes no sense is an error.
fn answer(question: &Message, bytes: &[u8]) -> io::Result<Option<Message>> {
    if !bytes.starts_with(&question.id.to_be_bytes()) {
        return Ok(None);
    }
    let answer = Message::from_vec(bytes).map_err(io::Error::other)?;
    let ours = answer.message_type == MessageType::Response && answer.queries == question.queries;
    // A server that cannot read a question does not repeat it.
    let bare = answer.queries.is_empty() && answer.answers.is_empty();
    Ok((ours || bare).then_some(answer))
}
