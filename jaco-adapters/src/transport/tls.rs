//! TLS as spec 10 asks for it: version 1.3, the cluster's CA as the only root, both sides shown
//! between daemons, removed members refused. No session is ever resumed: a resumed handshake would
//! not be checked again.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme, version,
};

use super::pki::{self, Identity, PkiError};

const H2: &[u8] = b"h2";

/// Says whether a certificate of the CA is not to be trusted, by the hash of its public key and its
/// serial, both lower-case hex.
pub type Refused = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// A TLS configuration that cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("make TLS configuration: {0}")]
    Config(String),
}

fn config<E: std::fmt::Display>(error: E) -> TlsError {
    TlsError::Config(error.to_string())
}

/// The provider that every configuration uses. Idempotent.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(ca: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in pki::certificates(ca)? {
        roots.add(certificate).map_err(config)?;
    }
    Ok(Arc::new(roots))
}

/// For the API listener: shows the node's certificate, asks for none.
///
/// # Errors
/// When certificate or key do not parse or do not fit together.
pub fn api_server(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(config)?
        .with_no_client_auth()
        .with_single_cert(
            pki::certificates(&identity.chain)?,
            pki::private_key(&identity.key)?,
        )
        .map_err(config)?;
    server.alpn_protocols = vec![H2.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Arc::new(server))
}

/// For the raft listener: only certificates of the CA that are not refused get in.
///
/// # Errors
/// When certificates or key do not parse or do not fit together.
pub fn member_server(
    ca: &str,
    identity: &Identity,
    refused: Refused,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider())
        .build()
        .map_err(config)?;
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(config)?
        .with_client_cert_verifier(Arc::new(MemberVerifier {
            inner: verifier,
            refused,
        }))
        .with_single_cert(
            pki::certificates(&identity.chain)?,
            pki::private_key(&identity.key)?,
        )
        .map_err(config)?;
    server.alpn_protocols = vec![H2.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Arc::new(server))
}

/// For dialling a member's raft listener.
///
/// # Errors
/// When certificates or key do not parse or do not fit together.
pub fn member_client(
    ca: &str,
    identity: &Identity,
    refused: Refused,
) -> Result<Arc<ClientConfig>, TlsError> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots(ca)?, provider())
        .build()
        .map_err(config)?;
    let mut client = client_builder(Arc::new(TrustedServer { inner, refused }))?
        .with_client_auth_cert(
            pki::certificates(&identity.chain)?,
            pki::private_key(&identity.key)?,
        )
        .map_err(config)?;
    client.alpn_protocols = vec![H2.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

/// For the command line: verifies the server against the cluster's CA.
///
/// # Errors
/// When the CA does not parse.
pub fn api_client(ca: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots(ca)?, provider())
        .build()
        .map_err(config)?;
    let mut client = client_builder(inner)?.with_no_client_auth();
    client.alpn_protocols = vec![H2.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

/// For a joiner, who knows only the hash of the CA's public key: the peer's chain must contain
/// a CA with that key, end in it, and name the dialled host. Nothing secret is sent before.
///
/// # Errors
/// When the configuration cannot be made.
pub fn joining_client(ca_hash: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = PinnedAuthority {
        ca_hash: ca_hash.to_owned(),
    };
    let mut client = client_builder(Arc::new(verifier))?.with_no_client_auth();
    client.alpn_protocols = vec![H2.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

fn client_builder(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(config)?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

fn refuse_untrusted(
    certificate: &CertificateDer<'_>,
    refused: &Refused,
) -> Result<(), rustls::Error> {
    let serial = pki::serial(certificate).ok_or(CertificateError::BadEncoding)?;
    let key = pki::public_key_hash(certificate).ok_or(CertificateError::BadEncoding)?;
    if refused(&key, &serial) {
        Err(CertificateError::Revoked.into())
    } else {
        Ok(())
    }
}

macro_rules! delegate_signatures {
    ($inner:ident) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.$inner
                .verify_tls12_signature(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.$inner
                .verify_tls13_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$inner.supported_verify_schemes()
        }
    };
}

struct TrustedServer {
    inner: Arc<WebPkiServerVerifier>,
    refused: Refused,
}

impl std::fmt::Debug for TrustedServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TrustedServer")
    }
}

impl ServerCertVerifier for TrustedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        refuse_untrusted(end_entity, &self.refused)?;
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    delegate_signatures!(inner);
}

struct MemberVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    refused: Refused,
}

impl std::fmt::Debug for MemberVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemberVerifier")
    }
}

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        refuse_untrusted(end_entity, &self.refused)?;
        self.inner
            .verify_client_cert(end_entity, intermediates, now)
    }

    delegate_signatures!(inner);
}

#[derive(Debug)]
struct PinnedAuthority {
    ca_hash: String,
}

impl PinnedAuthority {
    /// A verifier whose only root is the certificate of the chain that has the pinned key.
    fn pinned(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        let pinned = |certificate: &&CertificateDer<'_>| {
            pki::public_key_hash(certificate).as_deref() == Some(self.ca_hash.as_str())
        };
        let authority = chain
            .iter()
            .find(pinned)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verifier = self.pinned(intermediates)?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
