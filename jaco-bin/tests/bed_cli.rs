//! The command line against a real daemon and engine: what is touched, what is printed.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeMap;

use jaco_testkit::bed::{Bed, SOON, poll_until};
use jaco_testkit::project::Project;
use serde_json::Value;

use support::{apply, bed, containers, deploy_web, refusal, replicas};

fn one_host(name: &str) -> Bed {
    let bed = bed(name, 1);
    bed.form_cluster().unwrap();
    bed
}

/// Two services, one of which reads an env file.
fn two_services(bed: &Bed, project: &Project) {
    project
        .write(
            "jaco.yaml",
            "deployment: pair\nservices:\n  - {name: a, replicas: 2}\n",
        )
        .unwrap()
        .write("a.env", "GREETING=hello\n")
        .unwrap();
    let image = bed.image("sleep:1");
    let compose = format!(
        "services:\n  a:\n    image: {image}\n    env_file: [a.env]\n  b:\n    image: {image}\n"
    );
    project.write("compose.yaml", &compose).unwrap();
}

fn changed(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<(usize, usize)> {
    ["pair-a-", "pair-b-"]
        .map(|prefix| {
            let ids = |of: &BTreeMap<String, String>| -> Vec<String> {
                let ours = of.iter().filter(|(name, _)| name.starts_with(prefix));
                ours.map(|(_, id)| id.clone()).collect()
            };
            let (before, after) = (ids(before), ids(after));
            (
                after.iter().filter(|id| before.contains(id)).count(),
                after.len(),
            )
        })
        .to_vec()
}

#[test]
fn regression_only_what_changed_in_meaning_is_replaced() {
    let bed = one_host("touch");
    let host = bed.host(1);
    let project = Project::new("touch").unwrap();
    two_services(&bed, &project);
    apply(host, &project);
    let before = containers(host);
    assert_eq!(before.len(), 3);

    // regression_re_apply_with_only_comments_or_key_order_changed
    let image = bed.image("sleep:1");
    let compose = format!(
        "# a comment\nservices:\n  b: {{image: '{image}'}}\n  a:\n    env_file: a.env\n    \
         image: \"{image}\"\n"
    );
    project.write("compose.yaml", &compose).unwrap();
    let answer = apply(host, &project);
    assert_eq!(answer["changed"], false, "{answer}");
    assert_eq!(containers(host), before);

    // regression_container_kept_with_old_env_after_the_env_file_changed
    project.write("a.env", "GREETING=goodbye\n").unwrap();
    let answer = apply(host, &project);
    assert_eq!(
        answer["changes"][0]["keys"],
        serde_json::json!(["environment"]),
        "{answer}"
    );
    let after = containers(host);
    assert_eq!(
        changed(&before, &after),
        [(0, 2), (1, 1)],
        "kept and present of a and b"
    );

    // A changed replica count replaces nothing.
    host.jaco_text(&["scale", "pair/a=3"]).unwrap();
    poll_until(SOON, "the third replica", || {
        replicas(host, "pair", "running") == 4
    })
    .unwrap();
    assert_eq!(changed(&after, &containers(host)), [(2, 3), (1, 1)]);

    host.jaco_text(&["delete", "pair"]).unwrap();
    poll_until(SOON, "everything is gone", || containers(host).is_empty()).unwrap();
    poll_until(SOON, "the network is gone", || {
        let filter = "label=jaco.cluster_id";
        host.docker_text(&["network", "ls", "-q", "--filter", filter])
            .unwrap()
            .is_empty()
    })
    .unwrap();
}

#[test]
fn regression_every_command_that_prints_data_gives_json_that_parses() {
    let bed = one_host("json");
    let host = bed.host(1);
    let project = Project::new("json").unwrap();
    deploy_web(&bed, &project, 1);
    apply(host, &project);
    let (jaco, compose) = (project.path("jaco.yaml"), project.path("compose.yaml"));
    let node = host.name();
    let commands: &[&[&str]] = &[
        &["cluster", "status"],
        &["node", "issue-join-token"],
        &["node", "list"],
        &["apply", &jaco, "--dry-run"],
        &["apply", &jaco],
        &["validate", "--jaco", &jaco, "--compose", &compose],
        &["validate", "--jaco", &jaco, "--print"],
        &["status"],
        &["status", "web/web"],
        &["get", "deployments"],
        &["get", "deployment", "web"],
        &["get", "replicas"],
        &["get", "replica", "web-web-1"],
        &["why", "web-web-1"],
        &["plan", "--lose", &node],
        &["plan", &jaco],
        &["node", "label", &node, "zone=north"],
        &["node", "label", &node, "zone-"],
        &["node", "drain", &node, "--no-wait"],
        &["node", "undrain", &node],
        &["get", "routes"],
        &["get", "route", "web.example.com"],
        &["get", "network", "web/_default"],
        &["net", "check"],
        &["history", "web"],
        &["scale", "web/web=2"],
        &["restart", "web/web"],
        &["rollback", "web"],
        &["cert", "list"],
        &["token", "issue", "--name", "ci"],
        &["token", "list"],
        &["token", "revoke", "ci"],
        &["audit"],
        &["explain", "reserved_port"],
        &["completion", "bash"],
        &["version"],
        &["delete", "web"],
    ];
    for words in commands {
        let value = host.jaco_json(words);
        assert!(
            value.is_ok_and(|value: Value| value.is_object()),
            "{words:?}"
        );
    }
    let page = host.jaco_text(&["explain", "reserved_port"]).unwrap();
    assert!(page.contains("reserved_port"), "{page}");
}

#[test]
fn refusals_name_their_code_and_change_nothing() {
    let bed = bed("refuse", 1);
    bed.start_daemons().unwrap();
    let host = bed.host(1);
    // regression: any RPC before init
    for words in [
        &["node", "list"][..],
        &["status"],
        &["token", "list"],
        &["audit"],
    ] {
        let answer = refusal(host, words);
        assert_eq!(
            answer["code"], "cluster_uninitialized",
            "{words:?}: {answer}"
        );
        let hint = answer["hint"].as_str().unwrap();
        assert!(
            hint.contains("cluster init") && hint.contains("node join"),
            "{hint}"
        );
    }
    host.jaco_text(&["cluster", "init"]).unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["cluster", "init"], "cluster_already_initialized"),
        (&["delete", "nothing"], "deployment_not_found"),
        (&["rollback", "nothing"], "deployment_not_found"),
        (&["history", "nothing"], "deployment_not_found"),
        (&["get", "replica", "nothing"], "replica_not_found"),
        (&["get", "route", "nothing.example"], "route_not_found"),
        (&["node", "remove", "nothing"], "node_not_found"),
        (&["node", "remove", "node-1"], "validation_failed"),
        (&["token", "revoke", "nobody"], "token_invalid"),
        (&["token", "revoke", "bootstrap"], "validation_failed"),
        (
            &["token", "issue", "--name", "bootstrap"],
            "validation_failed",
        ),
        (&["audit", "--type", "nonsense"], "validation_failed"),
        (&["audit", "--since", "yesterday"], "validation_failed"),
        (&["logs", "nothing/web"], "deployment_not_found"),
        (&["explain", "nonsense"], "validation_failed"),
    ];
    for (words, code) in cases {
        let answer = refusal(host, words);
        assert_eq!(answer["code"], *code, "{words:?}: {answer}");
        assert!(!answer["hint"].as_str().unwrap().is_empty(), "{words:?}");
    }
    let unreachable = host.jaco(&["status", "--socket", "/nowhere.sock"]).unwrap();
    assert_eq!(unreachable.status.code(), Some(3));
    let usage = host.jaco(&["scale", "web"]).unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn remote_callers_need_a_token_that_still_counts() {
    let bed = one_host("remote");
    let host = bed.host(1);
    let issued = host
        .jaco_json(&["token", "issue", "--name", "dev"])
        .unwrap();
    let token = issued["token"].as_str().unwrap().to_owned();
    let node: Value =
        serde_json::from_slice(&std::fs::read(host.daemon().data().join("node.json")).unwrap())
            .unwrap();
    let project = Project::new("remote").unwrap();
    project
        .write("ca.pem", node["ca_cert"].as_str().unwrap())
        .unwrap();
    let server = format!("{}:7000", host.address());
    let ca = project.path("ca.pem");
    let remote = |token: &str, words: &[&'static str]| -> Vec<String> {
        let flags = ["--server", &server, "--ca-cert", &ca, "--token", token];
        words
            .iter()
            .copied()
            .chain(flags)
            .map(str::to_owned)
            .collect()
    };
    let call = |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        host.jaco_json(&words)
    };
    call(remote(&token, &["status"])).unwrap();
    let refused = |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refusal(host, &words)["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused(remote("00", &["status"])), "token_invalid");
    assert_eq!(
        refused(remote(&token, &["cluster", "init"])),
        "permission_denied"
    );
    host.jaco_text(&["token", "revoke", "dev"]).unwrap();
    assert_eq!(refused(remote(&token, &["status"])), "token_revoked");
    assert_eq!(refused(remote(&token, &["node", "list"])), "token_revoked");
    // A server of another CA is not trusted, and gets no token.
    let other = another_ca();
    project.write("ca.pem", other).unwrap();
    assert_eq!(refused(remote(&token, &["status"])), "tls_untrusted");
}

/// A certificate of a CA that signed nothing here.
fn another_ca() -> &'static str {
    include_str!("support/other-ca.pem")
}

#[test]
fn a_join_token_of_another_cluster_or_used_twice_is_refused() {
    let bed = bed("tokens", 3);
    bed.start_daemons().unwrap();
    bed.host(1).jaco_text(&["cluster", "init"]).unwrap();
    bed.host(2).jaco_text(&["cluster", "init"]).unwrap();
    let line = |host: usize| -> Vec<String> {
        let line = bed
            .host(host)
            .jaco_text(&["node", "issue-join-token"])
            .unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    let (ours, theirs) = (line(1), line(2));
    // The token of cluster 1 shown to a node of cluster 2: not sent, because its CA differs.
    let mut crossed = ours.clone();
    crossed[3] = theirs[3].clone();
    let words: Vec<&str> = crossed.iter().map(String::as_str).collect();
    assert_eq!(refusal(bed.host(3), &words)["code"], "tls_untrusted");
    let words: Vec<&str> = ours.iter().map(String::as_str).collect();
    bed.host(3).jaco_text(&words).unwrap();
    assert_eq!(
        refusal(bed.host(2), &words)["code"],
        "cluster_already_initialized"
    );
}
