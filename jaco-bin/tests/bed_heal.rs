//! The loss of a host and its return, foretold and as it happens (spec 05).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::{BTreeMap, BTreeSet};

use jaco_testkit::bed::{Bed, Host, SOON, poll_until};
use jaco_testkit::project::Project;
use jaco_testkit::soak::partition;
use serde_json::Value;

use support::{bed, leader, replicas, voters};

#[test]
fn a_host_that_was_cut_off_comes_back_clean_and_with_its_data() {
    let bed = bed("cut", 3);
    bed.form_cluster().unwrap();
    poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
    let project = Project::new("cut").unwrap();
    partition::prepare(&bed, &project).unwrap();
    let recovery = partition::cut_and_mend(&bed, "kept").unwrap();
    eprintln!("{recovery:?}");
}

/// Spread replicas, one on each node, one with data, one bound to `bound`, and reservations that
/// fill three nodes.
fn deploy(bed: &Bed, project: &Project, bound: &Host) {
    let image = bed.image("sleep:1");
    let reserved = "deploy: {replicas: 6, resources: {reservations: {cpus: '0.9'}}}";
    let compose = format!(
        "services:\n  \
         web: {{image: '{image}', deploy: {{replicas: 5}}}}\n  \
         agent: {{image: '{image}', deploy: {{mode: global}}}}\n  \
         store: {{image: '{image}', volumes: ['data:/data'], \
         deploy: {{placement: {{constraints: ['node.hostname == {}']}}}}}}\n  \
         bound: {{image: '{image}'}}\n  \
         large: {{image: '{image}', {reserved}}}\n\
         volumes: {{data: {{}}}}\n",
        bound.name()
    );
    let jaco = format!(
        "deployment: all\nservices:\n  - {{name: bound, placement: hosts, hosts: [{}]}}\n",
        bound.name()
    );
    project
        .write("compose.yaml", &compose)
        .unwrap()
        .write("jaco.yaml", &jaco)
        .unwrap();
}

/// Where each replica is.
fn places(host: &Host) -> BTreeMap<String, String> {
    let status = host.jaco_json(&["status", "all"]).unwrap_or_default();
    let rows = status["replicas"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let place = |row: &Value| (text(&row["id"]), text(&row["host"]));
    rows.iter().map(place).collect()
}

#[test]
fn what_plan_says_of_a_loss_is_what_happens() {
    let bed = bed("lose", 3);
    bed.form_cluster().unwrap();
    poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
    let leading = leader(&bed).unwrap();
    let mut others = bed.hosts().iter().filter(|host| host.index() != leading);
    let (lost, witness) = (others.next().unwrap(), others.next().unwrap());
    let project = Project::new("lose").unwrap();
    deploy(&bed, &project, lost);
    support::apply(witness, &project);

    let before = places(witness);
    let words = ["plan", "--lose", &lost.name()];
    eprintln!("{}", witness.jaco_text(&words).unwrap());
    let told = witness.jaco_json(&words).unwrap();
    let list = |key: &str| told[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let placed = list("placed").into_iter();
    let placed = placed.map(|it| (text(&it["replica"]), text(&it["node"])));
    let placed: BTreeMap<String, String> = placed.collect();
    let waiting: BTreeSet<String> = list("waiting").iter().map(text).collect();
    let removed: BTreeSet<String> = list("removed").iter().map(text).collect();
    let short = list("short").into_iter();
    let short = short.map(|it| (text(&it["service"]), text(&it["reason"])));
    let short: BTreeMap<String, String> = short.collect();
    assert!(!placed.is_empty() && !waiting.is_empty(), "{told}");
    assert!(
        short.contains_key("large") && short.contains_key("bound"),
        "{told}"
    );

    lost.link_down().unwrap();
    // What the plan leaves: what was there and is neither removed nor lost, what is new, and what
    // waits.
    let mut expected = before.clone();
    expected
        .retain(|id, host| waiting.contains(id) || *host != lost.name() && !removed.contains(id));
    expected.extend(placed);
    let came = poll_until(SOON, "the plan has come true", || {
        places(witness) == expected
    });
    assert!(came.is_ok(), "{:#?} and not {expected:#?}", places(witness));
    let alive = expected.values().filter(|host| **host != lost.name());
    let alive = alive.count();
    poll_until(SOON, "what is left runs", || {
        replicas(witness, "all", "running") >= alive && places(witness) == expected
    })
    .unwrap();
    let status = witness.jaco_json(&["status", "all"]).unwrap();
    let details = &status["deployments"][0]["status_details"];
    for (service, reason) in &short {
        assert_eq!(details[service], *reason, "{details}");
    }
}
