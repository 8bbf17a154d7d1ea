//! gRPC channels over TLS and over unix sockets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel to `host:port` that connects when first used and again when it breaks.
///
/// # Errors
/// When the address is not a valid authority.
pub fn tls(address: &str, client: Arc<ClientConfig>) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    let connector = TlsConnector::from(client);
    Ok(
        endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| {
            let connector = connector.clone();
            async move {
                let dial = dial(connector, uri);
                tokio::time::timeout(CONNECT_TIMEOUT, dial)
                    .await
                    .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            }
        })),
    )
}

async fn dial(
    connector: TlsConnector,
    uri: Uri,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(7000))).await?;
    tcp.set_nodelay(true)?;
    Ok(TokioIo::new(connector.connect(name, tcp).await?))
}

/// A channel to the daemon of this host.
pub fn unix(path: PathBuf) -> Channel {
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}
