//! The sockets of one gateway, UDP and TCP, and the loops that serve them.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener as StdListener, UdpSocket as Std};
use std::rc::{Rc, Weak};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

use super::message::{self, Handled};
use super::worker::Worker;

const BACKLOG: i32 = 128;
/// Room for bursts: a container that starts asks many questions at once.
const RECEIVE_BUFFER: usize = 1 << 20;
/// A TCP connection that says nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// TCP connections of one gateway at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The sockets of a gateway on their way to the worker.
pub(super) struct Opened {
    gateway: Ipv4Addr,
    udp: Std,
    tcp: StdListener,
    closing: watch::Receiver<bool>,
}

impl Opened {
    /// Opens both. The bridge may come up later: the address need not exist yet.
    pub(super) fn bind(address: SocketAddrV4, closing: watch::Receiver<bool>) -> io::Result<Self> {
        let udp = bound(Type::DGRAM, Protocol::UDP, address)?;
        let tcp = bound(Type::STREAM, Protocol::TCP, address)?;
        tcp.listen(BACKLOG)?;
        Ok(Self {
            gateway: *address.ip(),
            udp: udp.into(),
            tcp: tcp.into(),
            closing,
        })
    }

    /// Serves until told to close.
    pub(super) fn serve(self, worker: &Rc<Worker>) {
        let gateway = self.gateway;
        let sockets = (
            UdpSocket::from_std(self.udp),
            TcpListener::from_std(self.tcp),
        );
        let (Ok(udp), Ok(tcp)) = sockets else {
            return tracing::error!(subsystem = "dns", %gateway, "listener lost");
        };
        let (closing, worker) = (self.closing, Rc::clone(worker));
        let datagrams = datagrams(Rc::clone(&worker), gateway, udp, closing.clone());
        tokio::task::spawn_local(datagrams);
        tokio::task::spawn_local(connections(worker, gateway, tcp, closing));
    }
}

fn bound(kind: Type, protocol: Protocol, address: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
    socket.set_freebind_v4(true)?;
    if kind == Type::STREAM {
        // Connections of an earlier listener may linger. Datagrams have no such state, and
        // there the option would let somebody else share the address.
        socket.set_reuse_address(true)?;
    } else {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V4(address).into())?;
    Ok(socket)
}

async fn datagrams(
    worker: Rc<Worker>,
    gateway: Ipv4Addr,
    socket: UdpSocket,
    mut closing: watch::Receiver<bool>,
) {
    let socket = Rc::new(socket);
    tokio::select! {
        biased;
        _ = closing.changed() => {}
        () = answer_datagrams(&worker, gateway, &socket) => {}
    }
    // In this order: whoever sees the receiver gone may open the address again.
    drop(socket);
    drop(closing);
}

/// Ends only when the socket is of no use any more.
async fn answer_datagrams(worker: &Rc<Worker>, gateway: Ipv4Addr, socket: &Rc<UdpSocket>) {
    while socket.readable().await.is_ok() {
        let later = worker.batch().exchange(socket, |bytes, asker, reply| {
            worker.handle(gateway, *asker.ip(), bytes, message::Carrier::Udp, reply)
        });
        for (peer, pending) in later {
            // A question that waits for an upstream does not hold the address.
            let socket = Rc::downgrade(socket);
            tokio::task::spawn_local(answer_later(Rc::clone(worker), socket, peer, pending));
        }
    }
}

async fn answer_later(
    worker: Rc<Worker>,
    socket: Weak<UdpSocket>,
    peer: SocketAddrV4,
    pending: message::Pending,
) {
    let reply = worker.forward(pending).await;
    if let Some(socket) = socket.upgrade() {
        let _ = socket.send_to(&reply, peer).await;
    }
}

async fn connections(
    worker: Rc<Worker>,
    gateway: Ipv4Addr,
    listener: TcpListener,
    mut closing: watch::Receiver<bool>,
) {
    let open = Rc::new(Cell::new(0));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closing.changed() => break,
            accepted = listener.accept(), if open.get() < CONNECTIONS => accepted,
            () = tokio::time::sleep(ACCEPT_PAUSE), if open.get() >= CONNECTIONS => continue,
        };
        let Ok((stream, SocketAddr::V4(peer))) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        open.set(open.get() + 1);
        let (worker, open) = (Rc::clone(&worker), Rc::clone(&open));
        tokio::task::spawn_local(async move {
            // Whoever hangs up has what he wanted.
            let _ = connection(&worker, gateway, *peer.ip(), stream).await;
            open.set(open.get() - 1);
        });
    }
    drop(listener);
    drop(closing);
}

async fn connection(
    worker: &Worker,
    gateway: Ipv4Addr,
    asker: Ipv4Addr,
    mut stream: TcpStream,
) -> io::Result<()> {
    let mut question = Vec::new();
    let mut reply = Vec::new();
    loop {
        timeout(IDLE, read_message(&mut stream, &mut question)).await??;
        reply.clear();
        match worker.handle(gateway, asker, &question, message::Carrier::Tcp, &mut reply) {
            Handled::Replied => {}
            Handled::Ignored => return Ok(()),
            Handled::Pending(pending) => reply = worker.forward(pending).await,
        }
        timeout(IDLE, write_message(&mut stream, &reply)).await??;
    }
}

/// Reads one message with its length in front.
pub(super) async fn read_message(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let length = stream.read_u16().await?;
    into.resize(usize::from(length), 0);
    stream.read_exact(into).await.map(drop)
}

/// Writes one message with its length in front, in one go.
pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}
