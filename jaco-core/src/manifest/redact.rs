//! A deployment's compose document for people to read: without its secrets (spec 10).
//!
//! Redaction goes by value. Every environment value is one, and so is the content of each secret;
//! any other string that contains one of them is redacted whole. Values that say too little to be
//! recognised elsewhere (shorter than [`MIN_LENGTH`], numbers, plain words of configuration) are
//! redacted where they stand and not looked for. Names of images stay.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::bundle::Bundle;

/// What stands in the place of a value.
const REDACTED: &str = "[redacted]";
/// Characters of a value that is looked for in other strings.
const MIN_LENGTH: usize = 6;
/// Words that are in many documents and in no way secret.
const PLAIN: [&str; 6] = [
    "production",
    "development",
    "staging",
    "localhost",
    "default",
    "enabled",
];
/// Keys of a service whose values are variables.
const HOOKS: [&str; 2] = ["post_start", "pre_stop"];

/// The resolved compose document without the value of any variable and the content of any secret.
pub fn redacted(bundle: &Bundle) -> Value {
    let mut document: Value = serde_json::from_str(&bundle.compose).unwrap_or_default();
    let mut secrets = BTreeSet::new();
    for service in members(&mut document, "services") {
        hide_environment(service, &mut secrets);
        for hooks in HOOKS {
            let hooks = service.get_mut(hooks).and_then(Value::as_array_mut);
            for hook in hooks.into_iter().flatten() {
                hide_environment(hook, &mut secrets);
            }
        }
    }
    for section in ["secrets", "configs"] {
        for source in members(&mut document, section) {
            let Some(source) = source.as_object_mut() else {
                continue;
            };
            if let Some(Value::String(content)) = source.get("content") {
                note(content, &mut secrets);
            }
            source.insert("content".to_owned(), REDACTED.into());
        }
    }
    let carried = bundle.contents.values();
    for text in carried.filter_map(|content| std::str::from_utf8(&content.bytes).ok()) {
        note(text.trim(), &mut secrets);
    }
    if !secrets.is_empty() {
        hide(&mut document, &secrets);
    }
    document
}

fn members<'a>(document: &'a mut Value, section: &str) -> impl Iterator<Item = &'a mut Value> {
    let section = document.get_mut(section).and_then(Value::as_object_mut);
    section.into_iter().flat_map(Map::values_mut)
}

/// Both spellings: a mapping, and a list of `KEY=value`.
fn hide_environment(owner: &mut Value, secrets: &mut BTreeSet<String>) {
    match owner.get_mut("environment") {
        Some(Value::Object(pairs)) => {
            for value in pairs.values_mut().filter(|value| !value.is_null()) {
                if let Value::String(text) = value {
                    note(text, secrets);
                }
                *value = REDACTED.into();
            }
        }
        Some(Value::Array(items)) => {
            for item in items {
                if let Some((key, value)) = item.as_str().and_then(|it| it.split_once('=')) {
                    note(value, secrets);
                    *item = format!("{key}={REDACTED}").into();
                }
            }
        }
        _ => {}
    }
}

fn note(value: &str, secrets: &mut BTreeSet<String>) {
    let is_number = value
        .chars()
        .all(|c| c.is_ascii_digit() || ".:-".contains(c));
    if value.chars().count() >= MIN_LENGTH && !is_number && !PLAIN.contains(&value) {
        secrets.insert(value.to_owned());
    }
}

fn hide(value: &mut Value, secrets: &BTreeSet<String>) {
    match value {
        Value::String(text) if secrets.iter().any(|secret| text.contains(secret)) => {
            *text = REDACTED.to_owned();
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, secrets)),
        // The name of an image is no secret, and says what runs.
        Value::Object(pairs) => {
            let others = pairs.iter_mut().filter(|(key, _)| *key != "image");
            others.for_each(|(_, item)| hide(item, secrets));
        }
        _ => {}
    }
}
