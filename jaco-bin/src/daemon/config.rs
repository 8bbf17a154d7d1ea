//! `jacod.yaml`: a closed schema whose keys all have defaults (spec 11).
//!
//! A key is accepted from the version on in which it works; until then it is an unknown key.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jaco_core::certs;
use jaco_core::cluster::addresses::Pool;
use jaco_core::cluster::mesh_pool::MeshPool;
use jaco_core::error::{Error, ErrorCode, Report, Span, Violation};
use jaco_core::manifest::settings::{self, Setting};
use jaco_core::node::advertise;
use jaco_core::node::firewall::Local;
use jaco_core::node::forward::{self, Upstreams};
use jaco_core::node::trust::TrustedPeers;
use jaco_core::node::workloads::Workloads;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Where the file is when neither flag nor `JACO_CONFIG` says so.
pub const DEFAULT_PATH: &str = "/etc/jaco/jacod.yaml";
/// How messages call the file.
const FILE: &str = "jacod.yaml";
const DEFAULT_STATE_KEY: &str = "/etc/jaco/state.key";
/// The default of `node_status_interval`.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);

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
    https_addr: String,
    docker_host: String,
    wg_port: u16,
    ipam_pool: String,
    mesh_pool: String,
    dns: Dns,
    node_labels: BTreeMap<String, String>,
    node_status_interval: Value,
    node_unreachable_after: String,
    acme_email: String,
    acme_ca: String,
    acme_ca_root: PathBuf,
    acme_enabled: bool,
    acme_skip_staging: bool,
    ingress: Ingress,
    isolation: Isolation,
    workloads: Workloads,
    audit_retention: usize,
    log_level: String,
    metrics_addr: String,
}

/// The key `dns`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Dns {
    forwarders: Vec<String>,
    timeout: String,
}

/// The key `ingress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Ingress {
    trusted_proxies: Vec<String>,
}

/// The key `isolation`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Isolation {
    deny: Vec<String>,
}

impl Default for Isolation {
    /// Where clouds hand out the credentials of a host.
    fn default() -> Self {
        Self {
            deny: vec!["169.254.169.254/32".to_owned()],
        }
    }
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
            https_addr: "0.0.0.0:443".to_owned(),
            docker_host: "unix:///var/run/docker.sock".to_owned(),
            wg_port: 51820,
            ipam_pool: "10.244.0.0/16".to_owned(),
            mesh_pool: "10.245.0.0/24".to_owned(),
            dns: Dns::default(),
            node_labels: BTreeMap::new(),
            node_status_interval: Value::from(0),
            node_unreachable_after: "5s".to_owned(),
            acme_email: String::new(),
            acme_ca: String::new(),
            acme_ca_root: PathBuf::new(),
            acme_enabled: true,
            acme_skip_staging: false,
            ingress: Ingress::default(),
            isolation: Isolation::default(),
            workloads: Workloads::default(),
            audit_retention: 10_000,
            log_level: "info".to_owned(),
            metrics_addr: String::new(),
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
    pub https: SocketAddr,
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
    /// How often the node says what it uses.
    pub node_status_interval: Duration,
    pub node_unreachable_after: Duration,
    pub acme: Acme,
    /// Load balancers whose word about a visitor's address counts.
    pub trusted_proxies: TrustedPeers,
    /// What workloads may have of this host, and what they get when they say nothing.
    pub workloads: Workloads,
    /// Networks that no container reaches.
    pub isolation_deny: Vec<(Ipv4Addr, u8)>,
    pub audit_retention: usize,
    pub log_level: String,
    /// Where Prometheus finds what is measured; nowhere by default.
    pub metrics: Option<SocketAddr>,
}

/// The keys `acme_*`.
#[derive(Clone, Debug)]
pub struct Acme {
    /// What certificates are ordered with.
    pub settings: certs::Settings,
    /// A file with further roots for the CA's own certificate.
    pub root: Option<PathBuf>,
}

impl Config {
    /// `host:port` of the API as others dial it.
    pub fn api_address(&self) -> String {
        format!("{}:{}", self.advertise, self.listen.port())
    }

