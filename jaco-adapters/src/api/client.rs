//! A caller of a daemon's API, over its unix socket or over TLS.

use std::path::PathBuf;

use futures::{Stream, StreamExt};
use jaco_core::error::{Error, ErrorCode};
use jaco_core::ports::control_plane::{Admission, AdmissionRequest};
use serde::de::DeserializeOwned;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::convert::from_status;
use crate::transport::proto::v1 as proto;
use crate::transport::proto::v1::audit_client::AuditClient;
use crate::transport::proto::v1::cluster_client::ClusterClient;
use crate::transport::proto::v1::deploy_client::DeployClient;
use crate::transport::proto::v1::logs_client::LogsClient;
use crate::transport::proto::v1::token_client::TokenClient;
use crate::transport::proto::v1::watch_client::WatchClient;
use crate::transport::{MAX_MESSAGE, connect, tls};

pub use crate::transport::proto::v1 as messages;

/// Why a call gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The daemon refused, in the words of the closed set.
    #[error(transparent)]
    Refused(#[from] Error),
    /// No daemon answered.
    #[error("cannot reach {target}: {reason}")]
    #[allow(missing_docs)]
    Unreachable { target: String, reason: String },
}

/// A connection to one daemon; made when first used.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    bearer: Option<MetadataValue<Ascii>>,
    target: String,
}

impl Client {
    /// To the daemon of this host.
    pub fn local(socket: PathBuf) -> Self {
        let target = socket.display().to_string();
        Self {
            channel: connect::unix(socket),
            bearer: None,
            target,
        }
    }

    /// To any daemon, trusted by the cluster's CA.
    ///
    /// # Errors
    /// `validation_failed` for an address, CA or token that cannot be one.
    pub fn remote(address: &str, ca: &str, token: &str) -> Result<Self, Error> {
        let invalid = |what: &str, reason: String| {
            Error::new(ErrorCode::ValidationFailed, format!("{what}: {reason}")).with("field", what)
        };
        let config = tls::api_client(ca).map_err(|error| invalid("ca-cert", error.to_string()))?;
        let channel =
            connect::tls(address, config).map_err(|error| invalid("server", error.to_string()))?;
        let bearer = format!("Bearer {token}")
            .parse()
            .map_err(|_| invalid("token", "a token has letters and digits only".to_owned()))?;
        Ok(Self {
            channel,
            bearer: Some(bearer),
            target: address.to_owned(),
        })
    }

    /// To a member, for a host that wants to join and knows only the CA's hash.
    ///
    /// # Errors
    /// `validation_failed` for an address that cannot be one.
    pub fn joining(address: &str, ca_hash: &str) -> Result<Self, Error> {
        let config = tls::joining_client(ca_hash).map_err(Error::internal)?;
        let channel = connect::tls(address, config).map_err(|error| {
            Error::new(ErrorCode::ValidationFailed, format!("peer: {error}")).with("field", "peer")
        })?;
        Ok(Self {
            channel,
            bearer: None,
            target: address.to_owned(),
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(bearer) = &self.bearer {
            request
                .metadata_mut()
                .insert("authorization", bearer.clone());
        }
        request
    }

    fn failed(&self, status: &Status) -> CallError {
        if let Some(error) = from_status(status) {
            return CallError::Refused(error);
        }
        let reason = root_cause(status);
        if reason.contains("certificate") {
            let message = format!("{} is not trusted: {reason}", self.target);
            return CallError::Refused(Error::new(ErrorCode::TlsUntrusted, message));
        }
        if matches!(
            status.code(),
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented
        ) {
            let message = status.message().to_owned();
            return CallError::Refused(Error::new(ErrorCode::ValidationFailed, message));
        }
        CallError::Unreachable {
            target: self.target.clone(),
            reason,
        }
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<Response<proto::Document>, Status>,
    ) -> Result<T, CallError> {
        let document = answer.map_err(|status| self.failed(&status))?.into_inner();
        parse(&document)
    }

    fn documents<T: DeserializeOwned + 'static>(
        &self,
        answer: Result<Response<Streaming<proto::Document>>, Status>,
    ) -> Result<impl Stream<Item = Result<T, CallError>> + use<T>, CallError> {
        let stream = answer.map_err(|status| self.failed(&status))?.into_inner();
        let client = self.clone();
        Ok(stream.map(move |item| match item {
            Ok(document) => parse(&document),
            Err(status) => Err(client.failed(&status)),
        }))
    }
}

fn parse<T: DeserializeOwned>(document: &proto::Document) -> Result<T, CallError> {
    serde_json::from_str(&document.json).map_err(|error| Error::internal(error).into())
}

/// The innermost reason: the outer ones only say that the transport failed.
pub(super) fn root_cause(status: &Status) -> String {
    let mut reason = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(inner) = source {
        reason = inner.to_string();
        source = inner.source();
    }
    reason
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $client:ident :: $rpc:ident($request:ident);)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`CallError`].
            pub async fn $name<T: DeserializeOwned>(
                &self,
                message: proto::$request,
            ) -> Result<T, CallError> {
                let mut client = $client::new(self.channel.clone())
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(MAX_MESSAGE);
                self.read(client.$rpc(self.request(message)).await)
            }
        )*}
    };
}

