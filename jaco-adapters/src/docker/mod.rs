//! Docker Engine behind the ports for containers, logs and bridges (spec 06, 07).
//!
//! Nothing is decided here: requests are converted, carried out in the engine's order, and
//! what it shows is converted back. The engine need not be up when the adapter is made, and
//! one that hangs fails a call by its deadline instead of holding it.

mod convert;
mod engine;
mod error;
mod files;
mod hooks;
mod lifecycle;
mod logs;
mod mounts;
mod networks;
mod observe;
mod pull;
mod usage;
mod volumes;
mod watch;

use std::path::PathBuf;

use async_trait::async_trait;
use jaco_core::cluster::node::Engine as EngineFacts;
use jaco_core::id::{ClusterId, ReplicaId};
use jaco_core::node::bridges::{Bridge, ObservedBridge};
use jaco_core::node::usage::Counters;
use jaco_core::ports::container_logs::{LogLines, LogOptions};
use jaco_core::ports::container_runtime::{
    ContainerRequest, ObservedContainer, PullProgress, RuntimeEvents,
};
use jaco_core::ports::{BridgeNetworks, ContainerLogs, ContainerRuntime, RuntimeError};

use engine::Engine;
use files::FileStore;
use lifecycle::Lifecycle;

/// One Docker Engine, API 1.41 or later.
#[derive(Debug)]
pub struct DockerRuntime {
    lifecycle: Lifecycle,
}

impl DockerRuntime {
    /// The engine at `docker_host` (`unix:///…`); nothing is sent before the first call.
    /// Secrets and configs of containers are laid out below `files_dir`, which should be on a
    /// tmpfs that the engine sees under the same path.
    pub fn connect(docker_host: &str, files_dir: PathBuf) -> Self {
        Self {
            lifecycle: Lifecycle {
                engine: Engine::new(docker_host),
                files: FileStore::new(files_dir),
            },
        }
    }

    fn engine(&self) -> &Engine {
        &self.lifecycle.engine
    }
}

#[async_trait]
impl ContainerRuntime for DockerRuntime {
    async fn describe(&self) -> Result<EngineFacts, RuntimeError> {
        Ok(observe::describe(self.engine()).await?)
    }

    async fn observe(&self, cluster: &ClusterId) -> Result<Vec<ObservedContainer>, RuntimeError> {
        Ok(observe::observe(self.engine(), cluster).await?)
    }

    async fn has_image(&self, image: &str) -> Result<bool, RuntimeError> {
        pull::has_image(self.engine(), image).await
    }

    async fn pull(
        &self,
        image: &str,
        platform: Option<&str>,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        pull::pull(self.engine(), image, platform, progress).await
    }

    async fn start(&self, request: &ContainerRequest) -> Result<String, RuntimeError> {
        self.lifecycle.start(request).await
    }

    async fn usage(&self, container_id: &str) -> Result<Counters, RuntimeError> {
        Ok(usage::usage(self.engine(), container_id).await?)
    }

    async fn remove(&self, container_id: &str) -> Result<(), RuntimeError> {
        self.lifecycle.remove(container_id).await
    }

    async fn watch(&self, cluster: &ClusterId) -> Result<Box<dyn RuntimeEvents>, RuntimeError> {
        let events = watch::subscribe(self.engine(), cluster).await?;
        Ok(Box::new(events))
    }
}

#[async_trait]
impl ContainerLogs for DockerRuntime {
    async fn open(
        &self,
        replica: &ReplicaId,
        options: &LogOptions,
    ) -> Result<Box<dyn LogLines>, RuntimeError> {
        let log = logs::open(self.engine(), replica, options).await?;
        Ok(Box::new(log))
    }
}

#[async_trait]
impl BridgeNetworks for DockerRuntime {
    async fn observe(&self, cluster: &ClusterId) -> Result<Vec<ObservedBridge>, RuntimeError> {
        Ok(networks::observe(self.engine(), cluster).await?)
    }

    async fn ensure(&self, bridge: &Bridge) -> Result<(), RuntimeError> {
        networks::ensure(self.engine(), bridge).await
    }

    async fn remove(&self, engine_name: &str) -> Result<(), RuntimeError> {
        networks::remove(self.engine(), engine_name).await
    }
}
