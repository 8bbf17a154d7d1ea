//! Who reaches whom in a cluster of three hosts, by name and by address (spec 07).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use jaco_testkit::bed::{Bed, Capture, Host, Packet, SOON, poll_until};
use jaco_testkit::project::Project;

use support::network::{Seat, deploy_two, gateway, seats};
use support::{apply, bed};

const API: u16 = 7000;
const RAFT: u16 = 7001;
const MESH: u16 = 51820;
/// A port of a host that is none of ours.
const FOREIGN: u16 = 2222;
const MARKER: &str = "a-marker-that-nobody-else-sends";

fn one<'a>(seats: &'a [Seat], service: &str, host: usize) -> &'a Seat {
    let mut fitting = seats.iter().filter(|seat| seat.service == service);
    fitting.find(|seat| seat.host == host).unwrap()
}

/// What is tried, whether it should succeed, and the attempt.
type Probe<'a> = (String, bool, Box<dyn FnOnce() -> bool + Send + 'a>);

/// Tries everything at once, since what is dropped takes its time; then tells what was not as
/// expected.
fn check(probes: Vec<Probe<'_>>) {
    let wrong: Vec<String> = thread::scope(|scope| {
        let tried: Vec<_> = probes
            .into_iter()
            .map(|(what, expected, probe)| (what, expected, scope.spawn(probe)))
            .collect();
        let wrong = tried.into_iter().filter_map(|(what, expected, probe)| {
            let got = probe.join().unwrap();
            (got != expected).then(|| format!("{what}: {got}"))
        });
        wrong.collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn containers_reach_what_they_share_a_network_with_and_nothing_else() {
    let bed = bed("net", 3);
    bed.form_cluster().unwrap();
    let (shop, other) = (
        Project::new("shop").unwrap(),
        Project::new("other").unwrap(),
    );
    deploy_two(&bed, &shop, &other);
    apply(bed.host(1), &shop);
    apply(bed.host(2), &other);
    let (shop, other) = (seats(&bed, "shop"), seats(&bed, "other"));
    assert_eq!((shop.len(), other.len()), (9, 3));

    every_pair_on_a_network_connects_by_name(&bed, &shop);
    for host in 1..=3 {
        nothing_crosses_deployments_or_networks(&bed, one(&shop, "web", host), &shop, &other);
    }
    let listeners: Vec<TcpListener> = bed.hosts().iter().map(listen).collect();
    count_datagrams(&bed, &[MESH, FOREIGN]);
    for host in 1..=3 {
        the_control_plane_is_closed_to_containers(&bed, one(&shop, "web", host));
    }
    poll_until(SOON, "what is no port of ours is counted", || {
        counted(&bed).get(&FOREIGN) >= Some(&9)
    })
    .unwrap();
    assert_eq!(counted(&bed)[&MESH], 0, "datagrams to the mesh's port");
    drop(listeners);
    the_wire_shows_nothing_in_clear(&bed, &shop);
    what_is_not_ours_is_left_alone(&bed, &shop);
}

fn every_pair_on_a_network_connects_by_name(bed: &Bed, shop: &[Seat]) {
    let shares = |a: &Seat, b: &Seat| a.addresses.keys().any(|net| b.addresses.contains_key(net));
    let tried = |asker: &Seat| {
        let others = shop.iter().filter(|other| other.name != asker.name);
        let names: Vec<&str> = others
            .filter(|other| shares(asker, other))
            .map(|other| other.name.as_str())
            .collect();
        let seen = asker.seen_as(bed, &names);
        let ours: Vec<String> = asker.addresses.values().map(Ipv4Addr::to_string).collect();
        for name in names {
            let from = seen.get(name);
            let from = from.unwrap_or_else(|| panic!("{} does not reach {name}", asker.name));
            assert!(
                ours.contains(from),
                "{} reaches {name} as {from}",
                asker.name
            );
        }
    };
    thread::scope(|scope| {
        for asker in shop {
            scope.spawn(move || tried(asker));
        }
    });
}

fn nothing_crosses_deployments_or_networks(bed: &Bed, asker: &Seat, shop: &[Seat], other: &[Seat]) {
    for name in ["web.other.jaco.internal", "db", "db.shop.jaco.internal"] {
        let text = asker.run(bed, &format!("nslookup -type=a {name}"));
        assert!(text.contains("NXDOMAIN"), "{name}: {text}");
    }
    let db: Vec<Seat> = shop
        .iter()
        .filter(|seat| seat.service == "db")
        .cloned()
        .collect();
    let api: Vec<Seat> = shop
        .iter()
        .filter(|seat| seat.service == "api")
        .cloned()
        .collect();
    // The last is reachable, so that each way of asking is shown to work.
    let cells = [
        (other, "front", false),
        (&db[..], "back", false),
        (&api[..], "front", true),
    ];
    let mut probes: Vec<Probe<'_>> = Vec::new();
    for (targets, network, expected) in cells {
        for target in targets {
            let address = target.on(network);
            let (from, to) = (asker.host, target.host);
            let cell = |how: &str| format!("{how} from host {from} to {} on {to}", target.name);
            let to = SocketAddr::from((address, 80));
            probes.push((cell("TCP"), expected, Box::new(move || asker.connects(to))));
            let udp = move || asker.datagram_arrives(target, address);
            probes.push((cell("UDP"), expected, Box::new(udp)));
            probes.push((
                cell("ICMP"),
                expected,
                Box::new(move || asker.pings(bed, address)),
            ));
        }
        // On the asker's own host; elsewhere the address is the asker's own host's too.
        let resolver = gateway(targets[0].on(network));
        let what = format!("DNS of {resolver}");
        probes.push((
            what,
            expected,
            Box::new(move || asker.resolver_answers(resolver)),
        ));
    }
    check(probes);
}

fn listen(host: &Host) -> TcpListener {
    let bind = || TcpListener::bind(("0.0.0.0", FOREIGN)).unwrap();
    host.enter(bind).unwrap()
}

/// Counts what containers send to a UDP port, past our own table, as they leave and arrive.
fn count_datagrams(bed: &Bed, ports: &[u16]) {
    for host in bed.hosts() {
        let rules = |chain: &str| -> String {
            let hook = format!("chain {chain} {{ type filter hook {chain} priority 10;");
            let rule = |port| format!(" ip saddr 10.244.0.0/16 udp dport {port} counter;");
            let rules: String = ports.iter().map(rule).collect();
            format!("{hook}{rules} }}\n")
        };
        let script = format!(
            "table inet probe {{\n{}{}}}\n",
            rules("input"),
            rules("postrouting")
        );
        host.namespace().nft(&script).unwrap();
    }
}

/// By port, how many were counted on all hosts.
fn counted(bed: &Bed) -> BTreeMap<u16, u64> {
    let mut counts = BTreeMap::new();
    for host in bed.hosts() {
        let mut list = std::process::Command::new("nft");
        let output = host
            .run(list.args(["list", "table", "inet", "probe"]))
            .unwrap();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let after = |word: &str| line.split_once(word)?.1.split_whitespace().next();
            if let (Some(port), Some(count)) = (after(" dport "), after(" packets ")) {
                let count: u64 = count.parse().unwrap();
                *counts.entry(port.parse().unwrap()).or_default() += count;
            }
        }
    }
    counts
}

fn the_control_plane_is_closed_to_containers(bed: &Bed, asker: &Seat) {
    let mut probes: Vec<Probe<'_>> = Vec::new();
    let mut tcp = |expected: bool, address: Ipv4Addr, port: u16| {
        let to = SocketAddr::from((address, port));
        probes.push((
            format!("TCP from host {} to {to}", asker.host),
            expected,
            Box::new(move || asker.connects(to)),
        ));
    };
    let mut mesh = Vec::new();
    for host in bed.hosts() {
        tcp(false, host.address(), API);
        tcp(false, host.address(), RAFT);
        tcp(true, host.address(), FOREIGN);
        let wg = host.enter(|| interface_address("jaco-wg")).unwrap();
        for port in [API, RAFT, FOREIGN] {
            tcp(host.index() == asker.host && port == FOREIGN, wg, port);
        }
        mesh.push((host.index(), wg));
        for port in [MESH, FOREIGN] {
            asker.send((host.address(), port).into(), b"hello");
        }
    }
    // By the own gateway, which is the own host, and in the outside world.
    tcp(false, gateway(asker.on("front")), API);
    let registry: SocketAddr = bed.registry().address().parse().unwrap();
    probes.push((
        "the outside world".to_owned(),
        true,
        Box::new(move || asker.connects(registry)),
    ));
    for (index, wg) in mesh.into_iter().filter(|(index, _)| *index != asker.host) {
        let ping = Box::new(move || asker.pings(bed, wg));
        probes.push((
            format!("ICMP to the mesh address of host {index}"),
            false,
            ping,
        ));
    }
    check(probes);
}

/// The first IPv4 address of an interface.
fn interface_address(name: &str) -> Ipv4Addr {
    let mut show = std::process::Command::new("ip");
    let output = show
        .args(["-j", "-4", "addr", "show", "dev", name])
        .output()
        .unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let address = links[0]["addr_info"][0]["local"].as_str();
    address.unwrap().parse().unwrap()
}

fn the_wire_shows_nothing_in_clear(bed: &Bed, shop: &[Seat]) {
    let (asker, target) = (one(shop, "web", 1), one(shop, "api", 2));
    let inside = Capture::start(bed.host(1).namespace()).unwrap();
    let between = Capture::start(&bed.switch()).unwrap();
    let answer = asker.fetch(target.on("front"), &format!("/cgi-bin/env?{MARKER}"));
    assert!(answer.contains(MARKER), "{answer}");
    let shows = |frame: &Vec<u8>| {
        frame
            .windows(MARKER.len())
            .any(|bytes| bytes == MARKER.as_bytes())
    };
    // The host sees it on its bridge: the capture works.
    assert!(inside.frames().unwrap().iter().any(shows));
    let frames = between.frames().unwrap();
    assert!(!frames.iter().any(shows), "the marker is on the wire");
    let hosts: Vec<Ipv4Addr> = bed.hosts().iter().map(Host::address).collect();
    let packets: Vec<Packet> = frames
        .iter()
        .filter_map(|frame| Packet::of(frame))
        .collect();
    let ours = packets.iter().filter(|packet| {
        let ends = [packet.source, packet.destination];
        ends.iter().all(|end| hosts.contains(end.ip()))
    });
    let mut encrypted = 0;
    for packet in ours {
        let ports = [packet.source.port(), packet.destination.port()];
        match packet.protocol {
            17 => {
                assert_eq!(ports, [MESH, MESH], "{packet:?}");
                // Of the four kinds of WireGuard's messages.
                let head = packet.body[8..12].to_vec();
                assert!(
                    (1..=4).contains(&head[0]) && head[1..] == [0, 0, 0],
                    "{packet:?}"
                );
                encrypted += 1;
            }
            6 => assert!(ports.contains(&API) || ports.contains(&RAFT), "{packet:?}"),
            _ => panic!("{packet:?}"),
        }
    }
    assert!(encrypted > 0, "nothing of the mesh was seen");
}

fn what_is_not_ours_is_left_alone(bed: &Bed, shop: &[Seat]) {
    let (host, neighbour) = (bed.host(1), bed.host(2));
    let image = bed.image("web:1");
    host.docker_text(&["network", "create", "foreign"]).unwrap();
    let run = [
        "run",
        "--detach",
        "--network",
        "foreign",
        "--publish",
        "8088:80",
        &image,
    ];
    let foreign = host.docker_text(&run).unwrap();
    let _listener = listen(host);
    let published = format!("{}:8088", host.address());
    let untouched = || {
        poll_until(SOON, "the published port answers", || {
            let answer = neighbour.http_get("foreign", &published, "/");
            answer.is_ok_and(|answer| answer.status == 200)
        })
        .unwrap();
        for port in [API, FOREIGN] {
            let address = (if port == API { neighbour } else { host }).address();
            let dial = || TcpStream::connect((address, port)).is_ok();
            let from = if port == API { host } else { neighbour };
            assert!(
                from.enter(dial).unwrap(),
                "from {} to port {port}",
                from.name()
            );
        }
        let out = format!("nc -w 5 {} </dev/null && echo open", {
            bed.registry().address().replace(':', " ")
        });
        let text = host
            .docker_text(&["exec", &foreign, "sh", "-c", &out])
            .unwrap();
        assert!(text.contains("open"), "{text}");
    };
    untouched();
    host.stop_daemon().unwrap();
    untouched();
    let (web, api) = (one(shop, "web", 1), one(shop, "api", 1));
    assert!(
        web.connects((api.on("front"), 80).into()),
        "without a daemon"
    );
    host.start_daemon().unwrap();
    untouched();
}
