//! The sequences that start and remove one container.

use std::time::Duration;

use bollard::models::{ContainerInspectResponse, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptions,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptions,
};
use jaco_core::manifest::spec::Hook;
use jaco_core::node::bridges::CLUSTER_LABEL;
use jaco_core::node::ending::Ending;
use jaco_core::ports::RuntimeError;
use jaco_core::ports::container_runtime::{ContainerNetwork, ContainerRequest};

use super::convert::{create_body, endpoint};
use super::engine::{Engine, LONG, SHORT};
use super::error::{Failure, gone_is_fine};
use super::files::FileStore;
use super::mounts::mounts;
use super::observe::{GENERATION_LABEL, Labels, REPLICA_LABEL, SPEC_HASH_LABEL};
use super::{hooks, volumes};

/// How long a hook after the start may take.
const POST_START: Duration = Duration::from_secs(300);

/// One engine and the place for its containers' files.
#[derive(Debug)]
pub(super) struct Lifecycle {
    pub(super) engine: Engine,
    pub(super) files: FileStore,
}

impl Lifecycle {
    /// Makes and starts a container; returns its id. One that this very request has already
    /// started is left alone.
    pub(super) async fn start(&self, request: &ContainerRequest) -> Result<String, RuntimeError> {
        if let Some(running) = self.clear_the_way(request).await? {
            return Ok(running);
        }
        for volume in request.volumes.values() {
            volumes::ensure(&self.engine, volume, request.granted).await?;
        }
        let id = match self.lay_and_create(request).await {
            Err(failure) => {
                self.files.remove(request.name.as_str()).await?;
                return Err(failure);
            }
            Ok(id) => id,
        };
        self.connect(request, &id).await?;
        let docker = self.engine.client().await?.docker;
        let started = docker.start_container(&id, None::<StartContainerOptions>);
        self.engine.within(LONG, started).await?;
        self.after_start(&id, &request.spec.post_start).await?;
        Ok(id)
    }

