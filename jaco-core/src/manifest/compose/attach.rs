//! What a service is attached to: networks, another's network, services it waits for.

use std::collections::BTreeMap;

use super::Placed;
use crate::id::ServiceName;
use crate::manifest::read::{View, boolean, choice, list, string};
use crate::manifest::spec::{Condition, Dependency, NetworkAttachment, NetworkMode};

/// `networks`: a list of names, or names with attachments.
pub(super) fn networks(view: View<'_>) -> Option<Vec<Placed<NetworkAttachment>>> {
    let mut networks: Vec<Placed<NetworkAttachment>> = Vec::new();
    named(view, |name, view| {
        if networks.iter().any(|other| other.name == name) {
            view.invalid::<()>(format!("network {name:?} is listed twice"));
            return;
        }
        let attachment = match view.node.as_mapping() {
            Some(_) => attachment(view).unwrap_or_default(),
            None => NetworkAttachment::default(),
        };
        networks.push(placed(name, view, attachment));
    })?;
    Some(networks)
}

fn attachment(view: View<'_>) -> Option<NetworkAttachment> {
    let mut fields = view.fields()?;
    let aliases = fields.take_or_default("aliases", list(string));
    for key in ["priority", "gw_priority"] {
        fields.ignore(key, "JACO attaches networks in the order of their names");
    }
    for key in [
        "ipv4_address",
        "ipv6_address",
        "link_local_ips",
        "mac_address",
    ] {
        fields.take(key, |view| {
            view.invalid::<()>(format!(
                "{} is not supported: JACO assigns addresses",
                view.name()
            ))
        });
    }
    fields.close();
    Some(NetworkAttachment { aliases })
}

/// `network_mode`: absent, `none` or `service:<name>`.
pub(super) fn network_mode(view: View<'_>) -> Option<NetworkMode> {
    let text = string(view)?;
    match text.strip_prefix("service:") {
        Some(name) if !name.is_empty() => Some(NetworkMode::Service(ServiceName::new(name))),
        _ if text == "none" => Some(NetworkMode::None),
        _ => view.invalid(format!(
            "network_mode {text:?} is not supported; leave it out, or use none or service:<name>"
        )),
    }
}

/// `depends_on`: a list of services, or services with conditions.
pub(super) fn depends_on(view: View<'_>) -> Option<Vec<Placed<Dependency>>> {
    let mut dependencies = BTreeMap::new();
    named(view, |name, view| {
        let dependency = match view.node.as_mapping() {
            Some(_) => dependency(view).unwrap_or(STARTED),
            None => STARTED,
        };
        dependencies.insert(name.clone(), placed(name, view, dependency));
    })?;
    Some(dependencies.into_values().collect())
}

const STARTED: Dependency = Dependency {
    condition: Condition::ServiceStarted,
    required: true,
};

fn dependency(view: View<'_>) -> Option<Dependency> {
    let mut fields = view.fields()?;
    let condition = fields.take(
        "condition",
        choice(&[
            ("service_started", Condition::ServiceStarted),
            ("service_healthy", Condition::ServiceHealthy),
            (
                "service_completed_successfully",
                Condition::ServiceCompletedSuccessfully,
            ),
        ]),
    );
    let required = fields.take("required", boolean).unwrap_or(true);
    fields.ignore("restart", "the scheduler decides when a container restarts");
    fields.close();
    let condition = condition.unwrap_or(Condition::ServiceStarted);
    Some(Dependency {
        condition,
        required,
    })
}

/// Visits names that come as a list, or as a mapping whose values say more.
fn named(view: View<'_>, mut visit: impl FnMut(String, View<'_>)) -> Option<()> {
    if view.node.as_sequence().is_some() {
        return view.each_item(|item| {
            if let Some(name) = string(item) {
                visit(name, item);
            }
        });
    }
    view.each_entry(|name, key_at, value| {
        let known = value.node.is_null() || value.node.as_mapping().is_some();
        if !known {
            value.expected::<()>("a mapping or null");
            return;
        }
        // What is wrong about a name is wrong at the key, not at its value.
        let mut node = value.node.clone();
        node.at = key_at;
        visit(
            name.to_owned(),
            View {
                node: &node,
                ..value
            },
        );
    })
}

fn placed<T>(name: String, view: View<'_>, value: T) -> Placed<T> {
    Placed {
        name,
        path: view.path.to_string(),
        at: view.at(),
        value,
    }
}
