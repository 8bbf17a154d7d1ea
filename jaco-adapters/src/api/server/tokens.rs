//! `Token`: operator tokens.

use std::time::Duration;

use jaco_core::access::{Rights, Role};
use jaco_core::cluster::Command;
use jaco_core::id::{DeploymentName, Identity};
use jaco_core::manifest::hash::sha256_hex;
use jaco_core::ports::Ids;
use jaco_core::view;
use serde_json::json;
use tonic::{Request, Response, Status, async_trait};

use super::{Api, refuse};
use crate::api::convert::{document, invalid};
use crate::system::SystemIds;
use crate::transport::proto::v1 as proto;
use crate::transport::proto::v1::token_server::Token;

/// Seconds that a token may be issued for: ten years.
const MAX_TTL: u64 = 10 * 365 * 86_400;

#[allow(clippy::result_large_err)] // what the generated traits return
fn rights(request: &proto::IssueTokenRequest) -> Result<Rights, Status> {
    let role = match request.role.as_str() {
        "" => Role::default(),
        text => Role::parse(text).ok_or_else(|| {
            invalid(
                "role",
                format!("\"{text}\" is not one of read, deploy, admin"),
            )
        })?,
    };
    if request
        .ttl_seconds
        .is_some_and(|ttl| ttl == 0 || ttl > MAX_TTL)
    {
        return Err(invalid(
            "ttl",
            "a token lives between 1 second and 10 years",
        ));
    }
    let names = request.deployments.iter().map(DeploymentName::new);
    Ok(Rights {
        role,
        deployments: (!request.deployments.is_empty()).then(|| names.collect()),
        allow_host: request.allow_host,
        allow_privileged: request.allow_privileged,
    })
}

#[async_trait]
impl Token for Api {
    async fn issue(
        &self,
        request: Request<proto::IssueTokenRequest>,
    ) -> Result<Response<proto::IssueTokenAnswer>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let rights = rights(&request)?;
        let token = SystemIds.secret();
        let command = Command::TokenIssue {
            hash: sha256_hex(token.as_bytes()),
            name: Identity::new(&request.name),
            rights,
            ttl: request.ttl_seconds.map(Duration::from_secs),
        };
        self.plane.write(&caller, command).await.map_err(refuse)?;
        Ok(Response::new(proto::IssueTokenAnswer {
            name: request.name,
            token,
        }))
    }

    async fn revoke(
        &self,
        request: Request<proto::RevokeTokenRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let name = Identity::new(request.name);
        let command = Command::TokenRevoke {
            name: name.clone(),
            force: request.force,
        };
        self.plane.write(&caller, command).await.map_err(refuse)?;
        document(&json!({"name": name, "revoked": true})).map(Response::new)
    }

    async fn list(
        &self,
        request: Request<proto::ReadRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let state = self
            .plane
            .state(request.get_ref().consistent)
            .await
            .map_err(refuse)?;
        document(&view::cluster::tokens(&state)).map(Response::new)
    }
}
