//! Certificates of an authority of the test's own, and visitors who trust it.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use jaco_core::cluster::certs::{AccountKey, Issued, key_name};
use jaco_core::id::Domain;
use jaco_core::manifest::hash::hex;
use jaco_core::ports::Sealer;
use jaco_core::time::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SerialNumber};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::{DEADLINE, Wire, sealer};

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    /// A certificate as the state has it.
    pub(crate) fn issue(&self, domain: &str, serial: u8) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![domain.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        let name = key_name(&Domain::from(domain));
        let sealed = sealer().seal(&name, key.serialize_pem().as_bytes());
        Issued {
            chain,
            key_sealed: hex(&sealed),
            serial: hex(&[serial]),
            not_before: Timestamp(0),
            not_after: Timestamp(u64::MAX),
            account: AccountKey {
                directory: "https://ca.test/dir".to_owned(),
                contact: None,
            },
        }
    }

    /// What a visitor's program is set up with.
    pub(crate) fn client(&self, alpn: &[&str]) -> ClientConfig {
        self.client_of(rustls::ALL_VERSIONS, alpn)
    }

    /// The same with some versions only.
    pub(crate) fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        client
    }
}

/// A visitor within TLS.
pub(crate) struct Visitor {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Visitor {
    /// Shakes hands; fails as the handshake fails.
    pub(crate) fn connect(
        address: SocketAddr,
        host: &str,
        config: ClientConfig,
    ) -> std::io::Result<Self> {
        Self::introduced(address, host, config, &[])
    }

    /// The same behind something that is said before.
    pub(crate) fn introduced(
        address: SocketAddr,
        host: &str,
        config: ClientConfig,
        before: &[u8],
    ) -> std::io::Result<Self> {
        let mut tcp = TcpStream::connect(address)?;
        tcp.write_all(before)?;
        tcp.set_read_timeout(Some(DEADLINE))?;
        tcp.set_write_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(tls, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream })
    }

    /// The serial of the certificate that was shown.
    pub(crate) fn serial(&self) -> String {
        let chain = self.stream.conn.peer_certificates().unwrap();
        jaco_adapters::transport::pki::serial(&chain[0]).unwrap()
    }

    /// Speaks HTTP/1.1 from here on.
    pub(crate) fn wire(self) -> Wire {
        let tcp = self.stream.sock.try_clone().unwrap();
        Wire::over(Box::new(self.stream), tcp)
    }
}
