//! What members ask of each other besides consensus: a replica's logs, a check of the network, a
//! page as they see it.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use jaco_core::certs::Probed;
use jaco_core::id::{Domain, ReplicaId};
use jaco_core::ports::container_logs::{LogLine, LogLines, LogOptions};
use jaco_core::ports::{ContainerLogs, RuntimeError, SelfCheck, WebProbe};
use jaco_core::time::Timestamp;
use jaco_core::view::check::CheckRow;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::client::root_cause;
use crate::transport::proto::internal as proto;
use crate::transport::proto::internal::node_client::NodeClient;
use crate::transport::proto::internal::node_server::{Node, NodeServer};

type Lines = Pin<Box<dyn Stream<Item = Result<proto::LogLine, Status>> + Send>>;

const BUFFERED: usize = 64;
/// More than a node needs for everything that it tries.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// Serves the other members what only this node knows.
pub struct NodeService {
    logs: Arc<dyn ContainerLogs>,
    checks: Arc<dyn SelfCheck>,
    web: Arc<dyn WebProbe>,
}

/// The service for the raft listener.
pub fn service(
    logs: Arc<dyn ContainerLogs>,
    checks: Arc<dyn SelfCheck>,
    web: Arc<dyn WebProbe>,
) -> NodeServer<NodeService> {
    NodeServer::new(NodeService { logs, checks, web })
}

#[async_trait]
impl Node for NodeService {
    type LogsStream = Lines;

    async fn logs(&self, request: Request<proto::LogRequest>) -> Result<Response<Lines>, Status> {
        let request = request.into_inner();
        let options = LogOptions {
            follow: request.follow,
            since: request.since_ms.map(Timestamp),
            tail: request.tail,
        };
        let replica = ReplicaId::new(request.replica);
        let mut lines = self
            .logs
            .open(&replica, &options)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let (sender, receiver) = mpsc::channel(BUFFERED);
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = lines.next() => next,
                    () = sender.closed() => return,
                };
                let Some(line) = next else { return };
                let line = line
                    .map(|line| proto::LogLine {
                        at_ms: line.at.map(|at| at.0),
                        stderr: line.stderr,
                        text: line.text,
                    })
                    .map_err(|error| Status::unavailable(error.to_string()));
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn check(
        &self,
        _: Request<proto::CheckRequest>,
    ) -> Result<Response<proto::Frame>, Status> {
        frame(&self.checks.check().await)
    }

    async fn fetch(
        &self,
        request: Request<proto::FetchRequest>,
    ) -> Result<Response<proto::Frame>, Status> {
        let request = request.into_inner();
        let address = request.address.parse();
        let address = address.map_err(|_| Status::invalid_argument("not an address"))?;
        let host = Domain::new(request.host);
        frame(&self.web.fetch(None, address, &host, &request.path).await)
    }
}

fn frame(answer: &impl Serialize) -> Result<Response<proto::Frame>, Status> {
    let json = serde_json::to_vec(answer)
        .map_err(|error| Status::internal(format!("encode answer: {error}")))?;
    Ok(Response::new(proto::Frame { json }))
}

/// Has another member fetch a page.
pub async fn remote_fetch(channel: Channel, address: IpAddr, host: &Domain, path: &str) -> Probed {
    let mut client = NodeClient::new(channel);
    let request = proto::FetchRequest {
        address: address.to_string(),
        host: host.to_string(),
        path: path.to_owned(),
    };
    let silent = |why: String| Probed::Silent(format!("the node that was to ask: {why}"));
    match tokio::time::timeout(CHECK_LIMIT, client.fetch(request)).await {
        Err(_) => silent("it does not answer".to_owned()),
        Ok(Err(status)) => silent(root_cause(&status)),
        Ok(Ok(answer)) => serde_json::from_slice(&answer.into_inner().json)
            .unwrap_or_else(|error| silent(error.to_string())),
    }
}

/// Has another member try its network.
///
/// # Errors
/// Why it gave no answer.
pub async fn remote_check(channel: Channel) -> Result<Vec<CheckRow>, String> {
    let mut client = NodeClient::new(channel);
    let answer = tokio::time::timeout(CHECK_LIMIT, client.check(proto::CheckRequest {}));
    match answer.await {
        Err(_) => Err("it does not answer".to_owned()),
        Ok(Err(status)) => Err(root_cause(&status)),
        Ok(Ok(answer)) => serde_json::from_slice(&answer.into_inner().json)
            .map_err(|error| format!("its answer does not parse: {error}")),
    }
}

/// Opens the log of a replica that another member runs.
///
/// # Errors
/// When that member or its engine does not answer.
pub async fn remote_logs(
    channel: Channel,
    replica: &ReplicaId,
    options: &LogOptions,
) -> Result<Box<dyn LogLines>, RuntimeError> {
    let request = proto::LogRequest {
        replica: replica.to_string(),
        follow: options.follow,
        since_ms: options.since.map(|since| since.0),
        tail: options.tail,
    };
    let lines = NodeClient::new(channel).logs(request).await;
    let lines = lines.map_err(|status| RuntimeError::Unreachable(status.message().to_owned()))?;
    Ok(Box::new(RemoteLines(lines.into_inner())))
}

struct RemoteLines(Streaming<proto::LogLine>);

#[async_trait]
impl LogLines for RemoteLines {
    async fn next(&mut self) -> Option<Result<LogLine, RuntimeError>> {
        let line = self.0.next().await?;
        Some(
            line.map(|line| LogLine {
                at: line.at_ms.map(Timestamp),
                stderr: line.stderr,
                text: line.text,
            })
            .map_err(|status| RuntimeError::Unreachable(status.message().to_owned())),
        )
    }
}
