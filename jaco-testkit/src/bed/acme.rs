//! A certificate authority for the bed: Pebble, with a DNS server that tests can fill.
//!
//! Both run in the switch's namespace. Pebble asks that DNS server for the names it
//! validates and then dials ports 80 and 443 of the answer, where the hosts' ingress is. The
//! server also does as an upstream for a daemon's `dns.forwarders`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::http::{self, Request};
use super::layout::Layout;
use super::namespace::{Namespace, stderr_of};
use super::poll::poll_ok;
use super::process::Process;

const START: Duration = Duration::from_secs(20);
const ACME_PORT: u16 = 14000;
const ACME_CONTROL_PORT: u16 = 15000;
/// Those of the second one.
const STAGING_PORT: u16 = 14001;
const STAGING_CONTROL_PORT: u16 = 15001;
/// Where daemons look for their `dns.forwarders`.
const DNS_PORT: u16 = 53;
const DNS_CONTROL_PORT: u16 = 8055;

/// Pebble and its DNS server; not running until [`Acme::start`].
#[derive(Debug)]
pub struct Acme {
    directory: PathBuf,
    address: Ipv4Addr,
    namespace: Namespace,
    pebble: Process,
    staging: Process,
    dns: Process,
}

impl Acme {
    pub(super) fn new(layout: &Layout) -> Self {
        let directory = layout.directory().join("acme");
        Self {
            address: layout.switch_address(),
            namespace: Namespace::named(layout.switch_namespace()),
            pebble: Process::new(&layout.name, "pebble", &directory),
            staging: Process::new(&layout.name, "pebble-staging", &directory),
            dns: Process::new(&layout.name, "dns", &directory),
            directory,
        }
    }

    /// Starts both; `settings` are environment variables of Pebble, such as
    /// `PEBBLE_WFE_NONCEREJECT` (percent of good nonces refused, 5 by default).
    ///
    /// Every start makes a new issuing authority and forgets accounts and orders.
    pub fn start(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.start_one(&self.pebble, [ACME_PORT, ACME_CONTROL_PORT], settings)
    }

    /// Starts a second Pebble, which has authorities, accounts and orders of its own.
    pub fn start_staging(&self, settings: &[(&str, &str)]) -> Result<()> {
        let ports = [STAGING_PORT, STAGING_CONTROL_PORT];
        self.start_one(&self.staging, ports, settings)
    }

