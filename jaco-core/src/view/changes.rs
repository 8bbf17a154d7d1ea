//! What an apply changes: services, routes and ports, compared by meaning.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::spec::{DeploymentSpec, ServiceSpec};

/// One difference between two revisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Change {
    /// `service`, `route` or `port`.
    pub kind: String,
    pub name: String,
    pub action: Action,
    /// For a changed service: which of its keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// What happens to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Action {
    Added,
    Changed,
    Removed,
}

/// The answer to `jaco apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Applied {
    pub deployment: crate::id::DeploymentName,
    pub revision: u64,
    pub changed: bool,
    pub changes: Vec<Change>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converged: Option<bool>,
}

/// Every difference, services first, in name order.
pub fn changes(old: Option<&DeploymentSpec>, new: &DeploymentSpec) -> Vec<Change> {
    let services = old.map(|old| &old.services);
    let mut found = compare(
        "service",
        &services.map(named_services).unwrap_or_default(),
        &named_services(&new.services),
    );
    let before = old.map(routes).unwrap_or_default();
    found.extend(compare("route", &before, &routes(new)));
    let before = old.map(ports).unwrap_or_default();
    found.extend(compare("port", &before, &ports(new)));
    found
}

type Named = BTreeMap<String, BTreeMap<String, Value>>;

fn compare(kind: &str, old: &Named, new: &Named) -> Vec<Change> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| {
        let (action, keys) = match (old.get(name), new.get(name)) {
            (None, _) => (Action::Added, Vec::new()),
            (_, None) => (Action::Removed, Vec::new()),
            (Some(old), Some(new)) if old == new => return None,
            (Some(old), Some(new)) => (Action::Changed, differing(old, new)),
        };
        Some(Change {
            kind: kind.to_owned(),
            name: name.clone(),
            action,
            keys,
        })
    };
    names.into_iter().filter_map(change).collect()
}

fn differing(old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>) -> Vec<String> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .cloned()
        .collect()
}

fn fields(value: &impl Serialize) -> BTreeMap<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

fn named_services(services: &BTreeMap<crate::id::ServiceName, ServiceSpec>) -> Named {
    let flat = |service: &ServiceSpec| {
        let mut flat = fields(service);
        flat.extend(fields(&service.container));
        flat.remove("container");
        flat.remove("spec_hash");
        flat.remove("ports");
        flat
    };
    services
        .iter()
        .map(|(name, service)| (name.to_string(), flat(service)))
        .collect()
}

fn routes(spec: &DeploymentSpec) -> Named {
    let named = spec
        .routes
        .iter()
        .map(|route| (format!("{}{}", route.domain, route.path), fields(route)));
    named.collect()
}

fn ports(spec: &DeploymentSpec) -> Named {
    let each = spec.services.iter().flat_map(|(name, service)| {
        service.ports.iter().map(move |port| {
            let mut fields = fields(port);
            fields.insert("service".to_owned(), Value::String(name.to_string()));
            (format!("{}/{}", port.host, port.protocol), fields)
        })
    });
    each.collect()
}
