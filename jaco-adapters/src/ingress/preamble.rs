//! What a load balancer says before a connection's own bytes: the PROXY protocol, versions 1 and
//! 2, from and to whom it is trusted (spec 08).
//!
//! A header is looked at before it is read, so that the bytes of a connection without one stay
//! where they are.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv};
use proxy_header::{Error, ParseConfig, ProxiedAddress, ProxyHeader};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;

/// No header is longer, with everything that version 2 lets a sender add.
const LONGEST: usize = 2048;
/// How the two versions begin.
const BEGINNINGS: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// The connection's own.
    Own,
    /// A header may be on its way.
    Undecided,
    /// A header of so many bytes, from a client at this address; none when the sender speaks for
    /// itself.
    Header(usize, Option<SocketAddr>),
    /// A header that is wrong.
    Malformed,
}

pub(super) fn beginning(bytes: &[u8]) -> Beginning {
    let begins = |with: &&[u8]| bytes.starts_with(with);
    if !BEGINNINGS.iter().any(begins) {
        let may = BEGINNINGS.iter().any(|with| with.starts_with(bytes));
        return if may {
            Beginning::Undecided
        } else {
            Beginning::Own
        };
    }
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, length)) => {
            let address = header.proxied_address();
            Beginning::Header(length, address.map(|address| address.source))
        }
        Err(Error::BufferTooShort) if bytes.len() < LONGEST => Beginning::Undecided,
        Err(_) => Beginning::Malformed,
    }
}

/// Takes the header at the beginning of a connection, if there is one: the client's address that
/// it tells.
///
/// # Errors
/// When the connection is lost, or the header is wrong (`InvalidData`).
pub(super) async fn take(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut seen = [0; LONGEST];
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let looked = stream.try_io(Interest::READABLE, || {
            let length = recv(stream.as_raw_fd(), &mut seen, MsgFlags::MSG_PEEK)?;
            match beginning(&seen[..length]) {
                // The kernel tells when more has come.
                Beginning::Undecided if length > 0 && !ready.is_read_closed() => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                beginning => Ok(beginning),
            }
        });
        return match looked {
            Ok(Beginning::Header(length, client)) => {
                stream.read_exact(&mut seen[..length]).await?;
                Ok(client)
            }
            Ok(Beginning::Malformed) => Err(io::ErrorKind::InvalidData.into()),
            Ok(Beginning::Own | Beginning::Undecided) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => Err(error),
        };
    }
}

/// The header of version 2 that tells an upstream about a client's connection.
pub(super) fn header(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = Vec::with_capacity(64);
    let address = ProxiedAddress::stream(client, to);
    // It fails for addresses of two families, which the ends of one connection never are; a
    // header without addresses is what is left then.
    if ProxyHeader::with_address(address)
        .encode_v2(&mut header)
        .is_err()
    {
        header.clear();
        let _ = ProxyHeader::with_local().encode_v2(&mut header);
    }
    header
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = (IpAddr, IpAddr)> {
        prop_oneof![
            any::<(u32, u32)>().prop_map(|(a, b)| {
                (Ipv4Addr::from_bits(a).into(), Ipv4Addr::from_bits(b).into())
            }),
            any::<(u128, u128)>().prop_map(|(a, b)| {
                (Ipv6Addr::from_bits(a).into(), Ipv6Addr::from_bits(b).into())
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written_and_undecided_until_it_is_whole(
            (from, to) in address(),
            ports in any::<(u16, u16)>(),
            own in "[ -~]{0,20}",
            first in any::<bool>(),
        ) {
            let (client, to) = (SocketAddr::new(from, ports.0), SocketAddr::new(to, ports.1));
            let mut bytes = if first {
                let family = if from.is_ipv4() { 4 } else { 6 };
                let (from, to) = (client.ip(), to.ip());
                format!("PROXY TCP{family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
            } else {
                header(client, to)
            };
            let length = bytes.len();
            for end in 0..length {
                prop_assert_eq!(beginning(&bytes[..end]), Beginning::Undecided);
            }
            bytes.extend_from_slice(own.as_bytes());
            prop_assert_eq!(beginning(&bytes), Beginning::Header(length, Some(client)));
        }

        #[test]
        fn no_bytes_confuse_it(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            begins in 0..3_usize,
        ) {
            let mut whole = BEGINNINGS.get(begins).map_or(Vec::new(), |with| with.to_vec());
            whole.extend_from_slice(&bytes);
            if let Beginning::Header(length, _) = beginning(&whole) {
                prop_assert!(length <= whole.len());
            }
        }
    }

    #[test]
    fn requests_and_handshakes_are_not_headers() {
        for own in [
            "GET / HTTP/1.1\r\n",
            "POST /",
            "PROXYING",
            "\x16\x03\x01",
            "\r\n\r\nGET",
        ] {
            assert_eq!(beginning(own.as_bytes()), Beginning::Own, "{own:?}");
        }
        for wrong in [
            "PROXY TCP4 a b c d\r\n",
            "PROXY SCTP 1.2.3.4 1.2.3.4 1 2\r\n",
        ] {
            assert_eq!(
                beginning(wrong.as_bytes()),
                Beginning::Malformed,
                "{wrong:?}"
            );
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(beginning(&endless), Beginning::Malformed);
        let local = "PROXY UNKNOWN\r\nGET /";
        assert_eq!(beginning(local.as_bytes()), Beginning::Header(15, None));
    }
}
