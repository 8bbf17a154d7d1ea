//! Names as containers see them, through the engine's resolver and past it (spec 07, DNS).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jaco_testkit::bed::{Bed, Host, SOON, poll_until};
use jaco_testkit::project::Project;
use serde_json::json;

use support::{bed, containers, replicas};

/// `web` is on one network, `api` on two, `db` on the other; `side` shares `api`'s.
fn deploy(bed: &Bed, project: &Project) {
    let image = bed.image("sleep:1");
    let compose = format!(
        "services:\n  \
         web: {{image: '{image}', networks: [front], deploy: {{replicas: 2}}}}\n  \
         api: {{image: '{image}', networks: {{front: {{aliases: [Orders]}}, back: {{}}}}}}\n  \
         db: {{image: '{image}', networks: [back]}}\n  \
         side: {{image: '{image}', network_mode: 'service:api'}}\n\
         networks: {{front: {{}}, back: {{internal: true}}}}\n"
    );
    project
        .write("compose.yaml", &compose)
        .unwrap()
        .write(
            "jaco.yaml",
            "deployment: names\nservices:\n  - {name: web}\n",
        )
        .unwrap();
}

/// Applies and waits until everything runs.
fn start(host: &Host, project: &Project) {
    host.jaco_json(&["apply", &project.path("jaco.yaml")])
        .unwrap();
    let done = poll_until(SOON, "everything runs", || {
        replicas(host, "names", "running") == 5
    });
    if done.is_err() {
        panic!(
            "{}",
            host.jaco_text(&["status", "names", "-o", "json"]).unwrap()
        );
    }
}

/// What `nslookup` prints in a container; it asks the container's own resolver unless told.
fn look_up(host: &Host, container: &str, words: &[&str]) -> String {
    let mut command = vec!["exec", container, "nslookup"];
    command.extend(words);
    let output = host.docker(&command).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The addresses of a name, as a container sees them.
fn seen(host: &Host, container: &str, name: &str) -> BTreeSet<Ipv4Addr> {
    let text = look_up(host, container, &["-type=a", name]);
    // The server's own address has a tab.
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("Address: "));
    lines
        .map(|address| address.trim().parse().unwrap())
        .collect()
}

/// True when the name exists and has nothing of the kind: `nslookup` complains of nothing then.
fn exists_empty(host: &Host, container: &str, kind: &str, name: &str) -> bool {
    let text = look_up(host, container, &[kind, name]);
    let complaint = text
        .lines()
        .any(|line| line.starts_with("**") || line.starts_with(";;"));
    !complaint && !text.contains("Address: ")
}

/// The address of a container on a network.
fn address(host: &Host, container: &str, network: &str) -> Ipv4Addr {
    let path =
        format!("{{{{(index .NetworkSettings.Networks \"jaco_names_{network}\").IPAddress}}}}");
    let text = host.docker_text(&["inspect", "-f", &path, container]);
    text.unwrap().trim().parse().unwrap()
}

/// The one container of a service.
fn container(host: &Host, service: &str) -> String {
    let prefix = format!("names-{service}-");
    let mut names = containers(host).into_keys();
    names.find(|name| name.starts_with(&prefix)).unwrap()
}

fn check(host: &Host, asker: &str, names: &[&str], expected: &[Ipv4Addr]) {
    let expected: BTreeSet<_> = expected.iter().copied().collect();
    for name in names {
        assert_eq!(seen(host, asker, name), expected, "{name} from {asker}");
    }
}

#[test]
fn names_resolve_in_containers_by_every_form_and_for_their_networks_only() {
    let bed = bed("dns", 1);
    bed.form_cluster().unwrap();
    let host = bed.host(1);
    let project = Project::new("dns").unwrap();
    deploy(&bed, &project);
    start(host, &project);
    let [web, api, db, side] = ["web", "api", "db", "side"].map(|name| container(host, name));
    let webs: Vec<_> = containers(host)
        .into_keys()
        .filter(|name| name.starts_with("names-web-"))
        .collect();
    let on_front: Vec<_> = webs
        .iter()
        .map(|name| address(host, name, "front"))
        .collect();
    let api_front = address(host, &api, "front");
    let api_back = address(host, &api, "back");
    let db_back = address(host, &db, "back");

    let forms = [
        "web",
        "web.names",
        "web.jaco.internal",
        "WEB.names.Jaco.Internal",
    ];
    check(host, &web, &forms, &on_front);
    check(
        host,
        &web,
        &["api", "orders", "orders.names", "side"],
        &[api_front],
    );
    let second = [
        webs[1].clone() + ".names",
        webs[1].clone() + ".jaco.internal",
    ];
    check(
        host,
        &web,
        &second.each_ref().map(String::as_str),
        &on_front[1..2],
    );
    // A service on two networks has one resolver and sees both; what shares its network, too.
    for asker in [&api, &side] {
        check(host, asker, &["web", "web.names"], &on_front);
        check(host, asker, &["db", "db.jaco.internal"], &[db_back]);
    }
    check(host, &db, &["api", "side"], &[api_back]);
    for (asker, name) in [
        (&web, "db"),
        (&web, "db.names.jaco.internal"),
        (&web, "nobody"),
        (&web, "web.other.jaco.internal"),
        (&db, "web"),
        (&db, "orders"),
    ] {
        let text = look_up(host, asker, &["-type=a", name]);
        assert!(text.contains("NXDOMAIN"), "{name} from {asker}: {text}");
    }
    assert!(exists_empty(host, &web, "-type=aaaa", "web"));

    // Past the engine's resolver, which knows the names of its own containers.
    let gateway = Ipv4Addr::from(u32::from(on_front[0]) & !0xff | 1).to_string();
    let text = look_up(host, &web, &[&on_front[1].to_string(), &gateway]);
    assert!(
        text.contains(&format!("{}.names.jaco.internal", webs[1])),
        "{text}"
    );
    let text = look_up(host, &web, &[&db_back.to_string(), &gateway]);
    assert!(text.contains("NXDOMAIN"), "{text}");
    let over_tcp = host.enter(|| tcp_answers(&gateway)).unwrap();
    assert_eq!(over_tcp, 2, "answers over TCP");

    host.jaco_text(&["scale", "names/web=1"]).unwrap();
    poll_until(SOON, "one web is named", || {
        seen(host, &api, "web").len() == 1
    })
    .unwrap();
    host.jaco_text(&["scale", "names/web=0"]).unwrap();
    poll_until(SOON, "no web is named", || {
        exists_empty(host, &api, "-type=a", "web")
    })
    .unwrap();
}