    fn start_one(
        &self,
        pebble: &Process,
        ports: [u16; 2],
        settings: &[(&str, &str)],
    ) -> Result<()> {
        fs::create_dir_all(&self.directory)?;
        if !self.root_file().exists() {
            self.make_certificates()?;
        }
        if self.dns.pid().is_none() {
            self.start_dns()?;
        }
        let config = self.directory.join(format!("pebble-{}.json", ports[0]));
        fs::write(&config, serde_json::to_vec_pretty(&self.config(ports))?)?;
        let mut command = Command::new("pebble");
        command
            .arg("-config")
            .arg(&config)
            .args(["-dnsserver", &self.dns_address()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .envs(settings.iter().copied());
        pebble.start(&self.namespace, command)?;
        poll_ok(START, "Pebble answers", || self.fetch(ports[0], "/dir"))
            .with_context(|| pebble.log_tail(15))?;
        Ok(())
    }

    /// Ends Pebble: from now on orders fail. Names are still resolved.
    pub fn stop(&self) -> Result<()> {
        self.pebble.kill()
    }

    /// Where the two Pebbles serve ACME, the second for staging.
    pub fn sockets(&self) -> [SocketAddrV4; 2] {
        [ACME_PORT, STAGING_PORT].map(|port| SocketAddrV4::new(self.address, port))
    }

    /// Where both run.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The value for `acme_ca`.
    pub fn directory_url(&self) -> String {
        format!("https://{}:{ACME_PORT}/dir", self.address)
    }

    /// The value for `acme_ca_root`: who signed the certificate of the directory itself.
    pub fn root_file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The root of the certificates that are issued, as PEM.
    pub fn issuer_root(&self) -> Result<String> {
        self.fetch(ACME_CONTROL_PORT, "/roots/0")
    }

    /// The value for `dns.forwarders`.
    pub fn resolver(&self) -> String {
        self.address.to_string()
    }

    /// Where names are resolved.
    pub fn dns_address(&self) -> String {
        format!("{}:{DNS_PORT}", self.address)
    }

    /// Makes `domain` resolve to `addresses`; other names resolve to nothing.
    pub fn set_addresses(&self, domain: &str, addresses: &[Ipv4Addr]) -> Result<()> {
        let name = format!("{domain}.");
        self.tell_dns("/clear-a", &json!({ "host": name }))?;
        self.tell_dns("/add-a", &json!({ "host": name, "addresses": addresses }))
    }

    fn start_dns(&self) -> Result<()> {
        let mut command = Command::new("pebble-challtestsrv");
        command
            .args(["-dns01", &self.dns_address()])
            .args([
                "-management",
                &format!("{}:{DNS_CONTROL_PORT}", self.address),
            ])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv4", "", "-defaultIPv6", ""]);
        self.dns.start(&self.namespace, command)?;
        poll_ok(START, "the DNS server answers", || {
            self.tell_dns("/clear-a", &json!({ "host": "start.test." }))
        })
        .with_context(|| self.dns.log_tail(15))
    }

    fn config(&self, [port, control]: [u16; 2]) -> Value {
        json!({ "pebble": {
            "listenAddress": format!("{}:{port}", self.address),
            "managementListenAddress": format!("{}:{control}", self.address),
            "certificate": self.directory.join("cert.pem"),
            "privateKey": self.directory.join("key.pem"),
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }})
    }

    fn tell_dns(&self, path: &str, message: &Value) -> Result<()> {
        let address = format!("{}:{DNS_CONTROL_PORT}", self.address);
        let mut request = Request::get(&address, path);
        request.method = "POST".to_owned();
        request.body = serde_json::to_vec(message)?;
        let response = self.namespace.enter(|| http::send(&address, &request))??;
        ensure!(
            response.status == 200,
            "{path}: {} {}",
            response.status,
            response.text()
        );
        Ok(())
    }

    fn fetch(&self, port: u16, path: &str) -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
            "--cacert",
        ])
        .arg(self.root_file())
        .arg(format!("https://{}:{port}{path}", self.address));
        let output = self.namespace.output(&mut curl)?;
        ensure!(output.status.success(), "curl: {}", stderr_of(&output));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// An authority and a leaf: strict clients refuse a leaf that is its own authority. The
    /// authority is written last, since its presence tells that all are there.
    fn make_certificates(&self) -> Result<()> {
        self.make("-subj /CN=bed-ca -keyout ca-key.pem -out ca.new", &[])?;
        let leaf = format!("subjectAltName=IP:{}", self.address);
        self.make_leaf("ca.new", "key.pem", "cert.pem", &leaf)?;
        fs::rename(self.directory.join("ca.new"), self.root_file())?;
        Ok(())
    }

    /// A certificate of the same authority for other names: chain and key, PEM. Only after a
    /// start there is the authority.
    pub fn certificate(&self, names: &[&str]) -> Result<(String, String)> {
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let names = format!("subjectAltName={}", names.join(","));
        self.make_leaf("ca.pem", "other-key.pem", "other.pem", &names)?;
        let read = |name: &str| fs::read_to_string(self.directory.join(name));
        Ok((read("other.pem")?, read("other-key.pem")?))
    }

    fn make_leaf(&self, ca: &str, key: &str, chain: &str, names: &str) -> Result<()> {
        let arguments =
            format!("-subj /CN=bed-acme -CA {ca} -CAkey ca-key.pem -keyout {key} -out {chain}");
        let extensions = ["basicConstraints=critical,CA:FALSE", names];
        self.make(&arguments, &extensions)
    }

    fn make(&self, arguments: &str, extensions: &[&str]) -> Result<()> {
        let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650";
        let output = Command::new("openssl")
            .current_dir(&self.directory)
            .args(make.split(' '))
            .args(arguments.split_whitespace())
            .args(
                extensions
                    .iter()
                    .flat_map(|extension| ["-addext", *extension]),
            )
            .output()
            .context("cannot run openssl")?;
        ensure!(output.status.success(), "openssl: {}", stderr_of(&output));
        Ok(())
    }

    /// Reaps ended children; used when a bed goes.
    pub(super) fn reap(&self) {
        self.pebble.reap();
        self.staging.reap();
        self.dns.reap();
    }
}
