//! A responder on loopback, containers that ask it, and upstreams that do as they are told.

pub(crate) mod upstream;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use jaco_adapters::dns::{HickoryDns, Settings};
use jaco_adapters::metrics::Metrics;
use jaco_core::cluster::addresses::Pool;
use jaco_core::cluster::deployment::Replica;
use jaco_core::id::NodeName;
use jaco_core::manifest::spec::DeploymentSpec;
use jaco_core::node::dns::zones;
use jaco_core::ports::DnsResponder;
use jaco_testkit::builders::{Cluster, deployment, service};

pub(crate) use upstream::Upstream;

/// Generous: a slow machine fails no test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How long nothing is waited for, where nothing is expected.
const SILENCE: Duration = Duration::from_millis(500);

/// Loopback has all of it.
pub(crate) fn pool() -> Pool {
    Pool::parse("127.77.0.0/16").unwrap()
}

/// A port that is free on every gateway, most likely.
pub(crate) fn free_port() -> u16 {
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    any.local_addr().unwrap().port()
}

pub(crate) fn settings(port: u16, upstreams: &[SocketAddr]) -> Settings {
    Settings {
        meter: Arc::new(Metrics::new()),
        port,
        upstreams: upstreams.to_vec(),
        timeout: Duration::from_millis(300),
    }
}

/// A node `n1` whose replicas all run, and its responder.
pub(crate) struct Rig {
    pub(crate) cluster: Cluster,
    pub(crate) dns: HickoryDns,
    port: u16,
}

impl Rig {
    /// One deployment `shop` of two `web`.
    pub(crate) fn new(upstreams: &[SocketAddr]) -> Self {
        Self::of([deployment("shop", [("web", service(2, "a"))])], upstreams)
    }

    pub(crate) fn of(
        specs: impl IntoIterator<Item = DeploymentSpec>,
        upstreams: &[SocketAddr],
    ) -> Self {
        let mut cluster = Cluster::of(1);
        cluster.state.cluster.as_mut().unwrap().ipam_pool = pool();
        for spec in specs {
            cluster.deploy(spec).unwrap();
        }
        cluster.settle();
        let port = free_port();
        let dns = HickoryDns::start(settings(port, upstreams)).unwrap();
        let rig = Self { cluster, dns, port };
        rig.publish();
        assert_eq!(rig.dns.failed_listeners(), []);
        rig
    }

    pub(crate) fn publish(&self) {
        let zones = zones(&self.cluster.state, &NodeName::new("n1"));
        self.dns.publish(Arc::new(zones));
    }

    pub(crate) fn replicas(&self, service: &str) -> Vec<Arc<Replica>> {
        let all = self.cluster.state.replicas().cloned();
        all.filter(|r| r.service.as_str() == service).collect()
    }

    /// The first replica of a service asks the gateway of its first network.
    pub(crate) fn client(&self, service: &str) -> Client {
        let address = self.replicas(service)[0].address().unwrap();
        let [a, b, c, _] = address.octets();
        Client::new(address, Ipv4Addr::new(a, b, c, 1), self.port)
    }
}

/// Asks from one address.
pub(crate) struct Client {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Client {
    pub(crate) fn new(from: Ipv4Addr, gateway: Ipv4Addr, port: u16) -> Self {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        let server = (gateway, port).into();
        socket.connect(server).unwrap();
        Self { socket, server }
    }

    pub(crate) fn server(&self) -> SocketAddr {
        self.server
    }

    /// Asks over UDP.
    pub(crate) fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.exchange(&question(name, kind))
    }

    pub(crate) fn exchange(&self, question: &Message) -> Message {
        self.send(&question.to_vec().unwrap());
        self.receive(question.id)
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        self.socket.send(bytes).unwrap();
    }

    /// Waits for the reply of this id.
    pub(crate) fn receive(&self, id: u16) -> Message {
        let start = Instant::now();
        loop {
            let (bytes, reply) = self.next(DEADLINE).expect("a reply");
            if reply.id == id {
                assert!(reply.edns.is_some() || bytes <= 512, "{bytes} bytes");
                return reply;
            }
            assert!(start.elapsed() < DEADLINE, "no reply");
        }
    }

    /// Waits for the next reply, whatever it is to.
    pub(crate) fn receive_any(&self) -> Message {
        self.next(DEADLINE).expect("a reply").1
    }

    fn next(&self, wait: Duration) -> Option<(usize, Message)> {
        self.socket.set_read_timeout(Some(wait)).unwrap();
        let mut buffer = [0; 65535];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some((length, Message::from_vec(&buffer[..length]).unwrap()))
    }

    /// A reply, if one comes soon.
    pub(crate) fn try_ask(&self, name: &str, kind: RecordType) -> Option<Message> {
        let question = question(name, kind);
        self.socket.send(&question.to_vec().unwrap()).ok()?;
        self.next(SILENCE).map(|(_, reply)| reply)
    }

    /// Asks over TCP.
    pub(crate) fn tcp(&self, name: &str, kind: RecordType) -> Message {
        self.try_tcp(name, kind).expect("a reply over TCP")
    }

    pub(crate) fn try_tcp(&self, name: &str, kind: RecordType) -> Option<Message> {
        let mut stream = TcpStream::connect(self.server).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let question = question(name, kind);
        stream
            .write_all(&framed(&question.to_vec().unwrap()))
            .ok()?;
        let reply = read_framed(&mut stream)?;
        assert_eq!(reply.id, question.id);
        Some(reply)
    }

    /// The addresses of a name, in order of value.
    pub(crate) fn addresses(&self, name: &str) -> Vec<Ipv4Addr> {
        addresses(&self.ask(name, RecordType::A))
    }
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&length, message].concat()
}

pub(crate) fn read_framed(stream: &mut TcpStream) -> Option<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).ok()?;
    Some(Message::from_vec(&bytes).unwrap())
}

pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let id = RandomState::new().build_hasher().finish() as u16;
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    question.add_query(Query::query(name, kind));
    question
}

/// With EDNS and room for so many bytes.
pub(crate) fn with_edns(mut question: Message, room: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(room);
    question.set_edns(edns);
    question
}

pub(crate) fn addresses(reply: &Message) -> Vec<Ipv4Addr> {
    let data = reply.answers.iter().map(|record| &record.data);
    let mut all: Vec<_> = data
        .filter_map(|data| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        })
        .collect();
    all.sort();
    all
}
