//! What is no question, or no question of ours.

use std::io::Write;
use std::net::TcpStream;
use std::sync::OnceLock;

use hickory_proto::op::{MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use proptest::prelude::*;

use super::support::{Client, Rig, framed, question, with_edns};

#[test]
fn what_is_not_served_is_refused_by_its_code() {
    let rig = Rig::new(&[]);
    let client = rig.client("web");
    let asked = || question("web", RecordType::A);
    let mut update = asked();
    update.metadata.op_code = OpCode::Status;
    let mut two = asked();
    two.add_query(two.queries[0].clone());
    let mut chaos = asked();
    chaos.queries[0].query_class = DNSClass::CH;
    let transfer = question("web", RecordType::AXFR);
    let mut version = with_edns(asked(), 1232);
    version.edns.as_mut().unwrap().set_version(1);
    let cases = [
        (update, ResponseCode::NotImp),
        (two, ResponseCode::FormErr),
        (chaos, ResponseCode::Refused),
        (transfer, ResponseCode::Refused),
        (version, ResponseCode::BADVERS),
    ];
    for (message, code) in cases {
        let reply = client.exchange(&message);
        // One number means two things there.
        assert_eq!(
            u16::from(reply.response_code),
            u16::from(code),
            "{message:?}"
        );
        assert!(reply.answers.is_empty());
    }
}

#[test]
fn a_reply_is_not_replied_to_and_a_malformed_question_is() {
    let rig = Rig::new(&[]);
    let client = rig.client("web");
    let mut reply = question("web", RecordType::A);
    reply.metadata.message_type = MessageType::Response;
    client.send(&reply.to_vec().unwrap());
    client.send(b"short");
    let mut cut = question("web", RecordType::A).to_vec().unwrap();
    cut.truncate(15);
    client.send(&cut);
    // The first thing to come back is for the last one sent.
    let id = u16::from_be_bytes([cut[0], cut[1]]);
    assert_eq!(client.receive(id).response_code, ResponseCode::FormErr);
}

/// Any bytes, and questions of which some bytes are changed.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let changed = changes.prop_map(|changes| {
        let question = with_edns(question("web.shop.jaco.internal", RecordType::A), 1232);
        let mut bytes = question.to_vec().unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..2_000), changed]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_stop_the_responder(bytes in bytes()) {
        static SHARED: OnceLock<(Rig, Client)> = OnceLock::new();
        let (_, client) = SHARED.get_or_init(|| {
            let rig = Rig::new(&[]);
            let client = rig.client("web");
            (rig, client)
        });
        client.send(&bytes);
        let mut stream = TcpStream::connect(client.server()).unwrap();
        // It may hang up before all is written.
        let _ = stream.write_all(&framed(&bytes));
        prop_assert_eq!(client.addresses("web").len(), 2);
    }
}
