//! What a service asks of its host beyond what every container has (spec 10).
//!
//! One pure function from a manifest to its [`Demand`]s. Validation prints them, `apply` compares
//! them with the rights of its author, and the node asks again, with its own lists and with
//! symbolic links resolved, before it starts a container.
//!
//! Invariant (`tests/host_access.rs`): no known escape is without a demand, no harmless file has
//! one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::spec::{ContainerSpec, DeploymentSpec, Hook, MountSource, ServiceSpec, VolumeSpec};
use crate::id::DeploymentName;

/// How far a service reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Not beyond its containers.
    Baseline,
    /// Into its host: needs the right `host`.
    Host,
    /// All of its host: needs the label and the right `privileged`.
    Privileged,
}

impl Class {
    /// The lower snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Baseline => "baseline",
            Class::Host => "host",
            Class::Privileged => "privileged",
        }
    }
}

/// One key that reaches beyond the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// What it takes.
    pub class: Class,
    /// The compose key.
    pub key: String,
    /// What stands there.
    pub value: String,
}

/// What the nodes where a service may run let every workload have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Allowed {
    /// Host directories that may be mounted, with all below them.
    pub allow_binds: Vec<String>,
    /// Devices, by their path on the host.
    pub allow_devices: Vec<String>,
    /// Runtimes of the engine.
    pub allow_runtimes: Vec<String>,
}

impl Allowed {
    /// What both allow.
    pub fn and(&self, other: &Self) -> Self {
        let both = |ours: &[String], theirs: &[String]| {
            let shared = ours.iter().filter(|one| theirs.contains(one));
            shared.cloned().collect()
        };
        let below = |path: &&String, dirs: &[String]| dirs.iter().any(|dir| is_below(path, dir));
        let ours = self.allow_binds.iter();
        let ours = ours.filter(|path| below(path, &other.allow_binds));
        let theirs = other.allow_binds.iter();
        let theirs = theirs.filter(|path| below(path, &self.allow_binds));
        let mut allow_binds: Vec<String> = ours.chain(theirs).cloned().collect();
        allow_binds.sort();
        allow_binds.dedup();
        Self {
            allow_binds,
            allow_devices: both(&self.allow_devices, &other.allow_devices),
            allow_runtimes: both(&self.allow_runtimes, &other.allow_runtimes),
        }
    }
}

/// Paths that give the host, or the cluster, to whoever has them: the engine's socket, and what
/// JACO keeps.
pub const RESERVED_PATHS: [&str; 8] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd",
    "/var/run/containerd",
    "/etc/jaco",
    "/var/lib/jaco",
    "/run/jaco",
    "/var/run/jaco",
];

/// Docker's own set; `NET_RAW` is given only to who adds it.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The safe set of the baseline profile of Kubernetes' pod security standards.
const SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];

/// Log drivers that stay on the host and dial nobody.
const LOG_DRIVERS: [&str; 4] = ["json-file", "local", "none", "journald"];

/// Everything that a service asks of its host.
pub fn demands(spec: &DeploymentSpec, service: &ServiceSpec, allowed: &Allowed) -> Vec<Demand> {
    let mut demands = of_container(&service.container, allowed, &RESERVED_PATHS);
    for mount in &service.container.mounts {
        if let MountSource::Volume { key, .. } = &mount.source
            && let Some(volume) = spec.volumes.get(key)
        {
            demands.extend(of_volume(key, volume, &RESERVED_PATHS));
            demands.extend(of_owner(&spec.name, key, volume));
        }
    }
    demands
}

/// The furthest that demands reach.
pub fn class(demands: &[Demand]) -> Class {
    let classes = demands.iter().map(|demand| demand.class);
    classes.max().unwrap_or(Class::Baseline)
}

