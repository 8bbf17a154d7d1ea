//! The daemon's own lookups.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use jaco_adapters::dns::UpstreamLookup;
use jaco_testkit::contract::host_lookup::{World, suite};

use super::support::Upstream;
use super::support::upstream::empty;

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Knows two names, of which one has addresses.
fn answer(question: &Message) -> Message {
    let query = &question.queries[0];
    let name = query.name().to_ascii().to_ascii_lowercase();
    let data = match (name.as_str(), query.query_type()) {
        ("known.test.", RecordType::A) => RData::A(V4.into()),
        ("known.test.", RecordType::AAAA) => RData::AAAA(V6.into()),
        ("known.test." | "bare.test.", _) => return empty(question, ResponseCode::NoError),
        _ => return empty(question, ResponseCode::NXDomain),
    };
    let mut answer = empty(question, ResponseCode::NoError);
    answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
    answer
}

#[tokio::test]
async fn the_lookup_keeps_the_contract() {
    let upstream = Upstream::answering(|question, _| vec![answer(question)]);
    let dead = Upstream::dead();
    let patience = Duration::from_millis(200);
    // The one that answers comes last, so that its slowness costs no answer.
    let generous = Duration::from_secs(20);
    let lookup = UpstreamLookup::new(vec![Upstream::closed(), upstream.address], generous);
    let silent = UpstreamLookup::new(vec![Upstream::closed(), dead.address], patience);
    let world = World {
        known: (
            "known.test".to_owned(),
            BTreeSet::from([IpAddr::V4(V4), IpAddr::V6(V6)]),
        ),
        bare: "bare.test".to_owned(),
        missing: "missing.test".to_owned(),
    };
    suite(&lookup, &silent, &world).await;
}
