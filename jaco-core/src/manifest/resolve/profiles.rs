//! Profiles: a service that names some runs only when one of them is on.

use std::collections::BTreeSet;

use crate::manifest::yaml::{Node, Value};

/// The document without services that are off, and the names of those.
pub(super) fn select(mut document: Node, on: &[String]) -> (Node, BTreeSet<String>) {
    let mut inactive = BTreeSet::new();
    let services = document
        .as_mapping_mut()
        .and_then(|mapping| mapping.get_mut("services"));
    if let Some(services) = services.and_then(Node::as_mapping_mut) {
        services.entries.retain(|entry| {
            let active = is_active(&entry.value, on);
            if !active {
                inactive.insert(entry.key.clone());
            }
            active
        });
    }
    (document, inactive)
}

fn is_active(service: &Node, on: &[String]) -> bool {
    let wanted: Vec<&str> = match service.get("profiles").map(|profiles| &profiles.value) {
        Some(Value::Sequence(items)) => items.iter().filter_map(Node::as_text).collect(),
        _ => Vec::new(),
    };
    wanted.is_empty()
        || on
            .iter()
            .any(|profile| profile == "*" || wanted.contains(&&**profile))
}
