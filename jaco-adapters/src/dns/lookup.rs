//! Addresses of names in the world, for the daemon itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use jaco_core::node::forward::{Next, Outcome, after};
use jaco_core::ports::{HostError, HostLookup};
use tokio::time::timeout;

use super::exchange;
use super::forwarder;

/// Asks upstreams in order until one answers.
#[derive(Clone, Debug)]
pub struct UpstreamLookup {
    upstreams: Vec<SocketAddr>,
    patience: Duration,
}

impl UpstreamLookup {
    /// Asks these, each for so long at most.
    pub fn new(upstreams: Vec<SocketAddr>, patience: Duration) -> Self {
        Self {
            upstreams,
            patience,
        }
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Result<BTreeSet<IpAddr>, HostError> {
        let mut question = Message::new(exchange::id(), MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(name.clone(), kind));
        for &upstream in &self.upstreams {
            let asked = timeout(self.patience, forwarder::ask(&question, upstream)).await;
            let (outcome, answer) = asked.unwrap_or((Outcome::Failed, None));
            if let (Next::Final, Some(answer)) = (after(outcome), answer) {
                return Ok(addresses(&answer));
            }
        }
        Err(HostError::Failed("no resolver answers".to_owned()))
    }
}

#[async_trait]
impl HostLookup for UpstreamLookup {
    async fn addresses(&self, name: &str) -> Result<BTreeSet<IpAddr>, HostError> {
        if let Ok(address) = name.parse() {
            return Ok(BTreeSet::from([address]));
        }
        let mut fqdn = Name::from_ascii(name).map_err(|e| HostError::Failed(e.to_string()))?;
        fqdn.set_fqdn(true);
        let of_v4 = self.ask(&fqdn, RecordType::A).await?;
        let of_v6 = self.ask(&fqdn, RecordType::AAAA).await?;
        Ok(of_v4.into_iter().chain(of_v6).collect())
    }
}

fn addresses(answer: &Message) -> BTreeSet<IpAddr> {
    if answer.response_code != ResponseCode::NoError {
        return BTreeSet::new();
    }
    let records = answer.answers.iter();
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    records.filter_map(|record| address(&record.data)).collect()
}
