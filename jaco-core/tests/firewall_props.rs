//! The packet filter's table: rendering, reading back, telling differences apart.
#![allow(clippy::disallowed_methods)] // a test may read files and variables
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use jaco_core::cluster::ClusterState;
use jaco_core::cluster::node::Isolation;
use jaco_core::error::ErrorCode;
use jaco_core::node::bridges;
use jaco_core::node::firewall::{self, Local, Ruleset, Step};
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
    let local = Local {
        deny: vec![([169, 254, 169, 254].into(), 32)],
        metrics_port: Some(9_100),
    };
    firewall::desired(state, &local, resolve).unwrap()
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

/// A packet as the rules of a chain see it.
struct Packet<'a> {
    from: (&'a str, Ipv4Addr),
    to: (&'a str, Ipv4Addr),
    is_v6: bool,
    is_new: bool,
}

/// What a chain does with a packet, by the rules as they are loaded.
fn verdict(ruleset: &Ruleset, chain: &str, packet: &Packet<'_>) -> String {
    let replacement = ruleset.replacement();
    let commands = replacement["nftables"].as_array().unwrap();
    let sets: BTreeMap<&str, &Value> = commands
        .iter()
        .map(|command| &command["add"]["set"])
        .filter_map(|set| Some((set["name"].as_str()?, &set["elem"])))
        .collect();
    let is_in = |address: Ipv4Addr, set: &str| {
        sets[set].as_array().into_iter().flatten().any(|element| {
            let prefix = &element["prefix"];
            let (base, length) = match element.as_str() {
                Some(base) => (base, 32),
                None => (
                    prefix["addr"].as_str().unwrap_or("0.0.0.0"),
                    prefix["len"].as_u64().unwrap_or(32),
                ),
            };
            let base: u32 = base.parse::<Ipv4Addr>().unwrap().into();
            let shift = 32 - u32::try_from(length).unwrap();
            u32::from(address).checked_shr(shift) == base.checked_shr(shift)
        })
    };
    let matches = |expression: &Value| {
        let expression = &expression["match"];
        let (left, right) = (
            &expression["left"],
            expression["right"].as_str().unwrap_or_default(),
        );
        let elements = |set: &str| sets[set].as_array().cloned().unwrap_or_default();
        let named = |interface: &str| match right.strip_suffix('*') {
            _ if right.starts_with('@') => elements(&right[1..]).iter().any(|it| it == interface),
            Some(start) => interface.starts_with(start),
            None => interface == right,
        };
        let holds = match (
            left["meta"]["key"].as_str(),
            left["payload"]["field"].as_str(),
        ) {
            (Some("iifname"), _) => named(packet.from.0),
            (Some("oifname"), _) => named(packet.to.0),
            (Some("nfproto"), _) => packet.is_v6,
            (_, Some("saddr")) if !packet.is_v6 => is_in(packet.from.1, &right[1..]),
            (_, Some("daddr")) if !packet.is_v6 => is_in(packet.to.1, &right[1..]),
            (_, Some("saddr" | "daddr")) => return false,
            _ if left["ct"]["key"] == "state" => (right == "new") == packet.is_new,
            // Ports: the packet is to none that matters.
            _ => return false,
        };
        holds == (expression["op"] != "!=")
    };
    for rule in commands.iter().map(|command| &command["add"]["rule"]) {
        let Some((last, conditions)) = rule["expr"].as_array().and_then(|all| all.split_last())
        else {
            continue;
        };
        if rule["chain"] == chain && conditions.iter().all(matches) {
            return last.as_object().unwrap().keys().next().unwrap().clone();
        }
    }
    "policy".to_owned()
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

    /// Whatever a packet says of itself, it goes no further than where it really comes from may.
    #[test]
    fn no_source_is_believed_by_its_address_alone(
        came in 0..5usize, claims in 0..5usize, aims in 0..2usize, is_new: bool, is_v6: bool,
    ) {
        let state = cluster(2, &["blog".to_owned(), "shop".to_owned()]).state;
        let wanted = desired(&state);
        let scopes: Vec<_> = state.subnets.iter().collect();
        let bridges: Vec<String> = scopes
            .iter()
            .map(|(scope, _)| bridges::interface_of(&state, scope).unwrap())
            .collect();
        let inside = |n: usize| Ipv4Addr::from(u32::from(scopes[n].1.base) + 9);
        let mesh = state.nodes["n2"].mesh_address;
        let stale = "jaco-0000-0000";
        let doors = [bridges[0].as_str(), bridges[1].as_str(), "jaco-wg", "eth0", stale];
        let came_by = doors[came];
        let claimed = [inside(0), inside(1), mesh, [192, 0, 2, 7].into(), [10, 99, 0, 2].into()];
        let packet = Packet {
            from: (came_by, claimed[claims]),
            to: (&bridges[aims], inside(aims)),
            is_v6,
            is_new,
        };
        let got = verdict(&wanted, "forward", &packet);
        // True: a container of the network itself, here or behind the mesh, or another node.
        let is_true = match came {
            4 => false,
            2 => claims <= 2 && (claims == aims || claims == 2),
            _ => came == claims && came == aims,
        };
        // Where the mesh ends its own allow-list of addresses was asked before (spec 07).
        let is_answer = !is_new && (came == 2 || came == claims || came == 3 && claims > 2);
        if is_v6 || !(is_true || is_answer || came == 2 && claims > 2) {
            prop_assert_eq!(got, "drop", "{} {:?}", came_by, claimed[claims]);
        } else {
            prop_assert_ne!(got, "drop", "{} {:?}", came_by, claimed[claims]);
        }
        // To the gateway: DNS answers its own bridge only.
        let gateway = Ipv4Addr::from(u32::from(scopes[aims].1.base) + 1);
        let to_gateway = Packet { to: ("", gateway), ..packet };
        let got = verdict(&wanted, "input", &to_gateway);
        let is_own = came == claims && came == aims && !is_v6;
        if !is_own && is_new && came != 2 {
            let is_host = is_v6 && came == 3;
            prop_assert!(is_host || got == "drop", "{} {:?}: {}", came_by, claimed[claims], got);
        }
    }

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