    /// What the packet filter does on this node alone.
    pub fn local_rules(&self) -> Local {
        Local {
            deny: self.isolation_deny.clone(),
            metrics_port: self.metrics.map(|address| address.port()),
        }
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
/// Every violation, each `config_invalid`.
pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Config, Report> {
    let text = match std::fs::read_to_string(path.unwrap_or(Path::new(DEFAULT_PATH))) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_none() => {
            String::new()
        }
        Err(error) => {
            let path = path.unwrap_or(Path::new(DEFAULT_PATH)).display();
            let error = invalid("config", format!("read {path}: {error}"));
            return Err(Report {
                violations: vec![violation(error, None)],
            });
        }
    };
    parse(&text, environment)
}

/// Checks the text of a configuration.
///
/// # Errors
/// Every violation, each `config_invalid`, in file order.
pub fn parse(text: &str, environment: &Environment) -> Result<Config, Report> {
    let (settings, mut report) = settings::read(text, FILE);
    for violation in &mut report.violations {
        violation.code = ErrorCode::ConfigInvalid;
    }
    let mut file = Value::Object(Map::new());
    for setting in &settings {
        let mut alone = Value::Object(Map::new());
        alone[&setting.key] = setting.value.clone();
        match File::deserialize(&alone) {
            Ok(_) => file[&setting.key] = setting.value.clone(),
            Err(error) => {
                let error = invalid(&setting.key, error.to_string());
                report.violations.push(violation(error, Some(setting.span)));
            }
        }
    }
    let mut errors = Vec::new();
    let file = File::deserialize(&file).unwrap_or_default();
    let config = check(file, environment, &mut errors);
    for error in errors {
        let field = error.details.get("field").map_or("", String::as_str);
        // `dns.forwarders[0]` stands under `dns`.
        let head = field.split(['.', '[']).next().unwrap_or(field);
        let at = |setting: &&Setting| setting.key == head;
        let span = settings.iter().find(at).map(|setting| setting.span);
        report.violations.push(violation(error, span));
    }
    report.violations.sort_by_key(|violation| violation.span);
    config.filter(|_| report.is_empty()).ok_or(report)
}

/// `None` when a value is wrong; every wrong one is in `errors`.
fn check(file: File, environment: &Environment, errors: &mut Vec<Error>) -> Option<Config> {
    let mut noted = |error: Error| errors.push(error);
    let acme = acme(&file).map_err(&mut noted).ok();
    let listen = socket("listen_addr", &file.listen_addr, &environment.addresses);
    let listen = listen.map_err(&mut noted).ok();
    let cluster = socket("cluster_addr", &file.cluster_addr, &environment.addresses);
    let cluster = cluster.map_err(&mut noted).ok();
    if let Some(listen) = listen.filter(|_| listen == cluster) {
        let message = format!("{listen} is listen_addr already");
        noted(invalid("cluster_addr", message));
    }
    let hostname = Some(file.hostname).filter(|name| !name.is_empty());
    let hostname = hostname.unwrap_or_else(|| environment.hostname.clone());
    if !jaco_core::id::is_dns_label(&hostname.replace('.', "-").to_ascii_lowercase(), 253) {
        let message = format!("\"{hostname}\" is not a hostname");
        noted(invalid("hostname", message));
    }
    let log_level = environment.log_level.clone().unwrap_or(file.log_level);
    if !["debug", "info", "warn", "error"].contains(&log_level.as_str()) {
        let message = format!("\"{log_level}\" is not one of debug, info, warn, error");
        noted(invalid("log_level", message));
    }
    let http = address("http_addr", &file.http_addr)
        .map_err(&mut noted)
        .ok();
    let https = address("https_addr", &file.https_addr)
        .map_err(&mut noted)
        .ok();
    let docker_host = docker_host(file.docker_host).map_err(&mut noted).ok();
    let ipam_pool = pool("ipam_pool", &file.ipam_pool).map_err(&mut noted).ok();
    let mesh_pool = mesh_pool(&file.mesh_pool, ipam_pool)
        .map_err(&mut noted)
        .ok();
    let resolv_conf = &environment.resolv_conf;
    let dns_upstreams = ipam_pool.and_then(|pool| {
        let upstreams = forward::upstreams(&file.dns.forwarders, resolv_conf, pool);
        upstreams.map_err(&mut noted).ok()
    });
    let dns_timeout = seconds("dns.timeout", &file.dns.timeout)
        .map_err(&mut noted)
        .ok();
    let node_status_interval = status_interval(&file.node_status_interval)
        .map_err(&mut noted)
        .ok();
    let node_unreachable_after = seconds("node_unreachable_after", &file.node_unreachable_after);
    let node_unreachable_after = node_unreachable_after.map_err(&mut noted).ok();
    let trusted_proxies = TrustedPeers::read(&file.ingress.trusted_proxies);
    let trusted_proxies = trusted_proxies.map_err(&mut noted).ok();
    let metrics = Some(file.metrics_addr).filter(|text| !text.is_empty());
    let metrics = metrics.map(|text| address("metrics_addr", &text));
    let metrics = metrics.transpose().map_err(&mut noted).ok();
    for (key, message) in file.workloads.violations() {
        noted(invalid(key, message));
    }
    let isolation_deny = Local::read_deny(&file.isolation.deny);
    let isolation_deny = isolation_deny.map_err(|message| invalid("isolation.deny", message));
    let isolation_deny = isolation_deny.map_err(&mut noted).ok();
    let listen = listen?;
    Some(Config {
        data_dir: environment.data_dir.clone().unwrap_or(file.data_dir),
        state_key: environment
            .state_key
            .clone()
            .unwrap_or_else(|| DEFAULT_STATE_KEY.into()),
        hostname,
        listen,
        cluster: cluster?,
        advertise: Some(file.advertise_addr)
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| listen.ip().to_string()),
        unix_socket: file.unix_socket,
        http: http?,
        https: https?,
        docker_host: docker_host?,
        wg_port: file.wg_port,
        ipam_pool: ipam_pool?,
        mesh_pool: mesh_pool?,
        dns_upstreams: dns_upstreams?,
        dns_timeout: dns_timeout?,
        node_labels: file.node_labels,
        node_status_interval: node_status_interval?,
        node_unreachable_after: node_unreachable_after?,
        acme: acme?,
        trusted_proxies: trusted_proxies?
            .without(&[ipam_pool?.to_string(), mesh_pool?.to_string()]),
        workloads: file.workloads,
        isolation_deny: isolation_deny?,
        audit_retention: file.audit_retention,
        log_level,
        metrics: metrics?,
    })
}

