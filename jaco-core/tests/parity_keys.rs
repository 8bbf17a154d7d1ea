//! Every honoured compose key is in a file of `benches/parity`, or on the list of those that
//! cannot be compared with docker-compose.
#![allow(clippy::disallowed_methods)] // a test may read files
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jaco_core::manifest::KeyClass;
use jaco_core::manifest::classify::honoured_keys;
use support::{JACO, Project};

#[test]
fn every_honoured_key_is_compared_or_on_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seen = BTreeSet::new();
    for topic in fs::read_dir(root.join("benches/parity")).unwrap() {
        let file = topic.unwrap().path().join("compose.yaml");
        let resolved = Project::default().resolve(JACO, &fs::read_to_string(&file).unwrap());
        assert!(!resolved.keys.is_empty(), "{}", file.display());
        for used in resolved.keys {
            assert_eq!(used.class, KeyClass::Honoured, "{}", used.path);
            let parts: Vec<&str> = used.path.split('.').collect();
            seen.insert(match parts[..] {
                ["services", _, ref key @ ..] => key.join("."),
                _ => format!("{}:", used.path),
            });
        }
    }
    let page = fs::read_to_string(root.join("docs/reference/parity.md")).unwrap();
    for key in honoured_keys() {
        let listed = page.contains(&format!("\n| `{key}` |"));
        assert!(seen.contains(&key) != listed, "{key}: listed {listed}");
    }
}
