//! Attacks on a running cluster: by a token, by a stranger with a socket, by a removed node, by a
//! container and a host on the nodes' network. Each must fail, and the cluster go on (spec 10).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use jaco_testkit::bed::{Bed, Host, SOON, poll_until};
use jaco_testkit::project::Project;
use serde_json::Value;

use support::network::{Seat, seats};
use support::{apply, bed, deploy_web, refusal, replicas};

/// What a token's holder can do from another machine.
struct Holder<'a> {
    host: &'a Host,
    flags: [String; 6],
}

impl<'a> Holder<'a> {
    fn of(host: &'a Host, project: &Project, issue: &[&str]) -> Self {
        let words = [&["token", "issue"], issue].concat();
        let token = host.jaco_json(&words).unwrap()["token"].clone();
        let node = std::fs::read(host.daemon().data().join("node.json")).unwrap();
        let node: Value = serde_json::from_slice(&node).unwrap();
        project
            .write("ca.pem", node["ca_cert"].as_str().unwrap())
            .unwrap();
        let flags = [
            "--server",
            &format!("{}:7000", host.address()),
            "--ca-cert",
            &project.path("ca.pem"),
            "--token",
            token.as_str().unwrap(),
        ];
        Self {
            host,
            flags: flags.map(str::to_owned),
        }
    }

    fn words<'b>(&'b self, words: &[&'b str]) -> Vec<&'b str> {
        let flags = self.flags.iter().map(String::as_str);
        words.iter().copied().chain(flags).collect()
    }

    fn can(&self, words: &[&str]) -> Value {
        self.host.jaco_json(&self.words(words)).unwrap()
    }

    fn refused(&self, words: &[&str]) -> String {
        let error = refusal(self.host, &self.words(words));
        error["code"].as_str().unwrap().to_owned()
    }
}

fn project(bed: &Bed, name: &str, service: &str, rest: &str) -> Project {
    let project = Project::new(name).unwrap();
    let image = bed.image("web:1");
    project
        .write("jaco.yaml", &format!("deployment: {name}\n"))
        .unwrap()
        .write(
            "compose.yaml",
            &format!("services:\n  web: {{image: {image}, {service}}}\n{rest}\n"),
        )
        .unwrap();
    project
}

/// The cluster takes a write, and its daemons are small.
fn is_well(bed: &Bed, number: usize) {
    let scale = format!("web/web={}", 1 + number % 2);
    bed.host(1 + number % 2)
        .jaco_text(&["scale", &scale])
        .unwrap();
    for host in bed.hosts() {
        let Some(pid) = host.daemon().pid() else {
            continue;
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 250 * 1024, "{} holds {kib} KiB", host.name());
    }
}

#[test]
fn a_token_is_worth_what_it_was_issued_with() {
    let bed = bed("rights", 3);
    bed.form_cluster().unwrap();
    let host = bed.host(1);
    let web = Project::new("web").unwrap();
    deploy_web(&bed, &web, 1);
    apply(host, &web);
    let dev = Holder::of(host, &web, &["--name", "dev"]);
    // It makes no rights, no members, no nodes go.
    for words in [
        &["token", "issue", "--name", "root", "--allow-privileged"][..],
        &["token", "revoke", "bootstrap"],
        &["node", "issue-join-token"],
        &["node", "remove", "node-3", "--force"],
        &["node", "drain", "node-3", "--no-wait"],
        &["token", "list"],
    ] {
        assert_eq!(dev.refused(words), "permission_denied", "{words:?}");
    }
    is_well(&bed, 0);
    // It does not reach into a host, by whichever key.
    for (number, (service, rest, code)) in [
        ("volumes: [\"/opt:/host\"]", "", "permission_denied"),
        ("cap_add: [SYS_ADMIN]", "", "permission_denied"),
        ("pid: host", "", "permission_denied"),
        ("devices: [\"/dev/null\"]", "", "permission_denied"),
        (
            "volumes: [\"v:/v\"]",
            "volumes: {v: {driver_opts: {type: none, o: bind, device: /opt}}}",
            "permission_denied",
        ),
        (
            "volumes: [\"/:/host\"], labels: {jaco.io/allow-privileged: \"true\"}",
            "",
            "permission_denied",
        ),
        (
            "volumes: [\"/var/run/docker.sock:/s\"]",
            "",
            "validation_failed",
        ),
        ("privileged: true", "", "validation_failed"),
        ("ports: [\"53:53/udp\"]", "", "reserved_port"),
        (
            "deploy: {replicas: 4294967295}, network_mode: none",
            "",
            "validation_failed",
        ),
        (
            &format!("networks: [{}]", "n".repeat(300)),
            &format!("networks: {{{}: {{}}}}", "n".repeat(300)),
            "validation_failed",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let attack = project(&bed, "pwn", service, rest);
        let output = host
            .jaco(&dev.words(&["apply", &attack.path("jaco.yaml")]))
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(code),
            "{service}: {said}"
        );
        is_well(&bed, number);
    }
    assert_eq!(
        dev.refused(&["scale", "web/web=4294967295"]),
        "validation_failed"
    );
    is_well(&bed, 1);
    // With the right it may, and the node is asked again.
    let ops = Holder::of(host, &web, &["--name", "ops", "--allow-host"]);
    let bind = project(&bed, "bind", "volumes: [\"/opt:/host:ro\"]", "");
    ops.can(&["apply", &bind.path("jaco.yaml"), "--wait"]);
    assert_eq!(dev.refused(&["scale", "bind/web=2"]), "permission_denied");
    dev.can(&["restart", "bind"]);
    // What it is not for it neither sees nor changes.
    let scoped = Holder::of(host, &web, &["--name", "scoped", "--deployment", "bind"]);
    let seen = scoped.can(&["get", "deployments"]).to_string();
    assert!(
        seen.contains("bind") && !seen.contains("\"name\":\"web\""),
        "{seen}"
    );
    assert_eq!(scoped.refused(&["scale", "web/web=1"]), "permission_denied");
    let reader = Holder::of(
        host,
        &web,
        &["--name", "reader", "--role", "read", "--ttl", "1d"],
    );
    reader.can(&["status"]);
    assert_eq!(reader.refused(&["restart", "web"]), "permission_denied");
    assert_eq!(
        reader.refused(&["get", "deployment", "web", "--show-secrets"]),
        "permission_denied"
    );
    let audit = host.jaco_json(&["audit"]).unwrap().to_string();
    for word in ["token_issue", "\"uid\":\"0\"", "\"user\":\"root\""] {
        assert!(audit.contains(word), "{word}");
    }
}

#[test]
fn values_are_redacted_and_shown_to_whoever_may_with_a_trace() {
    let bed = bed("redact", 1);
    bed.form_cluster().unwrap();
    let host = bed.host(1);
    let hidden = project(
        &bed,
        "web",
        "environment: {DB_PASSWORD: hunter2hunter2}",
        "",
    );
    apply(host, &hidden);
    let shown = host
        .jaco_json(&["get", "deployment", "web"])
        .unwrap()
        .to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    let asked = host
        .jaco_json(&["get", "deployment", "web", "--show-secrets"])
        .unwrap();
    assert!(asked.to_string().contains("hunter2hunter2"));
    let audit = host
        .jaco_json(&["audit", "--type", "secrets_shown"])
        .unwrap();
    assert_eq!(audit["events"].as_array().unwrap().len(), 1);
    // At rest: no private key, no secret.
    let data = host.daemon().data();
    let needle = Command::new("grep")
        .args(["-rlaE", "hunter2hunter2|PRIVATE KEY"])
        .arg(&data)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&needle.stdout), "");
    let format = "{{.HostConfig.PidsLimit}} {{.HostConfig.CapDrop}} \
                  {{index .HostConfig.LogConfig.Config \"max-size\"}}";
    let limits = host.docker_text(&["inspect", "web-web-1", "--format", format]);
    assert_eq!(limits.unwrap().trim(), "4096 [NET_RAW] 10m");
    // A state key that others may read is refused at the next start.
    host.stop_daemon().unwrap();
    let key = host.daemon().state_key();
    let mode = |mode: &str| {
        let changed = Command::new("chmod").arg(mode).arg(&key).status();
        assert!(changed.unwrap().success());
    };
    mode("0644");
    assert!(host.start_daemon().is_err());
    mode("0600");
    host.start_daemon().unwrap();
    poll_until(SOON, "it is back", || replicas(host, "web", "running") == 1).unwrap();
}

