//! The only file of the daemon that names adapters: it makes them and plugs them together.

mod listeners;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock, OnceLock};

use anyhow::Context;
use async_trait::async_trait;
use jaco_adapters::acme::AcmeAuthority;
use jaco_adapters::api::{Client, node};
use jaco_adapters::dns::{self, HickoryDns, UpstreamLookup};
use jaco_adapters::docker::DockerRuntime;
use jaco_adapters::ingress::{self, HyperIngress, Kept};
use jaco_adapters::metrics::Metrics;
use jaco_adapters::netlink::LinuxNetwork;
use jaco_adapters::nftables::Nftables;
use jaco_adapters::probe::HostProbe;
use jaco_adapters::raft::{self, Peers, RaftConsensus};
use jaco_adapters::seal::AesSealer;
use jaco_adapters::transport::{pki, tls};
use jaco_adapters::wireguard::WireGuardMesh;
use jaco_core::certs::Probed;
use jaco_core::cluster::state::Standing;
use jaco_core::error::{Error, ErrorCode};
use jaco_core::id::{ClusterId, Domain, NodeName, ReplicaId};
use jaco_core::ports::container_logs::{LogLines, LogOptions};
use jaco_core::ports::control_plane::{Admission, AdmissionRequest};
use jaco_core::ports::{Clock, Consensus, Ids, RuntimeError, Sealer, SelfCheck, WebProbe};
use jaco_core::view::check::CheckRow;
use zeroize::Zeroizing;

use super::checks::MemberChecks;
use super::config::{Config, Environment};
use super::drive::{self, Member};
use super::identity::{self, Identity};

pub(super) use jaco_adapters::raft::Survivor;
use jaco_adapters::system::HostUsage;
pub(super) use jaco_adapters::system::{SystemClock, SystemIds, use_small_pages};
pub(super) use listeners::{serve_local, serve_metrics, serve_remote};

/// Keeps keys out of core dumps, and makes room for connections.
pub(super) fn harden() {
    if let Err(error) = jaco_adapters::system::forbid_core_dumps() {
        tracing::warn!(subsystem = "cluster", %error, "core dumps stay possible");
    }
    match jaco_adapters::system::raise_file_limit() {
        Ok(files) => tracing::info!(subsystem = "cluster", files, "limit of open files"),
        Err(error) => {
            tracing::warn!(subsystem = "cluster", %error, "raise the limit of open files");
        }
    }
}

/// The number of the user that this process runs as.
pub(super) fn user() -> u32 {
    jaco_adapters::system::user()
}

/// What seals with a state key.
pub(super) fn sealer(state_key: &[u8; 32]) -> AesSealer {
    AesSealer::new(state_key)
}

/// What the environment and the host say.
pub(super) fn environment() -> Environment {
    let path = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(Into::into)
    };
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
        .map(|dir| Path::new(&dir).join("state.key"))
        .filter(|file| file.exists());
    Environment {
        data_dir: path("JACO_DATA_DIR"),
        log_level: std::env::var("JACO_LOG")
            .ok()
            .filter(|level| !level.is_empty()),
        state_key: path("JACO_STATE_KEY").or(credential),
        hostname: jaco_adapters::system::hostname(),
        addresses: jaco_adapters::system::addresses(),
        resolv_conf: jaco_adapters::system::resolv_conf(),
    }
}

/// A member's hold on the cluster, with what its API needs beside the drivers.
pub(super) struct Opened {
    pub(super) consensus: Arc<RaftConsensus>,
    pub(super) sealer: Arc<dyn Sealer>,
    state_key: Zeroizing<[u8; 32]>,
    metrics: Arc<Metrics>,
    tls: MemberTls,
}

struct MemberTls {
    api: Arc<rustls::ServerConfig>,
    members: Arc<rustls::ServerConfig>,
}

/// Opens the replicated log of this member.
pub(super) async fn open(
    config: &Config,
    identity: &Identity,
    state_key: &[u8; 32],
) -> anyhow::Result<Opened> {
    let shown = pki::Identity {
        chain: identity.chain.clone(),
        key: identity.key.to_string(),
    };
    // Who is a member is in the state, which is opened with these settings.
    let opened: Arc<OnceLock<Arc<RaftConsensus>>> = Arc::default();
    let state = Arc::clone(&opened);
    let standing = move |key: &str, serial: &str| {
        let state = state.get().map(|consensus| consensus.snapshot());
        let state = state.filter(|state| state.cluster.is_some());
        state.map(|state| state.standing(key, serial))
    };
    let refused: tls::Refused =
        Arc::new(move |key, serial| matches!(standing(key, serial), Some(Standing::Removed)));
    let client = tls::member_client(&identity.ca_cert, &shown, Arc::clone(&refused))?;
    let tls = MemberTls {
        api: tls::api_server(&shown)?,
        members: tls::member_server(&identity.ca_cert, &shown, refused)?,
    };
    let sealer: Arc<dyn Sealer> = Arc::new(AesSealer::new(state_key));
    let dir = config.data_dir.join("raft");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new());
    let meter = Arc::clone(&metrics) as _;
    let (member, sealing) = (identity.member, Arc::clone(&sealer));
    let consensus = raft::open(&dir, member, sealing, clock, meter, client).await?;
    let consensus = Arc::new(consensus);
    let _ = opened.set(Arc::clone(&consensus));
    Ok(Opened {
        consensus,
        sealer,
        state_key: Zeroizing::new(*state_key),
        metrics,
        tls,
    })
}

