//! `jacod.yaml`: a closed schema whose keys all have defaults (spec 11).
//!
//! A key is accepted from the version on in which it works; until then it is an unknown key.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jaco_core::cluster::addresses::Pool;
use jaco_core::cluster::mesh_pool::MeshPool;
use jaco_core::error::{Error, ErrorCode};
use jaco_core::node::advertise;
use jaco_core::node::forward::{self, Upstreams};
use serde::Deserialize;

/// Where the file is when neither flag nor `JACO_CONFIG` says so.
pub const DEFAULT_PATH: &str = "/etc/jaco/jacod.yaml";
const DEFAULT_STATE_KEY: &str = "/etc/jaco/state.key";

/// The file as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    data_dir: PathBuf,
    hostname: String,
    listen_addr: String,
    cluster_addr: String,
    advertise_addr: String,
    unix_socket: PathBuf,
    http_addr: String,
    docker_host: String,
    wg_port: u16,
    ipam_pool: String,
    mesh_pool: String,
    dns: Dns,
    node_labels: BTreeMap<String, String>,
    node_unreachable_after: String,
    audit_retention: usize,
    log_level: String,
}

/// The key `dns`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Dns {
    forwarders: Vec<String>,
    timeout: String,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            forwarders: Vec::new(),
            timeout: "2s".to_owned(),
        }
    }
}

impl Default for File {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/jaco".into(),
            hostname: String::new(),
            listen_addr: "0.0.0.0:7000".to_owned(),
            cluster_addr: "0.0.0.0:7001".to_owned(),
            advertise_addr: String::new(),
            unix_socket: "/var/run/jaco/jaco.sock".into(),
            http_addr: "0.0.0.0:80".to_owned(),
            docker_host: "unix:///var/run/docker.sock".to_owned(),
            wg_port: 51820,
            ipam_pool: "10.244.0.0/16".to_owned(),
            mesh_pool: "10.245.0.0/24".to_owned(),
            dns: Dns::default(),
            node_labels: BTreeMap::new(),
            node_unreachable_after: "5s".to_owned(),
            audit_retention: 10_000,
            log_level: "info".to_owned(),
        }
    }
}

/// The configuration with every value checked.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Config {
    pub data_dir: PathBuf,
    pub state_key: PathBuf,
    pub hostname: String,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where raft listens.
    pub cluster: SocketAddr,
    /// The host that others dial.
    pub advertise: String,
    pub unix_socket: PathBuf,
    pub http: SocketAddr,
    pub docker_host: String,
    /// The UDP port of the mesh.
    pub wg_port: u16,
    pub ipam_pool: Pool,
    pub mesh_pool: MeshPool,
    /// Who is asked for names that are not ours.
    pub dns_upstreams: Upstreams,
    /// How long one of them may take.
    pub dns_timeout: Duration,
    pub node_labels: BTreeMap<String, String>,
    pub node_unreachable_after: Duration,
    pub audit_retention: usize,
    pub log_level: String,
}

impl Config {
    /// `host:port` of the API as others dial it.
    pub fn api_address(&self) -> String {
        format!("{}:{}", self.advertise, self.listen.port())
    }

    /// `host:port` of raft as others dial it.
    pub fn cluster_address(&self) -> String {
        format!("{}:{}", self.advertise, self.cluster.port())
    }
}

/// What the environment adds (spec 11), so that reading it stays in one place.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Environment {
    pub data_dir: Option<PathBuf>,
    pub log_level: Option<String>,
    pub state_key: Option<PathBuf>,
    pub hostname: String,
    pub addresses: Vec<IpAddr>,
    /// The text of `/etc/resolv.conf`.
    pub resolv_conf: String,
}

/// Reads and checks a configuration. A missing file means all defaults, unless it was asked
/// for by name.
///
/// # Errors
/// `config_invalid`, naming the key.
pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Config, Error> {
    let text = match std::fs::read_to_string(path.unwrap_or(Path::new(DEFAULT_PATH))) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_none() => {
            String::new()
        }
        Err(error) => {
            let path = path.unwrap_or(Path::new(DEFAULT_PATH)).display();
            return Err(invalid("config", format!("read {path}: {error}")));
        }
    };
    parse(&text, environment)
}

