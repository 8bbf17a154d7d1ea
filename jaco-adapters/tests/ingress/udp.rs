//! Published UDP ports.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use jaco_adapters::ingress::Limits;
use jaco_core::manifest::spec::Protocol;

use super::support::{DEADLINE, Rig, Upstream, Wire, free_port, port, tcp, until};

/// A replica that repeats each datagram behind its name and the address that it came from.
fn echo(name: &'static str) -> SocketAddr {
    echo_at((Ipv4Addr::LOCALHOST, 0).into(), name)
}

fn echo_at(address: SocketAddr, name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            if &bytes[..length] == b"end" {
                return;
            }
            let mut answer = format!("{name} {} ", from.port()).into_bytes();
            answer.extend(&bytes[..length]);
            let _ = socket.send_to(&answer, from);
        }
    });
    address
}

struct Published {
    rig: Rig,
    port: u16,
}

impl Published {
    fn new(addresses: &[SocketAddr], limits: Limits) -> Self {
        let published = Self {
            rig: Rig::with_limits(limits),
            port: free_udp_port(),
        };
        published.to(addresses);
        published
    }

    fn to(&self, addresses: &[SocketAddr]) {
        self.rig.change(|table| {
            let key = (self.port, Protocol::Udp);
            table.ports.insert(key, port(addresses));
        });
    }

    fn client(&self) -> Client {
        self.client_of(Ipv4Addr::LOCALHOST)
    }

    /// A client that hears this address of the host only.
    fn client_of(&self, here: Ipv4Addr) -> Client {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect((here, self.port)).unwrap();
        let wait = Duration::from_millis(100);
        socket.set_read_timeout(Some(wait)).unwrap();
        Client(socket)
    }
}

struct Client(UdpSocket);

impl Client {
    /// Says something until it is answered: the name, the flow and the text.
    fn ask(&self, text: &str) -> (String, String, String) {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < DEADLINE, "{text:?} is not answered");
            if let Some(answer) = self.try_ask(text.as_bytes()) {
                let answer = String::from_utf8(answer).unwrap();
                let mut words = answer.splitn(3, ' ').map(str::to_owned);
                let mut word = || words.next().unwrap();
                let answer = (word(), word(), word());
                // A late answer to an earlier attempt says something else.
                if answer.2 == text {
                    return answer;
                }
            }
        }
    }

    fn try_ask(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut answer = vec![0; 65_536];
        let asked = self.0.send(bytes).and_then(|_| self.0.recv(&mut answer));
        match asked {
            Ok(length) => Some(answer[..length].to_vec()),
            Err(error) => {
                let kinds = [
                    ErrorKind::WouldBlock,
                    ErrorKind::TimedOut,
                    ErrorKind::ConnectionRefused,
                ];
                assert!(kinds.contains(&error.kind()), "{error}");
                None
            }
        }
    }
}

fn free_udp_port() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

#[test]
fn datagrams_pass_both_ways_and_a_flow_keeps_its_replica() {
    let published = Published::new(&[echo("one"), echo("two")], Limits::default());
    let clients: Vec<_> = (0..6).map(|_| published.client()).collect();
    let mut names = BTreeSet::new();
    let mut flows = BTreeSet::new();
    for client in &clients {
        let (name, flow, _) = client.ask("first");
        for text in ["second", "third", ""] {
            assert_eq!(
                client.ask(text),
                (name.clone(), flow.clone(), text.to_owned())
            );
        }
        names.insert(name);
        flows.insert(flow);
    }
    assert_eq!(names.len(), 2, "the least busy replica is taken");
    assert_eq!(flows.len(), clients.len(), "each client has a flow");
}

#[test]
fn a_local_replica_is_preferred_for_a_flow() {
    let (far, near) = (echo("far"), echo("near"));
    let published = Published::new(&[far, near], Limits::default());
    published.rig.change(|table| {
        let route = table
            .ports
            .get_mut(&(published.port, Protocol::Udp))
            .unwrap();
        let mut upstreams = route.upstreams.to_vec();
        upstreams[0].local = false;
        route.upstreams = upstreams.into();
    });
    assert_eq!(published.client().ask("x").0, "near");
}

