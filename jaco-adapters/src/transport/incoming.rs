//! Accepting TLS connections for a gRPC server. One slow handshake holds up nobody else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Extensions;
use tonic::transport::server::Connected;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once; more wait in the kernel's queue.
const HANDSHAKES: usize = 64;

/// The connections that finished their handshake, for `serve_with_incoming`.
pub fn tls(
    listener: TcpListener,
    server: Arc<ServerConfig>,
) -> ReceiverStream<std::io::Result<TlsStream<TcpStream>>> {
    let (ready, incoming) = mpsc::channel(HANDSHAKES);
    let acceptor = TlsAcceptor::from(server);
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    tokio::spawn(async move {
        while !ready.is_closed() {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let Ok((tcp, peer)) = accepted else {
                // Out of file descriptors, most likely; let some close.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            tokio::spawn(async move {
                let _slot = slot;
                let _ = tcp.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
                    Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
                }
            });
        }
    });
    ReceiverStream::new(incoming)
}

/// The host at the other end of such a connection, from a request that came over it.
///
/// `Request::remote_addr` does not look here, since it is not tonic that does the TLS.
pub fn peer(request: &Extensions) -> Option<IpAddr> {
    let connection = request.get::<<TlsStream<TcpStream> as Connected>::ConnectInfo>()?;
    let address = connection.get_ref().remote_addr()?;
    Some(address.ip())
}
