//! The connection to one engine: made when needed, on an agreed API version, never waited for
//! without a deadline.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use http::Uri;
use http::uri::PathAndQuery;

use super::error::Failure;

/// For calls that only look something up or change a record.
pub(super) const SHORT: Duration = Duration::from_secs(10);
/// For calls in which the engine copies files or waits for the kernel.
pub(super) const LONG: Duration = Duration::from_secs(120);

/// The client's own limit; [`Engine::within`] sets the real ones.
const UNLIMITED_SECONDS: u64 = 366 * 24 * 3600;

/// A version of the engine's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApiVersion(pub(super) u32, pub(super) u32);

/// The newest version whose meaning this adapter knows.
const NEWEST: ApiVersion = ApiVersion(1, 53);
/// What every supported engine speaks (spec 06).
const OLDEST: ApiVersion = ApiVersion(1, 41);

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A client that speaks the agreed version.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) docker: Docker,
    pub(super) version: ApiVersion,
}

/// One engine, connected or not.
#[derive(Debug)]
pub(super) struct Engine {
    host: String,
    client: Mutex<Option<Client>>,
}

impl Engine {
    pub(super) fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            client: Mutex::new(None),
        }
    }

    /// A client for the next call. Agrees on a version first when none is agreed.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        let known = self.slot().clone();
        match known {
            Some(client) => Ok(client),
            None => self.negotiate().await,
        }
    }

    /// Runs a call to the engine, for at most `deadline`. After a failure that may come from an
    /// engine that was replaced, the version is agreed on anew.
    pub(super) async fn within<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let outcome = tokio::time::timeout(deadline, call)
            .await
            .map_err(|_| no_answer(deadline))
            .and_then(|answer| answer.map_err(Failure::from));
        if let Err(failure) = &outcome
            && (matches!(failure, Failure::Unreachable(_)) || failure.is_version_mismatch())
        {
            *self.slot() = None;
        }
        outcome
    }

    async fn negotiate(&self) -> Result<Client, Failure> {
        let docker = self.connect()?;
        let answer = self.within(SHORT, docker.version()).await?;
        let spoken = answer.api_version.unwrap_or_default();
        let spoken = ApiVersion::parse(&spoken)
            .ok_or_else(|| Failure::Unreadable(format!("API version {spoken:?}")))?;
        if spoken < OLDEST {
            let reason = format!("the engine speaks API {spoken}; {OLDEST} is needed");
            return Err(Failure::Refused {
                status: 400,
                reason,
            });
        }
        let version = spoken.min(NEWEST);
        let docker = docker.with_request_modifier(move |request| pinned(request, version));
        let client = Client { docker, version };
        *self.slot() = Some(client.clone());
        Ok(client)
    }

    fn connect(&self) -> Result<Docker, Failure> {
        let path = self.host.strip_prefix("unix://").unwrap_or(&self.host);
        if !path.starts_with('/') {
            let reason = format!("docker_host {:?} is not a unix socket", self.host);
            return Err(Failure::Unreachable(reason));
        }
        let docker = Docker::connect_with_unix(path, UNLIMITED_SECONDS, API_DEFAULT_VERSION)?;
        Ok(docker)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn no_answer(deadline: Duration) -> Failure {
    Failure::Unreachable(format!("no answer within {} s", deadline.as_secs()))
}

/// The request under the version's path. The client itself sends none, so that the engine would
/// answer in its newest version, which may not be what the client can read.
fn pinned(mut request: BollardRequest, version: ApiVersion) -> BollardRequest {
    let mut parts = request.uri().clone().into_parts();
    let path = parts
        .path_and_query
        .as_ref()
        .map_or("/", |path| path.as_str());
    parts.path_and_query = PathAndQuery::try_from(format!("/v{version}{path}")).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}
