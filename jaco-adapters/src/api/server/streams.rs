//! `Watch` and `Audit`: documents that follow the state.
//!
//! A stream of a token that is revoked or expires ends with `token_revoked` within a second.

use std::pin::Pin;

use futures::Stream;
use jaco_core::cluster::ClusterState;
use jaco_core::cluster::audit::EventType;
use jaco_core::id::{DeploymentName, ServiceName};
use jaco_core::time::Timestamp;
use jaco_core::view;
use jaco_core::view::cluster::AuditLog;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use super::deploy::given;
use super::{Api, refuse};
use crate::api::convert::{document, invalid};
use crate::transport::proto::v1 as proto;
use crate::transport::proto::v1::audit_server::Audit;
use crate::transport::proto::v1::watch_server::Watch;

type Documents = Pin<Box<dyn Stream<Item = Result<proto::Document, Status>> + Send>>;

/// Documents that wait for a slow reader before the next state is looked at.
const BUFFERED: usize = 4;

#[async_trait]
impl Watch for Api {
    type StatusStream = Documents;

    async fn status(
        &self,
        request: Request<proto::StatusRequest>,
    ) -> Result<Response<Documents>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let deployment: Option<DeploymentName> = given(request.deployment);
        let service: Option<ServiceName> = given(request.service);
        let api = self.clone();
        let (sender, receiver) = mpsc::channel(BUFFERED);
        tokio::spawn(async move {
            let (mut last, mut seen) = (None, None);
            loop {
                let state = match api.still_seen(&caller).await {
                    Ok(state) => state,
                    Err(status) => return drop(sender.send(Err(status)).await),
                };
                // Between changes only the token is looked at again.
                if seen != Some(state.index) {
                    seen = Some(state.index);
                    let next = status_of(&state, deployment.as_ref(), service.as_ref());
                    if last.as_ref() != next.as_ref().ok() {
                        last = next.as_ref().ok().cloned();
                        let is_over = next.is_err();
                        if sender.send(next).await.is_err() || is_over {
                            return;
                        }
                    }
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

#[async_trait]
impl Audit for Api {
    type FollowStream = Documents;

    async fn list(
        &self,
        request: Request<proto::AuditRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let (since, types) = filter(&request)?;
        let state = self.seen(&caller, request.consistent).await?;
        let events = view::cluster::audit(&state, 0, since, &types);
        document(&AuditLog { events }).map(Response::new)
    }

    async fn follow(
        &self,
        request: Request<proto::AuditRequest>,
    ) -> Result<Response<Documents>, Status> {
        let caller = self.caller(&request)?;
        let (since, types) = filter(request.get_ref())?;
        let api = self.clone();
        let (sender, receiver) = mpsc::channel(BUFFERED);
        tokio::spawn(async move {
            let mut after = 0;
            loop {
                let state = match api.still_seen(&caller).await {
                    Ok(state) => state,
                    Err(status) => return drop(sender.send(Err(status)).await),
                };
                for event in view::cluster::audit(&state, after, since, &types) {
                    if sender.send(document(&event)).await.is_err() {
                        return;
                    }
                }
                after = state.index;
                tokio::select! {
                    () = api.news_after(after) => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[allow(clippy::result_large_err)] // what the generated traits return
fn status_of(
    state: &ClusterState,
    deployment: Option<&DeploymentName>,
    service: Option<&ServiceName>,
) -> Result<proto::Document, Status> {
    document(&view::status::status(state, deployment, service).map_err(refuse)?)
}

fn filter(request: &proto::AuditRequest) -> Result<(Option<Timestamp>, Vec<EventType>), Status> {
    let since = match request.since.as_str() {
        "" => None,
        text => Some(
            Timestamp::parse(text)
                .ok_or_else(|| invalid("since", format!("\"{text}\" is not an RFC 3339 time")))?,
        ),
    };
    let find = |name: &String| EventType::ALL.iter().copied().find(|t| t.as_str() == name);
    let types = request.types.iter().map(|name| {
        find(name).ok_or_else(|| invalid("type", format!("\"{name}\" is not an event type")))
    });
    Ok((since, types.collect::<Result<_, _>>()?))
}
