//! Hosts that cannot reach each other, leaders that die, engines that stop (spec 12).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use jaco_testkit::bed::{Bed, Host, SOON, poll_until};
use jaco_testkit::project::Project;
use serde_json::Value;

use support::{apply, bed, deploy_web, leader, refusal, replicas, voters};

/// A cluster of three voters that runs a replica of `web` on each.
fn three_webs(name: &str) -> (Bed, Project) {
    let bed = bed(name, 3);
    bed.form_cluster().unwrap();
    poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
    let project = Project::new(name).unwrap();
    deploy_web(&bed, &project, 3);
    apply(bed.host(1), &project);
    (bed, project)
}

fn follower(bed: &Bed) -> &Host {
    let leading = leader(bed).unwrap();
    let mut others = bed.hosts().iter();
    others.find(|host| host.index() != leading).unwrap()
}

/// Whether `web` has one replica on each host, and every host's copy of the state says so.
fn one_on_each(bed: &Bed) -> bool {
    bed.hosts().iter().all(|host| {
        let status = host.jaco_json(&["status", "web"]).unwrap_or_default();
        let rows = status["replicas"].as_array().cloned().unwrap_or_default();
        let running = rows.iter().filter(|row| row["state"] == "running");
        let on: BTreeSet<&str> = running.filter_map(|row| row["host"].as_str()).collect();
        rows.len() == 3 && on.len() == 3
    })
}

/// What `net check` says on a host, and how it ends.
fn net_check(host: &Host) -> (Option<i32>, Vec<Value>) {
    let output = host.jaco(&["net", "check", "-o", "json"]).unwrap();
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = checked["checks"].as_array().unwrap().clone();
    assert_eq!(checked["ok"], rows.iter().all(|row| row["ok"] == true));
    (output.status.code(), rows)
}

#[test]
fn net_check_finds_the_host_that_is_cut_off() {
    let (bed, _project) = three_webs("netcheck");
    let passes = || net_check(bed.host(2)).0 == Some(0);
    poll_until(SOON, "all checks pass", passes).unwrap();
    let (_, rows) = net_check(bed.host(2));
    let of = |kind: &str| rows.iter().filter(|row| row["check"] == kind).count();
    let counts = ["mesh", "mtu", "dns", "isolation"].map(of);
    assert_eq!(counts, [6, 6, 3, 3], "{rows:?}");
    let table = bed.host(1).jaco_text(&["net", "check"]).unwrap();
    assert!(table.starts_with("NODE"), "{table}");

    bed.partition(&[3], &[1, 2]).unwrap();
    let (code, rows) = net_check(bed.host(1));
    assert_eq!(code, Some(1));
    for row in &rows {
        let lost = row["target"] == "node-3";
        assert_eq!(row["ok"], !lost, "{row}");
    }
    let answers: Vec<&Value> = rows.iter().filter(|r| r["check"] == "answer").collect();
    assert_eq!(answers.len(), 1, "{answers:?}");

    bed.heal().unwrap();
    poll_until(SOON, "all checks pass again", passes).unwrap();
}

