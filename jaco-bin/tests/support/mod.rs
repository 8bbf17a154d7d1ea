//! What the bed tests of the daemons share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its part

pub mod lets_encrypt;
pub mod network;

use std::collections::BTreeMap;
use std::path::Path;

use jaco_testkit::bed::{Bed, Host, cluster_status};
use jaco_testkit::project::Project;
use serde_json::Value;

/// A bed that runs the binaries under test.
pub fn bed(name: &str, hosts: usize) -> Bed {
    let binaries = Path::new(env!("CARGO_BIN_EXE_jacod")).parent().unwrap();
    Bed::builder()
        .name(name)
        .hosts(hosts)
        .binaries(binaries)
        .build()
        .unwrap()
}

/// How many voters there are, by the word of the leader.
pub fn voters(bed: &Bed) -> Option<usize> {
    let statuses = bed
        .hosts()
        .iter()
        .filter_map(|host| cluster_status(host).ok());
    let counts = statuses.filter_map(|status| {
        let nodes = status["nodes"].as_array()?.clone();
        let of = |word: &str| nodes.iter().filter(|n| n["suffrage"] == word).count();
        (of("unknown") == 0 && !nodes.is_empty()).then(|| of("voter"))
    });
    counts.max()
}

/// The present leader's host number, by the word of some node that answers.
pub fn leader(bed: &Bed) -> Option<usize> {
    let statuses = bed
        .hosts()
        .iter()
        .filter_map(|host| cluster_status(host).ok());
    let mut names = statuses.filter_map(|status| status["leader"].as_str().map(str::to_owned));
    let name = names.next()?;
    bed.hosts()
        .iter()
        .find(|host| host.name() == name)
        .map(|host| host.index())
}

/// Container ids by name, of the cluster's containers on a host.
pub fn containers(host: &Host) -> BTreeMap<String, String> {
    let format = "{{.Names}} {{.ID}}";
    let filter = "label=jaco.cluster_id";
    let list = host.docker_text(&["ps", "--no-trunc", "--filter", filter, "--format", format]);
    let list = list.unwrap();
    list.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect()
}

/// Writes a project with one routed web service.
pub fn deploy_web(bed: &Bed, project: &Project, replicas: usize) {
    let route = "  - {domain: web.example.com, service: web, port: 80, tls: off}\n";
    write_web(bed, project, route, replicas);
}

/// Writes a project with one web service behind these lines of routes.
pub fn write_web(bed: &Bed, project: &Project, routes: &str, replicas: usize) {
    let service = format!("  - {{name: web, replicas: {replicas}}}\n");
    let jaco = format!("deployment: web\nroutes:\n{routes}services:\n{service}");
    let compose = format!("services:\n  web:\n    image: {}\n", bed.image("web:1"));
    project
        .write("jaco.yaml", &jaco)
        .unwrap()
        .write("compose.yaml", &compose)
        .unwrap();
}

/// Applies a project and waits until it runs.
pub fn apply(host: &Host, project: &Project) -> Value {
    host.jaco_json(&["apply", &project.path("jaco.yaml"), "--wait"])
        .unwrap()
}

/// How many replicas of a deployment are in a state.
pub fn replicas(host: &Host, deployment: &str, state: &str) -> usize {
    let status = host.jaco_json(&["status", deployment]);
    let status = status.unwrap_or_default();
    let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
    replicas
        .iter()
        .filter(|replica| replica["state"] == state)
        .count()
}

/// Runs a command that must be refused; its JSON error.
pub fn refusal(host: &Host, words: &[&str]) -> Value {
    let mut words = words.to_vec();
    words.extend(["-o", "json"]);
    let output = host.jaco(&words).unwrap();
    assert!(!output.status.success(), "{words:?} was not refused");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{words:?} said no JSON: {text}"))
}
