//! What a deployment asks for, after parsing, interpolation and resolution (spec 02).
//!
//! These types are the contract between manifests and everything else: the scheduler, the
//! node derivations and the adapters read them and never see YAML. All maps iterate in key
//! order, so that equal meaning gives equal JSON and an equal [`SpecHash`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{DeploymentName, Domain, NetworkName, NodeName, ServiceName, SpecHash};

/// A whole deployment: `jaco.yaml` and compose, merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DeploymentSpec {
    pub name: DeploymentName,
    /// False for `acme: off`.
    pub acme: bool,
    pub acme_email: Option<String>,
    /// In file order; matching order is by longest path.
    pub routes: Vec<RouteSpec>,
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    /// The networks that some service uses, `_default` included when used.
    pub networks: BTreeMap<NetworkName, NetworkSpec>,
    /// The named volumes that some service uses, by compose key.
    pub volumes: BTreeMap<String, VolumeSpec>,
    /// Contents of secrets, configs and small read-only bind sources, by their content hash
    /// (hex SHA-256). Never printed.
    pub contents: BTreeMap<String, Content>,
}

impl DeploymentSpec {
    /// The services that need a token with `allows_privileged`, in name order.
    pub fn privileged_services(&self) -> Vec<ServiceName> {
        let services = self.services.iter();
        let privileged = |service: &ServiceSpec| service.container.privileged_key(&self.volumes);
        let privileged = services.filter(|(_, service)| privileged(service).is_some());
        privileged.map(|(name, _)| name.clone()).collect()
    }
}

/// One public route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RouteSpec {
    pub domain: Domain,
    pub service: ServiceName,
    /// Container port.
    pub port: u16,
    pub tls: bool,
    /// Empty for the catch-all, else starts with `/` and does not end with one.
    pub path: String,
    pub strip_path: bool,
}

/// One service: what its containers are, and how many run where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ServiceSpec {
    pub kind: ServiceKind,
    /// Ignored for [`Placement::Global`].
    pub replicas: u32,
    pub placement: Placement,
    pub constraints: Vec<Constraint>,
    pub max_replicas_per_node: Option<u32>,
    /// What placement reserves on a node.
    pub reservations: Resources,
    pub container: ContainerSpec,
    pub network_mode: NetworkMode,
    /// Attached networks; empty unless `network_mode` is [`NetworkMode::Networks`].
    pub networks: BTreeMap<NetworkName, NetworkAttachment>,
    /// Host ports opened on every node.
    pub ports: Vec<PublishedPort>,
    pub depends_on: BTreeMap<ServiceName, Dependency>,
    pub update: UpdateConfig,
    pub rollback: UpdateConfig,
    pub restart: RestartPolicy,
    pub pull_policy: PullPolicy,
    pub spec_hash: SpecHash,
}

impl ServiceSpec {
    /// A named volume or a bind mount ties a replica to its node for life (spec 05).
    pub fn is_stateful(&self) -> bool {
        self.container.mounts.iter().any(|mount| {
            matches!(
                mount.source,
                MountSource::Volume { .. } | MountSource::Bind(_)
            )
        })
    }
}

/// Whether a service's replicas run for ever or to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ServiceKind {
    Service,
    Job,
}

/// Where replicas may go (spec 05, Placement).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Placement {
    Spread,
    Pack,
    Hosts(Vec<NodeName>),
    Global,
}

/// One `deploy.placement.constraints` entry, or the `platform` of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Constraint {
    pub attribute: Attribute,
    /// True for `==`, false for `!=`.
    pub equal: bool,
    pub value: String,
}

/// What a constraint looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// `node.hostname`.
    Hostname,
    /// `node.labels.<key>`.
    Label(String),
    /// `node.platform.arch`, as the engine says it: `amd64`, `arm64`, …
    Arch,
}

/// CPU in thousandths of a core, memory in bytes; zero means none declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Resources {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

/// What a replica is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The networks of the service.
    Networks,
    /// No network at all.
    None,
    /// The network namespace of a replica of that service on the same node.
    Service(ServiceName),
}

/// How a service sits on one of its networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NetworkAttachment {
    pub aliases: Vec<String>,
}

/// A declared network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NetworkSpec {
    pub internal: bool,
    pub labels: BTreeMap<String, String>,
}

/// A named volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VolumeSpec {
    /// The engine's name for it: `jaco_<deployment>_<key>`, or `name:` verbatim.
    pub engine_name: String,
    /// Must exist already; never created.
    pub external: bool,
    pub driver: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// Bytes that travel with a deployment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Hex, so that JSON stays compact enough and canonical.
    #[serde(with = "hex_bytes")]
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A host port that every node opens and forwards to the service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PublishedPort {
    pub host: u16,
    pub container: u16,
    pub protocol: Protocol,
    /// `x-jaco-proxy-protocol: v2` on the port.
    pub proxy_protocol: bool,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// One `depends_on` entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Dependency {
    pub condition: Condition,
    /// False for `required: false`: a missing service does not hold this one back.
    pub required: bool,
}

/// When a dependency counts as met (spec 02).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Condition {
    ServiceStarted,
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

/// `update_config` or `rollback_config` (spec 05, Rolling updates).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct UpdateConfig {
    pub parallelism: u32,
    pub delay: Duration,
    pub monitor: Duration,
    /// Absent: start-first without volumes and conflicting host resources, else stop-first.
    pub order: Option<UpdateOrder>,
    pub failure_action: FailureAction,
    /// In thousandths, so that the type stays `Eq`.
    pub max_failure_ratio_millis: u32,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            monitor: Duration::from_secs(5),
            order: None,
            failure_action: FailureAction::Rollback,
            max_failure_ratio_millis: 0,
        }
    }
}

/// Which of old and new goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum UpdateOrder {
    StartFirst,
    StopFirst,
}

/// What a failed rollout does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum FailureAction {
    Pause,
    Continue,
    Rollback,
}

/// `deploy.restart_policy`; services are always restarted, jobs up to `max_attempts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RestartPolicy {
    pub max_attempts: u32,
    pub delay: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            delay: Duration::ZERO,
        }
    }
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum PullPolicy {
    Always,
    #[default]
    Missing,
    Never,
}

pub use super::container_spec::*;

/// Bytes as lower-case hex text.
pub(crate) mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&crate::manifest::hash::hex(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        crate::manifest::hash::unhex(&text).ok_or_else(|| de::Error::custom("not hex"))
    }
}
