//! `Cluster`: forming, joining, members.

use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::error::ErrorCode;
use jaco_core::id::NodeName;
use jaco_core::ports::control_plane::{AdmissionRequest, Invitation, JoinRequest};
use jaco_core::view;
use jaco_core::view::cluster::ClusterStatus;
use serde_json::json;
use tonic::{Request, Response, Status, async_trait};

use super::{Api, refuse};
use crate::api::convert::{document, invalid};
use crate::transport::incoming;
use crate::transport::proto::v1 as proto;
use crate::transport::proto::v1::cluster_server::Cluster;

const LONGEST_TTL: u64 = 30 * 86_400;

#[async_trait]
impl Cluster for Api {
    async fn init(
        &self,
        request: Request<proto::InitRequest>,
    ) -> Result<Response<proto::InitAnswer>, Status> {
        let formed = self
            .plane
            .form(request.into_inner().name)
            .await
            .map_err(refuse)?;
        Ok(Response::new(proto::InitAnswer {
            cluster_id: formed.cluster_id,
            token: formed.token,
            state_key_path: formed.state_key_path,
        }))
    }

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let request = request.into_inner();
        let ca_cert = Some(request.ca_cert).filter(|pem| !pem.is_empty());
        let join = JoinRequest {
            peer: request.peer,
            token: request.token,
            ca_cert,
        };
        self.plane.join(join).await.map_err(refuse)?;
        document(&json!({"hostname": self.plane.node(), "joined": true})).map(Response::new)
    }

    async fn status(
        &self,
        request: Request<proto::ReadRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let consistent = request.get_ref().consistent;
        let state = match self.plane.state(consistent).await {
            Err(error) if error.code == ErrorCode::ClusterUninitialized => {
                return document(&ClusterStatus::default()).map(Response::new);
            }
            state => state.map_err(refuse)?,
        };
        let consensus = self.plane.consensus();
        let status = self.apart(move || Ok(view::cluster::status(&state, &consensus)));
        document(&status.await?).map(Response::new)
    }

    async fn issue_join_token(
        &self,
        request: Request<proto::IssueJoinTokenRequest>,
    ) -> Result<Response<proto::JoinTokenAnswer>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        if request.ttl_seconds == 0 || request.ttl_seconds > LONGEST_TTL {
            return Err(invalid(
                "ttl",
                "a join token lives between 1 second and 30 days",
            ));
        }
        let invitation = Invitation {
            node: Some(request.node_name)
                .filter(|name| !name.is_empty())
                .map(NodeName::new),
            sans: request.sans,
            ttl: Duration::from_secs(request.ttl_seconds),
        };
        let invited = self
            .plane
            .invite(&caller, invitation)
            .await
            .map_err(refuse)?;
        Ok(Response::new(proto::JoinTokenAnswer {
            token: invited.token,
            peer: invited.peer,
            expires_at: invited.expires_at.to_string(),
        }))
    }

    /// Not authenticated by a bearer token: the join token is the credential.
    async fn enter(
        &self,
        request: Request<proto::EnterRequest>,
    ) -> Result<Response<proto::EnterAnswer>, Status> {
        let from = incoming::peer(request.extensions());
        let request = request.into_inner();
        let admission = self
            .plane
            .admit(AdmissionRequest {
                from,
                secret: request.secret,
                hostname: NodeName::new(request.hostname),
                csr: request.csr_pem,
                api_address: request.api_address,
                cluster_address: request.cluster_address,
            })
            .await
            .map_err(refuse)?;
        Ok(Response::new(proto::EnterAnswer {
            cluster_id: admission.cluster_id,
            member: admission.member,
            certificate: admission.chain,
            state_key: admission.state_key,
        }))
    }

    async fn nodes(
        &self,
        request: Request<proto::ReadRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let state = self.seen(&caller, request.get_ref().consistent).await?;
        document(&view::cluster::nodes(&state)).map(Response::new)
    }

    async fn drain_node(
        &self,
        request: Request<proto::DrainNodeRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let (node, drain) = (NodeName::new(request.hostname), request.drain);
        let command = Command::NodeDrain {
            node: node.clone(),
            drain,
        };
        self.plane.write(&caller, command).await.map_err(refuse)?;
        document(&json!({"hostname": node, "draining": drain})).map(Response::new)
    }

    async fn label_node(
        &self,
        request: Request<proto::LabelNodeRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let node = NodeName::new(request.hostname);
        let command = Command::NodeLabel {
            node: node.clone(),
            set: request.set.into_iter().collect(),
            remove: request.remove.into_iter().collect(),
        };
        self.plane.write(&caller, command).await.map_err(refuse)?;
        // The leader has applied it; this node may be a moment behind.
        let state = self.plane.state(true).await.map_err(refuse)?;
        let labels = state.node(&node).map_err(refuse)?.labels();
        document(&json!({"hostname": node, "labels": labels})).map(Response::new)
    }

    async fn remove_node(
        &self,
        request: Request<proto::RemoveNodeRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let node = NodeName::new(request.hostname);
        let command = Command::NodeRemove {
            node: node.clone(),
            force: request.force,
        };
        self.plane.write(&caller, command).await.map_err(refuse)?;
        document(&json!({"hostname": node, "removed": true})).map(Response::new)
    }

    async fn check_network(
        &self,
        _: Request<proto::Empty>,
    ) -> Result<Response<proto::Document>, Status> {
        let checked = self.plane.check_network().await.map_err(refuse)?;
        document(&checked).map(Response::new)
    }
}
