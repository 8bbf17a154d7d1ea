//! The class of each key, as `jaco validate` prints it, and the tables in step with the decoders.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use jaco_core::manifest::KeyClass;
use jaco_core::manifest::classify::{
    HONOURED_SERVICE_KEYS, IGNORED_SERVICE_KEYS, LEGACY_SERVICE_KEYS,
};
use jaco_core::manifest::output::ValidateOutput;
use support::{JACO, Project, service};

#[test]
fn validate_lists_each_key_with_its_class() {
    let compose = "version: '3'\nservices:\n  web:\n    image: w\n    restart: always\n    net: \
    x\n    \
                   foo: 1\n    x-own: 1\n    deploy: {replicas: 1, endpoint_mode: \
                   vip}\nvolumes: {}\n";
    let output = ValidateOutput::from(Project::default().resolve(JACO, compose));
    let json = serde_json::to_value(&output).unwrap();
    let keys: Vec<String> = json["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| {
            format!(
                "{} {}",
                key["path"].as_str().unwrap(),
                key["class"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        keys,
        [
            "version ignored",
            "services.web.image honoured",
            "services.web.restart ignored",
            "services.web.net legacy",
            "services.web.foo refused",
            "services.web.x-own ignored",
            "services.web.deploy honoured",
            "services.web.deploy.replicas honoured",
            "services.web.deploy.endpoint_mode ignored",
            "volumes honoured",
        ]
    );
    assert_eq!(json["valid"], false);
    assert_eq!(json["violations"][0]["code"], "legacy_compose_field");
    assert_eq!(json["violations"][0]["line"], 6);
    assert_eq!(json["violations"][0]["column"], 5);
    assert_eq!(json["violations"][0]["details"]["field"], "net");
    assert_eq!(
        json["keys"][2]["note"],
        "the scheduler decides when a container restarts"
    );
    assert_eq!(json["notices"][0]["path"], "version");
    assert_eq!(json["notices"][1]["line"], 5);
}

#[test]
fn no_decoder_refuses_an_honoured_or_ignored_key() {
    let known = HONOURED_SERVICE_KEYS.iter().chain(IGNORED_SERVICE_KEYS);
    for (key, _) in known.filter(|(key, _)| *key != "image") {
        let refused = Project::default().refused(JACO, &service(&format!("{key}: ~")));
        assert!(!refused.contains("key \""), "{key}: {refused}");
    }
}

#[test]
fn every_ignored_key_gives_a_notice_and_no_violation() {
    for (key, note) in IGNORED_SERVICE_KEYS {
        let resolved = Project::default().resolve(JACO, &service(&format!("{key}: {{a: b}}")));
        assert!(resolved.report.is_empty(), "{key}");
        assert_eq!(
            resolved.notices[0].message,
            format!("services.web.{key} is ignored: {note}")
        );
        assert_eq!(resolved.notices[0].span.unwrap().line, 4);
    }
}

#[test]
fn keys_of_old_compose_files_are_legacy() {
    for (key, _) in LEGACY_SERVICE_KEYS {
        let resolved = Project::default().resolve(JACO, &service(&format!("{key}: x")));
        let class = resolved
            .keys
            .iter()
            .find(|used| used.path.ends_with(key))
            .unwrap()
            .class;
        assert_eq!(class, KeyClass::Legacy);
    }
}
