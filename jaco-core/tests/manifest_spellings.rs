//! Which changes of a file change a spec hash, and which do not.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use jaco_core::manifest::spec::ServiceSpec;
use support::{JACO, Project, service};

fn web(keys: &str) -> ServiceSpec {
    Project::default().web(JACO, &service(keys))
}

/// All spellings give the same service, hash included.
fn same(spellings: &[&str]) {
    let first = web(spellings[0]);
    for spelling in &spellings[1..] {
        assert_eq!(web(spelling), first, "{spelling}");
    }
}

/// Each change gives another hash.
fn differ(spellings: &[&str]) {
    let hashes: std::collections::BTreeSet<_> =
        spellings.iter().map(|keys| web(keys).spec_hash).collect();
    assert_eq!(hashes.len(), spellings.len(), "{spellings:?}");
}

#[test]
fn spellings_of_one_meaning_are_one_service() {
    same(&[
        "command: echo 'a b'",
        "command: [echo, a b]",
        "command: ['echo', \"a b\"]",
    ]);
    same(&[
        "environment: {A: 1, B: }",
        "environment: [A=1, B]",
        "environment: [B=, 'A=1']",
    ]);
    same(&[
        "labels: [a=b]",
        "labels: {a: b}",
        "labels: {'a': \"b\"} # note",
    ]);
    same(&["dns: 1.1.1.1", "dns: [1.1.1.1]"]);
    same(&["tty: yes", "tty: true", "tty: on", "tty: 'true'"]);
    same(&[
        "mem_limit: 1g",
        "mem_limit: 1024m",
        "mem_limit: 1073741824",
        "mem_limit: '1GB'",
    ]);
    same(&[
        "cpus: 0.5",
        "cpus: '.50'",
        "deploy: {resources: {limits: {cpus: '0.5'}}}",
    ]);
    same(&["stop_grace_period: 90s", "stop_grace_period: 1m30s"]);
    same(&[
        "ports: ['9000:80', '9001:81/udp']",
        "ports: [{target: 81, published: 9001, protocol: udp}, {target: 80, published: '9000'}]",
    ]);
    same(&[
        "ports: ['9000-9001:80-81', 90]",
        "ports: ['9000:80', '9001:81']",
    ]);
    same(&[
        "volumes: ['/a:/b:ro,rslave']",
        "volumes: [{type: bind, source: /a, target: /b/, read_only: true, \
         bind: {propagation: rslave, create_host_path: true}}]",
    ]);
    same(&[
        "tmpfs: /t:size=64m,mode=1777",
        "tmpfs: ['/t:mode=1777,size=64m']",
        "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 64mb, mode: 01777}}]",
    ]);
    same(&[
        "extra_hosts: ['b:::1', 'a=1.1.1.1']",
        "extra_hosts: {a: 1.1.1.1, b: ['[::1]']}",
    ]);
    same(&[
        "ulimits: {nofile: 10}",
        "ulimits: {nofile: {soft: 10, hard: 10}}",
    ]);
    same(&[
        "healthcheck: {test: NONE}",
        "healthcheck: {disable: true}",
        "healthcheck: {test: [NONE], interval: 5s}",
    ]);
    same(&[
        "healthcheck: {test: curl x}",
        "healthcheck: {test: [CMD-SHELL, curl x]}",
    ]);
    same(&[
        "devices: [/dev/a]",
        "devices: ['/dev/a:/dev/a:rwm']",
        "devices: [{source: /dev/a}]",
    ]);
    same(&[
        "gpus: all",
        "gpus: [{count: all, capabilities: [gpu]}]",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
    ]);
    same(&[
        "networks: [default]",
        "networks: {default: }",
        "",
        "networks: {default: {}}",
    ]);
    same(&["sysctls: [a=1]", "sysctls: {a: 1}"]);
    same(&[
        "pull_policy: missing",
        "pull_policy: if_not_present",
        "pull_policy: build",
        "",
    ]);
    same(&[
        "restart: always\ncontainer_name: x\nexpose: [1]\nlinks: [a]\nbuild: {any: thing}",
        "",
    ]);
}

#[test]
fn whatever_changes_the_container_changes_the_hash() {
    differ(&[
        "",
        "command: []",
        "command: [a]",
        "entrypoint: []",
        "init: false",
        "init: true",
        "environment: {A: ''}",
        "environment: {A: 1}",
        "labels: {A: ''}",
        "tty: on",
        "network_mode: none",
        "networks: {default: {aliases: [x]}}",
        "healthcheck: {disable: true}",
        "healthcheck: {retries: 3}",
        "volumes: ['/a:/b']",
        "volumes: ['/a:/b:ro']",
        "volumes: ['/b']",
        "tmpfs: /b",
        "stop_signal: SIGINT",
        "cpus: 1",
        "cpuset: '1'",
        "platform: linux/arm64",
        "post_start: [{command: x}]",
        "pre_stop: [{command: x}]",
    ]);
    let volume = |rest: &str| {
        let compose = format!("{}volumes: {{v: {rest}}}\n", service("volumes: ['v:/v']"));
        Project::default().web(JACO, &compose).spec_hash
    };
    assert_ne!(volume("{}"), volume("{driver_opts: {type: nfs}}"));
    assert_ne!(volume("{}"), volume("{name: other}"));
    let network = |rest: &str| {
        let compose = format!("{}networks: {{n: {rest}}}\n", service("networks: [n]"));
        Project::default().web(JACO, &compose).spec_hash
    };
    assert_ne!(network("{}"), network("{internal: true}"));
}

#[test]
fn what_does_not_change_the_container_keeps_the_hash() {
    let plain = web("").spec_hash;
    for keys in [
        "deploy: {replicas: 5}",
        "deploy: {mode: global}",
        "ports: ['9:9']",
        "deploy: {placement: {constraints: [node.hostname == a]}}",
        "pull_policy: always",
        "deploy: {update_config: {delay: 5s}}",
        "deploy: {restart_policy: {max_attempts: 1}}",
    ] {
        assert_eq!(web(keys).spec_hash, plain, "{keys}");
    }
    let jaco = "deployment: shop\nroutes: [{domain: a.b, service: web, port: 1}]\n\
                services: [{name: web, replicas: 4, placement: pack}]\n";
    assert_eq!(Project::default().web(jaco, &service("")).spec_hash, plain);
}

#[test]
fn a_spec_hash_is_stable_across_versions() {
    // A changed hash restarts every container of every cluster at its next apply: never let
    // this change by accident.
    let hash = web("command: [a]\nenvironment: {A: b}\nports: ['9:9']").spec_hash;
    assert_eq!(
        hash.as_str(),
        "2f48acafe8e6bca4b369a30026a8553a5151c11fc03e7ad07aa85ae2de80c761"
    );
}
