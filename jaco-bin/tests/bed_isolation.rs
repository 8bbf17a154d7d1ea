//! The packet filter's table under other hands, and a host without the filter (spec 07).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use jaco_testkit::bed::{Bed, Host, SOON, poll_until};
use jaco_testkit::project::Project;
use serde_json::Value;

use support::network::{Seat, deploy_two, events, seats};
use support::{apply, bed, containers, deploy_web, replicas};

const REPAIRS: &str = "isolation_ruleset_reconciled";

fn listing(host: &Host) -> String {
    let output = host.run(Command::new("nft").args(["list", "table", "inet", "jaco"]));
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// Every container of a deployment with one service reaches the others, on all hosts.
fn web_is_connected(bed: &Bed, deployment: &str) {
    let webs: Vec<Seat> = seats(bed, deployment)
        .into_iter()
        .filter(|seat| seat.service == "web")
        .collect();
    assert_eq!(webs.len(), 3);
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let to = (webs[to].on("front"), 80).into();
        assert!(
            webs[from].connects(to),
            "{deployment}: {} to {to}",
            webs[from].name
        );
    }
}

#[test]
fn regression_ruleset_applied_twice_and_changed_by_others() {
    let bed = bed("ruleset", 3);
    bed.form_cluster().unwrap();
    let (shop, other) = (
        Project::new("shop").unwrap(),
        Project::new("other").unwrap(),
    );
    deploy_two(&bed, &shop, &other);
    let host = bed.host(1);
    // One after the other: the later does not hide the earlier, nor the other way round.
    apply(host, &shop);
    web_is_connected(&bed, "shop");
    apply(host, &other);
    web_is_connected(&bed, "other");
    web_is_connected(&bed, "shop");

    assert_eq!(
        events(host, REPAIRS),
        Vec::<Value>::new(),
        "nobody touched it"
    );
    let before = listing(host);
    assert!(before.contains("dep_net_other_front"), "{before}");
    let by_others = [
        "flush table inet jaco",
        "insert rule inet jaco forward ip saddr 10.244.0.0/16 accept",
        "flush set inet jaco dep_net_other_front",
        "delete table inet jaco",
    ];
    for (count, change) in by_others.into_iter().enumerate() {
        host.namespace().nft(change).unwrap();
        let done = poll_until(SOON, "the table is repaired and told of", || {
            listing(host) == before && events(host, REPAIRS).len() > count
        });
        if done.is_err() {
            panic!("{change}: {:?}\n{}", events(host, REPAIRS), listing(host));
        }
    }
    let told = events(host, REPAIRS);
    assert_eq!(told.len(), by_others.len(), "{told:?}");
    for (change, event) in by_others.iter().zip(&told) {
        let text = event.to_string();
        assert!(text.contains("node-1"), "{change}: {text}");
        let sign = if change.starts_with("insert") {
            "+ "
        } else {
            "- "
        };
        assert!(text.contains(sign), "{change}: {text}");
    }

    // A daemon that starts loads the same table, and has nothing to tell.
    host.stop_daemon().unwrap();
    host.start_daemon().unwrap();
    poll_until(SOON, "the node is verified", || {
        isolation(host, "node-1")["isolation"] == "verified"
    })
    .unwrap();
    assert_eq!(listing(host), before, "loaded twice");
    assert_eq!(events(host, REPAIRS).len(), by_others.len());
    web_is_connected(&bed, "shop");
    web_is_connected(&bed, "other");
}

/// A node's row, by the word of a host.
fn isolation(host: &Host, node: &str) -> Value {
    let list = host.jaco_json(&["node", "list"]).unwrap_or_default();
    let nodes = list["nodes"].as_array().cloned().unwrap_or_default();
    let mut rows = nodes.into_iter();
    rows.find(|row| row["hostname"] == node).unwrap_or_default()
}

/// Puts a program in front of the daemon that takes `nft` away from it where a file says so.
fn without_nft(folder: &Path) {
    let built = Path::new(env!("CARGO_BIN_EXE_jacod")).parent().unwrap();
    let jacod = built.join("jacod").display().to_string();
    let script = format!(
        "#!/bin/sh\n\
         [ -e \"$(dirname \"$2\")/without-nft\" ] || exec {jacod} \"$@\"\n\
         exec unshare --mount sh -c 'mount --bind /dev/null \"$(command -v nft)\"; \
         exec {jacod} \"$@\"' jacod \"$@\"\n"
    );
    let wrapper = folder.join("jacod");
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(built.join("jaco"), folder.join("jaco")).unwrap();
}

#[test]
fn regression_isolation_unavailable_without_nft() {
    let project = Project::new("nonft").unwrap();
    without_nft(project.dir());
    let bed = Bed::builder()
        .name("nonft")
        .hosts(3)
        .binaries(project.dir())
        .build()
        .unwrap();
    bed.form_cluster().unwrap();
    let (first, bare) = (bed.host(1), bed.host(3));
    let folder = bare.daemon().config_file();
    std::fs::write(folder.parent().unwrap().join("without-nft"), "").unwrap();
    bare.stop_daemon().unwrap();
    bare.start_daemon().unwrap();
    poll_until(SOON, "the node says that it cannot", || {
        let row = isolation(first, "node-3");
        row["isolation"] == "unavailable" && row["isolation_reason"].is_string()
    })
    .unwrap();
    assert!(!events(first, "isolation_unavailable").is_empty());

    deploy_web(&bed, &project, 3);
    apply(first, &project);
    assert_eq!(replicas(first, "web", "running"), 3);
    assert!(containers(bare).is_empty(), "nothing is placed there");
    // It serves what runs elsewhere all the same.
    poll_until(SOON, "its ingress answers", || {
        let answer = bare.http_get("web.example.com", "127.0.0.1:80", "/");
        answer.is_ok_and(|answer| answer.status == 200)
    })
    .unwrap();
}
