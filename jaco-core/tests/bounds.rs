//! What is too large is refused, before anything is made of it (spec 10, Bounds).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::sync::Arc;

use jaco_core::cluster::command::Step;
use jaco_core::cluster::{Command, Entry, Proposal, apply};
use jaco_core::error::ErrorCode;
use jaco_core::id::{DeploymentName, ServiceName};
use jaco_core::manifest::bounds::{MAX_CLUSTER_REPLICAS, MAX_REPLICAS};
use jaco_core::manifest::spec::{Content, NetworkMode};
use jaco_core::manifest::{Bundle, parse, redacted};
use jaco_testkit::builders::{Cluster, bundle, deployment, service};
use support::{JACO, Project};

fn bundle_of(compose: &str) -> Bundle {
    Bundle {
        jaco: JACO.to_owned(),
        compose: compose.to_owned(),
        ..Bundle::default()
    }
}

fn refusal(compose: &str) -> String {
    let report = parse(&bundle_of(compose)).unwrap_err();
    assert!(
        report.violations.len() < 10,
        "{} violations",
        report.violations.len()
    );
    report.to_error().unwrap().to_string()
}

#[test]
fn a_yaml_bomb_by_bytes_is_refused() {
    let text = format!(
        "x-a: &a \"{}\"\nx-b: [{}]\nservices: {{w: {{image: a}}}}\n",
        "A".repeat(1 << 20),
        "*a,".repeat(100_000)
    );
    assert!(refusal(&text).contains("without reasonable bound"));
    // A thousand services that share a block of a few hundred bytes are no bomb.
    let services: String = (0..1_000).map(|n| format!("  s{n}: *a\n")).collect();
    let shared = format!(
        "x-a: &a {{image: a, command: \"{}\"}}\nservices:\n{services}",
        "x".repeat(300)
    );
    assert_eq!(parse(&bundle_of(&shared)).unwrap().services.len(), 1_000);
}

#[test]
fn variables_includes_and_env_files_do_not_expand_without_bound() {
    let long = "v".repeat(1 << 19);
    let jaco = "deployment: shop\nenvironment: .env\n";
    let project = Project::default().file(".env", &format!("A={long}\n"));
    let one = "x: [\"${A}${A}${A}${A}\"]\nservices: {w: {image: a}}\n".replace("x:", "x-x:");
    assert!(project.refused(jaco, &one).contains("longer than"));
    let many = format!(
        "x-x: [{}]\nservices: {{w: {{image: a}}}}\n",
        "\"${A}\",".repeat(1_000)
    );
    assert!(project.refused(jaco, &many).contains("expand to more than"));
    let doubling: String = (1..60)
        .map(|n| format!("A{n}=${{A{}}}${{A{}}}\n", n - 1, n - 1))
        .collect();
    let bomb = Project::default().file(".env", &format!("A0=xxxxxxxx\n{doubling}"));
    assert!(!bomb.refused(jaco, "services: {w: {image: a}}\n").is_empty());
    let mut includes = Project::default();
    for n in 0..16 {
        let twice = format!("include: [f{}.yaml, f{}.yaml]\n", n + 1, n + 1);
        includes = includes.file(&format!("f{n}.yaml"), &twice);
    }
    let includes = includes.file("f16.yaml", "services: {w: {image: a}}\n");
    let refused = includes.refused(JACO, "include: [f0.yaml, f0.yaml]\n");
    assert!(!refused.is_empty());
}

#[test]
fn a_manifest_has_a_size_and_its_names_have_a_form() {
    let long = format!("services: {{w: {{image: a}}}}\n# {}\n", "x".repeat(1 << 20));
    assert!(
        Project::default()
            .refused(JACO, &long)
            .contains("at most 1048576")
    );
    let name = "n".repeat(300);
    for section in ["networks", "volumes", "secrets", "configs"] {
        for key in [
            name.as_str(),
            "a b",
            "a/b",
            "../x",
            "-x",
            "\"a\\u001b[31m\"",
        ] {
            let source = match section {
                "secrets" | "configs" => "{content: x}",
                _ => "{}",
            };
            let text = format!("services: {{w: {{image: a}}}}\n{section}: {{{key}: {source}}}\n");
            assert!(refusal(&text).contains("must be 1 to 63 letters"), "{text}");
        }
    }
    for text in [
        "services: {w: {image: a, deploy: {replicas: 4294967295}}}\n",
        "services: {w: {image: a, network_mode: none, deploy: {replicas: 10001}}}\n",
    ] {
        assert!(refusal(text).contains("at most 10000"));
    }
}

