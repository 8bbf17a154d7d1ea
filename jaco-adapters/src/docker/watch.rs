//! The engine's event stream, as bare wake-ups.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bollard::Docker;
use bollard::query_parameters::{EventsOptions, EventsOptionsBuilder};
use futures::StreamExt;
use jaco_core::id::ClusterId;
use jaco_core::node::bridges::CLUSTER_LABEL;
use jaco_core::ports::RuntimeError;
use jaco_core::ports::container_runtime::RuntimeEvents;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::engine::{Engine, SHORT};
use super::error::Failure;

/// What changes an observation. Leaves out what health checks do every few seconds.
const ACTIONS: [&str; 10] = [
    "create",
    "start",
    "die",
    "oom",
    "destroy",
    "pause",
    "unpause",
    "rename",
    "restart",
    "health_status",
];

/// Wake-ups from one event stream. Several events that nobody waited for are one wake-up.
pub(super) struct DockerEvents {
    wakes: mpsc::Receiver<Result<(), RuntimeError>>,
    reader: AbortHandle,
}

/// Subscribes. No event after the call is lost: the stream is asked for everything since now,
/// and is read by a task of its own, however late it is set up.
pub(super) async fn subscribe(
    engine: &Engine,
    cluster: &ClusterId,
) -> Result<DockerEvents, Failure> {
    let options = options(cluster);
    let docker = engine.client().await?.docker;
    engine.within(SHORT, docker.ping()).await?;
    let (sender, wakes) = mpsc::channel(1);
    let reader = tokio::spawn(read(docker, options, sender)).abort_handle();
    Ok(DockerEvents { wakes, reader })
}

fn options(cluster: &ClusterId) -> EventsOptions {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let since = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let filters = HashMap::from([
        ("type", vec!["container".to_owned()]),
        ("label", vec![format!("{CLUSTER_LABEL}={cluster}")]),
        ("event", ACTIONS.map(str::to_owned).to_vec()),
    ]);
    EventsOptionsBuilder::new()
        .since(&since)
        .filters(&filters)
        .build()
}

async fn read(
    docker: Docker,
    options: EventsOptions,
    wakes: mpsc::Sender<Result<(), RuntimeError>>,
) {
    let mut events = Box::pin(docker.events(Some(options)));
    let end = loop {
        match events.next().await {
            // A full channel already holds a wake-up for this event too.
            Some(Ok(_)) => drop(wakes.try_send(Ok(()))),
            Some(Err(error)) => break Failure::from(error),
            None => break Failure::Unreachable("the event stream ended".to_owned()),
        }
    };
    drop(wakes.send(Err(end.into())).await);
}

#[async_trait]
impl RuntimeEvents for DockerEvents {
    async fn changed(&mut self) -> Result<(), RuntimeError> {
        let ended = || RuntimeError::Unreachable("the event stream ended".to_owned());
        self.wakes.recv().await.ok_or_else(ended)?
    }
}

impl Drop for DockerEvents {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
