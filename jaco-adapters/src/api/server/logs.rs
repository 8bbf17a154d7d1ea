//! `Logs`: the replicas of a service, merged over all nodes in order of arrival.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use jaco_core::access::Role;
use jaco_core::cluster::apply::service_not_found;
use jaco_core::id::{DeploymentName, ReplicaId, ServiceName};
use jaco_core::ports::container_logs::LogOptions;
use jaco_core::time::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use super::{Api, refuse};
use crate::api::convert::invalid;
use crate::transport::proto::v1 as proto;
use crate::transport::proto::v1::logs_server::Logs;

type Lines = Pin<Box<dyn Stream<Item = Result<proto::LogsLine, Status>> + Send>>;
type Sender = mpsc::Sender<Result<proto::LogsLine, Status>>;

const BUFFERED: usize = 256;
/// How long a followed log that broke off waits before it is opened again.
const REOPEN: Duration = Duration::from_millis(500);

#[async_trait]
impl Logs for Api {
    type StreamStream = Lines;

    async fn stream(
        &self,
        request: Request<proto::LogsRequest>,
    ) -> Result<Response<Lines>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let options = options(&request)?;
        let deployment = DeploymentName::new(request.deployment);
        let service = ServiceName::new(request.service);
        self.require(&caller, Role::Read, &deployment).await?;
        let state = self.seen(&caller, false).await?;
        let spec = state.deployment(&deployment).map_err(refuse)?.spec();
        if !spec.services.contains_key(&service) {
            return Err(refuse(service_not_found(spec, &service)));
        }
        let (sender, receiver) = mpsc::channel(BUFFERED);
        let api = self.clone();
        tokio::spawn(async move {
            let mut opened = BTreeSet::new();
            loop {
                let state = match api.still_seen(&caller).await {
                    Ok(state) => state,
                    Err(status) => return drop(sender.send(Err(status)).await),
                };
                let replicas = state.deployments.get(&deployment).into_iter();
                for replica in replicas.flat_map(|d| d.replicas_of(&service)) {
                    if opened.insert(replica.id.clone()) {
                        let (api, sender) = (api.clone(), sender.clone());
                        let host = replica.node.to_string();
                        let (id, options) = (replica.id.clone(), options.clone());
                        tokio::spawn(async move { api.pump(&id, &host, options, &sender).await });
                    }
                }
                if !options.follow {
                    return;
                }
                tokio::select! {
                    () = api.news_after(state.index) => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Api {
    /// Sends one replica's lines, each in its own order; opens a followed log again when its
    /// container is replaced.
    async fn pump(&self, id: &ReplicaId, host: &str, mut options: LogOptions, sender: &Sender) {
        loop {
            match self.plane.logs(id, &options).await {
                Ok(mut lines) => {
                    while let Some(Ok(line)) = lines.next().await {
                        if let Some(at) = line.at {
                            options.since = Some(at + Duration::from_millis(1));
                            options.tail = None;
                        }
                        let line = proto::LogsLine {
                            replica: id.to_string(),
                            host: host.to_owned(),
                            at: line.at.map(|at| at.to_string()).unwrap_or_default(),
                            stderr: line.stderr,
                            text: line.text,
                        };
                        if sender.send(Ok(line)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => tracing::debug!(replica = %id, %error, "open log"),
            }
            let gone = match self.plane.state(false).await {
                Ok(state) => state.replica(id).is_err(),
                Err(_) => true,
            };
            if !options.follow || gone {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(REOPEN) => {}
                () = sender.closed() => return,
            }
        }
    }
}

fn options(request: &proto::LogsRequest) -> Result<LogOptions, Status> {
    let since = match request.since.as_str() {
        "" => None,
        text => Some(
            Timestamp::parse(text)
                .ok_or_else(|| invalid("since", format!("\"{text}\" is not an RFC 3339 time")))?,
        ),
    };
    Ok(LogOptions {
        follow: request.follow,
        since,
        tail: request.tail,
    })
}
