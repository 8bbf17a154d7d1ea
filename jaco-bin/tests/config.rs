//! `jacod.yaml`: a closed schema; what is wrong is named (spec 11).
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::time::Duration;

use jaco_bin::daemon::config::{Environment, parse};
use jaco_core::error::ErrorCode;
use proptest::prelude::*;

fn environment() -> Environment {
    Environment {
        hostname: "node-1".to_owned(),
        addresses: vec!["10.1.2.3".parse().unwrap(), "8.8.8.8".parse().unwrap()],
        ..Environment::default()
    }
}

#[test]
fn every_key_has_a_default() {
    let config = parse("", &environment()).unwrap();
    assert_eq!(config.hostname, "node-1");
    assert_eq!(config.api_address(), "10.1.2.3:7000");
    assert_eq!(config.cluster_address(), "10.1.2.3:7001");
    assert_eq!(config.ipam_pool.to_string(), "10.244.0.0/16");
    assert_eq!(config.audit_retention, 10_000);
    assert_eq!(config.dns_timeout, Duration::from_secs(2));
    assert_eq!(config.node_status_interval, Duration::from_secs(30));
}

#[test]
fn the_status_interval_is_between_five_seconds_and_five_minutes() {
    for (text, seconds) in [("5s", 5), ("90s", 90), ("5m", 300), ("0", 30), ("0s", 30)] {
        let config = parse(&format!("node_status_interval: {text}"), &environment()).unwrap();
        assert_eq!(config.node_status_interval, Duration::from_secs(seconds));
    }
}

#[test]
fn only_lets_encrypt_is_tried_in_staging_first() {
    let settings = |text: &str| parse(text, &environment()).unwrap().acme.settings;
    let default = settings("");
    assert!(default.enabled && default.staging.is_some());
    assert_eq!(default.email, None);
    assert_eq!(settings("acme_skip_staging: true").staging, None);
    let own = settings("acme_ca: https://ca.test/dir\nacme_email: a@b.test");
    assert_eq!(
        (own.staging, own.production.as_str()),
        (None, "https://ca.test/dir")
    );
    assert_eq!(own.email.as_deref(), Some("a@b.test"));
    assert!(!settings("acme_enabled: false").enabled);
}

#[test]
fn trusted_proxies_are_addresses_and_blocks() {
    let text = "ingress: {trusted_proxies: [192.0.2.0/24, '2001:db8::1']}";
    let trusted = parse(text, &environment()).unwrap().trusted_proxies;
    assert!(trusted.contains("192.0.2.7".parse().unwrap()));
    assert!(!trusted.contains("192.0.3.7".parse().unwrap()));
    let default = parse("", &environment()).unwrap().trusted_proxies;
    assert!(!default.contains("127.0.0.1".parse().unwrap()));
}

#[test]
fn forwarders_are_the_configured_ones_or_those_of_the_host() {
    let mut environment = environment();
    environment.resolv_conf = "nameserver 127.0.0.11\nnameserver 192.0.2.7\n".to_owned();
    let of = |text: &str| {
        let config = parse(text, &environment).unwrap();
        let addresses = config.dns_upstreams.addresses.iter();
        let addresses: Vec<_> = addresses.map(ToString::to_string).collect();
        (addresses, config.dns_upstreams.warnings.len())
    };
    assert_eq!(of(""), (vec!["192.0.2.7".to_owned()], 1));
    let configured = "dns: {forwarders: [192.0.2.8], timeout: 3s}";
    assert_eq!(of(configured), (vec!["192.0.2.8".to_owned()], 0));
}

#[test]
fn regression_docker_resolver_or_a_gateway_as_forwarder_is_refused_at_start() {
    for (pool, address) in [
        ("10.244.0.0/16", "127.0.0.11"),
        ("10.244.0.0/16", "10.244.3.1"),
        ("10.9.0.0/16", "10.9.0.1"),
    ] {
        let text = format!("ipam_pool: {pool}\ndns: {{forwarders: [{address}]}}");
        let report = parse(&text, &environment()).unwrap_err();
        assert!(report.violations[0].span.is_some(), "{report:?}");
        let error = report.to_error().unwrap();
        assert_eq!(error.code, ErrorCode::ConfigInvalid);
        let start = format!("dns.forwarders[0]: {address} is ");
        assert!(error.message.starts_with(&start), "{}", error.message);
        let end = "configuring it as an upstream would create a forwarding loop";
        assert!(error.message.ends_with(end), "{}", error.message);
    }
}

