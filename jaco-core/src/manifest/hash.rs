//! Content and spec hashes: hex SHA-256.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::spec::{ContainerSpec, NetworkAttachment, NetworkMode, NetworkSpec, VolumeSpec};
use crate::id::{NetworkName, SpecHash};

/// Hex SHA-256 of bytes.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads lower- or upper-case hex; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect()
}

/// The hash of everything that would change a service's container: the container itself, its
/// network mode and attachments, and the definitions of the networks and volumes it uses.
/// Contents enter through their own hashes. Replicas, placement, routes, published ports,
/// dependencies and update settings do not enter (spec 02, Spec hash).
pub fn spec_hash(
    container: &ContainerSpec,
    network_mode: &NetworkMode,
    networks: &BTreeMap<NetworkName, (&NetworkAttachment, NetworkSpec)>,
    volumes: &BTreeMap<&str, &VolumeSpec>,
) -> SpecHash {
    let hashed = serde_json::to_value((container, network_mode, networks, volumes));
    let mut text = Vec::with_capacity(2048);
    // Plain data with string keys always becomes JSON.
    write_canonical(&hashed.unwrap_or_default(), &mut text);
    SpecHash::new(sha256_hex(&text))
}

/// JSON with sorted keys and without members that say nothing: nulls and empty collections.
/// So a field that a later version adds does not change the hash of a service without it.
/// `command` and `entrypoint` are kept when empty, which clears what the image has.
fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let members = members
                .iter()
                .filter(|(key, value)| says_something(key, value));
            let mut members: Vec<_> = members.collect();
            members.sort_by_key(|(key, _)| *key);
            write_all(&members, *b"{}", out, |(key, value), out| {
                write_scalar(key, out);
                out.push(b':');
                write_canonical(value, out);
            });
        }
        Value::Array(items) => write_all(items, *b"[]", out, write_canonical),
        scalar => write_scalar(scalar, out),
    }
}

fn write_scalar(scalar: &impl serde::Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, scalar).expect("a scalar is JSON, and a vector takes all of it");
}

fn says_something(key: &str, value: &Value) -> bool {
    let empty = match value {
        Value::Null => return false,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    !empty || matches!(key, "command" | "entrypoint")
}

fn write_all<T>(items: &[T], ends: [u8; 2], out: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    out.push(ends[0]);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(ends[1]);
}
