//! The packet filter's table: rendering, reading back, telling differences apart.
#![allow(clippy::disallowed_methods)] // a test may read files and variables
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeSet;
use std::net::IpAddr;

use jaco_core::cluster::ClusterState;
use jaco_core::cluster::node::Isolation;
use jaco_core::error::ErrorCode;
use jaco_core::node::firewall::{self, Ruleset, Step};
use jaco_core::ports::HostError;
use jaco_testkit::builders::{Cluster, deployment, service};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Nodes are known by name in these states; each has the address of its number.
fn resolve(host: &str) -> Option<IpAddr> {
    let number: u8 = host.strip_prefix('n')?.parse().ok()?;
    Some(IpAddr::from([10, 99, 0, number]))
}

fn desired(state: &ClusterState) -> Ruleset {
    firewall::desired(state, resolve).unwrap()
}

fn cluster(nodes: usize, deployments: &[String]) -> Cluster {
    let mut cluster = Cluster::of(nodes);
    for name in deployments {
        let spec = deployment(name, [("web", service(2, "a"))]);
        cluster.deploy(spec).unwrap();
        cluster.settle();
    }
    cluster
}

/// What `nft` would list after a load: in its order, with handles.
fn listing(ruleset: &Ruleset) -> Value {
    let replacement = ruleset.replacement();
    let mut entries = vec![json!({"metainfo": {"version": "1.0.6"}})];
    let added = replacement["nftables"].as_array().unwrap().iter().skip(2);
    for (handle, command) in added.enumerate() {
        let mut entry = command["add"].clone();
        for body in entry.as_object_mut().unwrap().values_mut() {
            body["handle"] = json!(handle);
            if let Some(elements) = body.get_mut("elem").and_then(Value::as_array_mut) {
                elements.reverse();
            }
        }
        entries.push(entry);
    }
    json!({"nftables": entries})
}

/// The sources that each accepting or dropping rule of a chain names, in order.
fn verdicts(ruleset: &Ruleset, chain: &str) -> Vec<(String, String)> {
    let replacement = ruleset.replacement();
    let commands = replacement["nftables"].as_array().unwrap().clone();
    let rules = commands.iter().map(|command| &command["add"]["rule"]);
    let rules = rules.filter(|rule| rule["chain"] == chain);
    let verdict = |rule: &Value| {
        let last = rule["expr"].as_array().unwrap().last().unwrap().clone();
        let verdict = last.as_object().unwrap().keys().next().unwrap().clone();
        (verdict, rule["comment"].as_str().unwrap().to_owned())
    };
    rules.map(verdict).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_ruleset_survives_the_way_through_a_listing(
        nodes in 1..6usize,
        names in prop::collection::btree_set("[a-z]{1,12}", 0..6),
    ) {
        let names: Vec<String> = names.into_iter().collect();
        let cluster = cluster(nodes, &names);
        let wanted = desired(&cluster.state);
        prop_assert_eq!(&wanted, &desired(&cluster.state));
        let found = Ruleset::of_listing(&listing(&wanted));
        prop_assert_eq!(wanted.differences(&found), Vec::<String>::new());
        prop_assert_eq!(firewall::step(&wanted, None, &found), Step::Nothing);
    }

    #[test]
    fn every_scope_accepts_itself_before_the_pool_is_dropped(
        names in prop::collection::btree_set("[a-z]{1,12}", 1..6),
    ) {
        let names: Vec<String> = names.into_iter().collect();
        let wanted = desired(&cluster(2, &names).state);
        for chain in ["forward", "input"] {
            let verdicts = verdicts(&wanted, chain);
            let drop = verdicts.iter().position(|(_, comment)| {
                ["other networks", "other gateways"].contains(&comment.as_str())
            });
            let before: BTreeSet<&str> = verdicts[..drop.unwrap()]
                .iter()
                .filter(|(verdict, _)| verdict == "accept")
                .map(|(_, comment)| comment.as_str())
                .collect();
            for name in &names {
                let scope = format!("{name}/_default");
                prop_assert!(before.contains(scope.as_str()), "{chain}: {before:?}");
            }
        }
    }

    #[test]
    fn arbitrary_listings_never_panic(text in ".{0,200}", number in any::<i64>()) {
        for listing in [
            json!(text), json!(number), json!({"nftables": text}), json!({"nftables": [text]}),
            json!({"nftables": [{"rule": number}, {"set": {"elem": text}}, {text: null}]}),
        ] {
            let _ = Ruleset::of_listing(&listing);
        }
    }
}