/// What a container asks for. `reserved` are the paths that only privilege reaches.
pub fn of_container(spec: &ContainerSpec, allowed: &Allowed, reserved: &[&str]) -> Vec<Demand> {
    let mut found = Vec::new();
    let mut demand = |class: Class, key: &str, value: &str| {
        found.push(Demand {
            class,
            key: key.to_owned(),
            value: value.to_owned(),
        });
    };
    if spec.privileged {
        demand(Class::Privileged, "privileged", "true");
    }
    for option in spec.security_opt.iter().filter(|text| !only_hardens(text)) {
        demand(Class::Privileged, "security_opt", option);
    }
    for (key, hooks) in [
        ("post_start", &spec.post_start),
        ("pre_stop", &spec.pre_stop),
    ] {
        if hooks.iter().any(|hook: &Hook| hook.privileged) {
            demand(Class::Privileged, key, "privileged");
        }
    }
    for mount in &spec.mounts {
        if let MountSource::Bind(bind) = &mount.source {
            let path = normal(&bind.path);
            if touches(&path, reserved) {
                demand(Class::Privileged, "volumes", &bind.path);
            } else if !allowed.allow_binds.iter().any(|dir| is_below(&path, dir)) {
                demand(Class::Host, "volumes", &bind.path);
            }
        }
    }
    for capability in spec.cap_add.iter().filter(|name| !is_baseline(name)) {
        demand(Class::Host, "cap_add", capability);
    }
    for device in &spec.devices {
        let path = normal(&device.host);
        if !allowed.allow_devices.iter().any(|one| normal(one) == path) {
            demand(Class::Host, "devices", &device.host);
        }
    }
    for (key, value) in [
        ("pid", &spec.pid),
        ("ipc", &spec.ipc),
        ("uts", &spec.uts),
        ("userns_mode", &spec.userns_mode),
        ("cgroup", &spec.cgroup),
    ] {
        // Another container by its name may be anybody's.
        let reaches = |value: &str| value == "host" || value.starts_with("container:");
        if let Some(value) = value.as_deref().filter(|value| reaches(value.trim())) {
            demand(Class::Host, key, value);
        }
    }
    if let Some(parent) = &spec.cgroup_parent {
        demand(Class::Host, "cgroup_parent", parent);
    }
    let runtime = spec.runtime.iter();
    for runtime in runtime.filter(|name| !allowed.allow_runtimes.contains(name)) {
        demand(Class::Host, "runtime", runtime);
    }
    for key in spec.annotations.keys() {
        demand(Class::Host, "annotations", key);
    }
    let driver = spec.logging.as_ref().and_then(|it| it.driver.as_deref());
    if let Some(driver) = driver.filter(|driver| !LOG_DRIVERS.contains(driver)) {
        demand(Class::Host, "logging", driver);
    }
    for sysctl in spec.sysctls.keys().filter(|name| !is_safe_sysctl(name)) {
        demand(Class::Host, "sysctls", sysctl);
    }
    found
}

/// What a named volume asks for, whoever it belongs to. Its options are those of a mount, so they
/// can bind or overlay what a bind may not.
pub fn of_volume(key: &str, volume: &VolumeSpec, reserved: &[&str]) -> Option<Demand> {
    let path = option_paths(volume).find(|path| touches(path, reserved));
    let (class, value) = if let Some(path) = path {
        (Class::Privileged, format!("{key}: driver_opts {path}"))
    } else if !volume.driver_opts.is_empty() {
        (Class::Host, format!("{key}: driver_opts"))
    } else {
        let driver = volume.driver.as_deref().filter(|name| *name != "local")?;
        (Class::Host, format!("{key}: driver {driver}"))
    };
    Some(Demand {
        class,
        key: "volumes".to_owned(),
        value,
    })
}

/// An external volume that is named like those of another deployment.
fn of_owner(deployment: &DeploymentName, key: &str, volume: &VolumeSpec) -> Option<Demand> {
    let owner = volume.engine_name.strip_prefix("jaco_")?.split_once('_')?.0;
    (volume.external && owner != deployment.as_str()).then(|| Demand {
        class: Class::Host,
        key: "volumes".to_owned(),
        value: format!("{key}: external {}", volume.engine_name),
    })
}

