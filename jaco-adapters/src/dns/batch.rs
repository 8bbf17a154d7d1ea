//! Many datagrams per system call, in and out.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::message::{Handled, Pending};

/// Datagrams of one call. The first one's reply waits for the last one's.
const SIZE: usize = 16;

/// A question is much shorter; a longer datagram is cut off and then malformed.
const QUESTION: usize = 1232;

/// Room for the datagrams of one call.
pub(super) struct Batch {
    questions: Vec<[u8; QUESTION]>,
    replies: Vec<Vec<u8>>,
    incoming: MultiHeaders<SockaddrIn>,
    outgoing: MultiHeaders<SockaddrIn>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            questions: vec![[0; QUESTION]; SIZE],
            replies: vec![Vec::new(); SIZE],
            incoming: MultiHeaders::preallocate(SIZE, None),
            outgoing: MultiHeaders::preallocate(SIZE, None),
        }
    }

    /// Takes what has come, has each handled, and sends the replies that are ready. Gives the
    /// questions whose replies are not.
    pub(super) fn exchange(
        &mut self,
        socket: &UdpSocket,
        mut handle: impl FnMut(&[u8], SocketAddrV4, &mut Vec<u8>) -> Handled,
    ) -> Vec<(SocketAddrV4, Pending)> {
        let Self {
            questions,
            replies,
            incoming,
            outgoing,
        } = self;
        let fd = socket.as_raw_fd();
        let mut buffers: Vec<[IoSliceMut<'_>; 1]> = questions
            .iter_mut()
            .map(|question| [IoSliceMut::new(question)])
            .collect();
        let mut received = Vec::new();
        let _ = socket.try_io(Interest::READABLE, || {
            let flags = MsgFlags::MSG_DONTWAIT;
            received = recvmmsg(fd, incoming, buffers.iter_mut(), flags, None)?.collect();
            // Less than there is room for is all there was: no call is needed to learn that
            // there is no more. What comes now rings anew.
            if received.len() < SIZE {
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        let mut peers = Vec::with_capacity(SIZE);
        let mut later = Vec::new();
        for message in received {
            let (Some(peer), Some(bytes)) = (message.address, message.iovs().next()) else {
                continue;
            };
            let reply = &mut replies[peers.len()];
            reply.clear();
            match handle(bytes, peer.into(), reply) {
                Handled::Replied => peers.push(Some(peer)),
                Handled::Pending(pending) => later.push((peer.into(), pending)),
                Handled::Ignored => {}
            }
        }
        send(fd, outgoing, &replies[..peers.len()], &peers);
        later
    }
}

/// Sends as much as the socket takes; who gets nothing asks again.
fn send(
    fd: i32,
    headers: &mut MultiHeaders<SockaddrIn>,
    replies: &[Vec<u8>],
    peers: &[Option<SockaddrIn>],
) {
    let slices: Vec<[IoSlice<'_>; 1]> = replies.iter().map(|r| [IoSlice::new(r)]).collect();
    let mut done = 0;
    while done < replies.len() {
        let sent = sendmmsg(
            fd,
            headers,
            slices[done..].iter(),
            &peers[done..],
            [],
            MsgFlags::MSG_DONTWAIT,
        );
        match sent.map(Iterator::count) {
            Ok(sent) => done += sent.max(1),
            Err(Errno::EAGAIN) => return,
            // This one cannot be sent; the next one may go elsewhere.
            Err(_) => done += 1,
        }
    }
}
