//! Containers of a cluster as ends of connections, and what can be tried between them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use jaco_testkit::bed::{Bed, Host, Namespace};
use jaco_testkit::project::Project;
use serde_json::Value;

/// How long what should arrive may take, and how long what should not is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Asks for `web`, type A.
const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01";

/// A running container of the cluster.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The number of its host.
    pub host: usize,
    /// Its name, which is its replica's id.
    pub name: String,
    pub service: String,
    /// Its addresses, by network.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    pid: u64,
}

/// The containers of a deployment on all hosts.
pub fn seats(bed: &Bed, deployment: &str) -> Vec<Seat> {
    let on = |host: &Host| seats_on(host, deployment);
    bed.hosts().iter().flat_map(on).collect()
}

fn seats_on(host: &Host, deployment: &str) -> Vec<Seat> {
    let filter = format!("label=jaco.deployment={deployment}");
    let ids = host.docker_text(&["ps", "--quiet", "--filter", &filter]);
    let ids = ids.unwrap();
    if ids.is_empty() {
        return Vec::new();
    }
    let words = ["inspect"].into_iter().chain(ids.lines());
    // One that goes meanwhile is an error of the whole command, and counts for nothing.
    let found = host.docker_text(&words.collect::<Vec<_>>());
    let found: Vec<Value> = serde_json::from_str(&found.unwrap_or_default()).unwrap_or_default();
    let seat = |container: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let prefix = format!("jaco_{deployment}_");
        let networks = container["NetworkSettings"]["Networks"].as_object();
        let addresses = networks.unwrap().iter().filter_map(|(name, end)| {
            let network = name.strip_prefix(&prefix)?.to_owned();
            // A container that is being stopped has none.
            Some((network, end["IPAddress"].as_str()?.parse().ok()?))
        });
        Seat {
            host: host.index(),
            name: text(&container["Name"]).trim_start_matches('/').to_owned(),
            service: text(&container["Config"]["Labels"]["jaco.service"]),
            addresses: addresses.collect(),
            pid: container["State"]["Pid"].as_u64().unwrap(),
        }
    };
    found.iter().map(seat).collect()
}

impl Seat {
    /// Its address on a network.
    pub fn on(&self, network: &str) -> Ipv4Addr {
        self.addresses[network]
    }

    fn namespace(&self) -> Namespace {
        Namespace::named(format!("/proc/{}/ns/net", self.pid))
    }

