//! Listening sockets: one per worker and address, and the loop that accepts on each.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::worker::Worker;
use super::{http, tcp};

const BACKLOG: i32 = 4096;
const KEEPALIVE: Duration = Duration::from_secs(60);
/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Http,
    Https,
    /// The published port of this number.
    Tcp(u16),
}

/// A listener on its way to its worker. It is closed when `open` becomes false.
pub(super) struct Opened {
    pub(super) purpose: Purpose,
    pub(super) listener: StdListener,
    pub(super) open: watch::Receiver<bool>,
}

/// Opens one socket per worker on the same address. `SO_REUSEPORT` lets the kernel spread
/// connections over them.
pub(super) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    // Any process of this user could join the group and take a share of the connections
    // unnoticed, a second daemon for instance. A socket without the option fails then.
    let probe = socket(address, false)?;
    let address = probe.local_addr()?;
    drop(probe);
    (0..workers).map(|_| socket(address, true)).collect()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
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
    Ok(socket.into())
}

/// Accepts until the listener is closed; the connections go on after that.
pub(super) async fn accept(worker: Rc<Worker>, opened: Opened) {
    let Opened {
        purpose,
        listener,
        mut open,
    } = opened;
    let listener = match TcpListener::from_std(listener) {
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
    match purpose {
        Purpose::Http => {
            drop(tokio::task::spawn_local(http::serve(
                worker, stream, peer, false,
            )));
        }
        Purpose::Https => drop(tokio::task::spawn_local(http::serve_tls(
            worker, stream, peer,
        ))),
        Purpose::Tcp(port) => drop(tokio::task::spawn_local(tcp::serve(worker, stream, port))),
    }
}
