//! The cluster's certificate authority and the certificates of its nodes.
//!
//! P-256 throughout. A node's certificate serves both directions: as a server to clients and
//! peers, and as a client to peers.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use jaco_core::manifest::hash::hex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

const CA_LIFETIME: Duration = Duration::from_secs(20 * 365 * 86_400);
const NODE_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Certificates are valid from a little before now, for hosts whose clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// A certificate or key that cannot be made, read or trusted.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct PkiError {
    what: &'static str,
    reason: String,
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> PkiError {
    move |error| PkiError {
        what,
        reason: error.to_string(),
    }
}

/// A certificate with its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The leaf certificate, then the CA's.
    pub chain: String,
    /// PKCS#8.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("key", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// Makes a new authority: certificate and private key, PEM.
///
/// # Errors
/// When the key cannot be drawn.
pub fn new_authority(cluster: &str) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(failed("make CA key"))?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("JACO cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, CA_LIFETIME);
    let certificate = params
        .self_signed(&key)
        .map_err(failed("sign CA certificate"))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Draws a node's key and the request for its certificate, both PEM.
///
/// # Errors
/// When the key cannot be drawn.
pub fn new_request(hostname: &str) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(failed("make node key"))?;
    let params = CertificateParams::new(vec![hostname.to_owned()])
        .map_err(failed("make certificate request"))?;
    let request = params
        .serialize_request(&key)
        .map_err(failed("make certificate request"))?;
    Ok((
        key.serialize_pem(),
        request.pem().map_err(failed("make certificate request"))?,
    ))
}

/// Signs a node's request. Only the key is taken from it; name and SANs are what the cluster
/// approved. Returns the chain and the serial, lower-case hex.
///
/// # Errors
/// When the request does not parse or prove possession of its key.
pub fn sign_node(
    ca_cert: &str,
    ca_key: &str,
    request: &str,
    hostname: &str,
    sans: &[String],
) -> Result<(String, String), PkiError> {
    let mut request = CertificateSigningRequestParams::from_pem(request)
        .map_err(failed("read certificate request"))?;
    let ca_key = KeyPair::from_pem(ca_key).map_err(failed("read CA key"))?;
    let issuer = Issuer::from_ca_cert_pem(ca_cert, ca_key).map_err(failed("read CA"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, hostname);
    params.subject_alt_names = names(hostname, sans)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let serial = random_serial();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    set_validity(&mut params, NODE_LIFETIME);
    request.params = params;
    let certificate = request
        .signed_by(&issuer)
        .map_err(failed("sign node certificate"))?;
    Ok((format!("{}{ca_cert}", certificate.pem()), hex(&serial)))
}

fn names(hostname: &str, sans: &[String]) -> Result<Vec<SanType>, PkiError> {
    let mut names: Vec<&str> = vec![hostname];
    names.extend(sans.iter().map(String::as_str));
    names.sort_unstable();
    names.dedup();
    let name = |name: &str| match name.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => name
            .try_into()
            .map(SanType::DnsName)
            .map_err(failed("read SAN")),
    };
    names.into_iter().map(name).collect()
}

/// 127 random bits: positive, and without the leading zero byte that encoders disagree about.
fn random_serial() -> [u8; 16] {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).expect("the operating system gives random bytes");
    serial[0] = (serial[0] & 0x7f) | 0x40;
    serial
}

fn set_validity(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
}

/// The certificates of a PEM text.
///
/// # Errors
/// When one does not parse, or there is none.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(failed("read certificate"))?;
    if found.is_empty() {
        return Err(PkiError {
            what: "read certificate",
            reason: "no certificate found".into(),
        });
    }
    Ok(found)
}

/// The private key of a PEM text.
///
/// # Errors
/// When it does not parse.
pub fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(failed("read private key"))
}

/// A certificate's serial, lower-case hex; `None` for bytes that are no certificate.
pub fn serial(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(hex(parsed.raw_serial()))
}

/// Hex SHA-256 of a certificate's public key, as join tokens carry it.
pub fn public_key_hash(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(hex(digest::digest(
        &digest::SHA256,
        parsed.public_key().raw,
    )
    .as_ref()))
}

/// The last certificate of a chain, PEM, with the hash of its public key.
///
/// # Errors
/// When the chain does not parse.
pub fn authority(chain: &str) -> Result<(String, String), PkiError> {
    let certificates = certificates(chain)?;
    let last = certificates
        .last()
        .expect("a parsed chain has a certificate");
    let hash = public_key_hash(last).ok_or_else(|| PkiError {
        what: "read certificate",
        reason: "not X.509".to_owned(),
    })?;
    // PEM blocks stand in chain order; the last one begins at the last header.
    let begin = chain.rfind("-----BEGIN CERTIFICATE-----").unwrap_or(0);
    Ok((hash, chain[begin..].to_owned()))
}
