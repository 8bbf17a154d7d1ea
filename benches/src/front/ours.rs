//! Our ingress as a process: this program, started again with the word `serve`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use jaco_adapters::ingress::{HyperIngress, Limits, Settings};
use jaco_adapters::seal::AesSealer;
use jaco_adapters::system::use_small_pages;
use jaco_adapters::transport::pki;
use jaco_core::cluster::certs::{AccountKey, Issued, key_name};
use jaco_core::id::{DeploymentName, Domain, ReplicaId, ServiceName};
use jaco_core::manifest::hash::hex;
use jaco_core::manifest::spec::Protocol;
use jaco_core::node::ingress::{PortRoute, Route, RouteTable, Upstream};
use jaco_core::ports::{IngressProxy, Sealer};
use jaco_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Front, HOST, PLAIN, Ports, certificate, run, write};

/// As in `jacod` (ADR 0013).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The word that makes a program the ingress; the file with what it serves comes after it.
pub const SERVE: &str = "serve";

/// What an ingress of ours serves.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[allow(missing_docs)]
pub struct Ours {
    pub http: u16,
    pub https: u16,
    pub tcp: u16,
    pub backend: u16,
    /// Routes of other hosts, which all have a certificate.
    pub others: usize,
    /// Writes the access log to nowhere.
    pub logged: bool,
    /// Counts by route.
    pub metered: bool,
}

impl Ours {
    /// One route, without log and metrics.
    ///
    /// # Errors
    /// When there are no free ports.
    pub fn new(backend: u16) -> Result<Self> {
        let Ports { http, https, tcp } = Ports::free()?;
        Ok(Self {
            http,
            https,
            tcp,
            backend,
            others: 0,
            logged: false,
            metered: false,
        })
    }

    /// Where it is asked over a scheme.
    pub fn url(&self, scheme: &str) -> String {
        match scheme {
            "https" => format!("https://{HOST}:{}/", self.https),
            _ => format!("http://{PLAIN}:{}/", self.http),
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&self, name: &'static str, files: &Path) -> Result<Front> {
        let file = write(
            files,
            &format!("{name}.json"),
            &serde_json::to_string(self)?,
        )?;
        let program = std::env::current_exe()?.to_string_lossy().into_owned();
        Ok(Front {
            name,
            http: self.http,
            https: self.https,
            tcp: Some(self.tcp),
            running: run(&program, &[SERVE, &file], self.http, &[])?,
            // With the log, what is written counts too.
            thread: (!self.logged).then_some("ingress-0"),
        })
    }

    /// The table that it serves, with so many other hosts.
    ///
    /// # Errors
    /// When certificates cannot be made.
    pub fn table(&self) -> Result<RouteTable> {
        let upstream = Upstream {
            replica: ReplicaId::from("bench-web-0"),
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.backend),
            local: true,
        };
        let upstreams = Arc::new(vec![upstream]);
        let mut table = RouteTable::default();
        for number in 0..=self.others {
            let domain = match number {
                0 => Domain::from(HOST),
                number => Domain::new(format!("host-{number}.test")),
            };
            table
                .certificates
                .insert(domain.clone(), Arc::new(issued(&domain)?));
            table.domains.insert(domain, vec![route(true, &upstreams)]);
        }
        let plain = route(false, &upstreams);
        let port = PortRoute {
            deployment: plain.deployment.clone(),
            service: plain.service.clone(),
            proxy_protocol: false,
            upstreams,
        };
        table.domains.insert(Domain::from(PLAIN), vec![plain]);
        table.ports.insert((self.tcp, Protocol::Tcp), port);
        Ok(table)
    }
}

fn route(tls: bool, upstreams: &Arc<Vec<Upstream>>) -> Route {
    Route {
        path: String::new(),
        strip_path: false,
        tls,
        deployment: DeploymentName::from("bench"),
        service: ServiceName::from("web"),
        upstreams: Arc::clone(upstreams),
    }
}

fn sealer() -> AesSealer {
    AesSealer::new(&[0; 32])
}

fn issued(domain: &Domain) -> Result<Issued> {
    let (chain, key) = certificate(domain.as_str())?;
    let serial = pki::serial(&pki::certificates(&chain)?[0]).context("no serial")?;
    Ok(Issued {
        key_sealed: hex(&sealer().seal(&key_name(domain), key.as_bytes())),
        chain,
        serial,
        not_before: Timestamp(0),
        not_after: Timestamp(u64::MAX),
        account: AccountKey {
            directory: "https://ca.test/dir".to_owned(),
            contact: None,
        },
    })
}

/// Starts an ingress with one worker in this process; must be called within a runtime.
///
/// # Errors
/// When it cannot be configured.
pub fn start_here(ours: &Ours) -> Result<HyperIngress> {
    start_with(ours, Limits::default())
}

/// The same with other limits.
///
/// # Errors
/// When it cannot be configured.
pub fn start_with(ours: &Ours, limits: Limits) -> Result<HyperIngress> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let settings = Settings {
        workers: 1,
        metered: ours.metered,
        limits,
        ..Settings::new(at(ours.http), at(ours.https), Arc::new(sealer()))
    };
    Ok(HyperIngress::start(settings)?)
}

/// Serves what a file says for as long as the process lives.
///
/// # Errors
/// When the file cannot be read, or the ingress does not come up.
pub fn serve(file: &Path) -> Result<()> {
    use_small_pages();
    let ours: Ours = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    if ours.logged {
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(io::sink)
            .init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let ingress = start_here(&ours)?;
        ingress.publish(Arc::new(ours.table()?));
        std::future::pending::<Result<()>>().await
    })
}
