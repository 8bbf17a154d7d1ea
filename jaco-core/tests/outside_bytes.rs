//! Whatever comes from outside: no bytes make a parser panic, and what is refused has a name.
//!
//! Manifests, env files and templates are in `manifest_props.rs`; `jacod.yaml` is in
//! `jaco-bin/tests/config.rs`; frames of the raft and HTTP heads are in `jaco-adapters`.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use jaco_core::cluster::addresses::Pool;
use jaco_core::cluster::token::JoinCredential;
use jaco_core::cluster::{ClusterState, Entry};
use jaco_core::error::ErrorCode;
use jaco_core::manifest::{Bundle, parse, settings};
use jaco_core::time::Timestamp;
use jaco_testkit::builders::{Cluster, deployment, service as small};
use proptest::prelude::*;
use support::{JACO, Project, service};

/// Keys whose values have a grammar of their own.
const GRAMMARS: &[&str] = &[
    "ports: [TEXT]",
    "volumes: [TEXT]",
    "tmpfs: TEXT",
    "devices: [TEXT]",
    "extra_hosts: [TEXT]",
    "environment: [TEXT]",
    "command: TEXT",
    "stop_grace_period: TEXT",
    "mem_limit: TEXT",
    "cpus: TEXT",
    "shm_size: TEXT",
    "platform: TEXT",
    "network_mode: TEXT",
    "ulimits: {nofile: TEXT}",
    "healthcheck: {test: TEXT, interval: TEXT, retries: TEXT}",
    "deploy: {placement: {constraints: [TEXT]}, resources: {limits: {cpus: TEXT}}}",
];

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[0-9a-z:./,=_+-]{0,24}",
        "[0-9]{0,25}[.:/-]?[0-9]{0,25}[a-zA-Z]{0,3}",
        "\\[?[0-9a-f:.]{0,20}\\]?(:[0-9]{0,6}(-[0-9]{0,6})?){0,3}(/[a-z]{0,4})?",
    ]
}

/// Valid JSON with a part overwritten, cut out or doubled.
fn spoiled(json: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let part = prop::collection::vec(any::<u8>(), 0..8);
    (any::<prop::sample::Index>(), 0..40usize, part).prop_map(move |(at, length, part)| {
        let from = at.index(json.len());
        let to = (from + length).min(json.len());
        let mut bytes = json.clone();
        bytes.splice(from..to, part);
        bytes
    })
}

fn driven() -> Cluster {
    let mut cluster = Cluster::of(2);
    cluster
        .deploy(deployment("d", [("web", small(2, "a"))]))
        .unwrap();
    cluster.settle();
    cluster
}

fn bundle() -> Vec<u8> {
    let compose =
        service("image: w:1\nports: ['9000:90']\nsecrets: [s]").replace("    image: w\n", "");
    let compose = format!("{compose}secrets: {{s: {{file: s.txt}}}}\n");
    let project = Project::default().file("s.txt", "content");
    let resolved = project.resolve(JACO, &compose);
    serde_json::to_vec(&resolved.bundle.expect("it is valid")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_value_of_a_key_panics(text in texts(), at in 0..GRAMMARS.len()) {
        let quoted = serde_json::to_string(&text).unwrap();
        let compose = service(&GRAMMARS[at].replace("TEXT", &quoted));
        let resolved = Project::default().resolve(JACO, &compose);
        prop_assert_eq!(resolved.report.is_empty(), resolved.spec.is_some());
        for violation in resolved.report.violations {
            prop_assert!(violation.code != ErrorCode::Internal, "{}", violation.message);
        }
    }

    #[test]
    fn a_join_credential_is_read_whole_or_not_at_all(
        text in prop_oneof![any::<String>(), "[0-9a-fA-F]{120,136}", "[0-9a-f]{127}é"],
    ) {
        if let Some(credential) = JoinCredential::parse(&text) {
            prop_assert_eq!(credential.reveal(), text.trim().to_ascii_lowercase());
        }
    }

    #[test]
    fn no_short_text_panics(text in texts()) {
        let _ = (Timestamp::parse(&text), Pool::parse(&text), ErrorCode::parse(&text));
        let _ = settings::read(&text, "jacod.yaml");
    }

    #[test]
    fn no_bundle_of_a_client_panics(bytes in spoiled(bundle())) {
        if let Ok(bundle) = serde_json::from_slice::<Bundle>(&bytes)
            && let Err(report) = parse(&bundle)
        {
            prop_assert!(!report.is_empty());
        }
    }

    #[test]
    fn no_record_or_snapshot_of_another_node_panics(
        entry in spoiled(serde_json::to_vec(&driven().log).unwrap()),
        state in spoiled(serde_json::to_vec(&driven().state).unwrap()),
    ) {
        if let Ok(entries) = serde_json::from_slice::<Vec<Entry>>(&entry) {
            let mut state = ClusterState::default();
            for entry in &entries {
                let _ = jaco_core::cluster::apply(&mut state, entry);
            }
        }
        let _ = serde_json::from_slice::<ClusterState>(&state);
    }
}
