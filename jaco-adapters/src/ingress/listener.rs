//! Listening sockets: one per worker and address, and the loop that accepts on each.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::http::Peer;
use super::worker::Worker;
use super::{http, preamble, tcp, udp};

const BACKLOG: i32 = 4096;
const KEEPALIVE: Duration = Duration::from_secs(60);
/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Http,
    Https,
    /// The published port of this number; so is the next.
    Tcp(u16),
    Udp(u16),
}

impl Purpose {
    /// The name under which a service manager keeps its sockets; none for datagrams, which do
    /// not wait in a queue for long.
    pub(super) fn kept_as(self) -> Option<String> {
        match self {
            Self::Http => Some("http".to_owned()),
            Self::Https => Some("https".to_owned()),
            Self::Tcp(port) => Some(format!("tcp-{port}")),
            Self::Udp(_) => None,
        }
    }
}

/// A listener on its way to its worker. It is closed when `open` becomes false.
pub(super) struct Opened {
    pub(super) purpose: Purpose,
    pub(super) socket: Socket,
    pub(super) open: watch::Receiver<bool>,
}

/// Opens one socket per worker on the same address. `SO_REUSEPORT` lets the kernel spread
/// connections over them.
pub(super) fn bind(
    purpose: Purpose,
    address: SocketAddr,
    workers: usize,
) -> io::Result<Vec<Socket>> {
    let socket = match purpose {
        Purpose::Udp(_) => datagrams,
        _ => stream,
    };
    // Any process of this user could join the group and take a share of the connections
    // unnoticed, a second daemon for instance. A socket without the option fails then.
    let probe = socket(address, false)?;
    let address = self::address(&probe)?;
    drop(probe);
    (0..workers).map(|_| socket(address, true)).collect()
}

/// Where a socket is bound.
pub(super) fn address(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?.as_socket();
    address.ok_or_else(|| io::Error::other("a listener without an address"))
}

fn datagrams(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    udp::prepare(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn stream(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted sockets inherit these two: no calls per connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Accepts until the listener is closed; the connections go on after that.
pub(super) async fn accept(worker: Rc<Worker>, opened: Opened) {
    let Opened {
        purpose,
        socket,
        mut open,
    } = opened;
    if let Purpose::Udp(port) = purpose {
        let served = udp::serve(worker, socket.into(), port, &mut open).await;
        return served.unwrap_or_else(|error| tracing::error!(%error, port, "UDP port lost"));
    }
    let listener = match TcpListener::from_std(socket.into()) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, ?purpose, "listener lost"),
    };
    loop {
        let accepted = tokio::select! {
            biased;
            _ = open.changed() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => serve(&worker, purpose, stream, peer),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    if worker.under_way.is_leaving() && worker.kept.is_managed() {
        // Who is in the kernel's queue waits there for the next daemon.
        return;
    }
    if let Some(name) = purpose.kept_as() {
        worker.kept.forget(&name);
    }
    // Who is in the kernel's queue was accepted as far as he knows.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        serve(&worker, purpose, stream, peer);
    }
    // In this order: whoever sees the receiver gone may open the address again.
    drop(listener);
    drop(open);
}

fn serve(worker: &Rc<Worker>, purpose: Purpose, stream: TcpStream, peer: SocketAddr) {
    let worker = Rc::clone(worker);
    let visits = !matches!(purpose, Purpose::Tcp(_));
    if visits && worker.trusted.contains(peer.ip()) {
        drop(tokio::task::spawn_local(introduced(
            worker, purpose, stream, peer,
        )));
        return;
    }
    let peer = Peer::direct(peer);
    match purpose {
        Purpose::Http => {
            drop(tokio::task::spawn_local(http::serve(
                worker, stream, peer, false,
            )));
        }
        Purpose::Https => drop(tokio::task::spawn_local(http::serve_tls(
            worker, stream, peer,
        ))),
        Purpose::Tcp(port) => drop(tokio::task::spawn_local(tcp::serve(
            worker,
            stream,
            peer.address,
            port,
        ))),
        // It has no connections.
        Purpose::Udp(_) => {}
    }
}

/// Serves a connection of a load balancer, which may say first whom it is for.
async fn introduced(
    worker: Rc<Worker>,
    purpose: Purpose,
    mut stream: TcpStream,
    balancer: SocketAddr,
) {
    let told = tokio::time::timeout(worker.limits.header_read, preamble::take(&mut stream)).await;
    let peer = match told.map_err(io::Error::from).flatten() {
        Ok(Some(client)) => Peer {
            address: client,
            trusted: worker.trusted.contains(client.ip()),
        },
        Ok(None) => Peer {
            address: balancer,
            trusted: true,
        },
        Err(error) => {
            if error.kind() == io::ErrorKind::InvalidData {
                let count = &worker.tallies.wrong_preambles;
                count.fetch_add(1, Ordering::Relaxed);
            }
            return tracing::debug!(%balancer, %error, "PROXY header refused");
        }
    };
    match purpose {
        Purpose::Https => http::serve_tls(worker, stream, peer).await,
        _ => http::serve(worker, stream, peer, false).await,
    }
}
