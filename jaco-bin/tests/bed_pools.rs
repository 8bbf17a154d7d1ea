//! Pools of addresses that run dry on a real node (spec 07, Addresses).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use jaco_core::cluster::addresses::ADDRESSES_PER_NETWORK;
use jaco_testkit::bed::{Bed, Host, SOON, poll_until};
use jaco_testkit::project::Project;
use serde_json::Value;

use support::{apply, bed, containers, refusal};

fn one_host(name: &str) -> (Bed, Project) {
    let bed = bed(name, 1);
    bed.form_cluster().unwrap();
    (bed, Project::new(name).unwrap())
}

/// Writes a deployment of one service.
fn write(bed: &Bed, project: &Project, name: &str, replicas: usize, more: &str) {
    let image = bed.image("sleep:1");
    let jaco = format!("deployment: {name}\nservices:\n  - {{name: idle, replicas: {replicas}}}\n");
    project
        .write("jaco.yaml", &jaco)
        .unwrap()
        .write(
            "compose.yaml",
            &format!("services:\n  idle: {{image: '{image}'{more}}}\n"),
        )
        .unwrap();
}

fn verified(bed: &Bed) -> bool {
    let list = bed.host(1).jaco_json(&["node", "list"]).unwrap_or_default();
    list["nodes"][0]["isolation"] == "verified"
}

#[test]
fn regression_subnet_pool_exhausted_by_a_257th_network_on_a_bed() {
    let (bed, project) = one_host("pool");
    let host = bed.host(1);
    let manifest = project.path("jaco.yaml");
    let words = ["apply", &manifest, "--no-wait"];
    for number in 0..256 {
        write(&bed, &project, &format!("d{number}"), 0, "");
        host.jaco_text(&words).unwrap();
    }
    write(&bed, &project, "late", 1, "");
    let error: Value = refusal(host, &words);
    assert_eq!(error["code"], "subnet_pool_exhausted", "{error}");
    assert_eq!(error["details"]["allocated"], "256", "{error}");

    host.jaco_text(&["delete", "d7"]).unwrap();
    poll_until(SOON, "the network of what was deleted is free", || {
        host.jaco_json(&words).is_ok()
    })
    .unwrap();
    // A container runs behind a packet filter of 256 networks.
    apply(host, &project);
    assert!(verified(&bed));
    assert_eq!(host.jaco(&["net", "check"]).unwrap().status.code(), Some(0));
}

#[test]
fn a_254th_replica_is_refused_by_name_on_a_bed() {
    let (bed, project) = one_host("full");
    let host = bed.host(1);
    let manifest = project.path("jaco.yaml");
    let words = ["apply", &manifest, "--no-wait"];
    // No node fits, so that nothing runs: the rule is about what is asked for.
    let nowhere = ", deploy: {placement: {constraints: ['node.labels.place == nowhere']}}";
    write(&bed, &project, "full", 254, nowhere);
    let error = refusal(host, &words);
    assert_eq!(error["code"], "subnet_pool_exhausted", "{error}");
    write(&bed, &project, "full", 253, nowhere);
    assert_eq!(host.jaco_json(&words).unwrap()["changed"], true);
    let error = refusal(host, &["scale", "full/idle=254"]);
    assert_eq!(error["code"], "subnet_pool_exhausted", "{error}");
    let status = host.jaco_json(&["status", "full"]).unwrap();
    assert_eq!(status["deployments"][0]["applied_revision"], 1, "{status}");
}

/// The addresses of everything that runs.
fn running(host: &Host) -> BTreeSet<Ipv4Addr> {
    let status = host.jaco_json(&["status", "crowd"]).unwrap_or_default();
    let rows = status["replicas"].as_array().cloned().unwrap_or_default();
    let running = rows.iter().filter(|row| row["state"] == "running");
    let address = |row: &Value| row["address"].as_str()?.parse().ok();
    running.filter_map(address).collect()
}

#[test]
#[ignore = "253 containers take three minutes: make soak-pool"]
fn all_addresses_of_a_network_are_in_use_at_once() {
    let bed = bed("crowd", 3);
    bed.form_cluster().unwrap();
    let project = Project::new("crowd").unwrap();
    let host = bed.host(1);
    write(&bed, &project, "crowd", 0, "");
    apply(host, &project);
    // In steps, so that each of them is soon done.
    for count in [64, 128, 192, ADDRESSES_PER_NETWORK] {
        let target = format!("crowd/idle={count}");
        host.jaco_text(&["scale", &target]).unwrap();
        poll_until(SOON, &format!("{count} replicas run"), || {
            running(host).len() == count
        })
        .unwrap();
    }
    let last: BTreeSet<u8> = running(host).iter().map(|a| a.octets()[3]).collect();
    assert_eq!(last, (2..=254).collect());
    let error = refusal(host, &["scale", "crowd/idle=254"]);
    assert_eq!(error["code"], "subnet_pool_exhausted", "{error}");
    assert_eq!(error["details"]["pool"], "crowd/_default", "{error}");
    assert_eq!(host.jaco(&["net", "check"]).unwrap().status.code(), Some(0));
    host.jaco_text(&["delete", "crowd"]).unwrap();
    poll_until(SOON, "nothing is left", || {
        bed.hosts().iter().all(|host| containers(host).is_empty())
    })
    .unwrap();
}
