//! The services of a daemon, over its unix socket and over TLS.

mod cluster;
mod deploy;
mod gate;
mod logs;
mod streams;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use jaco_core::access::{Author, Caller, Role};
use jaco_core::cluster::ClusterState;
use jaco_core::error::Error;
use jaco_core::id::DeploymentName;
use jaco_core::ports::{Clock, ControlPlane};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::{Request, Status};

pub use gate::Gate;

use super::convert::to_status;
use crate::system::SystemClock;
use crate::transport::proto::v1::audit_server::AuditServer;
use crate::transport::proto::v1::cluster_server::ClusterServer;
use crate::transport::proto::v1::deploy_server::DeployServer;
use crate::transport::proto::v1::logs_server::LogsServer;
use crate::transport::proto::v1::token_server::TokenServer;
use crate::transport::proto::v1::watch_server::WatchServer;

/// How a listener knows its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// The unix socket: whoever may open it is the local operator.
    Local,
    /// TLS: a bearer token says who it is.
    Remote,
}

/// The services behind one listener.
#[derive(Clone)]
pub struct Api {
    plane: Arc<dyn ControlPlane>,
    turns: Arc<Semaphore>,
}

/// Plans and manifests that are worked on at once.
const TURNS: usize = 2;
/// How often a quiet stream looks whether its token still counts.
const RECHECK: Duration = Duration::from_millis(500);
/// Bytes of an apply or a plan; its sender has shown a token that may make it.
const MAX_MANIFESTS: usize = 8 << 20;

/// Everything that a listener serves behind a [`Gate`].
pub fn routes(plane: Arc<dyn ControlPlane>) -> Routes {
    let turns = Arc::new(Semaphore::new(TURNS));
    let api = Api { plane, turns };
    Routes::new(ClusterServer::new(api.clone()))
        .add_service(DeployServer::new(api.clone()).max_decoding_message_size(MAX_MANIFESTS))
        .add_service(TokenServer::new(api.clone()))
        .add_service(AuditServer::new(api.clone()))
        .add_service(WatchServer::new(api.clone()))
        .add_service(LogsServer::new(api))
}

impl Api {
    /// Who calls, as the gate found out.
    #[allow(clippy::result_large_err)] // what the generated traits return
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = request.extensions().get::<Caller>();
        caller
            .cloned()
            .ok_or_else(|| refuse(Error::internal("a call came past the gate")))
    }

    /// What a caller may see of the state.
    async fn seen(&self, caller: &Caller, consistent: bool) -> Result<Arc<ClusterState>, Status> {
        let state = self.plane.state(consistent).await.map_err(refuse)?;
        Ok(state.seen_with(&caller.rights))
    }

    /// Refuses a caller who may not do this with a deployment.
    async fn require(
        &self,
        caller: &Caller,
        role: Role,
        deployment: &DeploymentName,
    ) -> Result<(), Status> {
        let state = self.plane.state(false).await.map_err(refuse)?;
        caller
            .require(&state, role, Some(deployment))
            .map_err(refuse)
    }

    /// What a caller may see now, if its token still counts. For streams, which outlive the
    /// question at the gate.
    async fn still_seen(&self, caller: &Caller) -> Result<Arc<ClusterState>, Status> {
        let state = self.plane.state(false).await.map_err(refuse)?;
        let rights = match &caller.author {
            Author::Token(hash) => {
                let now = Caller::of_token(&state, hash, SystemClock.now()).map_err(refuse)?;
                now.rights
            }
            _ => caller.rights.clone(),
        };
        Ok(state.seen_with(&rights))
    }

    /// Waits for news of the state, but not for longer than a token may outlive its end.
    async fn news_after(&self, index: u64) {
        let news = self.plane.changed_after(index);
        let _ = tokio::time::timeout(RECHECK, news).await;
    }

    /// Runs what takes a while off the threads that carry consensus, a few at a time.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let _turn = self.turns.acquire().await;
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(Error::internal(error)))
            .map_err(refuse)
    }
}

/// Lets `?` turn an [`Error`] into the status that carries it.
#[allow(clippy::needless_pass_by_value)] // the shape that `map_err` wants
fn refuse(error: Error) -> Status {
    to_status(&error)
}
