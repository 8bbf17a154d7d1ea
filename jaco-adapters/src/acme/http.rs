//! The HTTP client under instant-acme.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jaco_core::ports::HostLookup;
use rustls::{ClientConfig, RootCertStore};
use tower::Service;

use super::error::Seen;

/// Until an answer has begun.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any chain or problem.
const LARGEST: usize = 1 << 20;

type Connector = HttpsConnector<HttpConnector<Resolver>>;

/// HTTP/1.1 over TLS only.
pub(super) struct Client {
    pooled: Pooled<Connector, BodyWrapper<Bytes>>,
    seen: Seen,
}

impl Client {
    pub(super) fn new(roots: &Arc<RootCertStore>, lookup: Arc<dyn HostLookup>, seen: Seen) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("the provider has suites of both versions")
            .with_root_certificates(Arc::clone(roots))
            .with_no_client_auth();
        let mut tcp = HttpConnector::new_with_resolver(Resolver(lookup));
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(PATIENCE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Self {
            pooled: Pooled::builder(TokioExecutor::new()).build(connector),
            seen,
        }
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let seen = self.seen.clone();
        let answer = tokio::time::timeout(PATIENCE, self.pooled.request(request));
        Box::pin(async move {
            let answer = answer.await.map_err(|_| other("the CA does not answer"))?;
            let (head, body) = answer.map_err(|error| failed(&error))?.into_parts();
            seen.note(&head);
            let body: Limited<Incoming> = Limited::new(body, LARGEST);
            Ok(BytesResponse::from(Response::from_parts(head, body)))
        })
    }
}

/// Says what the innermost cause is; the outer ones only say that it is a client.
fn failed(error: &hyper_util::client::legacy::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match error.is_connect() {
        true => other(format!("the CA cannot be reached: {cause}")),
        false => other(format!("the CA gave no answer: {cause}")),
    }
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Other(error.into())
}

/// Looks names up with the node's resolvers, and where they find nothing as the host does.
#[derive(Clone)]
struct Resolver(Arc<dyn HostLookup>);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookup = Arc::clone(&self.0);
        Box::pin(async move {
            let found = lookup.addresses(name.as_str()).await.unwrap_or_default();
            let found: Vec<_> = found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            if !found.is_empty() {
                return Ok(found.into_iter());
            }
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.collect::<Vec<_>>().into_iter())
        })
    }
}