#[test]
fn a_large_datagram_arrives_whole() {
    let published = Published::new(&[echo("one")], Limits::default());
    let client = published.client();
    let large = "x".repeat(60_000);
    assert_eq!(client.ask(&large).2, large);
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let published = Published::new(&[echo("one")], Limits::default());
    for last in [1, 2, 3] {
        let here = Ipv4Addr::new(127, 0, 0, last);
        assert_eq!(published.client_of(here).ask("x").0, "one");
    }
}

#[test]
fn a_flow_moves_when_its_replica_leaves_the_table() {
    let (one, two) = (echo("one"), echo("two"));
    let published = Published::new(&[one], Limits::default());
    let client = published.client();
    assert_eq!(client.ask("x").0, "one");
    published.to(&[two]);
    assert_eq!(client.ask("y").0, "two");
}

#[test]
fn a_flow_moves_when_its_replica_does_not_listen_any_more() {
    let (one, two) = (echo("one"), echo("two"));
    let published = Published::new(&[one], Limits::default());
    let client = published.client();
    assert_eq!(client.ask("x").0, "one");
    published.to(&[one, two]);
    let stop = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    stop.send_to(b"end", one).unwrap();
    until("the flow has moved", || client.ask("y").0 == "two");
}

#[test]
fn an_idle_flow_is_forgotten_and_no_more_begin_than_there_is_room_for() {
    let limits = Limits {
        idle: Duration::from_millis(300),
        flows: 2,
        ..Limits::default()
    };
    let published = Published::new(&[echo("one")], limits);
    let [first, second, third] = [(); 3].map(|()| published.client());
    let flow = first.ask("a").1;
    // The others get an answer as soon as there is room, because somebody was idle.
    second.ask("b");
    third.ask("c");
    until("the flow is another", || first.ask("a").1 != flow);
}

#[test]
fn tcp_and_udp_of_one_number_are_two_ports() {
    let number = free_port();
    let rig = Rig::new();
    let stream = Upstream::raw(|mut wire| wire.send("tcp\n"));
    rig.change(|table| {
        table
            .ports
            .insert((number, Protocol::Udp), port(&[echo("udp")]));
    });
    let published = Published { rig, port: number };
    assert_eq!(published.client().ask("x").0, "udp");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
    assert!(std::net::TcpStream::connect(address).is_err());
    let tcp_route = port(&[stream.address]);
    published
        .rig
        .change(|table| drop(table.ports.insert(tcp(number), tcp_route)));
    assert_eq!(Wire::connect(address).line().unwrap(), "tcp");
    assert_eq!(published.client().ask("x").0, "udp");
    // Closed, it can be had by anybody.
    published.rig.change(|table| table.ports.clear());
    until("the port is free", || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok()
    });
}

#[test]
fn a_udp_port_that_is_taken_is_reported() {
    let taken = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let number = taken.local_addr().unwrap().port();
    let rig = Rig::new();
    rig.change(|table| {
        table
            .ports
            .insert((number, Protocol::Udp), port(&[echo("one")]));
    });
    let failed = jaco_core::ports::IngressProxy::failed_listeners(&rig.ingress);
    assert_eq!(failed.len(), 1, "{failed:?}");
    drop(taken);
    let published = Published { rig, port: number };
    assert_eq!(published.client().ask("x").0, "one");
}

#[test]
fn sources_that_nobody_answers_keep_out_nobody() {
    let limits = Limits {
        flows: 16,
        ..Limits::default()
    };
    // It repeats what one says who has something to say.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let (heard, hears) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut bytes = vec![0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            if &bytes[..length] == b"forged" {
                heard.send(()).unwrap();
                continue;
            }
            let answer = format!(
                "one {} {}",
                from.port(),
                String::from_utf8_lossy(&bytes[..length])
            );
            socket.send_to(answer.as_bytes(), from).unwrap();
        }
    });
    let published = Published::new(&[address], limits);
    let friend = published.client();
    let flow = friend.ask("a").1;
    let crowd: Vec<Client> = (0..200).map(|_| published.client()).collect();
    for one in &crowd {
        one.0.send(b"forged").unwrap();
        hears.recv_timeout(DEADLINE).unwrap();
    }
    assert_eq!(published.client().ask("b").0, "one");
    assert_eq!(friend.ask("c").1, flow, "an answered flow stays");
}
