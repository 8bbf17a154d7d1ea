//! The examples run as they are, together, on one host.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use jaco_testkit::bed::{Host, SOON, poll_ok};
use support::bed;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// Fetches a page through the ingress until it says what it should.
fn shows(host: &Host, domain: &str, path: &str, text: &str) {
    let address = format!("{}:80", host.address());
    poll_ok(SOON, "the page is there", || {
        let response = host.http_get(domain, &address, path)?;
        let body = response.text();
        ensure!(
            response.status == 200 && body.contains(text),
            "{domain}{path}: {} {body}",
            response.status
        );
        Ok(())
    })
    .unwrap();
}

/// Runs a line in a container of one of the shop's services.
fn inside(host: &Host, service: &str, line: &str) -> anyhow::Result<String> {
    let filter = format!("label=jaco.service={service}");
    let shop = "label=jaco.deployment=shop";
    let ids = host.docker_text(&["ps", "--quiet", "--filter", shop, "--filter", &filter])?;
    let id = ids.lines().next().unwrap_or_default();
    host.docker_text(&["exec", id, "sh", "-c", line])
}

/// The first address of a name, as a service sees it.
fn found(host: &Host, service: &str, name: &str) -> Option<String> {
    // It fails for an unknown name, which is an answer too.
    let text = inside(host, service, &format!("nslookup -type=a {name} || true")).unwrap();
    // The server's own address has a tab.
    let first = text.lines().find_map(|line| line.strip_prefix("Address: "));
    first.map(|address| address.trim().to_owned())
}

/// What a part of the shop answers another one that looks it up by name.
fn asked(host: &Host, service: &str, name: &str, port: u16, line: &str) -> String {
    let address = found(host, service, name).unwrap();
    let line = format!("printf '{line}\\r\\n\\r\\n' | nc {address} {port}");
    poll_ok(SOON, "it answers", || inside(host, service, &line)).unwrap()
}

#[test]
fn the_examples_run_on_one_host_and_the_shops_parts_reach_each_other_by_name() {
    let bed = bed("examples", 1);
    bed.form_cluster().unwrap();
    let host = bed.host(1);
    let mut image = Command::new("sh");
    image.arg(examples().join("image.sh")).arg("docker");
    let made = host.run(&mut image).unwrap();
    assert!(made.status.success(), "{made:?}");
    for example in ["hello", "shop"] {
        let path = examples().join(example).join("jaco.yaml");
        let applied = host.jaco_json(&["apply", &path.display().to_string(), "--wait"]);
        assert_eq!(applied.unwrap()["converged"], true, "{example}");
    }
    shows(host, "hello.localhost", "/", "hello from");
    shows(host, "shop.localhost", "/", "welcome to the shop");
    shows(host, "shop.localhost", "/api/orders", "UTC");

    let orders = asked(host, "web", "api", 9090, "GET /api/orders HTTP/1.0");
    assert!(orders.contains("UTC"), "{orders}");
    assert_eq!(asked(host, "api", "cache", 6379, ""), "fresh");
    // The pages are not on the network of the cache.
    assert_eq!(found(host, "web", "cache"), None);
}
