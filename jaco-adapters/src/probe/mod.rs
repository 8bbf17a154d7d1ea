//! The `Probe` port: echoes over raw sockets, and questions to resolvers (spec 07).

mod fetch;
mod packet;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::rand;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use jaco_core::certs::Probed;
use jaco_core::id::Domain as HostName;
use jaco_core::ports::{HostError, Probe};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::transport::links::io_failed;

/// A packet may be lost: so many are sent, and each is waited for so long.
const TRIES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(1);
/// Where resolvers listen.
const DNS_PORT: u16 = 53;
/// A datagram of any size fits.
const LARGEST: usize = 65_535;

/// Tries this host's network.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostProbe;

#[async_trait]
impl Probe for HostProbe {
    async fn echo(&self, to: Ipv4Addr, size: u16) -> Result<(), HostError> {
        let echo = tokio::task::spawn_blocking(move || echo(to, size));
        let done = echo.await.map_err(io::Error::other).flatten();
        done.map_err(|error| told(&error))
    }

    async fn resolve(
        &self,
        resolver: Ipv4Addr,
        name: &str,
    ) -> Result<BTreeSet<Ipv4Addr>, HostError> {
        for _ in 0..TRIES {
            match tokio::time::timeout(PATIENCE, ask(resolver, name)).await {
                Ok(answer) => return answer.map_err(|error| told(&error)),
                Err(_) => continue,
            }
        }
        Err(told(&io::ErrorKind::TimedOut.into()))
    }
}

impl HostProbe {
    /// What an address answers over plain HTTP for a domain and a path.
    pub async fn fetch(&self, address: IpAddr, host: &HostName, path: &str) -> Probed {
        fetch::fetch(address, host, path).await
    }
}

/// In the words of an operator.
fn told(error: &io::Error) -> HostError {
    match error.kind() {
        io::ErrorKind::TimedOut => HostError::Failed("no answer".to_owned()),
        _ => io_failed(error),
    }
}

fn echo(to: Ipv4Addr, size: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    // The header is ours, since only there it can be said that nobody may cut the packet.
    socket.set_header_included_v4(true)?;
    let mut token = [0; packet::TOKEN];
    rand::fill(&mut token).map_err(io::Error::other)?;
    let request = packet::request(to, size, &token);
    let address = SocketAddr::from((to, 0)).into();
    for _ in 0..TRIES {
        socket.send_to(&request, &address)?;
        if comes_back(&socket, &request)? {
            return Ok(());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// True when the whole echo comes in time. The socket also gets what others asked for.
fn comes_back(mut socket: &Socket, request: &[u8]) -> io::Result<bool> {
    let begin = Instant::now();
    let mut buffer = vec![0; LARGEST];
    loop {
        let left = PATIENCE.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(length) if packet::is_echo(&buffer[..length], request) => return Ok(true),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
}

async fn ask(resolver: Ipv4Addr, name: &str) -> io::Result<BTreeSet<Ipv4Addr>> {
    let mut id = [0; 2];
    rand::fill(&mut id).map_err(io::Error::other)?;
    let mut question = Message::new(u16::from_be_bytes(id), MessageType::Query, OpCode::Query);
    let mut name = Name::from_ascii(name).map_err(io::Error::other)?;
    name.set_fqdn(true);
    question.add_query(Query::query(name, RecordType::A));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect((resolver, DNS_PORT)).await?;
    socket
        .send(&question.to_vec().map_err(io::Error::other)?)
        .await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
        if answer.id == question.id {
            let addresses = answer
                .answers
                .iter()
                .filter_map(|record| match &record.data {
                    RData::A(address) => Some(address.0),
                    _ => None,
                });
            return Ok(addresses.collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_host_echoes_packets_of_every_size() {
        for size in [64, 1420, 9000] {
            assert_eq!(HostProbe.echo(Ipv4Addr::LOCALHOST, size).await, Ok(()));
        }
        // Nothing may be sent to everybody.
        let everybody = Ipv4Addr::BROADCAST;
        assert!(HostProbe.echo(everybody, 64).await.is_err());
    }

    #[tokio::test]
    async fn a_resolver_that_is_not_there_is_an_error() {
        let nobody = Ipv4Addr::new(127, 99, 99, 99);
        assert!(HostProbe.resolve(nobody, "web").await.is_err());
    }
}
