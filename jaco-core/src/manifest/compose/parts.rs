//! The structured values of container keys: limits, logging, devices, hosts, platform.

use crate::manifest::read::{Fields, View, integer, key_values, list, non_empty, string, strings};
use crate::manifest::spec::{Device, GpuRequest, Logging, Ulimit};
use crate::manifest::yaml::Value;

/// One limit for both, or a soft and a hard one; -1 is unlimited.
pub(super) fn ulimit(view: View<'_>) -> Option<Ulimit> {
    let limit = integer(-1, i64::MAX);
    if view.node.as_mapping().is_none() {
        let both = limit(view)?;
        return Some(Ulimit {
            soft: both,
            hard: both,
        });
    }
    let mut fields = view.fields()?;
    let soft = fields.require("soft", &limit);
    let hard = fields.require("hard", &limit);
    fields.close();
    Some(Ulimit {
        soft: soft?,
        hard: hard?,
    })
}

pub(super) fn logging(view: View<'_>) -> Option<Logging> {
    let mut fields = view.fields()?;
    let logging = Logging {
        driver: fields.take("driver", string),
        options: fields.take_or_default("options", key_values),
    };
    fields.close();
    Some(logging)
}

/// `HOST[:CONTAINER[:PERMISSIONS]]`, a CDI name, or the long form.
pub(super) fn device(view: View<'_>) -> Option<Device> {
    const READ_WRITE_MKNOD: &str = "rwm";
    if view.node.as_mapping().is_some() {
        let mut fields = view.fields()?;
        let host = fields.require("source", non_empty);
        let container = fields.take("target", string).or_else(|| host.clone());
        let permissions = fields.take("permissions", string);
        fields.close();
        return Some(Device {
            host: host?,
            container: container?,
            permissions: permissions.unwrap_or_else(|| READ_WRITE_MKNOD.to_owned()),
        });
    }
    let text = non_empty(view)?;
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default();
    Some(Device {
        host: host.to_owned(),
        container: parts.next().unwrap_or(host).to_owned(),
        permissions: parts.next().unwrap_or(READ_WRITE_MKNOD).to_owned(),
    })
}

/// `all`, or a list of requests.
pub(super) fn gpus(view: View<'_>) -> Option<Vec<GpuRequest>> {
    match &view.node.value {
        Value::Scalar(scalar) if scalar.text == "all" => Some(vec![GpuRequest {
            driver: None,
            count: Some(-1),
            device_ids: Vec::new(),
            capabilities: vec!["gpu".to_owned()],
            options: std::collections::BTreeMap::new(),
        }]),
        Value::Scalar(_) => view.expected("`all` or a list"),
        _ => list(|item| {
            let mut request = gpu(item)?;
            if request.capabilities.is_empty() {
                request.capabilities.push("gpu".to_owned());
            }
            Some(request)
        })(view),
    }
}

/// One request, of `gpus` or of `deploy.resources.reservations.devices`.
pub(super) fn gpu(view: View<'_>) -> Option<GpuRequest> {
    let mut fields = view.fields()?;
    let mut request = GpuRequest {
        driver: fields.take("driver", string),
        count: fields.take("count", gpu_count),
        device_ids: fields.take_or_default("device_ids", list(string)),
        capabilities: fields.take_or_default("capabilities", list(string)),
        options: fields.take_or_default("options", key_values),
    };
    fields.close();
    if request.count.is_some() && !request.device_ids.is_empty() {
        return view.invalid(format!("{} sets both count and device_ids", view.name()));
    }
    if request.count.is_none() && request.device_ids.is_empty() {
        request.count = Some(-1);
    }
    Some(request)
}

fn gpu_count(view: View<'_>) -> Option<i64> {
    match view.node.as_text() {
        Some("all") => Some(-1),
        _ => integer(-1, i64::from(u32::MAX))(view),
    }
}

/// `host:address` and `host=address` entries, or a mapping; in host order, so that each
/// spelling gives the same.
pub(super) fn extra_hosts(view: View<'_>) -> Option<Vec<String>> {
    let mut hosts: Vec<(String, String)> = Vec::new();
    if view.node.as_mapping().is_some() {
        view.each_entry(|host, _, value| {
            for address in strings(value).unwrap_or_default() {
                hosts.push((host.to_owned(), address));
            }
        })?;
    } else {
        view.each_item(|item| {
            let Some(text) = string(item) else { return };
            match text.split_once('=').or_else(|| text.split_once(':')) {
                Some((host, address)) => hosts.push((host.to_owned(), address.to_owned())),
                None => drop(item.expected::<()>("HOST:ADDRESS")),
            }
        })?;
    }
    hosts.sort_by(|a, b| a.0.cmp(&b.0));
    let unbracketed = |address: &str| {
        let inner = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        inner.unwrap_or(address).to_owned()
    };
    let joined = hosts
        .iter()
        .map(|(host, address)| format!("{host}:{}", unbracketed(address)));
    Some(joined.collect())
}

/// A namespace mode. Those of another container are out: which one would be chance.
pub(super) fn namespace(known: &'static [&'static str]) -> impl Fn(View<'_>) -> Option<String> {
    move |view| {
        let text = string(view)?;
        match known.contains(&&*text) {
            true => Some(text),
            false => view.expected(&format!("one of {}", known.join(", "))),
        }
    }
}

/// `os/arch[/variant]`; the architecture by the engine's name for it.
pub(super) fn platform(view: View<'_>) -> Option<String> {
    let text = string(view)?;
    let mut parts = text.split('/');
    let valid = parts.next() == Some("linux")
        && parts.next().is_some_and(|arch| !arch.is_empty())
        && parts.count() <= 1;
    if !valid {
        return view.invalid(format!(
            "platform {text:?} must be linux/<arch>[/<variant>]"
        ));
    }
    Some(text)
}

/// The engine's name of an architecture.
pub(super) fn architecture(text: &str) -> String {
    match text {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

/// The architecture of a platform that [`platform`] has accepted.
pub(crate) fn platform_architecture(platform: &str) -> String {
    architecture(platform.split('/').nth(1).unwrap_or_default())
}

/// `uid` or `gid`: a number, zero by default.
pub(super) fn owner(fields: &mut Fields<'_>, key: &str) -> u32 {
    let owner = fields.take(key, integer(0, i64::from(u32::MAX)));
    owner
        .and_then(|owner| u32::try_from(owner).ok())
        .unwrap_or(0)
}