/// Checks the text of a configuration.
///
/// # Errors
/// `config_invalid`, naming the key.
pub fn parse(text: &str, environment: &Environment) -> Result<Config, Error> {
    let file: File = if text.trim().is_empty() {
        File::default()
    } else {
        serde_saphyr::from_str(text).map_err(|error| {
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default().to_owned();
            Error::new(ErrorCode::ConfigInvalid, first)
        })?
    };
    check(file, environment)
}

fn check(file: File, environment: &Environment) -> Result<Config, Error> {
    let listen = socket("listen_addr", &file.listen_addr, &environment.addresses)?;
    let cluster = socket("cluster_addr", &file.cluster_addr, &environment.addresses)?;
    if listen == cluster {
        return Err(invalid(
            "cluster_addr",
            format!("{cluster} is listen_addr already"),
        ));
    }
    let hostname = Some(file.hostname).filter(|name| !name.is_empty());
    let hostname = hostname.unwrap_or_else(|| environment.hostname.clone());
    if !jaco_core::id::is_dns_label(&hostname.replace('.', "-").to_ascii_lowercase(), 253) {
        return Err(invalid(
            "hostname",
            format!("\"{hostname}\" is not a hostname"),
        ));
    }
    let log_level = environment.log_level.clone().unwrap_or(file.log_level);
    if !["debug", "info", "warn", "error"].contains(&log_level.as_str()) {
        let message = format!("\"{log_level}\" is not one of debug, info, warn, error");
        return Err(invalid("log_level", message));
    }
    let ipam_pool = Pool::parse(&file.ipam_pool).ok_or_else(|| {
        let message = format!("\"{}\" is not a /16 like 10.244.0.0/16", file.ipam_pool);
        invalid("ipam_pool", message)
    })?;
    let resolv_conf = &environment.resolv_conf;
    Ok(Config {
        data_dir: environment.data_dir.clone().unwrap_or(file.data_dir),
        state_key: environment
            .state_key
            .clone()
            .unwrap_or_else(|| DEFAULT_STATE_KEY.into()),
        hostname,
        listen,
        cluster,
        advertise: Some(file.advertise_addr)
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| listen.ip().to_string()),
        unix_socket: file.unix_socket,
        http: file.http_addr.parse().map_err(|_| {
            invalid(
                "http_addr",
                format!("\"{}\" is not an address and port", file.http_addr),
            )
        })?,
        docker_host: docker_host(file.docker_host)?,
        wg_port: file.wg_port,
        ipam_pool,
        mesh_pool: mesh_pool(&file.mesh_pool, ipam_pool)?,
        dns_upstreams: forward::upstreams(&file.dns.forwarders, resolv_conf, ipam_pool)?,
        dns_timeout: seconds("dns.timeout", &file.dns.timeout)?,
        node_labels: file.node_labels,
        node_unreachable_after: seconds("node_unreachable_after", &file.node_unreachable_after)?,
        audit_retention: file.audit_retention,
        log_level,
    })
}

fn socket(key: &str, text: &str, machine: &[IpAddr]) -> Result<SocketAddr, Error> {
    let shape = || invalid(key, format!("\"{text}\" is not an address and port"));
    let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
    let port: u16 = port.parse().map_err(|_| shape())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(SocketAddr::new(
        advertise::choose(key, host, machine)?,
        port,
    ))
}

fn mesh_pool(text: &str, ipam_pool: Pool) -> Result<MeshPool, Error> {
    let shape = || format!("\"{text}\" is not a network from /16 to /28 like 10.245.0.0/24");
    let pool = MeshPool::parse(text).ok_or_else(|| invalid("mesh_pool", shape()))?;
    if pool.is_apart_from(ipam_pool) {
        return Ok(pool);
    }
    Err(invalid(
        "mesh_pool",
        format!("{pool} lies in ipam_pool {ipam_pool}"),
    ))
}

fn docker_host(text: String) -> Result<String, Error> {
    if text.starts_with("unix://") {
        return Ok(text);
    }
    Err(invalid(
        "docker_host",
        format!("\"{text}\" is not a unix:// address"),
    ))
}

fn seconds(key: &str, text: &str) -> Result<Duration, Error> {
    let number = text
        .strip_suffix('s')
        .and_then(|number| number.parse().ok());
    match number {
        Some(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err(invalid(
            key,
            format!("\"{text}\" is not between 1s and 3600s"),
        )),
    }
}

fn invalid(key: &str, message: impl Into<String>) -> Error {
    let message = format!("{key}: {}", message.into());
    Error::new(ErrorCode::ConfigInvalid, message).with("field", key)
}
