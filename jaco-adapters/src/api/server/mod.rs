//! The services of a daemon, over its unix socket and over TLS.

mod cluster;
mod deploy;
mod logs;
mod streams;
mod tokens;

use std::sync::Arc;

use jaco_core::error::{Error, ErrorCode};
use jaco_core::manifest::hash::sha256_hex;
use jaco_core::ports::ControlPlane;
use jaco_core::ports::control_plane::Caller;
use tonic::service::Routes;
use tonic::{Request, Status};

use super::convert::to_status;
use crate::transport::MAX_MESSAGE;
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
    entrance: Entrance,
}

/// Everything that a listener serves.
pub fn routes(plane: Arc<dyn ControlPlane>, entrance: Entrance) -> Routes {
    let api = Api { plane, entrance };
    Routes::new(ClusterServer::new(api.clone()))
        .add_service(DeployServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(TokenServer::new(api.clone()))
        .add_service(AuditServer::new(api.clone()))
        .add_service(WatchServer::new(api.clone()))
        .add_service(LogsServer::new(api))
}

impl Api {
    /// Who calls; refuses strangers.
    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        self.authenticate(request)
            .await
            .map_err(|error| to_status(&error))
    }

    async fn authenticate<T>(&self, request: &Request<T>) -> Result<Caller, Error> {
        if self.entrance == Entrance::Local {
            return Ok(Caller::local());
        }
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|v| v.to_str().ok());
        let secret = header.and_then(|header| header.strip_prefix("Bearer "));
        let secret = secret.ok_or_else(|| {
            Error::new(
                ErrorCode::TokenInvalid,
                "a bearer token is needed on this address",
            )
        })?;
        let state = self.plane.state(false).await?;
        let token = state.authenticate(&sha256_hex(secret.as_bytes()))?;
        Ok(Caller {
            identity: token.identity.clone(),
            may_run_privileged: token.allow_privileged,
        })
    }

    /// Only the operator of this very host.
    fn local_only(&self, what: &str) -> Result<(), Status> {
        match self.entrance {
            Entrance::Local => Ok(()),
            Entrance::Remote => {
                let message = format!("{what} is possible on the host's unix socket only");
                Err(to_status(&Error::new(ErrorCode::PermissionDenied, message)))
            }
        }
    }
}

/// Lets `?` turn an [`Error`] into the status that carries it.
#[allow(clippy::needless_pass_by_value)] // the shape that `map_err` wants
fn refuse(error: Error) -> Status {
    to_status(&error)
}
