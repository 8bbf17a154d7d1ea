//! `Token`: operator tokens.

use jaco_core::cluster::Command;
use jaco_core::id::Identity;
use jaco_core::manifest::hash::sha256_hex;
use jaco_core::ports::Ids;
use jaco_core::view;
use serde_json::json;
use tonic::{Request, Response, Status, async_trait};

use super::{Api, refuse};
use crate::api::convert::document;
use crate::system::SystemIds;
use crate::transport::proto::v1 as proto;
use crate::transport::proto::v1::token_server::Token;

#[async_trait]
impl Token for Api {
    async fn issue(
        &self,
        request: Request<proto::IssueTokenRequest>,
    ) -> Result<Response<proto::IssueTokenAnswer>, Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let token = SystemIds.secret();
        let command = Command::TokenIssue {
            hash: sha256_hex(token.as_bytes()),
            name: Identity::new(&request.name),
            allow_privileged: request.allow_privileged,
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
        let caller = self.caller(&request).await?;
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
        self.caller(&request).await?;
        let state = self
            .plane
            .state(request.get_ref().consistent)
            .await
            .map_err(refuse)?;
        document(&view::cluster::tokens(&state)).map(Response::new)
    }
}
