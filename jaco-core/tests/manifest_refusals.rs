//! Every refusal of spec 02 with its code, message, line and column.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use jaco_core::manifest::output::ValidateOutput;
use support::{JACO, Project, TWO_SERVICES, check_compose, check_jaco, check_service};

#[test]
fn seven_mistakes_are_seven_violations() {
    let jaco = "\
deployment: Shop
colour: blue
routes:
  - {domain: shop.example, service: wbe, port: 80}
";
    let compose = "\
services:
  web:
    image: w
    ports: ['80:80']
    networks: [front]
    net: host
    foo: 1
";
    let output = ValidateOutput::from(Project::default().resolve(jaco, compose));
    assert!(!output.valid);
    let got: Vec<String> = output
        .violations
        .iter()
        .map(|v| format!("{} {} {}", v.file, v.code, v.path))
        .collect();
    assert_eq!(
        got,
        [
            "jaco.yaml validation_failed deployment",
            "jaco.yaml validation_failed colour",
            "jaco.yaml unknown_service routes[0].service",
            "compose.yaml reserved_port services.web.ports[0]",
            "compose.yaml unknown_network services.web.networks[0]",
            "compose.yaml legacy_compose_field services.web.net",
            "compose.yaml validation_failed services.web.foo",
        ]
    );
}

#[test]
fn the_schema_of_jaco_yaml_is_closed() {
    check_jaco(
        "deployment: shop\nroutes:\n- domain: a.b\n  service: web\n  port: 1\n  tsl: off\n",
        &["jaco.yaml:6:3 validation_failed routes[0].tsl: unknown key \"tsl\" at routes[0].tsl"],
    );
    check_jaco(
        "deployment: shop\nservices: [{name: web, replica: 1}]\n",
        &["jaco.yaml:2:24 validation_failed services[0].replica: \
           unknown key \"replica\" at services[0].replica"],
    );
    check_jaco(
        "routes: []\n",
        &["jaco.yaml:1:1 validation_failed deployment: deployment is missing"],
    );
    check_jaco(
        "",
        &["jaco.yaml:1:1 validation_failed : the document must be a mapping"],
    );
    check_jaco(
        "deployment: shop\nx-own: 1\n",
        &["jaco.yaml:2:1 validation_failed x-own: unknown key \"x-own\" at x-own"],
    );
    check_jaco(
        "deployment: shop\nroutes: {}\n",
        &["jaco.yaml:2:9 validation_failed routes: routes must be a list"],
    );
}

#[test]
fn names_and_domains_have_a_grammar() {
    for name in ["Shop", "-shop", "shop-", "a_b", &"a".repeat(41), ""] {
        let got = Project::default().refused(&format!("deployment: \"{name}\"\n"), TWO_SERVICES);
        let expect = format!(
            "jaco.yaml:1:13 validation_failed deployment: deployment name {name:?} must be a DNS \
             label of at most 40 characters: lower-case letters, digits and inner hyphens"
        );
        assert_eq!(got, expect);
    }
    for domain in [
        "shop",
        "a..b",
        "-a.b",
        "10.0.0.1",
        "*.shop.example",
        "a.b/c",
    ] {
        let jaco = format!(
            "deployment: shop\nroutes:\n- {{domain: \"{domain}\", service: web, port: 80}}\n"
        );
        let expect = format!(
            "jaco.yaml:3:12 validation_failed routes[0].domain: domain {domain:?} must be a fully \
             qualified domain name"
        );
        check_jaco(&jaco, &[&expect]);
    }
    check_jaco(
        "deployment: shop\nacme_email: nobody\n",
        &["jaco.yaml:2:13 validation_failed acme_email: acme_email must be an email address"],
    );
}

#[test]
fn routes_are_checked() {
    let route = |rest: &str| format!("deployment: shop\nroutes:\n- {{domain: a.b, {rest}}}\n");
    check_jaco(
        &route("service: api, port: 80"),
        &["jaco.yaml:3:26 unknown_service routes[0].service: \
           service \"api\" is not declared; declared services: db, web"],
    );
    check_jaco(
        &route("service: web, port: 0"),
        &["jaco.yaml:3:37 validation_failed routes[0].port: \
           routes[0].port must be an integer from 1 to 65535"],
    );
    check_jaco(
        &route("service: web"),
        &["jaco.yaml:3:3 validation_failed routes[0].port: routes[0].port is missing"],
    );
    check_jaco(
        &route("service: web, port: 80, tls: maybe"),
        &["jaco.yaml:3:46 validation_failed routes[0].tls: routes[0].tls must be auto or off"],
    );
    check_jaco(
        &route("service: web, port: 80, path: api"),
        &["jaco.yaml:3:47 validation_failed routes[0].path: \
           path \"api\" must be empty, or start with / and have no query or blanks"],
    );
    check_jaco(
        "deployment: shop\nroutes:\n- {domain: a.b, service: web, port: 1, path: /x}\n\
         - {domain: A.B, service: db, port: 2, path: /x/}\n",
        &["jaco.yaml:4:3 validation_failed routes[1]: \
           two routes have the domain \"a.b\" and the path \"/x\""],
    );
    check_jaco(
        "deployment: shop\nroutes:\n- {domain: a.b, service: web, port: 1, tls: off}\n\
         - {domain: a.b, service: web, port: 1, path: /x}\n",
        &["jaco.yaml:4:3 route_tls_mixed routes[1]: \
           domain \"a.b\" has routes with tls: auto and with tls: off"],
    );
    let got = Project::default().refused(
        &route("service: web, port: 80"),
        "services:\n  web: {image: w, network_mode: none}\n",
    );
    assert_eq!(
        got,
        "jaco.yaml:3:26 validation_failed routes[0].service: \
         route to service \"web\", which sets network_mode and so has no address"
    );
}