#[test]
fn the_control_plane_is_dropped_before_anything_of_the_own_network_is_accepted() {
    let wanted = desired(&cluster(3, &["shop".to_owned()]).state);
    let verdicts = verdicts(&wanted, "input");
    let at = |name: &str| {
        verdicts
            .iter()
            .position(|(_, comment)| comment == name)
            .unwrap()
    };
    assert!(at("control plane") < at("shop/_default"));
}

#[test]
fn names_that_clean_to_the_same_set_are_kept_apart() {
    let mut cluster = Cluster::of(1);
    let long = "a".repeat(40);
    for name in ["a-b", long.as_str()] {
        cluster
            .deploy(deployment(name, [("web", service(1, "a"))]))
            .unwrap();
    }
    let replacement = desired(&cluster.state).replacement();
    let sets = replacement["nftables"].as_array().unwrap().iter();
    let names: Vec<String> = sets
        .filter_map(|command| command["add"]["set"]["name"].as_str())
        .map(str::to_owned)
        .collect();
    let distinct: BTreeSet<&String> = names.iter().collect();
    assert_eq!(names.len(), distinct.len());
    assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
    assert!(
        names.contains(&"dep_net_a_b__default".to_owned()),
        "{names:?}"
    );
}

#[test]
fn a_change_by_others_is_a_repair_and_a_change_of_the_state_is_not() {
    let cluster = cluster(2, &["shop".to_owned()]);
    let (before, empty) = (desired(&cluster.state), Ruleset::default());
    assert_eq!(firewall::step(&before, None, &empty), Step::Load);
    let Step::Repair(diff) = firewall::step(&before, Some(&before), &empty) else {
        panic!("a flush of the table is drift");
    };
    assert!(
        diff.contains(&"- rule forward/other networks".to_owned()),
        "{diff:?}"
    );
    let mut meddled = listing(&before);
    let rule = json!({"rule": {"family": "inet", "table": "jaco", "chain": "forward",
        "expr": [{"accept": null}]}});
    meddled["nftables"].as_array_mut().unwrap().push(rule);
    let found = Ruleset::of_listing(&meddled);
    let Step::Repair(diff) = firewall::step(&before, Some(&before), &found) else {
        panic!("an added rule is drift");
    };
    assert_eq!(diff.len(), 1);
    assert!(
        diff[0].starts_with("+ rule forward/without a comment"),
        "{diff:?}"
    );
    let other = desired(&Cluster::of(2).state);
    assert_eq!(firewall::step(&before, Some(&other), &other), Step::Load);
}

#[test]
fn what_is_left_after_a_load_makes_the_node_unavailable() {
    assert_eq!(firewall::isolation(&Ok(Vec::new())), Isolation::Verified);
    let code = |outcome| match firewall::isolation(&outcome) {
        Isolation::Unavailable { code, .. } => Some(code),
        _ => None,
    };
    let differs = Ok(vec!["- chain forward".to_owned()]);
    assert_eq!(code(differs), Some(ErrorCode::IsolationSelfTestFailed));
    let missing = Err(HostError::Unavailable("nft is not installed".to_owned()));
    assert_eq!(code(missing), Some(ErrorCode::IsolationUnavailable));
}

/// The golden file; `JACO_REWRITE_GOLDEN=1` writes it anew.
#[allow(clippy::disallowed_methods)] // the golden file is read from disk
#[test]
fn the_table_of_a_small_cluster_is_as_written_down() {
    let state = cluster(2, &["blog".to_owned(), "shop".to_owned()]).state;
    let text = serde_json::to_string_pretty(&desired(&state).replacement()).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/firewall.json");
    if std::env::var_os("JACO_REWRITE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
}
