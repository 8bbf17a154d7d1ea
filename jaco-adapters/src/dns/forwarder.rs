//! Asks upstreams, in order, until one gives a final answer; keeps the answers.
//!
//! One question is on its way at a time, whoever asks it meanwhile: many copies of it would make a
//! forged answer to one of them as many times likelier. And no asker has more than its share.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use jaco_core::node::forward::{Next, Outcome, after, is_dead, kept_for, order};
use tokio::sync::watch;
use tokio::time::timeout;

use super::cache::{Cache, Key};
use super::exchange;
use super::message;

/// Questions on their way to upstreams at once; each holds a socket. More are told SERVFAIL.
const AT_ONCE: usize = 512;
/// Questions of one asker that wait at once. More are told SERVFAIL.
const PER_ASKER: usize = 64;

/// What the upstreams say to a question, once they have: nothing when none answers.
type Answered = watch::Receiver<Option<Option<Message>>>;

pub(super) struct Forwarder {
    upstreams: Vec<SocketAddr>,
    timeout: Duration,
    /// When each upstream failed, unless it answered since.
    failed: RefCell<Vec<Option<Instant>>>,
    cache: RefCell<Cache>,
    in_flight: RefCell<HashMap<Key, Answered>>,
    /// How many questions of each asker wait.
    waiting: RefCell<BTreeMap<Ipv4Addr, usize>>,
}

impl Forwarder {
    pub(super) fn new(upstreams: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self {
            failed: RefCell::new(vec![None; upstreams.len()]),
            upstreams,
            timeout,
            cache: RefCell::default(),
            in_flight: RefCell::default(),
            waiting: RefCell::default(),
        }
    }

    /// A reply from an earlier answer.
    pub(super) fn cached(&self, request: &Message) -> Option<Message> {
        let mut cache = self.cache.borrow_mut();
        let answer = cache.get(&Key::of(request), Instant::now())?;
        Some(passed_on(request, answer))
    }

    /// A reply from the upstreams: SERVFAIL when there is none that answers, or the asker waits for
    /// too many.
    pub(super) async fn resolve(&self, request: &Message, asker: Ipv4Addr) -> Message {
        let Some(_place) = Place::take(&self.waiting, asker) else {
            return message::reply(request, ResponseCode::ServFail);
        };
        match self.answer(request).await {
            Some(answer) => passed_on(request, answer),
            None => message::reply(request, ResponseCode::ServFail),
        }
    }

    async fn answer(&self, request: &Message) -> Option<Message> {
        let key = Key::of(request);
        loop {
            let known = self.in_flight.borrow().get(&key).cloned();
            let Some(mut answered) = known else {
                return self.ask_for_all(key, request).await;
            };
            if let Ok(answer) = answered.wait_for(Option::is_some).await {
                return answer.clone().flatten();
            }
            // Who asked first has left; somebody else does.
        }
    }

    /// Asks on behalf of everybody who wants to know the same meanwhile.
    async fn ask_for_all(&self, key: Key, request: &Message) -> Option<Message> {
        if self.in_flight.borrow().len() >= AT_ONCE {
            return None;
        }
        let (tell, answered) = watch::channel(None);
        self.in_flight.borrow_mut().insert(key.clone(), answered);
        let flight = InFlight {
            all: &self.in_flight,
            key,
        };
        let answer = self.ask_all(request).await;
        if let Some(answer) = &answer {
            let kept = Duration::from_secs(lifetime(answer).into());
            if !kept.is_zero() {
                let mut cache = self.cache.borrow_mut();
                cache.insert(flight.key.clone(), answer, Instant::now(), kept);
            }
        }
        tell.send_replace(Some(answer.clone()));
        answer
    }

