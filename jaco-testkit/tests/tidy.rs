//! Architecture and house rules, held by tests (ARCHITECTURE.md, "Invariants").
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Everything that jaco-core may pull in, directly or not. None of it does IO, reads a clock or
/// draws entropy: `imbl` brings a generator that is seeded by its caller and unused here.
const CORE_CLOSURE: &[&str] = &[
    "archery",
    "arraydeque",
    "async-trait",
    "block-buffer",
    "bytemuck",
    "cfg-if",
    "cpufeatures",
    "crypto-common",
    "deranged",
    "digest",
    "equivalent",
    "generic-array",
    "granit-parser",
    "hashbrown",
    "imbl",
    "imbl-sized-chunks",
    "indexmap",
    "itoa",
    "jaco-core",
    "libc",
    "memchr",
    "num-conv",
    "powerfmt",
    "proc-macro2",
    "quote",
    "rand_core",
    "rand_xoshiro",
    "safe_arch",
    "serde",
    "serde_core",
    "serde_derive",
    "serde_json",
    "sha2",
    "smallvec",
    "syn",
    "thiserror",
    "thiserror-impl",
    "time",
    "time-core",
    "time-macros",
    "typenum",
    "unicode-ident",
    "version_check",
    "wide",
    "zmij",
];

/// Normal dependencies between our crates; dev-dependencies on testkit are free for all.
const EDGES: &[(&str, &[&str])] = &[
    ("jaco-core", &[]),
    ("jaco-adapters", &["jaco-core"]),
    ("jaco-testkit", &["jaco-core"]),
    ("jaco-bin", &["jaco-core", "jaco-adapters"]),
    ("embed-scheduler", &["jaco-core"]),
];

const BANNED: &[&str] = &[
    "ring",
    "openssl",
    "openssl-sys",
    "native-tls",
    "protoc-bin-vendored",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Every file with this ending below the source folders, as (path from the root, text).
fn files(ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for top in [
        "jaco-core",
        "jaco-adapters",
        "jaco-bin",
        "jaco-testkit",
        "benches",
        "examples",
    ] {
        walk(&root().join(top), ending, &mut found);
    }
    found
}

fn walk(dir: &Path, ending: &str, found: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                walk(&path, ending, found);
            }
        } else if path.to_string_lossy().ends_with(ending) {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn only_the_edges_of_the_architecture_exist() {
    let metadata = metadata();
    let ours: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    for package in metadata["packages"].as_array().unwrap() {
        let name = text(&package["name"]);
        let Some((_, allowed)) = EDGES.iter().find(|(crate_name, _)| *crate_name == name) else {
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = text(&dependency["name"]);
            let normal = dependency["kind"].is_null();
            let is_free = text(&dependency["kind"]) == "dev" && to == "jaco-testkit";
            if ours.contains(to) && !is_free {
                assert!(
                    normal && allowed.contains(&to),
                    "{name} must not depend on {to}"
                );
            }
        }
    }
}

/// What is really built, as (name, license, source) lines of `cargo tree`. The resolve graph of
/// `cargo metadata` also holds optional packages that no feature switches on.
fn built(package: &str, edges: &str) -> BTreeSet<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--prefix",
            "none",
            "--format",
            "{p}|{l}",
        ])
        .args(["--package", package, "--edges", edges])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let (package, license) = line.trim_end_matches(" (*)").split_once('|')?;
        Some((
            package.split(' ').next()?.to_owned(),
            license.trim_end().to_owned(),
        ))
    };
    text.lines().filter_map(line).collect()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[test]
fn the_core_depends_on_nothing_that_does_io() {
    for (name, _) in built("jaco-core", "normal") {
        assert!(
            CORE_CLOSURE.contains(&name.as_str()),
            "{name} is not on the core's allow-list"
        );
    }
}

#[test]
fn licenses_are_allowed_and_banned_crates_absent() {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
    let allowed = |license: &str| deny.contains(&format!("\"{license}\""));
    for package in [
        "jaco-bin",
        "jaco-testkit",
        "jaco-benches",
        "embed-scheduler",
    ] {
        for (name, license) in built(package, "normal,build") {
            assert!(!BANNED.contains(&name.as_str()), "{name} is banned");
            let license = license.replace('/', " OR ").replace(['(', ')'], " ");
            let license = license.replace("MPL-2.0+", "MPL-2.0");
            // `A AND (B OR C)`: every conjunct needs one allowed choice.
            let fine = license
                .split(" AND ")
                .all(|choices| choices.split(" OR ").any(|license| allowed(license.trim())));
            assert!(fine, "{name} has license {license}");
        }
    }
}

