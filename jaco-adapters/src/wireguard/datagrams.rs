//! The UDP socket of the mesh in this process: a run of datagrams of one length to one peer goes
//! through the kernel as one (`UDP_SEGMENT`), and comes out of it as one on the other side.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gotatun::packet::Packet;
use gotatun::udp::socket::{UdpSocket, UdpSocketFactory};
use gotatun::udp::{UdpSend, UdpTransportFactory, UdpTransportFactoryParams};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use tokio::io::Interest;

/// Segments of one run; older kernels take no more.
const LONGEST_RUN: usize = 64;
/// Bytes of one run: what one UDP datagram over IPv6 can hold.
const LARGEST_RUN: usize = 65_000;
/// Datagrams taken from the queue at once.
const BATCH: usize = 2 * LONGEST_RUN;
/// Bytes of each socket buffer: a burst of a busy peer fits while the process is not scheduled.
const SOCKET_BUFFER: usize = 4 << 20;

/// Opens the sockets.
pub(super) struct Sockets(UdpSocketFactory);

impl Default for Sockets {
    fn default() -> Self {
        Self(UdpSocketFactory {
            recv_buffer_size: Some(SOCKET_BUFFER),
            send_buffer_size: Some(SOCKET_BUFFER),
        })
    }
}

impl UdpTransportFactory for Sockets {
    type Send = RunSend;
    type Recv = UdpSocket;

    async fn bind(
        &mut self,
        params: &UdpTransportFactoryParams,
    ) -> io::Result<(Self::Send, Self::Recv)> {
        let (socket, receiver) = self.0.bind(params).await?;
        let whole = Arc::new(AtomicBool::new(true));
        Ok((RunSend { socket, whole }, receiver))
    }
}

/// Sends datagrams in runs, where the way out supports it.
#[derive(Clone)]
pub(super) struct RunSend {
    socket: UdpSocket,
    /// False once the kernel refused a run.
    whole: Arc<AtomicBool>,
}

impl UdpSend for RunSend {
    type SendManyBuf = ();

    async fn send_to(&self, packet: Packet, destination: SocketAddr) -> io::Result<()> {
        self.socket.send_to(packet, destination).await
    }

    fn max_number_of_packets_to_send(&self) -> usize {
        BATCH
    }

    async fn send_many_to(
        &self,
        (): &mut (),
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        let mut rest = packets.as_slice();
        while !rest.is_empty() {
            let (run, after) = rest.split_at(run_length(rest));
            rest = after;
            if run.len() == 1 || !self.whole.load(Ordering::Relaxed) {
                self.send_each(run).await?;
                continue;
            }
            match self.send_run(run).await {
                Ok(()) => {}
                // No checksums by the interface, or no such option in this kernel.
                Err(error) if is_refusal(&error) => {
                    tracing::info!(subsystem = "mesh", %error, "datagrams are sent one by one");
                    self.whole.store(false, Ordering::Relaxed);
                    self.send_each(run).await?;
                }
                Err(error) => return Err(error),
            }
        }
        packets.clear();
        Ok(())
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        UdpSend::local_addr(&self.socket)
    }

    fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        self.socket.set_fwmark(mark)
    }
}

impl RunSend {
    async fn send_each(&self, run: &[(Packet, SocketAddr)]) -> io::Result<()> {
        for (packet, destination) in run {
            self.socket.socket().send_to(packet, destination).await?;
        }
        Ok(())
    }

    async fn send_run(&self, run: &[(Packet, SocketAddr)]) -> io::Result<()> {
        let Some((first, destination)) = run.first() else {
            return Ok(());
        };
        let length = u16::try_from(first.len()).map_err(io::Error::other)?;
        let destination = SockaddrStorage::from(*destination);
        let socket = self.socket.socket();
        let send = || {
            let mut slices = [IoSlice::new(&[]); LONGEST_RUN];
            for (slice, (packet, _)) in slices.iter_mut().zip(run) {
                *slice = IoSlice::new(packet);
            }
            let segments = [ControlMessage::UdpGsoSegments(&length)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let slices = &slices[..run.len()];
            let sent = sendmsg(
                socket.as_raw_fd(),
                slices,
                &segments,
                flags,
                Some(&destination),
            );
            sent.map(drop).map_err(io::Error::from)
        };
        socket.async_io(Interest::WRITABLE, send).await
    }
}

/// How many datagrams from the first on go out as one: all to one peer and of one length, but
/// for the last, which may be shorter.
fn run_length(packets: &[(Packet, SocketAddr)]) -> usize {
    let Some((first, destination)) = packets.first() else {
        return 0;
    };
    let most = LONGEST_RUN.min(LARGEST_RUN / first.len().max(1)).max(1);
    let mut length = 1;
    for (packet, to) in packets.iter().take(most).skip(1) {
        if to != destination || packet.len() > first.len() {
            break;
        }
        length += 1;
        if packet.len() < first.len() {
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

    fn packet(length: usize, peer: u8) -> (Packet, SocketAddr) {
        let bytes = vec![0; length];
        (
            Packet::copy_from(&bytes[..]),
            ([10, 0, 0, peer], 51820).into(),
        )
    }

    #[test]
    fn a_run_is_of_one_length_and_one_peer_and_may_end_with_a_shorter_one() {
        let sizes = |sizes: &[(usize, u8)]| {
            let packets: Vec<_> = sizes
                .iter()
                .map(|&(size, peer)| packet(size, peer))
                .collect();
            run_length(&packets)
        };
        assert_eq!(sizes(&[]), 0);
        assert_eq!(sizes(&[(100, 1)]), 1);
        assert_eq!(sizes(&[(100, 1), (100, 1), (100, 2)]), 2);
        assert_eq!(sizes(&[(100, 1), (100, 1), (60, 1), (60, 1)]), 3);
        assert_eq!(sizes(&[(100, 1), (200, 1)]), 1);
        assert_eq!(sizes(&[(100, 1); 200]), LONGEST_RUN);
        assert_eq!(sizes(&[(1452, 1); 200]), LARGEST_RUN / 1452);
    }
}