/// The absolute paths in a volume's options: `/a` of `device: /a` and of `o: lowerdir=/b:/a,ro`.
fn option_paths(volume: &VolumeSpec) -> impl Iterator<Item = &str> {
    let values = volume.driver_opts.values();
    let parts = values.flat_map(|value| value.split([',', '=', ':']));
    parts.map(str::trim).filter(|part| part.starts_with('/'))
}

/// Whether a path is, holds, or lies below one of those.
fn touches(path: &str, reserved: &[&str]) -> bool {
    let near = |reserved: &&str| is_below(path, reserved) || is_below(reserved, path);
    reserved.iter().any(near)
}

/// Takes rights away, and gives none.
fn only_hardens(option: &str) -> bool {
    matches!(
        option.trim(),
        "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true"
    )
}

fn is_baseline(capability: &str) -> bool {
    let name = capability.trim().to_ascii_uppercase();
    CAPABILITIES.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
}

/// The engine takes both spellings, and keys that the kernel writes with slashes.
fn is_safe_sysctl(name: &str) -> bool {
    SYSCTLS.contains(&name.trim().replace('/', ".").as_str())
}

/// A path without empty, `.` and `..` names. `..` of the root is the root, as for the kernel.
fn normal(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Whether a path is a directory or lies below it.
fn is_below(path: &str, directory: &str) -> bool {
    let (path, directory) = (normal(path), normal(directory));
    let rest = path.strip_prefix(directory.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What the node itself finds that its manifest asked for more than it was granted, with the
/// paths as they really are there, those in the options of its volumes among them. `resolve`
/// follows symbolic links.
///
/// # Errors
/// The demands that nobody granted.
pub fn may_start(
    (spec, volumes): (&ContainerSpec, &BTreeMap<String, VolumeSpec>),
    granted: Granted,
    allowed: &Allowed,
    reserved: &[&str],
    resolve: &dyn Fn(&str) -> String,
) -> Result<(), Vec<Demand>> {
    let mut real = spec.clone();
    for mount in &mut real.mounts {
        if let MountSource::Bind(bind) = &mut mount.source {
            // The engine drops `..` by the letter before it follows links, and so does this.
            bind.path = resolve(&normal(&bind.path));
        }
    }
    for device in &mut real.devices {
        device.host = resolve(&device.host);
    }
    let mut allowed = allowed.clone();
    for path in allowed
        .allow_binds
        .iter_mut()
        .chain(&mut allowed.allow_devices)
    {
        *path = resolve(path);
    }
    let reserved: Vec<String> = reserved.iter().map(|path| resolve(path)).collect();
    let reserved: Vec<&str> = reserved.iter().map(String::as_str).collect();
    let mut demands = of_container(&real, &allowed, &reserved);
    for (key, volume) in volumes {
        let mut real = volume.clone();
        let paths = option_paths(volume).map(resolve).enumerate();
        // Beside the options as they stand, so that neither spelling is missed.
        real.driver_opts
            .extend(paths.map(|(number, path)| (format!("resolved {number}"), path)));
        demands.extend(of_volume(key, &real, &reserved));
    }
    demands.retain(|demand| match demand.class {
        Class::Baseline => false,
        Class::Host => !granted.host,
        Class::Privileged => !granted.privileged,
    });
    if demands.is_empty() {
        Ok(())
    } else {
        Err(demands)
    }
}

/// The rights with which a revision was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Granted {
    pub host: bool,
    pub privileged: bool,
}

impl Default for Granted {
    /// Of revisions of versions that noted none: they were let in by the rules of their time.
    fn default() -> Self {
        Self {
            host: true,
            privileged: true,
        }
    }
}