#[test]
fn packages_come_from_registries_only() {
    for package in array(&metadata()["packages"]) {
        let (name, from) = (text(&package["name"]), text(&package["source"]));
        let registry = from.starts_with("registry+") || from.starts_with("sparse+");
        assert!(from.is_empty() || registry, "{name} comes from {from}");
    }
}

#[test]
fn no_adapter_knows_another() {
    let modules = [
        "acme",
        "api",
        "dns",
        "docker",
        "ingress",
        "metrics",
        "netlink",
        "nftables",
        "raft",
        "seal",
        "wireguard",
    ];
    for (path, source) in files(".rs") {
        let Some(rest) = path.strip_prefix("jaco-adapters/src/") else {
            continue;
        };
        let own = rest.split(['/', '.']).next().unwrap();
        for other in modules.iter().filter(|other| **other != own) {
            let name = format!("crate::{other}");
            assert!(
                !modules.contains(&own) || !source.contains(&name),
                "{path} names {name}"
            );
        }
    }
}

#[test]
fn adapters_are_named_in_wiring_only() {
    for (path, source) in files(".rs") {
        let is_wiring = path.ends_with("/wiring.rs") || path.contains("/wiring/");
        if path.starts_with("jaco-bin/src") && !is_wiring {
            assert!(
                !source.contains("jaco_adapters"),
                "{path} names jaco_adapters"
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_stays_small() {
    for (path, source) in files(".rs") {
        assert!(source.starts_with("//!"), "{path} does not start with //!");
        let lines = source.lines().count();
        assert!(lines <= 500, "{path} has {lines} lines");
        for (number, line) in source.lines().enumerate() {
            let columns = line.chars().count();
            assert!(
                columns <= 100,
                "{path}:{} has {columns} columns",
                number + 1
            );
        }
        for mark in [
            "todo!(",
            "unimplemented!(",
            concat!("FIX", "ME"),
            concat!("XX", "X"),
        ] {
            let here = path.ends_with("tidy.rs");
            assert!(here || !source.contains(mark), "{path} contains {mark}");
        }
    }
}

/// Names of test functions, and of commands, in the coverage table are in backticks.
#[test]
fn the_coverage_table_names_what_exists() {
    let table = fs::read_to_string(root().join("docs/coverage.md")).unwrap();
    let sources = files(".rs");
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for line in table.lines().filter(|line| line.starts_with('|')) {
        let Some(shown) = line.split('|').nth(2) else {
            continue;
        };
        for name in shown.split('`').skip(1).step_by(2) {
            let exists = if let Some(target) = name.strip_prefix("make ") {
                let target = target.split(' ').next().unwrap();
                makefile.contains(&format!("\n{target}:"))
            } else if name.contains('/') || name.contains('.') {
                root().join(name).exists()
            } else {
                let function = format!("fn {name}(");
                sources.iter().any(|(_, source)| source.contains(&function))
            };
            assert!(
                exists,
                "docs/coverage.md names `{name}`, which does not exist: {line}"
            );
        }
    }
}

#[test]
fn every_regression_is_shown_by_a_test_of_that_name() {
    let page = fs::read_to_string(root().join("docs/coverage.md")).unwrap();
    let (_, section) = page.split_once("## Regressions").unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    for row in rows {
        let shown = row.trim_matches('|').rsplit('|').next().unwrap().trim();
        let mut names = shown.split('`').skip(1).step_by(2).peekable();
        assert!(shown == "not yet" || names.peek().is_some(), "{row}");
        assert!(names.all(|name| name.starts_with("regression_")), "{row}");
    }
}

#[test]
fn the_core_names_no_time_and_no_entropy() {
    let sources = files(".rs")
        .into_iter()
        .filter(|(path, _)| path.starts_with("jaco-core/src"));
    for (path, source) in sources {
        for name in [
            "SystemTime",
            "Instant::now",
            "HashMap",
            "HashSet",
            "std::fs",
            "std::process",
        ] {
            assert!(!source.contains(name), "{path} names {name}");
        }
    }
}