    async fn ask_all(&self, request: &Message) -> Option<Message> {
        let ago = |failed: &Option<Instant>| failed.map(|at| at.elapsed());
        let failed: Vec<_> = self.failed.borrow().iter().map(ago).collect();
        for at in order(&failed) {
            let upstream = self.upstreams[at];
            let asked = timeout(self.timeout, ask(request, upstream)).await;
            let (outcome, answer) = asked.unwrap_or((Outcome::Failed, None));
            let dead = is_dead(outcome);
            self.failed.borrow_mut()[at] = dead.then(Instant::now);
            if after(outcome) == Next::Final {
                return answer;
            }
            tracing::debug!(subsystem = "dns", %upstream, ?outcome, "next upstream");
        }
        None
    }
}

/// A question under way; gone with whoever asks it.
struct InFlight<'a> {
    all: &'a RefCell<HashMap<Key, Answered>>,
    key: Key,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.all.borrow_mut().remove(&self.key);
    }
}

/// One of the places that an asker has.
struct Place<'a> {
    waiting: &'a RefCell<BTreeMap<Ipv4Addr, usize>>,
    asker: Ipv4Addr,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a RefCell<BTreeMap<Ipv4Addr, usize>>, asker: Ipv4Addr) -> Option<Self> {
        let mut taken = waiting.borrow_mut();
        let count = taken.entry(asker).or_default();
        if *count >= PER_ASKER {
            return None;
        }
        *count += 1;
        Some(Self { waiting, asker })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(count) = waiting.get_mut(&self.asker) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.asker);
            }
        }
    }
}

/// One try: a datagram, and a connection when the answer is too long for one.
pub(super) async fn ask(request: &Message, upstream: SocketAddr) -> (Outcome, Option<Message>) {
    let mut question = question(request);
    let (mut outcome, mut answer) = judged(exchange::udp(&question, upstream).await);
    if outcome == Outcome::Answered(ResponseCode::FormErr.into()) && question.edns.is_some() {
        // A server from before EDNS.
        question.edns = None;
        (outcome, answer) = judged(exchange::udp(&question, upstream).await);
    }
    if after(outcome) == Next::OverTcp {
        (outcome, answer) = judged(exchange::tcp(&question, upstream).await);
        if outcome == Outcome::Truncated {
            // Nothing is longer than what a connection carries.
            (outcome, answer) = (Outcome::Failed, None);
        }
    }
    (outcome, answer)
}

fn judged(answer: std::io::Result<Message>) -> (Outcome, Option<Message>) {
    match answer {
        Ok(answer) if answer.truncation => (Outcome::Truncated, None),
        Ok(answer) => {
            let code = answer.response_code.into();
            (Outcome::Answered(code), Some(answer))
        }
        Err(_) => (Outcome::Failed, None),
    }
}

/// The request as we send it: an id of our own, and nothing that is meant for us alone.
fn question(request: &Message) -> Message {
    let mut question = Message::new(exchange::id(), request.message_type, OpCode::Query);
    question.metadata.recursion_desired = request.recursion_desired;
    question.metadata.checking_disabled = request.checking_disabled;
    question.metadata.authentic_data = request.authentic_data;
    question.queries.clone_from(&request.queries);
    question.edns = message::edns(request);
    question
}

/// The reply that hands on what an upstream said.
fn passed_on(request: &Message, answer: Message) -> Message {
    let mut reply = message::reply(request, answer.response_code);
    reply.metadata.authentic_data = answer.authentic_data;
    reply.answers = answer.answers;
    reply.authorities = answer.authorities;
    reply.additionals = answer.additionals;
    reply
}

/// How long an answer may be kept, in seconds.
fn lifetime(answer: &Message) -> u32 {
    let denies = answer.response_code == ResponseCode::NXDomain || answer.answers.is_empty();
    let soa = answer.authorities.iter();
    let mut soa = soa.filter(|record| record.record_type() == RecordType::SOA);
    let denial = soa.next().and_then(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    if denies && denial.is_none() {
        // Without an SOA record, nobody says for how long the name is absent (RFC 2308).
        return 0;
    }
    kept_for(answer.answers.iter().map(|record| record.ttl), denial)
}
