//! The keys of a service that make up its container.

use std::collections::BTreeMap;

use super::deploy::Deploy;
use super::{Declared, Placed, health, mounts, parts, words};
use crate::manifest::read::{
    Fields, View, boolean, bytes, choice, count, duration, integer, key_values, list, map, mode,
    non_empty, string, strings, thousandths,
};
use crate::manifest::spec::{ContainerSpec, Hook, Limits, VolumeSpec};

/// The label that lets a service ask for privileges; its value must be exactly `true`.
pub(crate) const ALLOW_PRIVILEGED: &str = "jaco.io/allow-privileged";

/// Takes every container key of a service.
pub(super) fn container(
    service: &str,
    fields: &mut Fields<'_>,
    declared: &Declared<'_>,
    deploy: &Deploy,
) -> ContainerSpec {
    let mounts = mounts::mounts(service, fields, declared);
    let mut gpus = fields.take_or_default("gpus", parts::gpus);
    gpus.extend(deploy.devices.iter().cloned());
    ContainerSpec {
        image: image(service, fields),
        command: fields.take("command", words::command),
        entrypoint: fields.take("entrypoint", words::command),
        environment: fields.take_or_default("environment", key_values),
        mounts,
        healthcheck: fields.take("healthcheck", health::healthcheck),
        labels: fields.take_or_default("labels", key_values),
        annotations: fields.take_or_default("annotations", key_values),
        user: fields.take("user", string),
        group_add: fields.take_or_default("group_add", list(string)),
        working_dir: fields.take("working_dir", string),
        cap_add: fields.take_or_default("cap_add", list(string)),
        cap_drop: fields.take_or_default("cap_drop", list(string)),
        privileged: fields.take_or_default("privileged", boolean),
        security_opt: fields.take_or_default("security_opt", list(string)),
        sysctls: fields.take_or_default("sysctls", key_values),
        ulimits: fields.take_or_default("ulimits", map(parts::ulimit)),
        read_only: fields.take_or_default("read_only", boolean),
        logging: fields.take("logging", parts::logging),
        stop_signal: fields.take("stop_signal", string),
        stop_grace_period: fields.take("stop_grace_period", duration),
        hostname: fields.take("hostname", string),
        domainname: fields.take("domainname", string),
        extra_hosts: fields.take_or_default("extra_hosts", parts::extra_hosts),
        dns: fields.take_or_default("dns", strings),
        dns_search: fields.take_or_default("dns_search", strings),
        dns_opt: fields.take_or_default("dns_opt", strings),
        init: fields.take("init", boolean),
        shm_size: fields.take("shm_size", bytes),
        ipc: fields.take(
            "ipc",
            parts::namespace(&["none", "private", "shareable", "host"]),
        ),
        pid: fields.take("pid", parts::namespace(&["host"])),
        uts: fields.take("uts", parts::namespace(&["host"])),
        userns_mode: fields.take("userns_mode", string),
        cgroup: fields
            .take(
                "cgroup",
                choice(&[("host", "host"), ("private", "private")]),
            )
            .map(str::to_owned),
        cgroup_parent: fields.take("cgroup_parent", string),
        devices: fields.take_or_default("devices", list(parts::device)),
        gpus,
        limits: limits(fields, deploy),
        platform: fields.take("platform", parts::platform),
        runtime: fields.take("runtime", string),
        stdin_open: fields.take_or_default("stdin_open", boolean),
        tty: fields.take_or_default("tty", boolean),
        post_start: fields.take_or_default("post_start", list(hook)),
        pre_stop: fields.take_or_default("pre_stop", list(hook)),
    }
}

fn image(service: &str, fields: &mut Fields<'_>) -> String {
    let image = fields.take("image", |view| Some(non_empty(view).unwrap_or_default()));
    image.unwrap_or_else(|| {
        let message = format!("service {service:?} has no image; JACO never builds, so name one");
        let at = fields.view.at();
        fields
            .view
            .findings
            .invalid(at, format!("services.{service}.image"), message);
        String::new()
    })
}

/// `deploy.resources` wins over the legacy keys, each on its own.
fn limits(fields: &mut Fields<'_>, deploy: &Deploy) -> Limits {
    let cpus = fields.take("cpus", thousandths);
    let memory = fields.take("mem_limit", bytes);
    let reservation = fields.take("mem_reservation", bytes);
    let pids = fields.take("pids_limit", integer(-1, i64::MAX));
    Limits {
        cpu_millis: deploy.limits.cpu_millis.or(cpus),
        memory_bytes: deploy.limits.memory_bytes.or(memory),
        memory_reservation_bytes: deploy.reservations.memory_bytes.or(reservation),
        pids: deploy.limits.pids.or(pids),
        cpu_shares: fields.take("cpu_shares", count).map(u64::from),
        cpuset: fields.take("cpuset", string),
    }
}

fn hook(view: View<'_>) -> Option<Hook> {
    let mut fields = view.fields()?;
    let hook = Hook {
        command: fields
            .require("command", words::command)
            .unwrap_or_default(),
        user: fields.take("user", string),
        privileged: fields.take_or_default("privileged", boolean),
        working_dir: fields.take("working_dir", string),
        environment: fields.take_or_default("environment", key_values),
    };
    fields.close();
    Some(hook)
}

/// Where a service asks for privileges without the label that it needs for them. `jaco.yaml` may
/// still stand in for the label; the other half of the gate is a right of the caller (spec 10).
pub(super) fn unlabelled_privilege(
    service: &str,
    fields: &Fields<'_>,
    container: &ContainerSpec,
    volumes: &BTreeMap<String, VolumeSpec>,
) -> Option<Placed<()>> {
    let label = container.labels.get(ALLOW_PRIVILEGED);
    let key = container.privileged_key(volumes)?;
    let is_labelled = label.is_some_and(|value| value == "true");
    (!is_labelled).then(|| Placed {
        path: format!("services.{service}.{key}"),
        at: fields.at(&key),
        value: (),
        name: key,
    })
}

/// Permission bits of a mounted file, or those every secret has.
pub(super) fn file_mode(fields: &mut Fields<'_>) -> u32 {
    fields.take("mode", mode).unwrap_or(0o444)
}