#[test]
fn strangers_wear_nothing_out() {
    let bed = bed("strangers", 2);
    bed.form_cluster().unwrap();
    let (host, web) = (bed.host(1), Project::new("web").unwrap());
    deploy_web(&bed, &web, 1);
    apply(host, &web);
    let dev = Holder::of(host, &web, &["--name", "dev"]);
    let before = host.jaco_json(&["cluster", "status"]).unwrap()["raft_term"].clone();
    // From the switch, which is no member: connections that say nothing.
    let address = host.address();
    let silent = bed.switch().enter(|| {
        let dial = |port: u16| TcpStream::connect_timeout(&(address, port).into(), SOON).ok();
        let ports = [7000u16, 7001]
            .into_iter()
            .flat_map(|port| (0..400).map(move |_| port));
        ports.filter_map(dial).collect::<Vec<_>>()
    });
    let mut silent = silent.unwrap();
    assert!(silent.len() > 600);
    for _ in 0..3 {
        dev.can(&["status"]);
    }
    is_well(&bed, 0);
    // The oldest were given up.
    silent[0]
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert!(matches!(silent[0].read(&mut [0; 1]), Ok(0) | Err(_)));
    drop(silent);
    // Tokens that are wrong are told of once.
    for _ in 0..40 {
        let wrong = Holder {
            host,
            flags: dev.flags.clone().map(|flag| match flag.len() {
                64 => "00".repeat(32),
                _ => flag,
            }),
        };
        assert_eq!(wrong.refused(&["status"]), "token_invalid");
    }
    dev.can(&["status"]);
    let told = host
        .jaco_json(&["audit", "--type", "login_failed"])
        .unwrap();
    assert_eq!(told["events"].as_array().unwrap().len(), 1, "{told}");
    let after = host.jaco_json(&["cluster", "status"]).unwrap()["raft_term"].clone();
    assert_eq!(before, after, "there was an election");
    is_well(&bed, 1);
}

