//! A container engine on paper: the port that the core wants, over a list in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use jaco_core::cluster::node::Engine;
use jaco_core::id::ClusterId;
use jaco_core::manifest::spec::Resources;
use jaco_core::node::usage::Counters;
use jaco_core::ports::container_runtime::{
    ContainerRequest, ContainerStatus, HealthStatus, ObservedContainer, PullProgress, RuntimeEvents,
};
use jaco_core::ports::{ContainerRuntime, RuntimeError};

/// Every container of one machine, by id.
#[derive(Default)]
pub(crate) struct Paper {
    containers: Mutex<BTreeMap<String, ObservedContainer>>,
}

impl Paper {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, ObservedContainer>> {
        self.containers
            .lock()
            .expect("no holder of this lock panics")
    }
}

#[async_trait]
impl ContainerRuntime for Paper {
    async fn describe(&self) -> Result<Engine, RuntimeError> {
        Ok(Engine {
            version: "paper".to_owned(),
            api_version: "1.41".to_owned(),
            arch: "amd64".to_owned(),
            capacity: Resources {
                cpu_millis: 2_000,
                memory_bytes: 4 << 30,
            },
        })
    }

    async fn observe(&self, _cluster: &ClusterId) -> Result<Vec<ObservedContainer>, RuntimeError> {
        Ok(self.containers().values().cloned().collect())
    }

    async fn has_image(&self, _image: &str) -> Result<bool, RuntimeError> {
        Ok(true)
    }

    async fn pull(
        &self,
        _image: &str,
        _platform: Option<&str>,
        _progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Runs and is healthy from the first moment on.
    async fn start(&self, request: &ContainerRequest) -> Result<String, RuntimeError> {
        let label = |key: &str| request.labels.get(key).cloned().unwrap_or_default();
        let id = format!("paper-{}", request.name);
        let container = ObservedContainer {
            id: id.clone(),
            replica: request.name.clone(),
            spec_hash: label("jaco.spec_hash"),
            generation: label("jaco.generation").parse().unwrap_or_default(),
            status: ContainerStatus::Running,
            health: Some(HealthStatus::Healthy),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
        };
        self.containers().insert(id.clone(), container);
        Ok(id)
    }

    async fn usage(&self, _container_id: &str) -> Result<Counters, RuntimeError> {
        Ok(Counters {
            cpu_micros: 0,
            memory_bytes: 0,
        })
    }

    async fn remove(&self, container_id: &str) -> Result<(), RuntimeError> {
        self.containers().remove(container_id);
        Ok(())
    }

    /// Nothing changes on paper but by `start` and `remove`, whose caller knows.
    async fn watch(&self, _cluster: &ClusterId) -> Result<Box<dyn RuntimeEvents>, RuntimeError> {
        Ok(Box::new(Silence))
    }
}

struct Silence;

#[async_trait]
impl RuntimeEvents for Silence {
    async fn changed(&mut self) -> Result<(), RuntimeError> {
        std::future::pending().await
    }
}