#[test]
fn regression_write_during_an_election() {
    let (bed, _project) = three_webs("election");
    let mut waited = false;
    for round in 0..5 {
        let leading = leader(&bed).unwrap();
        let follower = follower(&bed);
        bed.host(leading).kill_daemon().unwrap();
        let name = format!("round-{round}");
        let output = follower.jaco(&["token", "issue", "--name", &name]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        waited |= said.contains("no leader, retrying");
        bed.host(leading).start_daemon().unwrap();
        poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
        if waited {
            return;
        }
    }
    panic!("no write met an election");
}

#[test]
fn regression_minority_side_of_a_partition() {
    let (bed, _project) = three_webs("minority");
    let apart: [fn(&Bed) -> usize; 2] = [
        |bed| follower(bed).index(),
        |bed| leader(bed).expect("a leader"),
    ];
    for choose in apart {
        // What an earlier partition moved must be back, or the rows counted below are in motion.
        poll_until(SOON, "a replica on each host", || one_on_each(&bed)).unwrap();
        let alone = choose(&bed);
        let others: Vec<usize> = (1..=3).filter(|index| *index != alone).collect();
        let (alone, other) = (bed.host(alone), bed.host(others[0]));
        bed.partition(&[alone.index()], &others).unwrap();
        let name = format!("by-{}", alone.name());
        let error = refusal(alone, &["token", "issue", "--name", &name]);
        assert_eq!(error["code"], "quorum_lost", "{error}");
        let status = alone.jaco_json(&["status", "web"]).unwrap();
        assert_eq!(status["replicas"].as_array().unwrap().len(), 3, "{status}");
        let answer = alone.http_get("web.example.com", "127.0.0.1:80", "/");
        assert_eq!(answer.unwrap().status, 200);
        other
            .jaco_text(&["token", "issue", "--name", &name])
            .unwrap();
        bed.heal().unwrap();
        poll_until(SOON, "the host writes again", || {
            let name = format!("{name}-again");
            alone
                .jaco_text(&["token", "issue", "--name", &name])
                .is_ok()
        })
        .unwrap();
    }
}

#[test]
fn regression_engine_stopped() {
    let (bed, _project) = three_webs("engine");
    let (host, other) = (bed.host(2), bed.host(1));
    host.stop_engine().unwrap();
    poll_until(SOON, "the node has no engine", || {
        let list = other.jaco_json(&["node", "list"]).unwrap_or_default();
        list["nodes"][1]["status"] == "docker_unreachable"
    })
    .unwrap();
    poll_until(SOON, "its replica runs elsewhere", || {
        let status = other.jaco_json(&["status", "web"]).unwrap_or_default();
        let rows = status["replicas"].as_array().cloned().unwrap_or_default();
        replicas(other, "web", "running") == 3 && rows.iter().all(|row| row["host"] != host.name())
    })
    .unwrap();
    // Without an engine of its own the node still serves what runs elsewhere.
    poll_until(SOON, "the ingress goes on", || {
        let answer = host.http_get("web.example.com", "127.0.0.1:80", "/");
        answer.is_ok_and(|answer| answer.status == 200)
    })
    .unwrap();
    host.start_engine().unwrap();
    poll_until(SOON, "the node is ready again", || {
        let list = other.jaco_json(&["node", "list"]).unwrap_or_default();
        list["nodes"][1]["status"] == "ready"
    })
    .unwrap();
}

/// Gives a host's engine a disk of its own that is soon full.
fn small_disk(host: &Host) -> PathBuf {
    let data = host.directory().join("docker");
    host.stop_engine().unwrap();
    let mut mount = Command::new("mount");
    let mount = mount.args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]);
    assert!(mount.arg(&data).status().unwrap().success());
    host.start_engine().unwrap();
    data
}

#[test]
fn regression_engine_disk_full_is_told_by_the_replica() {
    let bed = bed("diskfull", 2);
    let host = bed.host(2);
    let data = small_disk(host);
    bed.form_cluster().unwrap();
    host.load_image("web:1").unwrap();
    let filler = data.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    let block = vec![1; 1 << 16];
    while file.write_all(&block).is_ok() {}

    let project = Project::new("diskfull").unwrap();
    deploy_web(&bed, &project, 2);
    let manifest = project.path("jaco.yaml");
    let words = ["apply", &manifest, "--no-wait"];
    bed.host(1).jaco_text(&words).unwrap();
    let mut refused = None;
    poll_until(SOON, "the engine's refusal is told", || {
        let status = bed.host(1).jaco_json(&["status", "web"]);
        let status = status.unwrap_or_default();
        let mut rows = status["replicas"].as_array().into_iter().flatten();
        refused = rows.find(|row| row["code"] == "docker_error").cloned();
        refused.is_some()
    })
    .unwrap();
    let refused = refused.unwrap();
    assert_eq!(refused["host"], host.name(), "{refused}");
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("no space left on device"), "{told}");
    // Nothing else is harmed: the other node's replica serves both.
    for host in bed.hosts() {
        poll_until(SOON, "the service answers", || {
            let answer = host.http_get("web.example.com", "127.0.0.1:80", "/");
            answer.is_ok_and(|answer| answer.status == 200)
        })
        .unwrap();
    }
    drop(file);
    fs::remove_file(&filler).unwrap();
    bed.host(1)
        .jaco_text(&["apply", &manifest, "--wait"])
        .unwrap();
    assert_eq!(replicas(bed.host(1), "web", "running"), 2);
}

#[test]
fn regression_follower_logs_not_the_leader() {
    let (bed, _project) = three_webs("quiet");
    let follower = follower(&bed);
    let read = || fs::read_to_string(follower.daemon().log()).unwrap();
    let before = read().len();
    for count in [5, 2, 4, 3] {
        let target = format!("web/web={count}");
        follower.jaco_text(&["scale", &target]).unwrap();
        poll_until(SOON, "the service is as large as asked", || {
            replicas(follower, "web", "running") == count
        })
        .unwrap();
    }
    let log = read();
    let complaints = |line: &&str| {
        let line = line.to_lowercase();
        ["warn", "error", "leader"]
            .iter()
            .any(|word| line.contains(word))
    };
    let told: Vec<&str> = log[before..].lines().filter(complaints).collect();
    assert!(told.is_empty(), "{told:#?}");
}