#[test]
fn overrides_are_checked() {
    let entry = |rest: &str| format!("deployment: shop\nservices:\n- {{name: web, {rest}}}\n");
    check_jaco(
        "deployment: shop\nservices: [{name: api}]\n",
        &["jaco.yaml:2:19 unknown_service services[0].name: \
           service \"api\" is not declared; declared services: db, web"],
    );
    check_jaco(
        "deployment: shop\nservices: [{name: web}, {name: web}]\n",
        &["jaco.yaml:2:32 validation_failed services[1].name: service \"web\" has two entries"],
    );
    check_jaco(
        &entry("placement: global, replicas: 2"),
        &["jaco.yaml:3:44 validation_failed services[0].replicas: \
           service \"web\" uses placement=global; remove replicas"],
    );
    check_jaco(
        &entry("placement: hosts"),
        &["jaco.yaml:3:26 validation_failed services[0].placement: \
           service \"web\" uses placement=hosts; list its hosts"],
    );
    check_jaco(
        &entry("hosts: [n1]"),
        &["jaco.yaml:3:22 validation_failed services[0].hosts: \
           service \"web\" lists hosts, which need placement: hosts"],
    );
    check_jaco(
        &entry("placement: hosts, hosts: []"),
        &["jaco.yaml:3:40 validation_failed services[0].hosts: service \"web\" lists no hosts"],
    );
    check_jaco(
        &entry("placement: hosts, hosts: [n1, n1]"),
        &["jaco.yaml:3:40 validation_failed services[0].hosts: \
           service \"web\" lists a host twice"],
    );
    check_jaco(
        &entry("placement: hosts, hosts: [n1, n2], replicas: 3"),
        &[
            "jaco.yaml:3:60 replicas_exceed_pinned_hosts services[0].replicas: \
           cannot place 3 replicas on 2 pinned hosts",
        ],
    );
    check_jaco(
        &entry("placement: everywhere"),
        &[
            "jaco.yaml:3:26 validation_failed services[0].placement: services[0].placement must be \
           one of spread, pack, hosts, global, not \"everywhere\"",
        ],
    );
    check_jaco(
        &entry("replicas: -1"),
        &["jaco.yaml:3:25 validation_failed services[0].replicas: \
           services[0].replicas must be an integer from 0 to 4294967295"],
    );
    check_jaco(
        &entry("networks: [front]"),
        &["jaco.yaml:3:26 unknown_network services[0].networks[0]: \
           network \"front\" is not declared; declared networks: none"],
    );
}

#[test]
fn regression_pinned_replicas_beyond_hosts() {
    let jaco = "deployment: shop\nservices: [{name: web, placement: hosts, hosts: [a]}]\n";
    let compose = "services:\n  web: {image: w, deploy: {replicas: 2}}\n";
    assert_eq!(
        Project::default().refused(jaco, compose),
        "jaco.yaml:2:49 replicas_exceed_pinned_hosts services[0].hosts: \
         cannot place 2 replicas on 1 pinned hosts"
    );
}

#[test]
fn global_mode_of_compose_has_no_replicas_either() {
    check_service(
        "deploy: {mode: global, replicas: 2}",
        &[
            "compose.yaml:4:38 validation_failed services.web.deploy.replicas: \
           service \"web\" uses placement=global; remove replicas",
        ],
    );
}

#[test]
fn compose_documents_are_closed_too() {
    check_compose(
        "services:\n  web: {image: w}\nvolume: {}\n",
        &["compose.yaml:3:1 validation_failed volume: unknown key \"volume\" at volume"],
    );
    check_compose(
        "x-any: 1\nservices:\n  web: {image: w, x-more: {a: 1}, deploy: {x-b: 1}}\n",
        &[],
    );
    check_service(
        "scale: 3",
        &["compose.yaml:4:5 validation_failed services.web.scale: \
           unsupported key \"scale\" (use deploy.replicas) at services.web.scale"],
    );
    check_service(
        "deploy:\n  labels: {}",
        &[
            "compose.yaml:5:7 validation_failed services.web.deploy.labels: \
           unknown key \"labels\" at services.web.deploy.labels",
        ],
    );
    check_compose(
        "{}",
        &["compose.yaml:1:1 validation_failed services: services is missing"],
    );
    check_compose(
        "services: {}",
        &["compose.yaml:1:11 validation_failed services: the compose file declares no services"],
    );
    check_compose(
        "services:\n  web: {}\n",
        &["compose.yaml:2:8 validation_failed services.web.image: \
           service \"web\" has no image; JACO never builds, so name one"],
    );
    check_compose(
        "services:\n  we b: {image: w}\n",
        &[
            "compose.yaml:2:3 validation_failed services.we b: service name \"we b\" must be 1 \
            to 63 \
           letters, digits, `.`, `_` or `-`, and start with a letter or digit",
        ],
    );
}

#[test]
fn legacy_spellings_name_their_successor() {
    let table = [
        ("log_driver", "logging.driver"),
        ("log_opt", "logging.options"),
        ("net", "network_mode"),
        (
            "volume_driver",
            "no direct equivalent; use long-form `volumes:` with `driver:`",
        ),
        ("dockerfile", "build.dockerfile"),
    ];
    for (key, modern) in table {
        let resolved = Project::default().resolve(JACO, &support::service(&format!("{key}: x")));
        let violation = &resolved.report.violations[0];
        assert_eq!(violation.code.as_str(), "legacy_compose_field");
        assert_eq!(violation.details["field"], key);
        assert_eq!(violation.details["modern_equivalent"], modern);
        let span = violation.span.unwrap();
        assert_eq!((span.line, span.column), (4, 5));
    }
}