/// What this member has while its daemon does not run.
pub(super) async fn survivor(
    config: &Config,
    state_key: &[u8; 32],
) -> Result<Survivor, raft::OpenError> {
    let sealer: Arc<dyn Sealer> = Arc::new(AesSealer::new(state_key));
    Survivor::open(&config.data_dir.join("raft"), sealer).await
}

/// Everything that the drivers work with.
pub(super) fn member(
    config: &Arc<Config>,
    identity: &Identity,
    opened: &Opened,
) -> anyhow::Result<Arc<Member>> {
    let files = config
        .unix_socket
        .parent()
        .unwrap_or(Path::new("/run"))
        .join("files");
    let draw = || {
        let mut key = [0; 32];
        SystemIds.fill(&mut key);
        key
    };
    let mesh_key = identity::mesh_key(config, &opened.state_key, draw);
    let mesh_key = mesh_key.context("read the key of the mesh")?;
    let runtime = Arc::new(DockerRuntime::connect(&config.docker_host, files));
    Ok(Arc::new(Member {
        config: Arc::clone(config),
        name: NodeName::new(&identity.hostname),
        cluster: ClusterId::new(&identity.cluster_id),
        key_hash: key_hash(&identity.chain)?,
        clock: Arc::new(SystemClock),
        system: Arc::new(HostUsage::new("/")),
        consensus: Arc::clone(&opened.consensus) as Arc<dyn Consensus>,
        runtime: Arc::clone(&runtime) as _,
        logs: Arc::clone(&runtime) as _,
        bridges: runtime,
        ingress: Arc::new(ingress(config, opened)?),
        authority: Arc::new(authority(config)?),
        lookup: Arc::new(lookup(config)),
        web: Arc::new(Visits {
            peers: opened.consensus.peers(),
        }),
        sealer: Arc::clone(&opened.sealer),
        published: drive::published::Published::default(),
        mesh: Arc::new(WireGuardMesh::new(mesh_key, config.wg_port)),
        host: Arc::new(LinuxNetwork),
        firewall: Arc::new(Nftables::start()),
        facts: Default::default(),
        isolated_at: Default::default(),
        dns: Arc::new(responder(config, opened)?),
        meter: Arc::clone(&opened.metrics) as _,
        bridge_use: Default::default(),
        hosts: Default::default(),
    }))
}

/// The sockets that a service manager kept while the daemon was away.
static KEPT: LazyLock<Arc<Kept>> = LazyLock::new(|| Arc::new(Kept::from_environment()));

/// Takes them over. To be called before there is a second thread.
pub(super) fn take_kept_sockets() {
    LazyLock::force(&KEPT);
}

fn ingress(config: &Config, opened: &Opened) -> anyhow::Result<HyperIngress> {
    let settings = ingress::Settings {
        trusted: config.trusted_proxies.clone(),
        metered: config.metrics.is_some(),
        kept: Arc::clone(&KEPT),
        ..ingress::Settings::new(config.http, config.https, Arc::clone(&opened.sealer))
    };
    let ingress = HyperIngress::start(settings).context("start the ingress")?;
    opened.metrics.add(ingress.collector());
    Ok(ingress)
}

fn authority(config: &Config) -> anyhow::Result<AcmeAuthority> {
    let root = config.acme.root.as_deref();
    let file = root.unwrap_or(Path::new("")).display();
    AcmeAuthority::new(root, Arc::new(lookup(config)))
        .with_context(|| format!("read acme_ca_root {file}"))
}

/// Where resolvers listen.
const DNS_PORT: u16 = 53;

fn dns_upstreams(config: &Config) -> Vec<std::net::SocketAddr> {
    let upstreams = config.dns_upstreams.addresses.iter();
    upstreams
        .map(|&address| (address, DNS_PORT).into())
        .collect()
}

fn lookup(config: &Config) -> UpstreamLookup {
    UpstreamLookup::new(dns_upstreams(config), config.dns_timeout)
}

/// Fetches pages from here or from another member.
struct Visits {
    peers: Peers,
}