calls! {
    /// Makes the daemon a member of a cluster.
    join = ClusterClient::join(JoinRequest);
    /// The cluster and its members.
    cluster_status = ClusterClient::status(ReadRequest);
    /// The nodes and what they have.
    nodes = ClusterClient::nodes(ReadRequest);
    /// Has every node try its network.
    check_network = ClusterClient::check_network(Empty);
    /// Empties a node, or lets it take replicas again.
    drain_node = ClusterClient::drain_node(DrainNodeRequest);
    /// Gives a node labels, or takes them back.
    label_node = ClusterClient::label_node(LabelNodeRequest);
    /// Takes a node out.
    remove_node = ClusterClient::remove_node(RemoveNodeRequest);
    /// Checks and commits manifests.
    apply = DeployClient::apply(ApplyRequest);
    /// What would follow of manifests, or of the loss of a node.
    plan = DeployClient::plan(PlanRequest);
    /// Deletes a deployment.
    delete = DeployClient::delete(NameRequest);
    /// Goes back to an older revision.
    rollback = DeployClient::rollback(RollbackRequest);
    /// Orders a certificate now.
    renew_certificate = DeployClient::renew_certificate(RenewCertificateRequest);
    /// Changes a replica count.
    scale = DeployClient::scale(ScaleRequest);
    restart = DeployClient::restart(RestartRequest);
    /// Deployments, replicas, routes.
    status = DeployClient::status(StatusRequest);
    /// One kind of thing, or one thing in full.
    get = DeployClient::get(GetRequest);
    /// The kept revisions.
    history = DeployClient::history(NameRequest);
    /// Revokes an operator token.
    revoke_token = TokenClient::revoke(RevokeTokenRequest);
    /// The operator tokens.
    tokens = TokenClient::list(ReadRequest);
    /// The audit log.
    audit = AuditClient::list(AuditRequest);
}

impl Client {
    /// Forms a cluster.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn init(&self, name: String) -> Result<proto::InitAnswer, CallError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let answer = client.init(self.request(proto::InitRequest { name })).await;
        answer
            .map(Response::into_inner)
            .map_err(|status| self.failed(&status))
    }

    /// Makes a join token.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn issue_join_token(
        &self,
        request: proto::IssueJoinTokenRequest,
    ) -> Result<proto::JoinTokenAnswer, CallError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let answer = client.issue_join_token(self.request(request)).await;
        answer
            .map(Response::into_inner)
            .map_err(|status| self.failed(&status))
    }

    /// Presents a join token.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn enter(&self, request: AdmissionRequest) -> Result<Admission, CallError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let message = proto::EnterRequest {
            secret: request.secret,
            hostname: request.hostname.to_string(),
            csr_pem: request.csr,
            api_address: request.api_address,
            cluster_address: request.cluster_address,
        };
        let answer = client.enter(self.request(message)).await;
        let answer = answer.map_err(|status| self.failed(&status))?.into_inner();
        Ok(Admission {
            cluster_id: answer.cluster_id,
            member: answer.member,
            chain: answer.certificate,
            state_key: answer.state_key,
        })
    }

    /// Makes an operator token.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn issue_token(
        &self,
        request: proto::IssueTokenRequest,
    ) -> Result<proto::IssueTokenAnswer, CallError> {
        let mut client = TokenClient::new(self.channel.clone());
        let answer = client.issue(self.request(request)).await;
        answer
            .map(Response::into_inner)
            .map_err(|status| self.failed(&status))
    }

    /// The status now and after each change of it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn watch_status<T: DeserializeOwned + 'static>(
        &self,
        request: proto::StatusRequest,
    ) -> Result<impl Stream<Item = Result<T, CallError>> + use<T>, CallError> {
        let mut client =
            WatchClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let answer = client.status(self.request(request)).await;
        self.documents(answer)
    }

    /// Events that match, and new ones as they are committed.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn follow_audit<T: DeserializeOwned + 'static>(
        &self,
        request: proto::AuditRequest,
    ) -> Result<impl Stream<Item = Result<T, CallError>> + use<T>, CallError> {
        let mut client = AuditClient::new(self.channel.clone());
        let answer = client.follow(self.request(request)).await;
        self.documents(answer)
    }

    /// The log lines of a service.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn logs(
        &self,
        request: proto::LogsRequest,
    ) -> Result<impl Stream<Item = Result<proto::LogsLine, CallError>> + use<>, CallError> {
        let mut client = LogsClient::new(self.channel.clone());
        let answer = client.stream(self.request(request)).await;
        let stream = answer.map_err(|status| self.failed(&status))?.into_inner();
        let client = self.clone();
        Ok(stream.map(move |item| item.map_err(|status| client.failed(&status))))
    }
}