#[test]
fn a_removed_member_is_out_at_once_also_when_it_has_not_noticed() {
    let bed = bed("removed", 3);
    bed.form_cluster().unwrap();
    let host = bed.host(1);
    // It is frozen while it is removed, and wakes with its connections open.
    bed.host(3).daemon().pause().unwrap();
    poll_until(SOON * 3, "it is missed", || {
        let nodes = host.jaco_json(&["node", "list"]).unwrap_or_default();
        nodes.to_string().contains("unreachable")
    })
    .unwrap();
    host.jaco_text(&["node", "remove", "node-3", "--force"])
        .unwrap();
    let members = || {
        host.jaco_json(&["cluster", "status"]).unwrap()["nodes"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(members(), 2);
    bed.host(3).daemon().resume().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    // Whatever it asks for on its own socket does not happen.
    let output = bed
        .host(3)
        .jaco(&["token", "issue", "--name", "ghost", "--role", "admin"]);
    assert!(!output.is_ok_and(|output| output.status.success()));
    let tokens = host.jaco_json(&["token", "list"]).unwrap().to_string();
    assert!(!tokens.contains("ghost"), "{tokens}");
}

/// Sends a datagram whose source is somebody else's, from a network namespace.
fn forge(namespace: &str, from: Ipv4Addr, to: Ipv4Addr, port: u16) {
    let script = format!(
        "import socket,struct\n\
         udp=struct.pack('!HHHH',4000,{port},14,0)+b'forged'\n\
         ip=struct.pack('!BBHHHBBH4s4s',0x45,0,20+len(udp),0,0,64,17,0,\
         socket.inet_aton('{from}'),socket.inet_aton('{to}'))\n\
         s=socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_RAW)\n\
         [s.sendto(ip+udp,('{to}',0)) for _ in range(3)]\n"
    );
    let net = format!("--net={namespace}");
    let sent = Command::new("nsenter")
        .args([&net, "python3", "-c", &script])
        .output()
        .unwrap();
    assert!(
        sent.status.success(),
        "{}",
        String::from_utf8_lossy(&sent.stderr)
    );
}

#[test]
fn nothing_arrives_under_a_false_address() {
    let bed = bed("forged", 3);
    bed.start_daemons().unwrap();
    let host = bed.host(1);
    host.jaco_text(&["cluster", "init"]).unwrap();
    let line = host.jaco_text(&["node", "issue-join-token"]).unwrap();
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    bed.host(2).jaco_text(&words).unwrap();
    for name in ["ours", "theirs"] {
        let both = project(&bed, name, "deploy: {replicas: 2}", "");
        poll_until(SOON * 4, "it runs", || {
            host.jaco(&["apply", &both.path("jaco.yaml"), "--wait"])
                .is_ok_and(|it| it.status.success())
        })
        .unwrap();
    }
    let seat = |deployment: &str, host: usize| -> Seat {
        let all = seats(&bed, deployment);
        all.into_iter().find(|seat| seat.host == host).unwrap()
    };
    let (victim, far) = (seat("theirs", 1), seat("theirs", 2));
    let (target, friend) = (victim.on("_default"), far.on("_default"));
    let arrives = |from: &str, claims: Ipv4Addr| {
        let (port, heard) = victim.listen();
        forge(from, claims, target, port);
        heard.recv_timeout(Duration::from_secs(1)).is_ok()
    };
    // The own network reaches it, here and from the other node: the listener works.
    assert!(arrives(&far.namespace_path(), friend));
    let stranger = bed.host(3).namespace().path().display().to_string();
    let route = format!("{target}/32");
    let via = host.address().to_string();
    let added = bed
        .host(3)
        .run(Command::new("ip").args(["route", "replace", &route, "via", &via]));
    assert!(added.unwrap().status.success());
    let outside: Ipv4Addr = [192, 0, 2, 9].into();
    let node: Ipv4Addr = [10, 245, 0, 2].into();
    for (from, claims) in [
        (seat("ours", 1).namespace_path(), friend),
        (seat("ours", 1).namespace_path(), outside),
        (seat("ours", 2).namespace_path(), friend),
        (stranger.clone(), friend),
        (stranger.clone(), node),
        (stranger.clone(), bed.host(3).address()),
    ] {
        assert!(!arrives(&from, claims), "{from} as {claims}");
    }
    // The engine's chains alone open nothing to the host on the network. A daemon would repair it.
    host.kill_daemon().unwrap();
    let flush = host.run(Command::new("nft").args(["delete", "table", "inet", "jaco"]));
    assert!(flush.unwrap().status.success());
    assert!(!arrives(&stranger, friend), "without the table");
}