/// How many answers `web` has over TCP.
fn tcp_answers(gateway: &str) -> u16 {
    let mut stream = TcpStream::connect((gateway, 53)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let question =
        b"\x00\x15\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01";
    stream.write_all(question).unwrap();
    let mut header = [0; 14];
    stream.read_exact(&mut header).unwrap();
    u16::from_be_bytes([header[8], header[9]])
}

/// Knows one address for every name, for as long as the test runs.
fn upstream(bed: &Bed) -> String {
    let address = bed
        .registry()
        .address()
        .split(':')
        .next()
        .unwrap()
        .to_owned();
    let bind = || UdpSocket::bind((address.as_str(), 53)).unwrap();
    let socket = bed.switch().enter(bind).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(&answer(&buffer[..length]), peer).unwrap();
        }
    });
    address
}

/// A reply to a question of type A: 192.0.2.80, for a minute. Any other kind has none.
fn answer(question: &[u8]) -> Vec<u8> {
    let name = question[12..].iter().position(|byte| *byte == 0).unwrap();
    let end = 12 + name + 5;
    let is_a = question[end - 4..end] == [0, 1, 0, 1];
    let mut reply = question[..end].to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80]);
    }
    reply
}

/// Takes questions on loopback of the host and says nothing.
fn dead_upstream(host: &Host) -> (String, UdpSocket) {
    let address = "127.0.0.99";
    let socket = host.enter(|| UdpSocket::bind((address, 53)).unwrap());
    (address.to_owned(), socket.unwrap())
}

#[test]
fn regression_external_names_time_out_in_containers_on_a_bed() {
    let bed = bed("dnsfwd", 1);
    let host = bed.host(1);
    let alive = upstream(&bed);
    let (dead, _socket) = dead_upstream(host);
    let configure = |forwarders: &[&String]| {
        let dns = json!({"forwarders": forwarders, "timeout": "1s"});
        host.write_config(&[("dns", dns)]).unwrap();
    };
    configure(&[&dead, &alive]);
    bed.form_cluster().unwrap();
    let project = Project::new("dnsfwd").unwrap();
    deploy(&bed, &project);
    start(host, &project);
    // Also from a network without a way out: the responder asks for it.
    for service in ["web", "db"] {
        let asker = container(host, service);
        for name in ["www.example.com", "www.example.org"] {
            let found = seen(host, &asker, name);
            assert_eq!(
                found,
                BTreeSet::from([Ipv4Addr::new(192, 0, 2, 80)]),
                "{name}"
            );
        }
    }

    configure(&[&dead]);
    host.stop_daemon().unwrap();
    host.start_daemon().unwrap();
    let web = container(host, "web");
    poll_until(SOON, "names are back", || {
        seen(host, &web, "web").len() == 2
    })
    .unwrap();
    let text = look_up(host, &web, &["-type=a", "www.example.net"]);
    assert!(text.contains("SERVFAIL"), "{text}");
}

/// Puts a program in front of the daemon that gives it a host without resolvers.
fn without_resolvers(folder: &Path) {
    let built = Path::new(env!("CARGO_BIN_EXE_jacod")).parent().unwrap();
    let jacod = built.join("jacod").display().to_string();
    let empty = folder.join("resolv.conf").display().to_string();
    std::fs::write(&empty, "# nothing\n").unwrap();
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c \
         'mount --bind {empty} /etc/resolv.conf; exec {jacod} \"$@\"' jacod \"$@\"\n"
    );
    let wrapper = folder.join("jacod");
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(built.join("jaco"), folder.join("jaco")).unwrap();
}

#[test]
fn regression_no_upstream_resolvers_on_a_bed() {
    let project = Project::new("dnsnone").unwrap();
    without_resolvers(project.dir());
    let bed = Bed::builder()
        .name("dnsnone")
        .hosts(1)
        .binaries(project.dir())
        .build()
        .unwrap();
    bed.form_cluster().unwrap();
    let host = bed.host(1);
    deploy(&bed, &project);
    start(host, &project);
    let web = container(host, "web");
    assert_eq!(seen(host, &web, "web").len(), 2);
    let text = look_up(host, &web, &["-type=a", "www.example.com"]);
    assert!(text.contains("SERVFAIL"), "{text}");
    let log = std::fs::read_to_string(host.daemon().log()).unwrap();
    let warnings = log.matches("dns: no upstream resolvers configured").count();
    assert_eq!(warnings, 1, "{log}");
}