#[test]
fn a_wrong_value_or_an_unknown_key_stops_the_start_by_name() {
    let cases = [
        ("colour: red", "colour"),
        ("metrics_addr: localhost", "metrics_addr"),
        ("wg_port: 70000", "wg_port"),
        ("mesh_pool: 10.245.0.0/30", "mesh_pool"),
        ("mesh_pool: 10.244.7.0/24", "mesh_pool"),
        ("listen_addr: nonsense", "listen_addr"),
        ("listen_addr: 10.1.2.3:7001", "cluster_addr"),
        ("cluster_addr: 10.1.2.3", "cluster_addr"),
        ("http_addr: nowhere", "http_addr"),
        ("https_addr: nowhere", "https_addr"),
        ("acme_ca: http://ca.test/dir", "acme_ca"),
        ("acme_email: nobody", "acme_email"),
        ("acme_enabled: maybe", "acme_enabled"),
        ("docker_host: tcp://10.0.0.1:2375", "docker_host"),
        ("ipam_pool: 10.244.0.0/24", "ipam_pool"),
        ("node_status_interval: 4s", "node_status_interval"),
        ("node_status_interval: 6m", "node_status_interval"),
        ("node_status_interval: 30", "node_status_interval"),
        ("node_status_interval: [1]", "node_status_interval"),
        ("node_unreachable_after: soon", "node_unreachable_after"),
        ("node_unreachable_after: 0s", "node_unreachable_after"),
        ("dns: {timeout: 2}", "dns"),
        ("dns: {timeout: 0s}", "dns.timeout"),
        ("dns: {servers: [192.0.2.1]}", "servers"),
        ("dns: {forwarders: [dns.example.com]}", "dns.forwarders[0]"),
        (
            "ingress: {trusted_proxies: [lb]}",
            "ingress.trusted_proxies[0]",
        ),
        ("ingress: {trusted_proxies: 10.0.0.1}", "ingress"),
        ("ingress: {proxies: []}", "proxies"),
        ("hostname: 'a b'", "hostname"),
        ("log_level: loud", "log_level"),
    ];
    for (text, key) in cases {
        let report = parse(text, &environment()).unwrap_err();
        let error = report.to_error().unwrap();
        assert_eq!(error.code, ErrorCode::ConfigInvalid, "{text}");
        assert!(error.message.contains(key), "{text}: {}", error.message);
    }
}

#[test]
fn every_violation_is_told_with_its_place() {
    let text = "colour: red\nlog_level: loud\naudit_retention: many\n\nlisten_addr: nonsense\n\
                docker_host: {a: b}\nipam_pool: none\n";
    let report = parse(text, &environment()).unwrap_err();
    let told: Vec<String> = report
        .violations
        .iter()
        .map(|violation| {
            let span = violation.span.unwrap();
            assert_eq!(violation.code, ErrorCode::ConfigInvalid);
            format!("{}:{} {}", span.line, span.column, violation.path)
        })
        .collect();
    assert_eq!(
        told,
        [
            "1:1 colour",
            "2:1 log_level",
            "3:1 audit_retention",
            "5:1 listen_addr",
            "6:1 docker_host",
            "7:1 ipam_pool",
        ]
    );
}

#[test]
fn a_text_that_is_no_mapping_is_refused() {
    for text in [
        "- a",
        "just words",
        "a: [",
        "log_level: info\nlog_level: warn",
    ] {
        let report = parse(text, &environment()).unwrap_err();
        assert_eq!(
            report.violations[0].code,
            ErrorCode::ConfigInvalid,
            "{text}"
        );
    }
}

#[test]
fn the_control_plane_is_not_put_on_a_public_or_ambiguous_address() {
    let mut environment = environment();
    environment.addresses = vec!["8.8.8.8".parse().unwrap()];
    assert_eq!(
        parse("", &environment).unwrap_err().violations[0].code,
        ErrorCode::ConfigInvalid
    );
    environment.addresses = vec!["10.0.0.1".parse().unwrap(), "192.168.0.1".parse().unwrap()];
    let report = parse("", &environment).unwrap_err();
    assert_eq!(
        report.violations[0].details["candidates"],
        "10.0.0.1, 192.168.0.1"
    );
    let named = parse(
        "listen_addr: 8.8.8.8:7000\ncluster_addr: 8.8.8.8:7001",
        &environment,
    );
    assert_eq!(named.unwrap().api_address(), "8.8.8.8:7000");
}

proptest! {
    #[test]
    fn no_text_makes_the_daemon_panic(text in "\\PC{0,200}") {
        let _ = parse(&text, &environment());
    }
}

#[test]
fn what_containers_may_have_and_reach_is_checked() {
    let config = parse("", &environment()).unwrap();
    assert_eq!(config.isolation_deny, [([169, 254, 169, 254].into(), 32)]);
    assert_eq!(config.workloads.pids_limit, 4_096);
    let text = "workloads: {allow_binds: [/srv]}\nisolation: {deny: [10.0.0.0/8, 192.0.2.1]}";
    let config = parse(text, &environment()).unwrap();
    assert_eq!(config.workloads.allowed().allow_binds, ["/srv"]);
    assert_eq!(config.isolation_deny.len(), 2);
    for wrong in [
        "workloads: {allow_binds: [srv]}",
        "workloads: {pids_limit: 0}",
        "workloads: {log_max_size: lots}",
        "workloads: {allow_caps: [ALL]}",
        "isolation: {deny: [10.0.0.1/8]}",
        "isolation: {deny: [10.0.0.0/0]}",
        "isolation: {deny: ['::1']}",
    ] {
        let report = parse(wrong, &environment()).unwrap_err();
        assert_eq!(
            report.violations[0].code,
            ErrorCode::ConfigInvalid,
            "{wrong}"
        );
    }
}

#[test]
fn containers_and_the_mesh_are_never_trusted_as_a_balancer() {
    let text = "ingress: {trusted_proxies: [10.0.0.0/8]}";
    let trusted = parse(text, &environment()).unwrap().trusted_proxies;
    assert!(trusted.contains("10.1.2.3".parse().unwrap()));
    for inside in [
        "10.244.0.9",
        "10.244.255.1",
        "10.245.0.2",
        "::ffff:10.244.0.9",
    ] {
        assert!(!trusted.contains(inside.parse().unwrap()), "{inside}");
    }
}
