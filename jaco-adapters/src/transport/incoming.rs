//! Accepting TLS connections for a gRPC server. No slow or silent client holds up another.
//!
//! Handshakes are bounded by address and in all (`jaco_core::node::handshakes`), connections in
//! all; when there are too many, the oldest handshake and the longest idle connection go.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jaco_core::node::handshakes::{Handshakes, Ticket};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::pki;
use super::seats::{Seated, Seats};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Finished handshakes that wait for the server to take them.
const READY: usize = 64;
/// How long an accept loop rests that found no descriptor free.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Says whether an address is a member's.
pub type IsMember = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// What a gRPC server of ours accepts.
pub type Stream = Seated<TlsStream<TcpStream>>;

/// The handshakes of one listener, and how each is given up.
#[derive(Default)]
struct UnderWay {
    slots: Handshakes,
    tasks: BTreeMap<Ticket, AbortHandle>,
}

/// The connections that finished their handshake, for `serve_with_incoming`; at most `connections`
/// at once.
pub fn tls(
    listener: TcpListener,
    server: Arc<ServerConfig>,
    is_member: IsMember,
    connections: usize,
) -> ReceiverStream<std::io::Result<Stream>> {
    let (ready, incoming) = mpsc::channel(READY);
    let acceptor = TlsAcceptor::from(server);
    let under_way: Arc<Mutex<UnderWay>> = Arc::default();
    let seats = Seats::new(connections);
    tokio::spawn(async move {
        while !ready.is_closed() {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely; let some close.
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let (ticket, given_up) = lock(&under_way)
                .slots
                .begin(peer.ip(), is_member(peer.ip()));
            if let Some(task) = given_up.and_then(|old| lock(&under_way).tasks.remove(&old)) {
                task.abort();
            }
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            let (seats, ended) = (Arc::clone(&seats), Arc::clone(&under_way));
            let task = tokio::spawn(async move {
                let _ = tcp.set_nodelay(true);
                let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await;
                {
                    let mut ended = lock(&ended);
                    ended.slots.end(ticket);
                    ended.tasks.remove(&ticket);
                }
                match shaken {
                    Ok(Ok(stream)) => drop(ready.send(Ok(seats.take(stream))).await),
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
                }
            });
            if !task.is_finished() {
                lock(&under_way).tasks.insert(ticket, task.abort_handle());
            }
            forget_finished(&under_way);
        }
    });
    ReceiverStream::new(incoming)
}

/// A task that ended before it was noted leaves its note behind.
fn forget_finished(under_way: &Mutex<UnderWay>) {
    let mut under_way = lock(under_way);
    if under_way.tasks.len() > under_way.slots.len() {
        under_way.tasks.retain(|_, task| !task.is_finished());
    }
}

fn lock(under_way: &Mutex<UnderWay>) -> MutexGuard<'_, UnderWay> {
    under_way.lock().expect("no holder of this lock panics")
}

/// The other end of a connection, for the requests that come over it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where it came from.
    pub address: Option<SocketAddr>,
    /// What its certificate is known by; absent where none was asked for.
    pub certificate: Option<Certificate>,
}

/// What a certificate is known by, lower-case hex.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// SHA-256 of its public key.
    pub key_hash: Arc<str>,
    /// Its serial.
    pub serial: Arc<str>,
}

impl Connected for Stream {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        let (tcp, session) = self.get_ref().get_ref();
        let shown = session.peer_certificates().and_then(<[_]>::first);
        Connection {
            address: tcp.peer_addr().ok(),
            certificate: shown.and_then(|shown| {
                Some(Certificate {
                    key_hash: pki::public_key_hash(shown)?.into(),
                    serial: pki::serial(shown)?.into(),
                })
            }),
        }
    }
}

/// The host at the other end, from a request.
pub fn peer(extensions: &http::Extensions) -> Option<IpAddr> {
    let connection = extensions.get::<Connection>()?;
    connection.address.map(|address| address.ip())
}