#[test]
fn replicas_are_bounded_on_every_way_in() {
    let mut cluster = Cluster::of(3);
    let quiet = |name: &str, replicas: u32| {
        let mut quiet = service(replicas, "a");
        quiet.network_mode = NetworkMode::None;
        quiet.networks.clear();
        deployment(name, [("web", quiet)])
    };
    let mut write = |command: Command| {
        let proposal = Proposal {
            at: cluster.now,
            identity: "local".into(),
            author: Some(jaco_core::access::Author::Local {
                node: "n1".into(),
                uid: 0,
                user: "root".to_owned(),
            }),
            command,
        };
        let index = cluster.state.index + 1;
        apply(&mut cluster.state, &Entry { index, proposal })
    };
    let applied = |spec| Command::Apply {
        bundle: Arc::new(bundle()),
        spec: Arc::new(spec),
        privileged: true,
    };
    let refused = write(applied(quiet("a", MAX_REPLICAS + 1))).unwrap_err();
    assert_eq!(refused.code, ErrorCode::ValidationFailed);
    write(applied(quiet("a", 1))).unwrap();
    let scaled = write(Command::Scale {
        deployment: DeploymentName::new("a"),
        service: ServiceName::new("web"),
        replicas: u32::MAX,
    });
    assert_eq!(scaled.unwrap_err().code, ErrorCode::ValidationFailed);
    let deployments = MAX_CLUSTER_REPLICAS / u64::from(MAX_REPLICAS);
    for n in 1..deployments {
        write(applied(quiet(&format!("d{n}"), MAX_REPLICAS))).unwrap();
    }
    let last = write(applied(quiet("last", MAX_REPLICAS)));
    assert!(last.unwrap_err().message.contains("at most 100000"));
    let mut large = quiet("large", 1);
    let content = Content {
        bytes: vec![0; (16 << 20) + 1],
    };
    large.contents.insert("hash".to_owned(), content);
    assert_eq!(
        write(applied(large)).unwrap_err().code,
        ErrorCode::ValidationFailed
    );
}

#[test]
fn a_leader_survives_a_count_that_an_old_log_holds() {
    let mut cluster = Cluster::of(3);
    let mut absurd = service(u32::MAX, "a");
    absurd.network_mode = NetworkMode::None;
    absurd.networks.clear();
    // Entries without an author are of versions that knew no bound.
    cluster
        .deploy(deployment("absurd", [("web", absurd)]))
        .unwrap();
    cluster
        .deploy(deployment("good", [("web", service(2, "a"))]))
        .unwrap();
    cluster.settle();
    let of = |name: &str| {
        let deployment = &cluster.state.deployments[&DeploymentName::new(name)];
        deployment.replicas.len()
    };
    assert_eq!((of("absurd"), of("good")), (0, 2));
}

#[test]
fn a_plan_places_a_thousand_replicas_and_goes_on() {
    let mut cluster = Cluster::of(3);
    let mut many = service(2_500, "a");
    many.network_mode = NetworkMode::None;
    many.networks.clear();
    cluster.deploy(deployment("many", [("web", many)])).unwrap();
    for standing in [1_000, 2_000, 2_500] {
        let steps = jaco_core::scheduler::plan(&cluster.state, cluster.now);
        let places = steps
            .iter()
            .filter(|step| matches!(step, Step::Place { .. }));
        assert!(places.count() <= 1_000);
        cluster.must(Command::Schedule {
            after: cluster.state.index,
            steps,
        });
        assert_eq!(cluster.state.replicas().count(), standing);
    }
}

#[test]
fn every_value_of_the_environment_is_redacted_and_whatever_contains_it() {
    let compose = "services:\n  web:\n    image: hunter2hunter2/web\n    \
        environment: {DB_PASSWORD: hunter2hunter2, DEBUG: \"1\"}\n    \
        command: [serve, --dsn, \"postgres://u:hunter2hunter2@db/1\"]\n    \
        labels: {note: see hunter2hunter2}\n  \
        list:\n    image: b\n    environment: [API_KEY=s3cr3t-token]\n    \
        healthcheck: {test: curl -H s3cr3t-token localhost}\n";
    let project = Project::default();
    let shown = redacted(&project.resolve(JACO, compose).bundle.unwrap());
    let web = &shown["services"]["web"];
    assert_eq!(web["environment"]["DB_PASSWORD"], "[redacted]");
    assert_eq!(web["environment"]["DEBUG"], "[redacted]");
    assert_eq!(web["command"][0], "serve");
    assert_eq!(web["command"][2], "[redacted]");
    assert_eq!(web["image"], "hunter2hunter2/web");
    let text = shown.to_string().replace("hunter2hunter2/web", "");
    assert!(
        !text.contains("hunter2") && !text.contains("s3cr3t"),
        "{text}"
    );
}

#[test]
fn what_leaves_the_machine_unexpectedly_is_told_or_refused() {
    let compose = "services: {w: {image: a, secrets: [k, t], env_file: ./in.env}}\n\
        secrets: {k: {file: ../../.ssh/id_ed25519}, t: {environment: JACO_TOKEN}}\n";
    let mut project = Project::default()
        .file("../../.ssh/id_ed25519", "key")
        .file("in.env", "A=1\n")
        .variable("JACO_TOKEN", "t");
    let told = project.resolve(JACO, compose);
    let notices: Vec<&str> = told.notices.iter().map(|it| &*it.message).collect();
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[0].starts_with("../../.ssh/id_ed25519 lies outside the project"));
    assert!(notices[1].starts_with("variable JACO_TOKEN of this process"));
    assert!(told.bundle.is_some());
    project.strict = true;
    assert_eq!(project.resolve(JACO, compose).report.violations.len(), 2);
    let inside = "services: {w: {image: a, env_file: ./in.env}}\n";
    assert!(project.resolve(JACO, inside).report.is_empty());
}
