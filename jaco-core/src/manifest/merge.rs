//! Lays one compose node over another, as compose does for `extends` and `include`.
//!
//! Mappings merge, lists append, scalars are replaced; keys that hold sets, pairs or commands
//! have rules of their own. `!override` replaces what is below it, `!reset` removes it.

use std::collections::BTreeSet;

use super::yaml::{Entry, Mapping, MergeTag, Node, Value};

/// How a key's two values become one.
#[derive(Clone, Copy)]
enum Rule {
    /// The upper value alone.
    Replace,
    /// `KEY=value` lists and mappings merge by key.
    Pairs,
    /// Names, as a list or as keys with settings.
    Names,
    /// Lists whose items are told apart by what the function says.
    Items(fn(&Node) -> Option<String>),
    /// By the kind of the values.
    Natural,
}

/// Service keys that do not merge by the kind of their values.
const SERVICE_RULES: &[(&str, Rule)] = &[
    ("command", Rule::Replace),
    ("entrypoint", Rule::Replace),
    ("environment", Rule::Pairs),
    ("labels", Rule::Pairs),
    ("annotations", Rule::Pairs),
    ("sysctls", Rule::Pairs),
    ("depends_on", Rule::Names),
    ("networks", Rule::Names),
    ("volumes", Rule::Items(volume_target)),
    ("devices", Rule::Items(volume_target)),
    ("tmpfs", Rule::Items(before_colon)),
    ("secrets", Rule::Items(file_target)),
    ("configs", Rule::Items(file_target)),
    ("env_file", Rule::Items(env_file_path)),
    ("dns", Rule::Items(whole)),
    ("dns_search", Rule::Items(whole)),
    ("dns_opt", Rule::Items(whole)),
];

/// The service `over`, with whatever `base` has and it does not change.
pub(crate) fn service(base: Node, over: Node) -> Node {
    mapping_with(base, over, |key, base, over| {
        let rule = SERVICE_RULES.iter().find(|(name, _)| *name == key);
        match (key, rule) {
            ("logging", _) => logging(base, over),
            ("healthcheck", _) => healthcheck(base, over),
            (_, Some((_, rule))) => merge(base, over, *rule),
            (_, None) => merge(base, over, Rule::Natural),
        }
    })
}

/// A whole document over another: sections merge by name, services by the rules of services.
pub(crate) fn document(base: Node, over: Node) -> Node {
    mapping_with(base, over, |key, base, over| match key {
        "services" => mapping_with(base, over, |_, base, over| service(base, over)),
        _ => merge(base, over, Rule::Natural),
    })
}

/// Removes what `!reset` marks; to be called once nothing merges any more.
pub(crate) fn drop_resets(node: &mut Node) {
    match &mut node.value {
        Value::Mapping(mapping) => {
            mapping
                .entries
                .retain(|entry| entry.value.merge != MergeTag::Reset);
            mapping
                .entries
                .iter_mut()
                .for_each(|entry| drop_resets(&mut entry.value));
        }
        Value::Sequence(items) => {
            items.retain(|item| item.merge != MergeTag::Reset);
            items.iter_mut().for_each(drop_resets);
        }
        Value::Scalar(_) | Value::Unknown => {}
    }
}

fn merge(base: Node, over: Node, rule: Rule) -> Node {
    if over.merge != MergeTag::None {
        return over;
    }
    match rule {
        Rule::Replace => over,
        Rule::Pairs => mapping_with(pairs(base), pairs(over), |_, _, over| over),
        Rule::Names => mapping_with(names(base), names(over), natural),
        Rule::Items(identity) => items(listed(base), listed(over), identity),
        Rule::Natural => natural("", base, over),
    }
}

/// By kind: mappings merge, lists append what they do not have, the rest is replaced.
fn natural(_: &str, base: Node, over: Node) -> Node {
    match (&base.value, &over.value) {
        _ if over.merge != MergeTag::None => over,
        (Value::Mapping(_), Value::Mapping(_)) => mapping_with(base, over, natural),
        (Value::Sequence(_), Value::Sequence(_)) => items(base, over, whole),
        // `networks: {front: }` over settings says nothing about them.
        (Value::Mapping(_), _) if over.is_null() => base,
        _ => over,
    }
}

