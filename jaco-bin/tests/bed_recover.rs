//! A cluster that lost its majority for good goes on with the one member that is left (spec 04).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::fs;
use std::process::Command;

use jaco_testkit::bed::{Bed, Host, SOON, cluster_status, poll_until};
use jaco_testkit::project::Project;
use serde_json::Value;

use support::{apply, bed, containers, deploy_web, refusal, replicas, voters};

/// `cluster recover` on a host, with this answer on standard input.
fn recover(host: &Host, answer: &str) -> (bool, Value, String) {
    let jaco = host.daemon().binary("jaco").unwrap();
    let config = host.daemon().config_file();
    let line = format!(
        "echo '{answer}' | {} cluster recover --force-new-cluster --config {} -o json",
        jaco.display(),
        config.display()
    );
    let mut shell = Command::new("sh");
    let shell = shell.env("JACO_STATE_KEY", host.daemon().state_key());
    let output = host.run(shell.args(["-c", &line])).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|_| panic!("no JSON: {said}"));
    (output.status.success(), document, said)
}

/// What a refused attempt says.
fn refused(host: &Host, answer: &str) -> Value {
    let (done, document, said) = recover(host, answer);
    assert!(!done, "{document}: {said}");
    document
}

fn join(first: &Host, host: &Host) {
    let line = first.jaco_text(&["node", "issue-join-token"]).unwrap();
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    host.jaco_text(&words).unwrap();
}

/// Ends a host for good, and gives its name to a new one without anything of the old.
fn replace(host: &Host) {
    host.start_engine().unwrap();
    let all = host.docker_text(&["ps", "--all", "--quiet"]).unwrap();
    for container in all.lines() {
        host.docker_text(&["rm", "--force", container]).unwrap();
    }
    host.docker_text(&["network", "prune", "--force"]).unwrap();
    fs::remove_dir_all(host.daemon().data()).unwrap();
    fs::remove_file(host.daemon().state_key()).unwrap();
    host.start_daemon().unwrap();
}

fn serves(bed: &Bed) {
    for host in bed.hosts() {
        poll_until(SOON, "the page is served", || {
            let answer = host.http_get("web.example.com", "127.0.0.1:80", "/");
            answer.is_ok_and(|answer| answer.status == 200)
        })
        .unwrap();
    }
}

#[test]
fn one_of_three_goes_on_alone_and_new_hosts_join_it() {
    let bed = bed("recover", 3);
    bed.form_cluster().unwrap();
    poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
    let project = Project::new("recover").unwrap();
    deploy_web(&bed, &project, 3);
    let first = bed.host(1);
    apply(first, &project);
    let before = containers(first);
    let tokens = first.jaco_json(&["token", "list"]).unwrap();

    // Not while its daemon runs, and not while another member answers.
    let error = refused(first, "0");
    assert_eq!(error["code"], "validation_failed", "{error}");
    assert_eq!(error["details"]["field"], "daemon", "{error}");
    first.stop_daemon().unwrap();
    let error = refused(first, "0");
    assert_eq!(error["details"]["field"], "members", "{error}");
    first.start_daemon().unwrap();

    for host in &bed.hosts()[1..] {
        host.kill_daemon().unwrap();
        host.stop_engine().unwrap();
    }
    poll_until(SOON, "the majority is lost", || {
        let words = ["token", "issue", "--name", "late", "-o", "json"];
        let output = first.jaco(&words).unwrap();
        String::from_utf8_lossy(&output.stdout).contains("quorum_lost")
    })
    .unwrap();
    first.stop_daemon().unwrap();
    let error = refused(first, "yes");
    assert_eq!(error["code"], "validation_failed", "{error}");
    assert_eq!(error["details"]["field"], "confirmation", "{error}");
    let shown = error["details"]["expected"].as_str().unwrap().to_owned();
    let output = first.jaco(&["cluster", "recover"]).unwrap();
    assert_eq!(output.status.code(), Some(2), "the flag says what is meant");
    let (done, document, said) = recover(first, &shown);
    assert!(done, "{said}");
    assert!(said.contains(&format!("up to index {shown}")), "{said}");
    assert_eq!(document["lost"].as_array().unwrap().len(), 2, "{document}");

    first.start_daemon().unwrap();
    poll_until(SOON, "the one member leads", || {
        let status = cluster_status(first).unwrap_or_default();
        let nodes = status["nodes"].as_array().map_or(0, Vec::len);
        status["leader"] == first.name() && nodes == 1 && voters(&bed) == Some(1)
    })
    .unwrap();
    let status = first.jaco_json(&["status", "web"]).unwrap();
    assert_eq!(status["deployments"][0]["applied_revision"], 1, "{status}");
    // What was refused for want of a majority may be among what the survivor had in its log.
    let kept = first.jaco_json(&["token", "list"]).unwrap();
    let kept = kept["tokens"].as_array().unwrap();
    assert!(
        tokens["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .all(|token| kept.contains(token))
    );
    poll_until(SOON, "all replicas run here", || {
        replicas(first, "web", "running") == 3
    })
    .unwrap();
    let after = containers(first);
    assert!(before.iter().all(|(name, id)| after.get(name) == Some(id)));
    deploy_web(&bed, &project, 4);
    assert_eq!(apply(first, &project)["revision"], 2);
    first.stop_daemon().unwrap();
    let error = refused(first, &shown);
    assert_eq!(error["details"]["field"], "members", "{error}");
    first.start_daemon().unwrap();

    for host in &bed.hosts()[1..] {
        replace(host);
        let error = refusal(host, &["status"]);
        assert_eq!(error["code"], "cluster_uninitialized", "{error}");
        host.stop_daemon().unwrap();
        let error = refused(host, "0");
        assert_eq!(error["code"], "cluster_uninitialized", "{error}");
        host.start_daemon().unwrap();
        join(first, host);
    }
    poll_until(SOON, "three voters again", || voters(&bed) == Some(3)).unwrap();
    poll_until(SOON, "the new hosts have their share", || {
        bed.hosts().iter().all(|host| !containers(host).is_empty())
    })
    .unwrap();
    serves(&bed);
}
