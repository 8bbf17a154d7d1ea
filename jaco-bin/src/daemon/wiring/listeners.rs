//! The listeners of a daemon: the unix socket, the API, the other members, what is measured.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jaco_adapters::api::node;
use jaco_adapters::api::server::{self, Entrance, Gate};
use jaco_adapters::transport::incoming;
use jaco_core::ports::{Consensus, ControlPlane, SelfCheck};
use jaco_core::view::replica;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::{Config, Member, Opened};

/// Calls of a member that may arrive after it gave them up: what it sent into a cut comes all at
/// once when that is mended, and closing the connection for it would be another cut.
const GIVEN_UP: usize = 1024;

/// Connections to the API, and from other members, that are open at once.
const API_CONNECTIONS: usize = 1_024;
const MEMBER_CONNECTIONS: usize = 256;
/// Calls at once on one connection to the API.
const STREAMS: u32 = 64;
/// How long a call may take until its answer begins.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a silent connection to the API is asked whether it lives, and how long it has to say.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// The group whose members may use the unix socket.
const OPERATORS: &str = "jaco";

/// Serves the operator of this host.
pub(in crate::daemon) async fn serve_local(
    config: &Config,
    plane: Arc<dyn ControlPlane>,
) -> anyhow::Result<()> {
    let path = &config.unix_socket;
    if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
        make_socket_directory(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("another daemon serves {}", path.display());
    }
    let _ = std::fs::remove_file(path);
    let listener = listen_locally(path).with_context(|| format!("listen on {}", path.display()))?;
    let serve = Server::builder()
        .layer(Gate::new(Arc::clone(&plane), Entrance::Local))
        .add_routes(server::routes(plane))
        .serve_with_incoming(UnixListenerStream::new(listener));
    tokio::spawn(serve);
    Ok(())
}

/// A directory that only this user and the group of operators can look into.
fn make_socket_directory(dir: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)?;
    match jaco_adapters::system::group(OPERATORS) {
        Some(group) => std::os::unix::fs::chown(dir, None, Some(group)),
        None => Ok(()),
    }
}

/// A socket that is nobody's but this user's and the group of operators' from its first moment.
fn listen_locally(path: &Path) -> std::io::Result<UnixListener> {
    let listener = jaco_adapters::system::with_umask(0o117, || UnixListener::bind(path))?;
    if let Some(group) = jaco_adapters::system::group(OPERATORS) {
        std::os::unix::fs::chown(path, None, Some(group))?;
    }
    Ok(listener)
}

/// Serves remote callers and the other members.
pub(in crate::daemon) async fn serve_remote(
    config: &Config,
    opened: &Opened,
    member: &Member,
    checks: Arc<dyn SelfCheck>,
    plane: Arc<dyn ControlPlane>,
) -> anyhow::Result<()> {
    let api = listen(config.listen).await?;
    let members = listen(config.cluster).await?;
    let consensus = Arc::clone(&opened.consensus);
    let is_member: incoming::IsMember = Arc::new(move |address| {
        let state = consensus.snapshot();
        let address = address.to_canonical().to_string();
        state.nodes.values().any(|node| node.host() == address)
    });
    let api_tls = Arc::clone(&opened.tls.api);
    let serve = Server::builder()
        .max_concurrent_streams(STREAMS)
        .timeout(REQUEST_TIMEOUT)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .layer(Gate::new(Arc::clone(&plane), Entrance::Remote))
        .add_routes(server::routes(plane))
        .serve_with_incoming(incoming::tls(
            api,
            api_tls,
            Arc::clone(&is_member),
            API_CONNECTIONS,
        ));
    tokio::spawn(serve);
    let web = Arc::clone(&member.web);
    let serve = Server::builder()
        .http2_max_pending_accept_reset_streams(Some(GIVEN_UP))
        .layer(opened.consensus.gate())
        .add_service(opened.consensus.service())
        .add_service(node::service(Arc::clone(&member.logs), checks, web))
        .serve_with_incoming(incoming::tls(
            members,
            Arc::clone(&opened.tls.members),
            is_member,
            MEMBER_CONNECTIONS,
        ));
    tokio::spawn(serve);
    Ok(())
}

/// Shows what is measured, where the configuration says so.
pub(in crate::daemon) async fn serve_metrics(
    config: &Config,
    opened: &Opened,
) -> anyhow::Result<()> {
    let Some(address) = config.metrics else {
        return Ok(());
    };
    let consensus = Arc::clone(&opened.consensus);
    opened.metrics.add_replicas(Box::new(move || {
        let counts = replica::counts(&consensus.snapshot()).into_iter();
        let named = counts.map(|((service, state), n)| ((service, state.as_str().to_owned()), n));
        named.collect()
    }));
    let listener = listen(address).await?;
    tokio::spawn(Arc::clone(&opened.metrics).serve(listener));
    Ok(())
}

async fn listen(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))
}