/// Merges two mappings key by key; anything else is replaced whole.
fn mapping_with(base: Node, over: Node, merge_values: impl Fn(&str, Node, Node) -> Node) -> Node {
    if over.merge != MergeTag::None || base.as_mapping().is_none() {
        return over;
    }
    let (Value::Mapping(base), Value::Mapping(upper)) = (base.value, &over.value) else {
        return over;
    };
    let mut entries = base.entries;
    for Entry { key, key_at, value } in upper.entries.iter().cloned() {
        match entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => {
                let prior = std::mem::replace(&mut entry.value, Node::text("", key_at));
                entry.value = merge_values(&key, prior, value);
                entry.key_at = key_at;
            }
            None => entries.push(Entry { key, key_at, value }),
        }
    }
    Node::new(Value::Mapping(Mapping { entries }), over.at)
}

/// The items of both lists; an upper item takes the place of the lower one it stands for.
fn items(base: Node, over: Node, identity: fn(&Node) -> Option<String>) -> Node {
    let (Value::Sequence(mut items), Value::Sequence(upper)) = (base.value, &over.value) else {
        return over;
    };
    let replaced: BTreeSet<String> = upper.iter().filter_map(identity).collect();
    items.retain(|item| identity(item).is_none_or(|name| !replaced.contains(&name)));
    items.extend(upper.iter().cloned());
    Node::new(Value::Sequence(items), over.at)
}

/// Driver options belong to their driver: another driver starts from nothing.
fn logging(base: Node, over: Node) -> Node {
    let driver = |node: &Node| {
        node.get("driver")
            .and_then(Node::as_text)
            .map(str::to_owned)
    };
    match (driver(&base), driver(&over)) {
        (Some(before), Some(after)) if before != after => over,
        _ => merge(base, over, Rule::Natural),
    }
}

/// A test is a command, which is replaced and never appended to.
fn healthcheck(base: Node, over: Node) -> Node {
    mapping_with(base, over, |_, _, over| over)
}

/// `[A=1, B]` as `{A: "1", B: ""}`.
fn pairs(node: Node) -> Node {
    let Value::Sequence(items) = &node.value else {
        return node;
    };
    let mut mapping = Mapping::default();
    for item in items {
        let text = item.as_text().unwrap_or_default();
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        mapping.set(key, item.at, Node::text(value, item.at));
    }
    Node::new(Value::Mapping(mapping), node.at)
}

/// `[a, b]` as `{a: null, b: null}`.
fn names(node: Node) -> Node {
    let Value::Sequence(items) = &node.value else {
        return node;
    };
    let mut mapping = Mapping::default();
    for item in items {
        mapping.set(
            item.as_text().unwrap_or_default(),
            item.at,
            Node::null(item.at),
        );
    }
    Node::new(Value::Mapping(mapping), node.at)
}

/// One value as a list of itself.
fn listed(node: Node) -> Node {
    match node.value {
        Value::Scalar(_) if !node.is_null() => {
            let at = node.at;
            Node::new(Value::Sequence(vec![node]), at)
        }
        _ => node,
    }
}

fn whole(node: &Node) -> Option<String> {
    let mut text = String::new();
    super::yaml::write_json(node, &mut text);
    Some(text)
}

/// The target of `SOURCE:TARGET[:…]` or of the long form.
fn volume_target(node: &Node) -> Option<String> {
    let Some(text) = node.as_text() else {
        return member(node, "target");
    };
    let mut parts = text.split(':');
    let first = parts.next()?;
    Some(
        parts
            .next()
            .unwrap_or(first)
            .trim_end_matches('/')
            .to_owned(),
    )
}

fn before_colon(node: &Node) -> Option<String> {
    Some(node.as_text()?.split(':').next()?.to_owned())
}

fn file_target(node: &Node) -> Option<String> {
    let name = node.as_text().map(str::to_owned);
    name.or_else(|| member(node, "target"))
        .or_else(|| member(node, "source"))
}

fn env_file_path(node: &Node) -> Option<String> {
    node.as_text()
        .map(str::to_owned)
        .or_else(|| member(node, "path"))
}

fn member(node: &Node, key: &str) -> Option<String> {
    node.get(key)?.as_text().map(str::to_owned)
}
