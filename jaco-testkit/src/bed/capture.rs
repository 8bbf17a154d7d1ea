//! What goes over the wires of a namespace, as a test reads it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};

use super::namespace::Namespace;

/// Bytes that the kernel keeps for us; a test reads everything at its end.
const BUFFER: usize = 64 << 20;
/// No frame is larger, also with offloading.
const LARGEST: usize = 1 << 17;

/// All frames on all interfaces of a namespace, from its start on.
#[derive(Debug)]
pub struct Capture(OwnedFd);

/// One IPv4 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// 6 is TCP, 17 is UDP. The ports are 0 for what has none.
    pub protocol: u8,
    /// Where it comes from.
    pub source: SocketAddrV4,
    /// Where it goes.
    pub destination: SocketAddrV4,
    /// What is behind the IP header.
    pub body: Vec<u8>,
}

impl Capture {
    /// Starts to record.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let open = || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let (family, kind) = (AddressFamily::Packet, SockType::Raw);
            socket(family, kind, flags, SockProtocol::EthAll)
        };
        let socket = namespace
            .enter(open)?
            .context("cannot open a packet socket")?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        Ok(Self(socket))
    }

    /// The frames so far.
    pub fn frames(self) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; LARGEST];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => frames.push(buffer[..length].to_vec()),
                Err(Errno::EAGAIN) => return Ok(frames),
                Err(error) => bail!("cannot read frames: {error}"),
            }
        }
    }
}

impl Packet {
    /// The packet in an Ethernet frame, if there is one.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(14..)?;
        if frame[12..14] != [8, 0] || ip.len() < 20 {
            return None;
        }
        let body = ip.get(usize::from(ip[0] & 15) * 4..)?;
        let ends = |at: usize| -> [u8; 4] { [ip[at], ip[at + 1], ip[at + 2], ip[at + 3]] };
        let port = |at: usize| match (ip[9], body.get(at..at + 2)) {
            (6 | 17, Some(port)) => u16::from_be_bytes([port[0], port[1]]),
            _ => 0,
        };
        Some(Self {
            protocol: ip[9],
            source: SocketAddrV4::new(Ipv4Addr::from(ends(12)), port(0)),
            destination: SocketAddrV4::new(Ipv4Addr::from(ends(16)), port(2)),
            body: body.to_vec(),
        })
    }
}
