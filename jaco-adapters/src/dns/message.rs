//! Messages: from bytes to a question of the core, and from its answer to bytes.

use std::net::Ipv4Addr;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use jaco_core::node::dns::{Answer, Kind, TTL};

/// What we send in one datagram at most, and say that we take: it passes without fragments.
pub(super) const DATAGRAM: u16 = 1232;

/// What everybody takes (RFC 1035).
const PLAIN_DATAGRAM: u16 = 512;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Udp,
    Tcp,
}

/// What became of a message.
pub(super) enum Handled {
    /// The reply is written.
    Replied,
    /// An upstream must be asked first.
    Pending(Pending),
    /// It deserves no reply.
    Ignored,
}

/// A question for the upstreams.
pub(super) struct Pending {
    pub(super) request: Message,
    pub(super) carrier: Carrier,
    pub(super) asker: Ipv4Addr,
}

/// A request that can be answered, or what to say to one that cannot.
pub(super) enum Received {
    Request(Message),
    /// Malformed, or of a sort that is not served.
    Refused(Message, ResponseCode),
    /// Not even a header, or itself a reply.
    Noise,
}

/// Reads a request.
pub(super) fn receive(bytes: &[u8]) -> Received {
    let Ok(request) = Message::from_vec(bytes) else {
        return malformed(bytes);
    };
    let refused = match &request {
        request if request.message_type == MessageType::Response => return Received::Noise,
        request if request.op_code != OpCode::Query => ResponseCode::NotImp,
        request if request.queries.len() != 1 => ResponseCode::FormErr,
        request if request.version() > 0 => ResponseCode::BADVERS,
        request if !is_served(&request.queries[0]) => ResponseCode::Refused,
        _ => return Received::Request(request),
    };
    Received::Refused(request, refused)
}

/// The id is enough for a reply; the flag tells whether one is due.
fn malformed(bytes: &[u8]) -> Received {
    const RESPONSE: u8 = 0x80;
    match bytes {
        [a, b, flags, _, ..] if bytes.len() >= 12 && flags & RESPONSE == 0 => {
            let id = u16::from_be_bytes([*a, *b]);
            let empty = Message::new(id, MessageType::Query, OpCode::Query);
            Received::Refused(empty, ResponseCode::FormErr)
        }
        _ => Received::Noise,
    }
}

fn is_served(query: &Query) -> bool {
    let transfer = matches!(query.query_type, RecordType::AXFR | RecordType::IXFR);
    query.query_class == DNSClass::IN && !transfer
}

/// The name that is asked for, as the core takes it. A label with a dot in it, or with anything
/// that no name of ours has, is escaped, and so equal to none.
pub(super) fn name_of(query: &Query) -> String {
    let mut text = String::with_capacity(query.name.len());
    for label in query.name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label {
            match byte {
                b'.' => text.push_str("\\046"),
                b'\\' => text.push_str("\\092"),
                byte => text.push(char::from(byte)),
            }
        }
    }
    text
}

/// The kind that is asked for.
pub(super) fn kind_of(query: &Query) -> Kind {
    match query.query_type {
        RecordType::A => Kind::A,
        RecordType::PTR => Kind::Ptr,
        _ => Kind::Other,
    }
}

/// The reply to a request that the zones answer.
pub(super) fn own(request: &Message, answer: Answer<'_>) -> Message {
    let code = match &answer {
        Answer::NxDomain => ResponseCode::NXDomain,
        Answer::Forward => ResponseCode::ServFail,
        Answer::Addresses(_) | Answer::Pointer(_) | Answer::Empty => ResponseCode::NoError,
    };
    let mut reply = reply(request, code);
    reply.metadata.authoritative = true;
    let name = || request.queries[0].name.clone();
    let record = |data| Record::from_rdata(name(), TTL, data);
    match answer {
        Answer::Addresses(addresses) => {
            let data = addresses
                .into_iter()
                .map(|address: Ipv4Addr| RData::A(address.into()));
            reply.answers = data.map(record).collect();
        }
        Answer::Pointer(target) => match Name::from_ascii(format!("{target}.")) {
            Ok(target) => reply.answers = vec![record(RData::PTR(PTR(target)))],
            // A replica's id that is too long for a label has no name.
            Err(_) => reply.metadata.response_code = ResponseCode::NXDomain,
        },
        Answer::Empty | Answer::NxDomain | Answer::Forward => {}
    }
    reply
}

/// An empty reply with the request's id and question.
pub(super) fn reply(request: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(request.id, request.op_code);
    reply.metadata.recursion_desired = request.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.checking_disabled = request.checking_disabled;
    reply.metadata.response_code = code;
    reply.queries.clone_from(&request.queries);
    reply.edns = edns(request);
    reply
}

/// What we say of ourselves to one who says it of himself, or on his behalf.
pub(super) fn edns(request: &Message) -> Option<Edns> {
    let asked = request.edns.as_ref()?;
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM);
    edns.set_dnssec_ok(asked.flags().dnssec_ok);
    Some(edns)
}

/// Writes a reply within what the asker takes; what does not fit is left out and said so.
pub(super) fn write(
    reply: &Message,
    request: &Message,
    carrier: Carrier,
    into: &mut Vec<u8>,
) -> Result<(), ProtoError> {
    let mut encoder = BinEncoder::new(into);
    encoder.set_max_size(match (carrier, &request.edns) {
        (Carrier::Tcp, _) => u16::MAX,
        (Carrier::Udp, None) => PLAIN_DATAGRAM,
        (Carrier::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_DATAGRAM, DATAGRAM),
    });
    reply.emit(&mut encoder)
}
