//! The parts of rules and sets, in the form in which `nft -j list` shows them.

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use super::TABLE;

/// A listing shows a set of one element as the element.
pub(super) fn one_or_set(ports: &[u64]) -> Value {
    match ports {
        [one] => json!(one),
        _ => json!({"set": ports}),
    }
}

pub(super) fn object(key: &str, value: &str) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("family".to_owned(), json!(TABLE.0));
    object.insert("table".to_owned(), json!(TABLE.1));
    object.insert(key.to_owned(), json!(value));
    object
}

pub(super) fn sorted(mut elements: Vec<Value>) -> Value {
    elements.sort_by_key(Value::to_string);
    Value::Array(elements)
}

pub(super) fn prefix(base: Ipv4Addr, length: u8) -> Value {
    // A listing shows a network of one address as the address.
    if length == 32 {
        return json!(base.to_string());
    }
    json!({"prefix": {"addr": base.to_string(), "len": length}})
}

pub(super) fn payload(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

pub(super) fn equal(op: &str, left: &Value, right: &Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

pub(super) fn interface(which: &str, op: &str, name: &str) -> Value {
    equal(op, &json!({"meta": {"key": which}}), &json!(name))
}

pub(super) fn ipv6() -> Value {
    equal("==", &json!({"meta": {"key": "nfproto"}}), &json!("ipv6"))
}

pub(super) fn from(set: &str) -> Value {
    equal("==", &payload("ip", "saddr"), &json!(format!("@{set}")))
}

pub(super) fn to(set: &str) -> Value {
    equal("==", &payload("ip", "daddr"), &json!(format!("@{set}")))
}

pub(super) fn answers() -> Value {
    equal(
        "in",
        &json!({"ct": {"key": "state"}}),
        &json!(["established", "related"]),
    )
}
