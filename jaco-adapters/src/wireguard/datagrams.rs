//! The UDP socket of the mesh in this process: a run of datagrams of one length to one peer goes
//! through the kernel as one (`UDP_SEGMENT`), and comes out of it as one on the other side
//! (`UDP_GRO`).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use gotatun::packet::Packet;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::tunnels::Datagram;

/// Segments of one run; older kernels take no more.
const LONGEST_RUN: usize = 64;
/// Bytes of one run: what one UDP datagram over IPv6 can hold.
const LARGEST_RUN: usize = 65_000;
/// Runs taken from the queue at once.
const BATCH: usize = 4;
/// Bytes of each socket buffer: a burst of a busy peer fits while the process is not scheduled.
const SOCKET_BUFFER: usize = 4 << 20;

/// The socket that all peers share.
pub(super) struct Datagrams {
    socket: UdpSocket,
    /// False once the kernel refused a run.
    in_runs: bool,
    buffer: Box<[u8]>,
}

impl Datagrams {
    /// Listens on `port` of every address.
    pub(super) fn bind(port: u16) -> io::Result<Self> {
        let any = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        let [both, v4] = any.map(|address| SocketAddr::new(address, port));
        let socket = match bind(both) {
            Err(error) if is_without_v6(&error) => bind(v4)?,
            bound => bound?,
        };
        // Without it each datagram comes alone.
        if let Err(error) = setsockopt(&socket, sockopt::UdpGroSegment, &true) {
            tracing::info!(subsystem = "mesh", %error, "datagrams are received one by one");
        }
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            in_runs: true,
            buffer: vec![0; usize::from(u16::MAX)].into_boxed_slice(),
        })
    }

    /// Waits for datagrams and adds them. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// When the socket is of no more use.
    pub(super) async fn receive(&mut self, datagrams: &mut Vec<Datagram>) -> io::Result<()> {
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        let mut receive = || receive_run(socket, buffer, datagrams);
        socket.async_io(Interest::READABLE, &mut receive).await?;
        for _ in 1..BATCH {
            match socket.try_io(Interest::READABLE, &mut receive) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                received => received?,
            }
        }
        Ok(())
    }

    /// Sends datagrams, as far as there is a way.
    pub(super) async fn send(&mut self, datagrams: &mut Vec<Datagram>) {
        let mut rest = datagrams.as_slice();
        while !rest.is_empty() {
            let (run, after) = rest.split_at(run_length(rest));
            rest = after;
            let sent = match self.in_runs && run.len() > 1 {
                true => self.send_run(run).await,
                false => self.send_each(run).await,
            };
            // Who is not reached for now is sent to again by the flows and the protocol.
            if let Err(error) = sent {
                tracing::debug!(subsystem = "mesh", %error, "datagrams were not sent");
            }
        }
        datagrams.clear();
    }

    async fn send_each(&self, run: &[Datagram]) -> io::Result<()> {
        for (datagram, to) in run {
            self.socket.send_to(datagram, to).await?;
        }
        Ok(())
    }

    async fn send_run(&mut self, run: &[Datagram]) -> io::Result<()> {
        let socket = &self.socket;
        let sent = socket.async_io(Interest::WRITABLE, || send_run(socket, run));
        match sent.await {
            // No checksums by the interface, or no such option in this kernel.
            Err(error) if is_refusal(&error) => {
                tracing::info!(subsystem = "mesh", %error, "datagrams are sent one by one");
                self.in_runs = false;
                self.send_each(run).await
            }
            sent => sent,
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Whether this host has no IPv6, or has it switched off.
fn is_without_v6(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

fn receive_run(
    socket: &UdpSocket,
    buffer: &mut [u8],
    datagrams: &mut Vec<Datagram>,
) -> io::Result<()> {
    let mut control = cmsg_space!(i32);
    let (length, from, size) = {
        let mut slices = [IoSliceMut::new(buffer)];
        let (descriptor, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let received =
            recvmsg::<SockaddrStorage>(descriptor, &mut slices, Some(&mut control), flags)?;
        let size = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
            _ => None,
        });
        (received.bytes, received.address.and_then(plain), size)
    };
    if let Some(from) = from {
        let size = size.unwrap_or(length).max(1);
        let run = buffer[..length].chunks(size);
        datagrams.extend(run.map(|datagram| (Packet::copy_from(datagram), from)));
    }
    Ok(())
}

/// An address as configuration writes it: IPv4 is not mapped into IPv6.
fn plain(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(*v4));
    let v6 = || address.as_sockaddr_in6().map(|v6| SocketAddr::from(*v6));
    let address = v4.or_else(v6)?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

fn send_run(socket: &UdpSocket, run: &[Datagram]) -> io::Result<()> {
    let Some((first, to)) = run.first() else {
        return Ok(());
    };
    let length = u16::try_from(first.len()).map_err(io::Error::other)?;
    let mut slices = [IoSlice::new(&[]); LONGEST_RUN];
    for (slice, (datagram, _)) in slices.iter_mut().zip(run) {
        *slice = IoSlice::new(datagram);
    }
    let to = SockaddrStorage::from(*to);
    let sent = sendmsg(
        socket.as_raw_fd(),
        &slices[..run.len()],
        &[ControlMessage::UdpGsoSegments(&length)],
        MsgFlags::MSG_DONTWAIT,
        Some(&to),
    );
    sent.map(drop).map_err(io::Error::from)
}

/// How many datagrams from the first on go out as one: all to one peer and of one length, but
/// for the last, which may be shorter.
fn run_length(datagrams: &[Datagram]) -> usize {
    let Some((first, destination)) = datagrams.first() else {
        return 0;
    };
    let most = LONGEST_RUN.min(LARGEST_RUN / first.len().max(1)).max(1);
    let mut length = 1;
    for (datagram, to) in datagrams.iter().take(most).skip(1) {
        if to != destination || datagram.len() > first.len() {
            break;
        }
        length += 1;
        if datagram.len() < first.len() {
            break;
        }
    }
    length
}
fn is_refusal(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(Errno::EIO | Errno::EINVAL | Errno::ENOPROTOOPT | Errno::EOPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(length: usize, peer: u8) -> Datagram {
        let bytes = vec![peer; length];
        let to = ([10, 0, 0, peer], 51820).into();
        (Packet::copy_from(&bytes[..]), to)
    }

    #[test]
    fn a_run_is_of_one_length_and_one_peer_and_may_end_with_a_shorter_one() {
        let sizes = |sizes: &[(usize, u8)]| {
            let datagrams = sizes.iter().map(|&(size, peer)| datagram(size, peer));
            run_length(&datagrams.collect::<Vec<_>>())
        };
        assert_eq!(sizes(&[]), 0);
        assert_eq!(sizes(&[(100, 1)]), 1);
        assert_eq!(sizes(&[(100, 1), (100, 1), (100, 2)]), 2);
        assert_eq!(sizes(&[(100, 1), (100, 1), (60, 1), (60, 1)]), 3);
        assert_eq!(sizes(&[(100, 1), (200, 1)]), 1);
        assert_eq!(sizes(&[(100, 1); 200]), LONGEST_RUN);
        assert_eq!(sizes(&[(1452, 1); 200]), LARGEST_RUN / 1452);
    }

    #[tokio::test]
    async fn what_is_sent_in_runs_is_received_as_it_was() {
        let (mut from, mut to) = (Datagrams::bind(0).unwrap(), Datagrams::bind(0).unwrap());
        let port = |end: &Datagrams| end.socket.local_addr().unwrap().port();
        let lengths = [1452; 100].into_iter().chain([700, 1, 1452, 32]);
        let sent: Vec<Vec<u8>> = lengths.zip(0..).map(|(n, byte)| vec![byte; n]).collect();
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&to)));
        let datagrams = sent
            .iter()
            .map(|bytes| (Packet::copy_from(&bytes[..]), target));
        from.send(&mut datagrams.collect()).await;
        let mut received = Vec::new();
        while received.len() < sent.len() {
            to.receive(&mut received).await.unwrap();
        }
        let source = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&from)));
        assert!(received.iter().all(|(_, from)| *from == source));
        let received = received.iter().map(|(datagram, _)| datagram.to_vec());
        assert_eq!(received.collect::<Vec<_>>(), sent);
    }
}
