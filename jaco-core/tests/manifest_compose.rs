//! What the honoured keys become.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::time::Duration;

use jaco_core::manifest::spec::*;
use support::{JACO, Project, TWO_SERVICES, service};

fn web(keys: &str) -> ServiceSpec {
    Project::default().web(JACO, &service(keys))
}

#[test]
fn defaults_and_precedence() {
    let spec = Project::default().spec(
        "deployment: shop\nacme: off\nacme_email: ops@shop.example\nroutes:\n\
         - {domain: Shop.Example., service: web, port: 80, path: /api/, strip_path: yes}\n\
         - {domain: b.example, service: web, port: 80, tls: auto}\n\
         services:\n- {name: web, replicas: 0, networks: [back]}\n\
         - {name: db, placement: hosts, hosts: [n2, n1], replicas: 2}\n",
        "services:\n  web: {image: w, networks: {front: {aliases: [f]}, back: {aliases: [b]}}, \
         deploy: {replicas: 7}}\n  db: {image: d, deploy: {replicas: 9}}\n\
         networks: {front: , back: {internal: on}, unused: }\n",
    );
    assert_eq!(spec.routes[0].domain.as_str(), "shop.example");
    assert_eq!((&*spec.routes[0].path, spec.routes[0].tls), ("/api", false));
    assert!(spec.routes[0].strip_path);
    assert!(spec.routes[1].tls);
    assert!(!spec.acme);
    let (web, db) = (&spec.services["web"], &spec.services["db"]);
    assert_eq!((web.replicas, db.replicas), (0, 2));
    assert_eq!(web.networks.len(), 1);
    assert_eq!(web.networks["back"].aliases, ["b"]);
    assert_eq!(
        db.placement,
        Placement::Hosts(vec!["n2".into(), "n1".into()])
    );
    let networks: Vec<&str> = spec.networks.keys().map(|name| name.as_str()).collect();
    assert_eq!(networks, ["_default", "back"]);
    assert!(spec.networks["back"].internal);
}

