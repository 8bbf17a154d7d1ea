//! The engine that runs containers on this node (spec 06).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use async_trait::async_trait;

use crate::cluster::node::Engine;
use crate::error::ErrorCode;
use crate::id::{ClusterId, ReplicaId};
use crate::manifest::host_access::Granted;
use crate::manifest::spec::{ContainerSpec, Content, VolumeSpec};
use crate::node::usage::Counters;
use crate::time::Timestamp;

/// Starts, lists and removes containers. Only those that carry the cluster's label are seen or
/// touched. Every call may be repeated; a cancelled call may have happened.
#[async_trait]
pub trait ContainerRuntime: Send + Sync + 'static {
    /// What the engine is and has.
    async fn describe(&self) -> Result<Engine, RuntimeError>;

    /// Every container of the cluster on this node, in any state.
    async fn observe(&self, cluster: &ClusterId) -> Result<Vec<ObservedContainer>, RuntimeError>;

    /// True when the engine has the image.
    async fn has_image(&self, image: &str) -> Result<bool, RuntimeError>;

    /// Fetches an image, telling its progress.
    async fn pull(
        &self,
        image: &str,
        platform: Option<&str>,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<(), RuntimeError>;

    /// Creates a container with its volumes and files, and starts it. When it fails after
    /// creation the container stays, for the next observation. Returns the engine's id.
    async fn start(&self, request: &ContainerRequest) -> Result<String, RuntimeError>;

    /// What a running container has spent and holds.
    async fn usage(&self, container_id: &str) -> Result<Counters, RuntimeError>;

    /// Stops a container with its own signal and grace period, and removes it. One that is gone
    /// already is no error.
    async fn remove(&self, container_id: &str) -> Result<(), RuntimeError>;

    /// Subscribes to changes of the cluster's containers; set up before it returns.
    async fn watch(&self, cluster: &ClusterId) -> Result<Box<dyn RuntimeEvents>, RuntimeError>;
}

/// A subscription to engine events.
#[async_trait]
pub trait RuntimeEvents: Send {
    /// Waits for the next change. `Err` when the stream broke: subscribe and list again.
    async fn changed(&mut self) -> Result<(), RuntimeError>;
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PullProgress {
    pub layers_done: u32,
    pub layers: u32,
    pub bytes_done: u64,
    pub bytes: u64,
}

/// Everything that one container is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRequest {
    /// The container's name.
    pub name: ReplicaId,
    /// Compose labels merged with JACO's.
    pub labels: BTreeMap<String, String>,
    /// What it is.
    pub spec: ContainerSpec,
    /// The rights that it was let in with.
    pub granted: Granted,
    /// What it is attached to.
    pub network: ContainerNetwork,
    /// Named volumes by compose key, with JACO's labels. Made when missing, unless external.
    pub volumes: BTreeMap<String, VolumeSpec>,
    /// Contents of the spec's file trees by content hash.
    pub contents: BTreeMap<String, Content>,
}

/// How a container is networked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerNetwork {
    /// Attached to engine networks, in this order.
    Endpoints(Vec<Endpoint>),
    /// Loopback only.
    None,
    /// The namespace of another container, by its engine id or name.
    SharedWith(String),
}

/// One attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The engine network's name.
    pub network: String,
    /// The container's fixed address on it.
    pub address: Ipv4Addr,
}

/// A container as the engine shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ObservedContainer {
    pub id: String,
    /// From its labels; a container with missing or odd labels has empty ones and is removed.
    pub replica: ReplicaId,
    pub spec_hash: String,
    pub generation: u64,
    pub status: ContainerStatus,
    pub health: Option<HealthStatus>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Meaningful when exited.
    pub exit_code: i64,
    pub oom_killed: bool,
    /// The engine's own complaint, e.g. why a start failed.
    pub error: String,
}

/// The engine's word for what a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ContainerStatus {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

/// What a container's health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

/// Why the engine did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The engine does not answer.
    #[error("the engine does not answer: {0}")]
    Unreachable(String),
    /// The image could not be fetched.
    #[error("{0}")]
    Pull(String),
    /// An external volume does not exist.
    #[error("external volume \"{0}\" does not exist on this node")]
    ExternalVolumeMissing(String),
    /// It asks its host for more than it was granted.
    #[error("{0}")]
    Denied(String),
    /// A volume of that name belongs to something else.
    #[error("volume \"{0}\" exists and was not made for this deployment")]
    VolumeNotOwned(String),
    /// Anything else that the engine refused, in its words.
    #[error("{0}")]
    Refused(String),
}

impl RuntimeError {
    /// Its code in the closed set; an unreachable engine is a node state, shown as
    /// `docker_error` on a replica.
    pub fn code(&self) -> ErrorCode {
        match self {
            RuntimeError::Unreachable(_) | RuntimeError::Refused(_) => ErrorCode::DockerError,
            RuntimeError::Pull(_) => ErrorCode::ImagePullFailed,
            RuntimeError::ExternalVolumeMissing(_) => ErrorCode::ExternalVolumeMissing,
            RuntimeError::Denied(_) => ErrorCode::PermissionDenied,
            RuntimeError::VolumeNotOwned(_) => ErrorCode::VolumeNotOwned,
        }
    }
}
