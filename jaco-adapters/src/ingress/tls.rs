//! TLS to visitors: versions 1.2 and 1.3, the certificate by the name that is asked for, from
//! the table of the moment (spec 08).

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jaco_core::cluster::certs::{Issued, key_name};
use jaco_core::id::Domain;
use jaco_core::manifest::hash::unhex;
use jaco_core::ports::Sealer;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedCipherSuite, version};
use zeroize::Zeroizing;

use super::live::Live;
use crate::transport::pki;

/// HTTP/2, as ALPN names it.
pub(super) const H2: &[u8] = b"h2";
const HTTP_11: &[u8] = b"http/1.1";

/// In the order in which they are chosen. AES-128 comes first: it is as safe as anybody needs, and
/// its hash has instructions of its own on most processors, which that of AES-256 has not; that
/// is an eighth of a handshake.
const SUITES: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// A certificate ready for handshakes.
pub(super) struct Shown {
    pub(super) serial: String,
    pub(super) key: Arc<CertifiedKey>,
}

/// Opens what the state has of a certificate.
///
/// # Errors
/// Why it cannot be served.
pub(super) fn open(domain: &Domain, served: &Issued, sealer: &dyn Sealer) -> Result<Shown, String> {
    let sealed = unhex(&served.key_sealed).ok_or("the sealed key is not hexadecimal")?;
    let key = sealer.open(&key_name(domain), &sealed);
    let key = Zeroizing::new(key.map_err(|error| error.to_string())?);
    let key = std::str::from_utf8(&key).map_err(|error| error.to_string())?;
    let key = pki::private_key(key).map_err(|error| error.to_string())?;
    let key = any_supported_type(&key).map_err(|error| error.to_string())?;
    let chain = pki::certificates(&served.chain).map_err(|error| error.to_string())?;
    let key = CertifiedKey::new(chain, key);
    key.keys_match().map_err(|error| error.to_string())?;
    Ok(Shown {
        serial: served.serial.clone(),
        key: Arc::new(key),
    })
}

/// The configuration of every worker.
///
/// # Errors
/// When the library refuses one, which would be a defect.
pub(super) fn config(table: Arc<ArcSwap<Live>>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = SUITES.to_vec();
    let provider = Arc::new(provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(table)));
    config.alpn_protocols = vec![H2.to_vec(), HTTP_11.to_vec()];
    config.ignore_client_order = true;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Finds the certificate for the name in a client's hello.
struct ByName(Arc<ArcSwap<Live>>);

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByName")
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().certificate(hello.server_name()?).cloned()
    }
}
