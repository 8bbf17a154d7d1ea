//! A container request in the engine's words.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointIpamConfig, EndpointSettings,
    HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, NetworkingConfig,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use jaco_core::manifest::spec::{
    ContainerSpec, Device, GpuRequest, Healthcheck, Limits, Logging, Ulimit,
};
use jaco_core::ports::RuntimeError;
use jaco_core::ports::container_runtime::{ContainerNetwork, ContainerRequest, Endpoint};

use super::mounts::Mounts;

/// The body of a create call. Only the first endpoint is in it, since API 1.41 takes one; the
/// others are connected before the start.
pub(super) fn create_body(
    request: &ContainerRequest,
    mounts: Mounts,
) -> Result<ContainerCreateBody, RuntimeError> {
    let spec = &request.spec;
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: spec.command.clone(),
        entrypoint: spec.entrypoint.clone(),
        env: Some(environment(&spec.environment)),
        labels: Some(map(&request.labels)),
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        user: spec.user.clone(),
        working_dir: spec.working_dir.clone(),
        tty: Some(spec.tty),
        open_stdin: Some(spec.stdin_open),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_grace_period.map(whole_seconds),
        host_config: Some(host_config(request, mounts)?),
        networking_config: networking(&request.network),
        ..Default::default()
    })
}

fn host_config(request: &ContainerRequest, mounts: Mounts) -> Result<HostConfig, RuntimeError> {
    let spec = &request.spec;
    let config = HostConfig {
        mounts: some(mounts.strict),
        binds: some(mounts.binds),
        tmpfs: Some(mounts.tmpfs).filter(|tmpfs| !tmpfs.is_empty()),
        network_mode: Some(network_mode(&request.network)),
        restart_policy: Some(never_restart()),
        annotations: Some(map(&spec.annotations)).filter(|all| !all.is_empty()),
        log_config: spec.logging.as_ref().map(logging),
        extra_hosts: some(spec.extra_hosts.clone()),
        dns: some(spec.dns.clone()),
        dns_search: some(spec.dns_search.clone()),
        dns_options: some(spec.dns_opt.clone()),
        init: spec.init,
        runtime: spec.runtime.clone(),
        ..Default::default()
    };
    let config = with_namespaces(config, spec)?;
    Ok(with_limits(with_privileges(config, spec), &spec.limits))
}

fn with_privileges(config: HostConfig, spec: &ContainerSpec) -> HostConfig {
    HostConfig {
        cap_add: some(spec.cap_add.clone()),
        cap_drop: some(spec.cap_drop.clone()),
        group_add: some(spec.group_add.clone()),
        privileged: Some(spec.privileged),
        security_opt: some(spec.security_opt.clone()),
        readonly_rootfs: Some(spec.read_only),
        sysctls: Some(map(&spec.sysctls)).filter(|all| !all.is_empty()),
        ulimits: some(spec.ulimits.iter().map(ulimit).collect()),
        devices: some(spec.devices.iter().map(device).collect()),
        device_requests: some(spec.gpus.iter().map(gpu).collect()),
        ..config
    }
}

fn with_namespaces(config: HostConfig, spec: &ContainerSpec) -> Result<HostConfig, RuntimeError> {
    Ok(HostConfig {
        ipc_mode: spec.ipc.clone(),
        pid_mode: spec.pid.clone(),
        uts_mode: spec.uts.clone(),
        userns_mode: spec.userns_mode.clone(),
        cgroupns_mode: spec.cgroup.as_deref().map(cgroup_mode).transpose()?,
        cgroup_parent: spec.cgroup_parent.clone(),
        shm_size: spec.shm_size.map(signed),
        ..config
    })
}

fn with_limits(config: HostConfig, limits: &Limits) -> HostConfig {
    HostConfig {
        nano_cpus: limits
            .cpu_millis
            .map(|millis| signed(millis.saturating_mul(1_000_000))),
        memory: limits.memory_bytes.map(signed),
        memory_reservation: limits.memory_reservation_bytes.map(signed),
        pids_limit: limits.pids,
        cpu_shares: limits.cpu_shares.map(signed),
        cpuset_cpus: limits.cpuset.clone(),
        ..config
    }
}

/// The scheduler decides what is restarted.
fn never_restart() -> RestartPolicy {
    RestartPolicy {
        name: Some(RestartPolicyNameEnum::NO),
        maximum_retry_count: None,
    }
}

fn network_mode(network: &ContainerNetwork) -> String {
    match network {
        ContainerNetwork::Endpoints(endpoints) => endpoints
            .first()
            .map_or_else(|| "none".to_owned(), |first| first.network.clone()),
        ContainerNetwork::None => "none".to_owned(),
        ContainerNetwork::SharedWith(other) => format!("container:{other}"),
    }
}

fn networking(network: &ContainerNetwork) -> Option<NetworkingConfig> {
    let ContainerNetwork::Endpoints(endpoints) = network else {
        return None;
    };
    let first = endpoints.first()?;
    let endpoints = HashMap::from([(first.network.clone(), endpoint(first))]);
    Some(NetworkingConfig {
        endpoints_config: Some(endpoints),
    })
}

/// One attachment with its fixed address.
pub(super) fn endpoint(endpoint: &Endpoint) -> EndpointSettings {
    EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(endpoint.address.to_string()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    match check {
        Healthcheck::Disabled => HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..Default::default()
        },
        Healthcheck::Test {
            test,
            interval,
            timeout,
            start_period,
            retries,
        } => HealthConfig {
            test: Some(test.clone()),
            interval: interval.map(nanoseconds),
            timeout: timeout.map(nanoseconds),
            start_period: start_period.map(nanoseconds),
            retries: retries.map(i64::from),
            start_interval: None,
        },
    }
}

fn logging(logging: &Logging) -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: logging.driver.clone(),
        config: Some(map(&logging.options)),
    }
}

fn ulimit((name, limit): (&String, &Ulimit)) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    }
}

fn device(device: &Device) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(device.host.clone()),
        path_in_container: Some(device.container.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    }
}

fn gpu(request: &GpuRequest) -> DeviceRequest {
    // Neither a count nor ids is compose's "all"; the engine would take it as none.
    let all = request.device_ids.is_empty().then_some(-1);
    DeviceRequest {
        driver: request.driver.clone(),
        count: request.count.or(all),
        device_ids: some(request.device_ids.clone()),
        capabilities: Some(vec![if request.capabilities.is_empty() {
            vec!["gpu".to_owned()]
        } else {
            request.capabilities.clone()
        }]),
        options: Some(map(&request.options)),
    }
}

fn cgroup_mode(text: &str) -> Result<HostConfigCgroupnsModeEnum, RuntimeError> {
    text.parse()
        .map_err(|_| RuntimeError::Refused(format!("unknown cgroup mode {text:?}")))
}

/// Variables as the engine takes them.
pub(super) fn environment(variables: &BTreeMap<String, String>) -> Vec<String> {
    let pairs = variables.iter();
    pairs.map(|(key, value)| format!("{key}={value}")).collect()
}

/// The engine's library wants hash maps.
pub(super) fn map(ordered: &BTreeMap<String, String>) -> HashMap<String, String> {
    ordered.clone().into_iter().collect()
}

/// Nothing rather than an empty list: the engine treats some empty lists as a wish.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Rounded up, so that a grace period is never cut short.
fn whole_seconds(duration: Duration) -> i64 {
    signed(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests;
