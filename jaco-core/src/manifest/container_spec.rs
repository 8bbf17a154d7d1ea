//! What one container is: everything here changes the container, so all of it is hashed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::host_access::{Allowed, Class, Demand, RESERVED_PATHS, of_container, of_volume};
use super::spec::VolumeSpec;

/// The container half of a service. Absent means: the engine's or the image's default.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ContainerSpec {
    pub image: String,
    pub command: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    /// Values after interpolation and env files. Redacted in every output.
    pub environment: BTreeMap<String, String>,
    /// In target order.
    pub mounts: Vec<Mount>,
    pub healthcheck: Option<Healthcheck>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub working_dir: Option<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub privileged: bool,
    pub security_opt: Vec<String>,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub read_only: bool,
    pub logging: Option<Logging>,
    pub stop_signal: Option<String>,
    pub stop_grace_period: Option<Duration>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// `host:address` as the engine takes it.
    pub extra_hosts: Vec<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_opt: Vec<String>,
    pub init: Option<bool>,
    /// Bytes.
    pub shm_size: Option<u64>,
    pub ipc: Option<String>,
    pub pid: Option<String>,
    pub uts: Option<String>,
    pub userns_mode: Option<String>,
    pub cgroup: Option<String>,
    pub cgroup_parent: Option<String>,
    pub devices: Vec<Device>,
    pub gpus: Vec<GpuRequest>,
    pub limits: Limits,
    /// `os/arch[/variant]`.
    pub platform: Option<String>,
    pub runtime: Option<String>,
    pub stdin_open: bool,
    pub tty: bool,
    pub post_start: Vec<Hook>,
    pub pre_stop: Vec<Hook>,
}

impl ContainerSpec {
    /// The compose key by which this container asks for privileges, if it does (spec 10).
    pub fn privileged_key(&self, volumes: &BTreeMap<String, VolumeSpec>) -> Option<String> {
        let mut demands = of_container(self, &Allowed::default(), &RESERVED_PATHS);
        for mount in &self.mounts {
            if let MountSource::Volume { key, .. } = &mount.source
                && let Some(volume) = volumes.get(key)
            {
                demands.extend(of_volume(key, volume, &RESERVED_PATHS));
            }
        }
        let privileged = |demand: &Demand| demand.class == Class::Privileged;
        demands
            .into_iter()
            .find(privileged)
            .map(|demand| demand.key)
    }
}

/// Environment values may be secrets, and so may what is made of them.
impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSpec")
            .field("image", &self.image)
            .field("mounts", &self.mounts)
            .finish_non_exhaustive()
    }
}

/// What the engine enforces on a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Limits {
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub memory_reservation_bytes: Option<u64>,
    pub pids: Option<i64>,
    pub cpu_shares: Option<u64>,
    pub cpuset: Option<String>,
}

/// Something visible under a path of the container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    pub source: MountSource,
    pub read_only: bool,
}

/// Where a mount's content comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A named volume, by its compose key.
    #[allow(missing_docs)]
    Volume {
        key: String,
        nocopy: bool,
        subpath: Option<String>,
    },
    /// A volume without a name, made with the container and removed with it.
    Anonymous,
    /// A host path.
    Bind(BindSource),
    /// Memory.
    #[allow(missing_docs)]
    Tmpfs {
        size_bytes: Option<u64>,
        mode: Option<u32>,
        options: Option<String>,
    },
    /// A secret, a config, or a small read-only tree that travels with the deployment; one or
    /// more files, on a tmpfs of the node.
    Files(FileTree),
}

/// A bind mount of an absolute host path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BindSource {
    pub path: String,
    pub create_host_path: bool,
    pub propagation: Option<String>,
    /// `z` or `Z`.
    pub selinux: Option<String>,
}

/// Files to lay under a mount's target. A single file with an empty path is the target itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FileTree {
    pub kind: FileKind,
    pub files: Vec<FileEntry>,
}

/// What a file tree is, which decides how it is shown and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum FileKind {
    Secret,
    Config,
    Bind,
}

/// One file of a [`FileTree`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FileEntry {
    /// Relative to the mount's target; empty when the target is the file.
    pub path: String,
    /// Key into `DeploymentSpec::contents`: hex SHA-256 of the bytes.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A health check that the engine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Healthcheck {
    /// `disable: true` or `test: NONE`: also switches off a check of the image.
    Disabled,
    /// A check; absent parts come from the image or the engine.
    #[allow(missing_docs)]
    Test {
        /// `["CMD", …]` or `["CMD-SHELL", text]`; empty inherits the image's.
        test: Vec<String>,
        interval: Option<Duration>,
        timeout: Option<Duration>,
        start_period: Option<Duration>,
        retries: Option<u32>,
    },
}

/// A soft and a hard limit; -1 is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

/// A log driver and its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Logging {
    pub driver: Option<String>,
    pub options: BTreeMap<String, String>,
}

/// A device node passed through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Device {
    pub host: String,
    pub container: String,
    /// Of `rwm`.
    pub permissions: String,
}

/// A request for accelerators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct GpuRequest {
    pub driver: Option<String>,
    /// -1 is all.
    pub count: Option<i64>,
    pub device_ids: Vec<String>,
    pub capabilities: Vec<String>,
    pub options: BTreeMap<String, String>,
}

/// A command run in the container after its start or before its stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Hook {
    pub command: Vec<String>,
    pub user: Option<String>,
    pub privileged: bool,
    pub working_dir: Option<String>,
    pub environment: BTreeMap<String, String>,
}
