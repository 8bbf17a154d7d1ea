//! The mesh under faults and changes: engines, partitions, moving replicas (spec 07).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use jaco_testkit::bed::{Bed, Host, SOON, poll_until};
use jaco_testkit::project::Project;
use jaco_testkit::soak::churn;
use serde_json::Value;

use support::network::{Seat, seats};
use support::{apply, bed};

/// How long the churn goes on; `make soak-churn` makes 200 moves.
const CHURN: Duration = Duration::from_secs(30);

fn deploy(bed: &Bed, project: &Project, replicas: usize) {
    let compose = format!(
        "services:\n  web: {{image: '{}', networks: [front]}}\nnetworks: {{front: {{}}}}\n",
        bed.image("web:1")
    );
    let jaco = format!("deployment: shop\nservices:\n  - {{name: web, replicas: {replicas}}}\n");
    project
        .write("compose.yaml", &compose)
        .unwrap()
        .write("jaco.yaml", &jaco)
        .unwrap();
}

/// True when each container reaches each other one, by its address and by the service's name.
fn connected(bed: &Bed, count: usize) -> bool {
    let webs = seats(bed, "shop");
    let reaches = |from: &Seat| {
        let mut others = webs.iter().filter(|to| to.name != from.name);
        others.all(|to| from.connects((to.on("front"), 80).into()))
    };
    webs.len() == count
        && webs.iter().all(|seat| !seat.addresses.is_empty())
        && webs.iter().all(reaches)
        && bed.hosts().iter().all(|host| {
            let names = named(host, &webs);
            names.is_none_or(|names| names.len() == count)
        })
}

/// The addresses that the service's name has on a host, asked from a container there if any.
fn named(host: &Host, webs: &[Seat]) -> Option<BTreeSet<Ipv4Addr>> {
    let asker = webs.iter().find(|seat| seat.host == host.index())?;
    Some(host.addresses_of(&asker.name, "web").unwrap())
}

fn wait_connected(bed: &Bed, deadline: Duration, count: usize, when: &str) {
    if let Err(error) = poll_until(deadline, when, || connected(bed, count)) {
        let status = bed.host(1).jaco_text(&["status", "-o", "json"]);
        panic!("{error}: {status:?}");
    }
}

#[test]
fn the_mesh_comes_back_after_an_engine_and_after_a_partition() {
    let bed = bed("mesh", 3);
    bed.form_cluster().unwrap();
    let project = Project::new("shop").unwrap();
    deploy(&bed, &project, 3);
    apply(bed.host(1), &project);
    wait_connected(&bed, SOON, 3, "all are connected");

    bed.partition(&[3], &[1, 2]).unwrap();
    let webs = seats(&bed, "shop");
    let on = |host: usize| webs.iter().find(|seat| seat.host == host).unwrap();
    assert!(!on(1).connects((on(3).on("front"), 80).into()));
    assert!(on(1).connects((on(2).on("front"), 80).into()));
    bed.heal().unwrap();
    wait_connected(&bed, SOON, 3, "all are connected after the partition");

    bed.host(2).stop_engine().unwrap();
    bed.host(2).start_engine().unwrap();
    wait_connected(
        &bed,
        SOON,
        3,
        "all are connected after the engine's restart",
    );
    // What had to move has left the host, which is part of the mesh again with new replicas.
    bed.host(1).jaco_text(&["scale", "shop/web=6"]).unwrap();
    wait_connected(&bed, SOON, 6, "the host takes part again");
    assert!(seats(&bed, "shop").iter().any(|seat| seat.host == 2));
}

/// What a host has of others: routes into the mesh, and its engine's networks.
fn kernel(host: &Host) -> (BTreeSet<String>, BTreeSet<String>) {
    let show = ["route", "show", "dev", "jaco-wg"];
    let routes = host.run(Command::new("ip").args(show)).unwrap();
    let routes = String::from_utf8(routes.stdout).unwrap();
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let containers = |address: &String| address.starts_with("10.244.");
    let routes = routes.lines().filter_map(first).filter(containers);
    let filter = "label=jaco.cluster_id";
    let networks = ["network", "ls", "--filter", filter, "--format", "{{.Name}}"];
    let networks = host.docker_text(&networks).unwrap();
    (
        routes.collect(),
        networks.lines().map(str::to_owned).collect(),
    )
}

/// True when the host's kernel has just what the status says.
fn is_clean(host: &Host) -> bool {
    let status = host.jaco_json(&["status"]).unwrap_or_default();
    let rows = status["replicas"].as_array().cloned().unwrap_or_default();
    let here = |row: &&Value| row["host"] == host.name();
    let elsewhere = rows.iter().filter(|row| !here(row));
    let address = |row: &Value| row["address"].as_str().map(str::to_owned);
    let routes: BTreeSet<String> = elsewhere.filter_map(address).collect();
    let networks = if rows.iter().any(|row| here(&row)) {
        BTreeSet::from(["jaco_shop_front".to_owned()])
    } else {
        BTreeSet::new()
    };
    kernel(host) == (routes, networks)
}

fn table(host: &Host) -> String {
    let output = host.run(Command::new("nft").args(["list", "table", "inet", "jaco"]));
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn a_churn_of_replicas_leaves_no_name_route_set_or_bridge() {
    let bed = bed("churn", 3);
    bed.form_cluster().unwrap();
    let host = bed.host(1);
    let without = table(host);
    let project = Project::new("shop").unwrap();
    deploy(&bed, &project, 3);
    apply(host, &project);
    wait_connected(&bed, SOON, 3, "all are connected");

    let start = Instant::now();
    let churned = churn::churn(&bed, |_| start.elapsed() < CHURN).unwrap();
    host.jaco_text(&["scale", "shop/web=3"]).unwrap();
    wait_connected(&bed, SOON, 3, "all are connected after the churn");
    for host in bed.hosts() {
        poll_until(SOON, "only what runs is left", || is_clean(host)).unwrap();
        // What is left may still be evened out over the nodes, one replica at a time.
        poll_until(SOON, "the names are those of what runs", || {
            let webs = seats(&bed, "shop");
            // A container that is being stopped has no address.
            let addresses = webs.iter().filter_map(|seat| seat.addresses.get("front"));
            let addresses: BTreeSet<Ipv4Addr> = addresses.copied().collect();
            named(host, &webs).is_none_or(|names| names == addresses)
        })
        .unwrap();
    }
    churn::as_rendered_anew(&bed).unwrap();
    assert!(!churned.named_for.is_empty());
    eprintln!("{churned:?}");

    host.jaco_text(&["delete", "shop"]).unwrap();
    for host in bed.hosts() {
        poll_until(SOON, "nothing is left", || {
            is_clean(host) && kernel(host).0.is_empty() && table(host) == without
        })
        .unwrap();
    }
}