fn address(key: &str, text: &str) -> Result<SocketAddr, Error> {
    text.parse()
        .map_err(|_| invalid(key, format!("\"{text}\" is not an address and port")))
}

fn acme(file: &File) -> Result<Acme, Error> {
    let ca = file.acme_ca.as_str();
    if !ca.is_empty() && !ca.starts_with("https://") {
        let message = format!("\"{ca}\" is not an https:// address");
        return Err(invalid("acme_ca", message));
    }
    let mail = file.acme_email.as_str();
    if !mail.is_empty() && !mail.contains('@') {
        let message = format!("\"{mail}\" is not a mail address");
        return Err(invalid("acme_email", message));
    }
    let skip_staging = file.acme_skip_staging;
    Ok(Acme {
        settings: certs::Settings::new(file.acme_enabled, ca, mail, skip_staging),
        root: Some(file.acme_ca_root.clone()).filter(|path| !path.as_os_str().is_empty()),
    })
}

fn pool(key: &str, text: &str) -> Result<Pool, Error> {
    Pool::parse(text)
        .ok_or_else(|| invalid(key, format!("\"{text}\" is not a /16 like 10.244.0.0/16")))
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

/// Reads the mesh's pool; without a containers' pool that is valid, only its shape counts.
fn mesh_pool(text: &str, ipam_pool: Option<Pool>) -> Result<MeshPool, Error> {
    let shape = || format!("\"{text}\" is not a network from /16 to /28 like 10.245.0.0/24");
    let pool = MeshPool::parse(text).ok_or_else(|| invalid("mesh_pool", shape()))?;
    match ipam_pool {
        Some(containers) if !pool.is_apart_from(containers) => Err(invalid(
            "mesh_pool",
            format!("{pool} lies in ipam_pool {containers}"),
        )),
        _ => Ok(pool),
    }
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

/// From 5 s to 5 min; zero means the default (spec 11).
fn status_interval(value: &Value) -> Result<Duration, Error> {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    let in_units = |suffix, unit: u64| {
        let number = text.strip_suffix(suffix)?.parse::<u64>().ok()?;
        number.checked_mul(unit)
    };
    let seconds = in_units("s", 1).or_else(|| in_units("m", 60));
    match seconds.or((text == "0").then_some(0)) {
        Some(0) => Ok(STATUS_INTERVAL),
        Some(seconds @ 5..=300) => Ok(Duration::from_secs(seconds)),
        _ => Err(invalid(
            "node_status_interval",
            format!("\"{text}\" is not between 5s and 5m"),
        )),
    }
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

fn violation(error: Error, span: Option<Span>) -> Violation {
    Violation {
        code: error.code,
        message: error.message,
        file: FILE.to_owned(),
        path: error.details.get("field").cloned().unwrap_or_default(),
        span,
        details: error.details,
    }
}
