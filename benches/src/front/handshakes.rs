//! A full TLS handshake for each request. The usual load generators resume sessions, which is
//! another thing: nobody signs.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::HOST;
use super::load::Sample;

/// Asks a port again and again, so many visitors at once, on one thread. How many requests were
/// answered, and how long they took from the first packet to the end of the connection.
///
/// # Errors
/// When one was not answered with success.
pub(super) fn run(port: u16, visitors: usize, seconds: usize) -> Result<(f64, Sample)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let connector = TlsConnector::from(Arc::new(config()?));
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds as u64);
    let mut times = runtime.block_on(visit_all(port, visitors, end, &connector))?;
    let elapsed = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| {
        let time = times.get((times.len() as f64 * share) as usize);
        time.map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    let total = times.len() as f64;
    let sample = Sample {
        rate: total / elapsed,
        p50: at(0.5),
        p99: at(0.99),
        cpu: 0.0,
    };
    Ok((total, sample))
}

async fn visit_all(
    port: u16,
    visitors: usize,
    end: Instant,
    connector: &TlsConnector,
) -> Result<Vec<Duration>> {
    let mut all = JoinSet::new();
    for _ in 0..visitors {
        let connector = connector.clone();
        all.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                visit(port, &connector).await?;
                times.push(begun.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = all.join_next().await {
        times.append(&mut ended??);
    }
    Ok(times)
}

async fn visit(port: u16, connector: &TlsConnector) -> Result<()> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let mut stream = connector
        .connect(ServerName::try_from(HOST)?, stream)
        .await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    match stream.read_to_end(&mut answer).await {
        // Not everybody says goodbye within TLS.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error.into()),
        _ => {}
    }
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

fn config() -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Checks signatures, but not whose they are: each front signs its own certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