#[async_trait]
impl WebProbe for Visits {
    async fn fetch(&self, via: Option<&str>, address: IpAddr, host: &Domain, path: &str) -> Probed {
        let Some(via) = via else {
            return HostProbe.fetch(address, host, path).await;
        };
        match self.peers.channel(via) {
            Ok(channel) => node::remote_fetch(channel, address, host, path).await,
            Err(error) => Probed::Silent(error.to_string()),
        }
    }
}

fn responder(config: &Config, opened: &Opened) -> anyhow::Result<HickoryDns> {
    let settings = dns::Settings {
        port: DNS_PORT,
        upstreams: dns_upstreams(config),
        timeout: config.dns_timeout,
        meter: Arc::clone(&opened.metrics) as _,
    };
    HickoryDns::start(settings).context("start the DNS responder")
}

/// Starts every driver of a member.
pub(super) fn drive(member: &Arc<Member>) {
    tokio::spawn(drive::scheduler::run(Arc::clone(member)));
    tokio::spawn(drive::membership::run(Arc::clone(member)));
    tokio::spawn(drive::heartbeat::run(Arc::clone(member)));
    tokio::spawn(drive::runtime::run(Arc::clone(member)));
    tokio::spawn(drive::network::run(Arc::clone(member)));
    tokio::spawn(drive::mesh::run(Arc::clone(member)));
    tokio::spawn(drive::firewall::run(Arc::clone(member)));
    tokio::spawn(drive::ingress::run(Arc::clone(member)));
    tokio::spawn(drive::dns::run(Arc::clone(member)));
    tokio::spawn(drive::published::run(Arc::clone(member)));
    tokio::spawn(drive::usage::run(Arc::clone(member)));
    tokio::spawn(drive::certs::run(Arc::clone(member)));
}

/// The log of a replica on another member.
pub(super) async fn remote_logs(
    peers: &Peers,
    address: &str,
    replica: &ReplicaId,
    options: &LogOptions,
) -> Result<Box<dyn LogLines>, RuntimeError> {
    let channel = peers
        .channel(address)
        .map_err(|error| RuntimeError::Unreachable(error.to_string()))?;
    node::remote_logs(channel, replica, options).await
}

/// What a member tries when its network is checked.
pub(super) fn checks(member: &Arc<Member>) -> Arc<dyn SelfCheck> {
    Arc::new(MemberChecks {
        member: Arc::clone(member),
        probe: Arc::new(HostProbe),
    })
}

/// Has another member try its network; fails with the reason for its silence.
pub(super) async fn remote_check(peers: &Peers, address: &str) -> Result<Vec<CheckRow>, String> {
    let channel = peers.channel(address).map_err(|error| error.to_string())?;
    node::remote_check(channel).await
}

/// A new CA: its certificate and key.
pub(super) fn new_authority(cluster: &str) -> Result<(String, String), Error> {
    pki::new_authority(cluster).map_err(Error::internal)
}

/// A new node key and the request for its certificate.
pub(super) fn new_request(hostname: &str) -> Result<(String, String), Error> {
    pki::new_request(hostname).map_err(Error::internal)
}

/// Signs a request; the chain and the serial.
///
/// # Errors
/// `validation_failed` for a malformed request.
pub(super) fn sign_node(
    ca_cert: &str,
    ca_key: &str,
    request: &str,
    hostname: &str,
    sans: &[String],
) -> Result<(String, String), Error> {
    pki::sign_node(ca_cert, ca_key, request, hostname, sans).map_err(|error| {
        Error::new(ErrorCode::ValidationFailed, error.to_string()).with("field", "csr")
    })
}

/// Hex SHA-256 of the public key of a chain's first certificate.
pub(super) fn key_hash(chain: &str) -> Result<String, Error> {
    let certificates = pki::certificates(chain).map_err(Error::internal)?;
    let hash = certificates.first().and_then(pki::public_key_hash);
    hash.ok_or_else(|| Error::internal("a certificate without a key"))
}

/// Hex SHA-256 of the public key of the last certificate of a chain, and that certificate.
pub(super) fn authority_of(chain: &str) -> Result<(String, String), Error> {
    pki::authority(chain).map_err(|error| {
        Error::new(
            ErrorCode::TlsUntrusted,
            format!("the CA does not parse: {error}"),
        )
    })
}

/// Presents a join token to a member.
pub(super) async fn enter(
    peer: &str,
    ca_hash: &str,
    request: AdmissionRequest,
) -> Result<Admission, Error> {
    let client = Client::joining(peer, ca_hash)?;
    client.enter(request).await.map_err(|error| match error {
        jaco_adapters::api::client::CallError::Refused(error) => error,
        unreachable => {
            Error::new(ErrorCode::ValidationFailed, unreachable.to_string()).with("field", "peer")
        }
    })
}