#[test]
fn deploy_is_read_in_full() {
    let web = web("\
deploy:
  mode: replicated
  replicas: 4
  update_config: {parallelism: 2, delay: 1s, order: start-first, failure_action: pause, monitor: \
       9s, max_failure_ratio: 0.25}
  rollback_config: {parallelism: 0}
  restart_policy: {condition: any, max_attempts: 5, delay: 2s, window: 10s}
  placement: {constraints: [node.labels.zone != a, 'node.platform.arch==x86_64'], \
       max_replicas_per_node: 1}
  resources:
    limits: {cpus: '2', memory: 1g, pids: 50}
    reservations: {cpus: 0.25, memory: 64m}
cpus: 9
mem_limit: 9g
mem_reservation: 9g
platform: linux/aarch64/v8");
    assert_eq!(web.replicas, 4);
    assert_eq!(
        web.update,
        UpdateConfig {
            parallelism: 2,
            delay: Duration::from_secs(1),
            monitor: Duration::from_secs(9),
            order: Some(UpdateOrder::StartFirst),
            failure_action: FailureAction::Pause,
            max_failure_ratio_millis: 250,
        }
    );
    assert_eq!(web.rollback.parallelism, u32::MAX);
    assert_eq!(web.rollback.failure_action, FailureAction::Pause);
    assert_eq!(
        (web.restart.max_attempts, web.restart.delay),
        (5, Duration::from_secs(2))
    );
    let label = |equal, attribute, value: &str| Constraint {
        attribute,
        equal,
        value: value.into(),
    };
    assert_eq!(
        web.constraints,
        [
            label(false, Attribute::Label("zone".into()), "a"),
            label(true, Attribute::Arch, "amd64"),
            label(true, Attribute::Arch, "arm64"),
        ]
    );
    assert_eq!(web.max_replicas_per_node, Some(1));
    assert_eq!(
        web.reservations,
        Resources {
            cpu_millis: 250,
            memory_bytes: 64 << 20
        }
    );
    assert_eq!(web.container.limits.cpu_millis, Some(2000));
    assert_eq!(web.container.limits.memory_bytes, Some(1 << 30));
    assert_eq!(
        web.container.limits.memory_reservation_bytes,
        Some(64 << 20)
    );
    assert_eq!(web.container.limits.pids, Some(50));
}

#[test]
fn jobs_are_recognised() {
    let spec = Project::default().spec(
        JACO,
        "services:\n  web: {image: w, depends_on: {once: {condition: \
         service_completed_successfully}, db: {condition: service_healthy}}}\n  once: {image: \
              o}\n  \
         db: {image: d}\n  job: {image: j, deploy: {mode: replicated-job}}\n  \
         all: {image: a, deploy: {mode: global-job}}\n",
    );
    let kind = |name: &str| spec.services[name].kind;
    assert_eq!(
        [kind("once"), kind("job"), kind("all")],
        [ServiceKind::Job; 3]
    );
    assert_eq!([kind("web"), kind("db")], [ServiceKind::Service; 2]);
    assert_eq!(spec.services["all"].placement, Placement::Global);
}

#[test]
fn regression_volumes_are_named_for_their_deployment() {
    let spec = Project::default().spec(
        JACO,
        "services:\n  web: {image: w, volumes: ['a:/a', 'b:/b', 'c:/c:nocopy', 'd:/d']}\n\
         volumes: {a: , b: {name: bee}, c: {external: true}, d: {external: true, \
         name: dee}, e: }\n",
    );
    let names: Vec<&str> = spec
        .volumes
        .values()
        .map(|volume| &*volume.engine_name)
        .collect();
    assert_eq!(names, ["jaco_shop_a", "bee", "c", "dee"]);
    assert!(spec.services["web"].is_stateful());
}

#[test]
fn privileged_services_are_listed() {
    let spec = Project::default().spec(
        JACO,
        "x-l: &l {jaco.io/allow-privileged: 'true'}\nservices:\n  a: {image: w, privileged: true, \
         labels: *l}\n  b: {image: w, security_opt: [x], labels: *l}\n  c: {image: w, labels: \
              *l}\n  \
         d: {image: w, post_start: [{command: x, privileged: true}], labels: *l}\n",
    );
    assert_eq!(
        spec.privileged_services(),
        ["a".into(), "b".into(), "d".into()]
    );
}

#[test]
fn the_switches_of_jaco_yaml_have_both_spellings() {
    for (text, on) in [
        ("on", true),
        ("true", true),
        ("off", false),
        ("false", false),
    ] {
        let jaco = format!("deployment: shop\nacme: {text}\n");
        assert_eq!(
            Project::default().spec(&jaco, TWO_SERVICES).acme,
            on,
            "{text}"
        );
        let tls = if on { "auto" } else { text };
        let jaco = format!(
            "deployment: shop\nroutes: [{{domain: a.b, service: web, port: 1, tls: {tls}}}]\n"
        );
        assert_eq!(
            Project::default().spec(&jaco, TWO_SERVICES).routes[0].tls,
            on,
            "{text}"
        );
    }
}

#[test]
fn proxy_protocol_is_asked_for_on_a_long_port() {
    let web = web("ports: [{target: 1, published: 9, x-jaco-proxy-protocol: v2}]");
    assert!(web.ports[0].proxy_protocol);
}

#[test]
fn every_container_key_arrives() {
    let container = web("\
user: '1000:1000'
group_add: [audio, 44]
working_dir: /srv
entrypoint: /bin/sh -c
annotations: {a: b}
cap_add: [NET_ADMIN]
cap_drop: [ALL]
sysctls: {net.core.somaxconn: 1024}
ulimits: {nproc: 65535, nofile: {soft: 1, hard: -1}}
read_only: true
logging: {driver: json-file, options: {max-size: 10m, max-file: 3}}
stop_signal: SIGINT
stop_grace_period: 30s
hostname: h
domainname: d.example
dns: [1.1.1.1]
dns_search: example
dns_opt: [use-vc]
init: true
shm_size: 64m
ipc: host
pid: host
uts: host
userns_mode: host
cgroup: private
cgroup_parent: m
devices: ['/dev/a:/dev/b:r']
gpus: [{driver: nvidia, device_ids: ['0'], options: {k: v}}]
pids_limit: 9
cpu_shares: 73
cpuset: 0-1
runtime: runc
stdin_open: true
tty: true
healthcheck: {test: [CMD, a], interval: 1m, timeout: 2s, start_period: 3s, retries: 4}
post_start: [{command: a b, user: root, working_dir: /, environment: [K=v]}]
pre_stop: [{command: [c]}]")
    .container;
    let text = |text: &str| Some(text.to_owned());
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let pairs = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let hook = |command: &[&str]| Hook {
        command: words(command),
        user: None,
        privileged: false,
        working_dir: None,
        environment: pairs(&[]),
    };
    let expect = ContainerSpec {
        image: "w".to_owned(),
        entrypoint: Some(words(&["/bin/sh", "-c"])),
        user: text("1000:1000"),
        group_add: words(&["audio", "44"]),
        working_dir: text("/srv"),
        annotations: pairs(&[("a", "b")]),
        cap_add: words(&["NET_ADMIN"]),
        cap_drop: words(&["ALL"]),
        sysctls: pairs(&[("net.core.somaxconn", "1024")]),
        ulimits: [
            ("nofile".to_owned(), Ulimit { soft: 1, hard: -1 }),
            (
                "nproc".to_owned(),
                Ulimit {
                    soft: 65535,
                    hard: 65535,
                },
            ),
        ]
        .into(),
        read_only: true,
        logging: Some(Logging {
            driver: text("json-file"),
            options: pairs(&[("max-size", "10m"), ("max-file", "3")]),
        }),
        stop_signal: text("SIGINT"),
        stop_grace_period: Some(Duration::from_secs(30)),
        hostname: text("h"),
        domainname: text("d.example"),
        dns: words(&["1.1.1.1"]),
        dns_search: words(&["example"]),
        dns_opt: words(&["use-vc"]),
        init: Some(true),
        shm_size: Some(64 << 20),
        ipc: text("host"),
        pid: text("host"),
        uts: text("host"),
        userns_mode: text("host"),
        cgroup: text("private"),
        cgroup_parent: text("m"),
        devices: vec![Device {
            host: "/dev/a".to_owned(),
            container: "/dev/b".to_owned(),
            permissions: "r".to_owned(),
        }],
        gpus: vec![GpuRequest {
            driver: text("nvidia"),
            count: None,
            device_ids: words(&["0"]),
            capabilities: words(&["gpu"]),
            options: pairs(&[("k", "v")]),
        }],
        limits: Limits {
            pids: Some(9),
            cpu_shares: Some(73),
            cpuset: text("0-1"),
            ..Limits::default()
        },
        runtime: text("runc"),
        stdin_open: true,
        tty: true,
        healthcheck: Some(Healthcheck::Test {
            test: words(&["CMD", "a"]),
            interval: Some(Duration::from_secs(60)),
            timeout: Some(Duration::from_secs(2)),
            start_period: Some(Duration::from_secs(3)),
            retries: Some(4),
        }),
        post_start: vec![Hook {
            user: text("root"),
            working_dir: text("/"),
            environment: pairs(&[("K", "v")]),
            ..hook(&["a", "b"])
        }],
        pre_stop: vec![hook(&["c"])],
        ..ContainerSpec::default()
    };
    assert_eq!(container, expect);
}

#[test]
fn the_example_of_the_contract_resolves() {
    let project = Project::default().file(".env", "TAG=1\n");
    let jaco = "\
deployment: shop
environment: .env
acme: on
acme_email: ops@shop.example
routes:
  - domain: shop.example
    service: web
    port: 8080
    tls: auto
    path: /api
    strip_path: true
services:
  - name: web
    replicas: 1
    placement: hosts
    hosts: [node-1]
    networks: [front]
";
    let spec = project.spec(
        jaco,
        "services:\n  web: {image: 'web:$TAG', networks: [back]}\nnetworks: {front: , back: }\n",
    );
    assert_eq!(
        spec.routes,
        [RouteSpec {
            domain: "shop.example".into(),
            service: "web".into(),
            port: 8080,
            tls: true,
            path: "/api".to_owned(),
            strip_path: true,
        }]
    );
    assert_eq!(spec.acme_email.as_deref(), Some("ops@shop.example"));
    assert_eq!(
        spec.services["web"].placement,
        Placement::Hosts(vec!["node-1".into()])
    );
    assert!(spec.services["web"].networks.contains_key("front"));
    let jaco = jaco.replace("replicas: 1", "replicas: 1\n    nodes: []");
    assert!(
        project
            .refused(&jaco, support::TWO_SERVICES)
            .contains("unknown key \"nodes\"")
    );
}
