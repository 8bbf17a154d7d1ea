//! Orders from a real CA: Pebble on loopback, which here takes every challenge as answered.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jaco_adapters::acme::AcmeAuthority;
use jaco_adapters::dns::UpstreamLookup;
use jaco_core::cluster::certs::AccountKey;
use jaco_core::ports::CertificateAuthority;
use jaco_testkit::bed::{SOON, poll_until};
use jaco_testkit::contract::certificate_authority::{World, suite};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// Ends with the test.
struct Pebble {
    child: Child,
    directory: String,
}

impl Pebble {
    /// Forgets accounts and orders when it ends.
    fn start(dir: &Path, port: u16) -> Self {
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "certificate": dir.join("cert.pem"),
            "privateKey": dir.join("key.pem"),
            "httpPort": 5002,
            "tlsPort": 5001,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        let file = dir.join("pebble.json");
        fs::write(&file, config.to_string()).unwrap();
        let child = Command::new("pebble")
            .arg("-config")
            .arg(&file)
            .env("PEBBLE_VA_ALWAYS_VALID", "1")
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let answers = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        poll_until(SOON, "Pebble listens", answers).unwrap();
        let directory = format!("https://localhost:{port}/dir");
        Self { child, directory }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes Pebble's own certificate and the root that it is of.
fn make_certificates(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    for (name, text) in [
        ("root.pem", root.pem()),
        ("cert.pem", leaf.pem()),
        ("key.pem", key.serialize_pem()),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_keeps_the_contract() {
    let dir = TempDir::new().unwrap();
    make_certificates(dir.path());
    // Names are looked up as the host does, where no resolver is given.
    let lookup = Arc::new(UpstreamLookup::new(Vec::new(), Duration::from_secs(1)));
    let root = dir.path().join("root.pem");
    let authority = AcmeAuthority::new(Some(&root), lookup).unwrap();
    let port = free_port();
    let forgetful = Pebble::start(dir.path(), port);
    let account = AccountKey {
        directory: forgetful.directory.clone(),
        contact: None,
    };
    let strange = authority.register(&account).await.unwrap();
    drop(forgetful);
    let pebble = Pebble::start(dir.path(), port);
    let world = World {
        directory: pebble.directory.clone(),
        nowhere: format!("https://localhost:{}/dir", free_port()),
        strange,
    };
    suite(&authority, &world).await;
}
