//! A cluster of real daemons on real engines: forming, failing, coming back (spec 04).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeMap;

use jaco_core::cluster::attempts::BURST;
use jaco_testkit::bed::{Bed, SOON, cluster_status, poll_until};
use jaco_testkit::project::Project;
use jaco_testkit::soak;
use serde_json::Value;

use support::{apply, bed, containers, deploy_web, leader, replicas, voters};

fn all_containers(bed: &Bed) -> BTreeMap<String, String> {
    bed.hosts().iter().flat_map(containers).collect()
}

#[test]
fn a_cluster_of_three_outlives_its_leader_and_its_own_restart() {
    let bed = bed("life", 3);
    bed.form_cluster().unwrap();
    poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();

    // Any node takes an apply, and spread puts one replica on each host.
    let project = Project::new("life").unwrap();
    deploy_web(&bed, &project, 3);
    let leading = leader(&bed).unwrap();
    let follower = bed
        .hosts()
        .iter()
        .find(|host| host.index() != leading)
        .unwrap();
    assert_eq!(apply(follower, &project)["revision"], 1);
    for host in bed.hosts() {
        assert_eq!(containers(host).len(), 1, "on {}", host.name());
    }
    for host in bed.hosts() {
        let answer = host
            .http_get("web.example.com", "127.0.0.1:80", "/")
            .unwrap();
        assert_eq!(answer.status, 200, "through {}", host.name());
    }
    let before = all_containers(&bed);

    // Without its leader the cluster soon takes writes again.
    bed.host(leading).kill_daemon().unwrap();
    follower
        .jaco_text(&["token", "issue", "--name", "after-the-kill"])
        .unwrap();
    bed.host(leading).start_daemon().unwrap();
    poll_until(SOON, "all nodes agree", || {
        soak::agree(&bed).unwrap_or(false)
    })
    .unwrap();
    assert_eq!(
        all_containers(&bed),
        before,
        "a daemon's death touches no container"
    );

    // All daemons at once: same state, same containers.
    for host in bed.hosts() {
        host.stop_daemon().unwrap();
    }
    assert_eq!(
        all_containers(&bed),
        before,
        "containers run without daemons"
    );
    for host in bed.hosts() {
        host.start_daemon().unwrap();
    }
    poll_until(SOON, "all nodes agree", || {
        soak::agree(&bed).unwrap_or(false)
    })
    .unwrap();
    let status = follower.jaco_json(&["status", "web"]).unwrap();
    assert_eq!(status["deployments"][0]["applied_revision"], 1);
    poll_until(SOON, "all replicas run", || {
        replicas(follower, "web", "running") == 3
    })
    .unwrap();
    assert_eq!(all_containers(&bed), before, "a restart recreates nothing");
    let tokens = follower.jaco_json(&["token", "list"]).unwrap();
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 2);
}

#[test]
fn the_voter_set_follows_the_table_from_one_to_five_and_back() {
    let bed = bed("walk", 5);
    bed.start_daemons().unwrap();
    let first = bed.host(1);
    first.jaco_text(&["cluster", "init"]).unwrap();
    for (members, expected) in [(2, 1), (3, 3), (4, 3), (5, 5)] {
        let line = first.jaco_text(&["node", "issue-join-token"]).unwrap();
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        bed.host(members).jaco_text(&words).unwrap();
        poll_until(
            SOON,
            &format!("{expected} voters of {members} members"),
            || voters(&bed) == Some(expected),
        )
        .unwrap();
    }
    let project = Project::new("walk").unwrap();
    deploy_web(&bed, &project, 5);
    apply(first, &project);
    for (members, expected) in [(4, 3), (3, 3), (2, 1), (1, 1)] {
        let leaving = bed.host(members + 1);
        assert!(!containers(leaving).is_empty());
        let name = leaving.name();
        first.jaco_text(&["node", "remove", &name]).unwrap();
        // It was drained before it left.
        assert_eq!(replicas(first, "web", "running"), 5);
        assert!(containers(leaving).is_empty());
        poll_until(
            SOON,
            &format!("{expected} voters of {members} members"),
            || {
                let status = cluster_status(first).ok();
                let count = status.and_then(|s| s["nodes"].as_array().map(Vec::len));
                count == Some(members) && voters(&bed) == Some(expected)
            },
        )
        .unwrap();
        poll_until(SOON, "the removed daemon is uninitialized", || {
            let status = cluster_status(bed.host(members + 1));
            status.is_ok_and(|status| status["initialized"] == false)
        })
        .unwrap();
    }
    // One that left can come back.
    let line = first.jaco_text(&["node", "issue-join-token"]).unwrap();
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    bed.host(2).jaco_text(&words).unwrap();
    assert_eq!(
        refusal(&bed, 2, &words)["code"],
        "cluster_already_initialized"
    );
}

fn refusal(bed: &Bed, host: usize, words: &[&str]) -> Value {
    support::refusal(bed.host(host), words)
}

#[test]
fn no_acknowledged_apply_is_lost_to_sigkill() {
    let bed = bed("kills", 3);
    bed.form_cluster().unwrap();
    poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
    let kills = soak::kills(&bed, 12, 0x6a61636f).unwrap();
    assert!(kills.acknowledged > 0, "{kills:?}");
    assert_eq!(kills.lost, 0, "{kills:?}");
}

#[test]
fn wrong_join_tokens_are_limited_for_each_address() {
    let bed = bed("tokens", 3);
    bed.start_daemons().unwrap();
    let first = bed.host(1);
    let init = ["cluster", "init", "--no-systemd-enable"];
    first.jaco_text(&init).unwrap();
    let line = first.jaco_text(&["node", "issue-join-token"]).unwrap();
    let right: Vec<&str> = line.split_whitespace().skip(1).collect();
    let token = right.iter().position(|word| *word == "--token").unwrap() + 1;
    let wrong = format!("{}{}", &right[token][..right[token].len() - 4], "0000");
    let mut words = right.clone();
    words[token] = &wrong;
    for _ in 0..BURST {
        let error = refusal(&bed, 2, &words);
        assert_eq!(error["code"], "join_token_invalid");
        assert!(error["details"]["next_try_at"].is_null(), "{error}");
    }
    // Not even the right one is looked at now, but another host may show it.
    let error = refusal(&bed, 2, &right);
    assert_eq!(error["code"], "join_token_invalid", "{error}");
    assert!(error["details"]["next_try_at"].is_string(), "{error}");
    bed.host(3).jaco_text(&right).unwrap();
}