    /// Stops a container with its own signal and grace period and removes it, with its
    /// anonymous volumes and its files.
    pub(super) async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(container) = self.inspect(id).await? else {
            return Ok(());
        };
        let config = container.config.unwrap_or_default();
        let labels = config.labels.unwrap_or_default();
        if !labels.contains_key(CLUSTER_LABEL) {
            let reason = format!("container {id} is not the cluster's");
            return Err(RuntimeError::Refused(reason));
        }
        let replica = labels.get(REPLICA_LABEL).map_or("", String::as_str);
        let ending = Ending::of(config.stop_timeout);
        if container
            .state
            .is_some_and(|state| state.running == Some(true))
        {
            self.before_stop(id, replica, ending.grace).await;
            self.stop(id, ending).await?;
        }
        self.delete(id).await?;
        if !replica.is_empty() {
            self.files.remove(replica).await?;
        }
        Ok(())
    }

    /// Deals with a container that has the name already: the very one that is asked for is
    /// returned when it runs, and what an earlier attempt left is removed. Anything else is
    /// refused before its files are touched.
    async fn clear_the_way(
        &self,
        request: &ContainerRequest,
    ) -> Result<Option<String>, RuntimeError> {
        let Some(there) = self.inspect(request.name.as_str()).await? else {
            return Ok(None);
        };
        let labels = there.config.and_then(|config| config.labels);
        let labels = labels.unwrap_or_default();
        let same = |keys: &[&str]| keys.iter().all(|key| matches(request, &labels, key));
        let ours = same(&[CLUSTER_LABEL, REPLICA_LABEL]);
        let runs = there.state.is_some_and(|state| state.running == Some(true));
        let id = there.id.unwrap_or_default();
        if ours && runs && same(&[SPEC_HASH_LABEL, GENERATION_LABEL]) {
            return Ok(Some(id));
        }
        if ours && !runs {
            self.delete(&id).await?;
            return Ok(None);
        }
        Err(RuntimeError::Refused(format!(
            "the name \"{}\" is in use by container {id}",
            request.name
        )))
    }

    async fn lay_and_create(&self, request: &ContainerRequest) -> Result<String, RuntimeError> {
        let client = self.engine.client().await?;
        let trees = self.files.lay(request).await?;
        let body = create_body(request, mounts(request, &trees, client.version)?)?;
        let options = CreateContainerOptionsBuilder::new().name(request.name.as_str());
        let options = match &request.spec.platform {
            Some(platform) => options.platform(platform),
            None => options,
        }
        .build();
        let create = || {
            client
                .docker
                .create_container(Some(options.clone()), body.clone())
        };
        let outcome = match self.engine.within(LONG, create()).await {
            Err(failure) if failure.is_conflict() => {
                if let Some(running) = self.clear_the_way(request).await? {
                    return Ok(running);
                }
                self.engine.within(LONG, create()).await
            }
            outcome => outcome,
        };
        Ok(outcome?.id)
    }

    /// Attaches the endpoints after the first, in order.
    async fn connect(&self, request: &ContainerRequest, id: &str) -> Result<(), RuntimeError> {
        let ContainerNetwork::Endpoints(endpoints) = &request.network else {
            return Ok(());
        };
        let docker = self.engine.client().await?.docker;
        for further in endpoints.iter().skip(1) {
            let config = NetworkConnectRequest {
                container: id.to_owned(),
                endpoint_config: Some(endpoint(further)),
            };
            let connected = docker.connect_network(&further.network, config);
            self.engine.within(SHORT, connected).await?;
        }
        Ok(())
    }

    /// A container whose hook failed is killed, so that it ends as a failure and is not taken
    /// for a running one.
    async fn after_start(&self, id: &str, post_start: &[Hook]) -> Result<(), RuntimeError> {
        for hook in post_start {
            if let Err(error) = hooks::run(&self.engine, id, hook, POST_START).await {
                let docker = self.engine.client().await?.docker;
                let killed = docker.kill_container(id, None::<KillContainerOptions>);
                drop(self.engine.within(SHORT, killed).await);
                return Err(error);
            }
        }
        Ok(())
    }

    /// A hook that fails does not keep its container alive.
    async fn before_stop(&self, id: &str, replica: &str, grace: Duration) {
        for hook in self.files.pre_stop(replica).await {
            if let Err(error) = hooks::run(&self.engine, id, &hook, grace).await {
                tracing::warn!(replica, %error, "pre_stop");
            }
        }
    }

    /// A stop that the engine refuses or never ends does not keep its container: the forced
    /// removal comes next. After a broken connection the container may still have its grace, so
    /// that is an error, and the stop is asked for again.
    async fn stop(&self, id: &str, ending: Ending) -> Result<(), RuntimeError> {
        let docker = self.engine.client().await?.docker;
        let stopped = docker.stop_container(id, None::<StopContainerOptions>);
        let stopped = self.engine.within(ending.limit + LONG, stopped);
        match tokio::time::timeout(ending.limit, stopped).await {
            Ok(Err(failure @ Failure::Unreachable(_))) => Err(failure.into()),
            Ok(Err(failure)) if !failure.is_not_found() => {
                tracing::warn!(container = id, ?failure, "stop");
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(_) => {
                tracing::warn!(container = id, "the engine does not end its stop");
                Ok(())
            }
        }
    }

    async fn delete(&self, id: &str) -> Result<(), RuntimeError> {
        let docker = self.engine.client().await?.docker;
        let options = RemoveContainerOptionsBuilder::new()
            .v(true)
            .force(true)
            .build();
        let removed = docker.remove_container(id, Some(options));
        match gone_is_fine(self.engine.within(LONG, removed).await) {
            Err(failure) if is_under_way(&failure) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    async fn inspect(&self, id: &str) -> Result<Option<ContainerInspectResponse>, Failure> {
        let docker = self.engine.client().await?.docker;
        let inspection = docker.inspect_container(id, None::<InspectContainerOptions>);
        match self.engine.within(SHORT, inspection).await {
            Ok(container) => Ok(Some(container)),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

fn matches(request: &ContainerRequest, labels: &Labels, key: &str) -> bool {
    labels.contains_key(key) && labels.get(key) == request.labels.get(key)
}

/// Another call removes the container at this moment.
fn is_under_way(failure: &Failure) -> bool {
    match failure {
        Failure::Refused { reason, .. } => {
            failure.is_conflict() && reason.contains("already in progress")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
