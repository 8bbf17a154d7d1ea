//! An upstream on loopback, UDP and TCP on one port, that a test tells what to say.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};

use super::{framed, read_framed};

/// What came, whether over TCP, and what to send for it.
type Answers = dyn Fn(&Message, bool) -> Vec<Message> + Send + Sync;

/// Counts what it is asked. Its threads end with the test.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) fn answering(
        answers: impl Fn(&Message, bool) -> Vec<Message> + Send + Sync + 'static,
    ) -> Self {
        let answers: Arc<Answers> = Arc::new(answers);
        let (datagrams, connections) = sockets();
        let address = datagrams.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, say) = (Arc::clone(&asked), Arc::clone(&answers));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = datagrams.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let question = Message::from_vec(&buffer[..length]).unwrap();
                for answer in say(&question, false) {
                    datagrams.send_to(&answer.to_vec().unwrap(), peer).unwrap();
                }
            }
        });
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in connections.incoming() {
                let mut stream = stream.unwrap();
                let Some(question) = read_framed(&mut stream) else {
                    continue;
                };
                count.fetch_add(1, Ordering::SeqCst);
                for answer in answers(&question, true) {
                    let _ = stream.write_all(&framed(&answer.to_vec().unwrap()));
                }
            }
        });
        Self { address, asked }
    }

    /// Knows one address for every name.
    pub(crate) fn knowing(address: [u8; 4], ttl: u32) -> Self {
        Self::answering(move |question, _| vec![found(question, address, ttl)])
    }

    pub(crate) fn saying(code: ResponseCode) -> Self {
        Self::answering(move |question, _| vec![empty(question, code)])
    }

    /// Takes questions and says nothing.
    pub(crate) fn dead() -> Self {
        Self::answering(|_, _| Vec::new())
    }

    /// Where nobody listens.
    pub(crate) fn closed() -> SocketAddr {
        let (datagrams, _) = sockets();
        datagrams.local_addr().unwrap()
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(connections) = TcpListener::bind(datagrams.local_addr().unwrap()) {
            return (datagrams, connections);
        }
    }
}

/// An answer without records.
pub(crate) fn empty(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(question.id, question.op_code);
    answer.metadata.response_code = code;
    answer.queries.clone_from(&question.queries);
    answer
}

pub(crate) fn found(question: &Message, address: [u8; 4], ttl: u32) -> Message {
    let mut answer = empty(question, ResponseCode::NoError);
    let name = question.queries[0].name.clone();
    let data = RData::A(Ipv4Addr::from(address).into());
    answer.add_answer(Record::from_rdata(name, ttl, data));
    answer
}

/// An answer that says no, and for how long.
pub(crate) fn absent(question: &Message, code: ResponseCode, ttl: u32) -> Message {
    let mut answer = empty(question, code);
    let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, ttl);
    answer.add_authority(Record::from_rdata(Name::root(), 3600, RData::SOA(soa)));
    answer
}
