//! Let's Encrypt as daemons see it, on a bed: its two names lead to a relay, which has a
//! certificate for them, and hands what is said to one of two Pebbles. They serve their
//! directories at another path; nothing else is changed.

use std::net::{SocketAddr, SocketAddrV4, TcpListener as StdListener};
use std::sync::Arc;
use std::thread;

use jaco_adapters::transport::pki;
use jaco_testkit::bed::Acme;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The host of production, and of staging.
const NAMES: [&str; 2] = [
    "acme-v02.api.letsencrypt.org",
    "acme-staging-v02.api.letsencrypt.org",
];
/// The beginning of a request for the directory, there and at Pebble.
const DIRECTORY: (&[u8], &[u8]) = (b"GET /directory ", b"GET /dir ");

#[derive(Clone)]
struct Relay {
    accept: TlsAcceptor,
    connect: TlsConnector,
    /// The Pebbles in the order of the names.
    to: [SocketAddrV4; 2],
}

/// Makes both names lead to the Pebbles, which must run, until the test's process ends.
pub fn start(acme: &Acme) {
    let address = *acme.sockets()[0].ip();
    for name in NAMES {
        acme.set_addresses(name, &[address]).unwrap();
    }
    let listen = || StdListener::bind((address, 443)).unwrap();
    let listener = acme.namespace().enter(listen).unwrap();
    listener.set_nonblocking(true).unwrap();
    let relay = Relay {
        accept: Arc::new(server(acme)).into(),
        connect: Arc::new(client(acme)).into(),
        to: acme.sockets(),
    };
    let namespace = acme.namespace().clone();
    thread::spawn(move || namespace.enter(|| run(listener, &relay)).unwrap());
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn server(acme: &Acme) -> ServerConfig {
    let (chain, key) = acme.certificate(&NAMES).unwrap();
    let (chain, key) = (
        pki::certificates(&chain).unwrap(),
        pki::private_key(&key).unwrap(),
    );
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

fn client(acme: &Acme) -> ClientConfig {
    let root = std::fs::read_to_string(acme.root_file()).unwrap();
    let mut roots = RootCertStore::empty();
    for root in pki::certificates(&root).unwrap() {
        roots.add(root).unwrap();
    }
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn run(listener: StdListener, relay: &Relay) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let relay = relay.clone();
            // What fails here fails at the daemon, which asks again.
            tokio::spawn(async move { drop(relay.carry(stream).await) });
        }
    });
}

impl Relay {
    async fn carry(self, stream: TcpStream) -> std::io::Result<()> {
        let client = self.accept.accept(stream).await?;
        let staging = client.get_ref().1.server_name() == Some(NAMES[1]);
        let to = SocketAddr::from(self.to[usize::from(staging)]);
        let name = ServerName::from(to.ip());
        let pebble = self
            .connect
            .connect(name, TcpStream::connect(to).await?)
            .await?;
        let (mut from_client, mut to_client) = split(client);
        let (mut from_pebble, mut to_pebble) = split(pebble);
        let up = async {
            let mut bytes = vec![0; 64 * 1024];
            loop {
                let length = from_client.read(&mut bytes).await?;
                if length == 0 {
                    return to_pebble.shutdown().await;
                }
                // A request is written at once, so its beginning is that of what was read.
                let said = match bytes[..length].strip_prefix(DIRECTORY.0) {
                    Some(rest) => [DIRECTORY.1, rest].concat(),
                    None => bytes[..length].to_vec(),
                };
                to_pebble.write_all(&said).await?;
            }
        };
        tokio::try_join!(up, copy(&mut from_pebble, &mut to_client))?;
        Ok(())
    }
}