    /// The path of its network namespace.
    pub fn namespace_path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid)
    }

    /// Says when a datagram comes to a port of it, and to which.
    pub fn listen(&self) -> (u16, std::sync::mpsc::Receiver<()>) {
        let bind = || UdpSocket::bind("0.0.0.0:0").unwrap();
        let socket = self.namespace().enter(bind).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let (heard, hears) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if socket.recv(&mut [0; 64]).is_ok() {
                let _ = heard.send(());
            }
        });
        (port, hears)
    }

    /// True when a connection is made; false also when the container is gone.
    pub fn connects(&self, to: SocketAddr) -> bool {
        let dial = || TcpStream::connect_timeout(&to, PATIENCE).is_ok();
        self.namespace().enter(dial).unwrap_or(false)
    }

    /// Repeats every datagram to this port behind the container's name, for as long as the test
    /// runs. Without the container it repeats nothing that comes from elsewhere.
    pub fn repeat_datagrams(&self, port: u16) {
        let socket = self
            .namespace()
            .enter(|| UdpSocket::bind(("0.0.0.0", port)));
        let (socket, name) = (socket.unwrap().unwrap(), self.name.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                let said = [name.as_bytes(), b" ", &bytes[..length]].concat();
                // The way back may be gone.
                let _ = socket.send_to(&said, from);
            }
        });
    }

    /// True when a datagram arrives at another container, from an address of this one.
    pub fn datagram_arrives(&self, other: &Seat, address: Ipv4Addr) -> bool {
        let bind = || UdpSocket::bind("0.0.0.0:0").unwrap();
        let there = other.namespace().enter(bind).unwrap();
        there.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = SocketAddr::from((address, there.local_addr().unwrap().port()));
        self.send(to, b"hello");
        let mut buffer = [0; 16];
        there.recv_from(&mut buffer).is_ok_and(|(_, from)| {
            let mut ours = self.addresses.values();
            ours.any(|address| from.ip() == *address)
        })
    }

    /// Sends a datagram; nobody need hear it.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let bind = || UdpSocket::bind("0.0.0.0:0").unwrap();
        let socket = self.namespace().enter(bind).unwrap();
        // A filter of the own host shows as an error.
        let _ = socket.send_to(bytes, to);
    }

    /// True when a resolver answers, whatever it says.
    pub fn resolver_answers(&self, resolver: Ipv4Addr) -> bool {
        let bind = || UdpSocket::bind("0.0.0.0:0").unwrap();
        let socket = self.namespace().enter(bind).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = socket.send_to(QUESTION, (resolver, 53));
        sent.is_ok() && socket.recv(&mut [0; 512]).is_ok()
    }

    /// What a web server says to a path; empty when it does not answer.
    pub fn fetch(&self, address: Ipv4Addr, path: &str) -> String {
        let fetch = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&(address, 80).into(), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        self.namespace().enter(fetch).unwrap().unwrap_or_default()
    }

    /// Runs a shell's line in the container; what it prints.
    pub fn run(&self, bed: &Bed, line: &str) -> String {
        let output = bed
            .host(self.host)
            .docker(&["exec", &self.name, "sh", "-c", line]);
        let output = output.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    /// True when an address answers a ping.
    pub fn pings(&self, bed: &Bed, address: Ipv4Addr) -> bool {
        let line = format!("ping -c 1 -W 2 {address} >/dev/null && echo answered");
        self.run(bed, &line).contains("answered")
    }

    /// By each name, the address that its web server saw this container come from.
    pub fn seen_as(&self, bed: &Bed, names: &[&str]) -> BTreeMap<String, String> {
        let line = format!(
            "for name in {}; do \
             printf 'GET /cgi-bin/env HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $name 80 \
             | sed -n \"s/^REMOTE_ADDR=/$name /p\"; done",
            names.join(" ")
        );
        let text = self.run(bed, &line);
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        // The server listens on IPv6 too and says `[::ffff:10.0.0.1]`.
        let address = |text: &str| {
            let text = text.trim_start_matches(['[', ':', 'f']);
            let end = text.find([']', ':']).unwrap_or(text.len());
            text[..end].trim().to_owned()
        };
        pairs
            .map(|(name, from)| (name.to_owned(), address(from)))
            .collect()
    }
}

/// The gateway of the network that an address is in.
pub fn gateway(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) & !0xff | 1)
}

/// `web` is on one network of `shop`, `db` on the other, `api` on both; `other` has one more
/// `web`. A replica of each on each host.
pub fn deploy_two(bed: &Bed, shop: &Project, other: &Project) {
    let image = bed.image("web:1");
    let service = |name: &str, networks: &str| {
        format!(
            "  {name}: {{image: '{image}', networks: [{networks}], cap_add: [NET_RAW], \
             deploy: {{replicas: 3}}}}\n"
        )
    };
    let parts = [
        service("web", "front"),
        service("api", "front, back"),
        service("db", "back"),
    ];
    let networks = "networks: {front: {}, back: {}}\n";
    shop.write(
        "compose.yaml",
        &format!("services:\n{}{networks}", parts.concat()),
    )
    .unwrap()
    .write(
        "jaco.yaml",
        "deployment: shop\nservices:\n  - {name: web}\n",
    )
    .unwrap();
    let compose = format!(
        "services:\n{}networks: {{front: {{}}}}\n",
        service("web", "front")
    );
    other
        .write("compose.yaml", &compose)
        .unwrap()
        .write(
            "jaco.yaml",
            "deployment: other\nservices:\n  - {name: web}\n",
        )
        .unwrap();
}

/// The events of a type, oldest first.
pub fn events(host: &Host, kind: &str) -> Vec<Value> {
    let log = host.jaco_json(&["audit", "--type", kind]).unwrap();
    log["events"].as_array().unwrap().clone()
}
