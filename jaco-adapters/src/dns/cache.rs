//! Answers of upstreams, until their time is over or the space is needed.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use jaco_core::node::forward::CACHED;

/// A longer answer is not kept.
const LONGEST: usize = 4096;

/// What an answer depends on. Names are equal in any case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    query: Query,
    dnssec_ok: bool,
    checking_disabled: bool,
}

impl Key {
    pub(super) fn of(request: &Message) -> Self {
        let edns = request.edns.as_ref();
        Self {
            query: request.queries[0].clone(),
            dnssec_ok: edns.is_some_and(|edns| edns.flags().dnssec_ok),
            checking_disabled: request.checking_disabled,
        }
    }
}

/// When an answer ends, and a number, because many end at once.
type End = (Instant, u64);

struct Kept {
    since: Instant,
    end: End,
    /// Encoded, which takes a fraction of the space.
    answer: Box<[u8]>,
}

/// At most [`CACHED`] answers; the one that ends first makes room.
#[derive(Default)]
pub(super) struct Cache {
    answers: HashMap<Key, Kept>,
    ends: BTreeMap<End, Key>,
    inserted: u64,
}

impl Cache {
    /// The answer with its TTLs as they are now.
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Option<Message> {
        let kept = self.answers.get(key)?;
        if kept.end.0 <= now {
            self.remove(key);
            return None;
        }
        let age = now.saturating_duration_since(kept.since).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        let mut answer = Message::from_vec(&kept.answer).ok()?;
        let sections = [
            &mut answer.answers,
            &mut answer.authorities,
            &mut answer.additionals,
        ];
        for record in sections.into_iter().flatten() {
            record.decrement_ttl(age);
        }
        Some(answer)
    }

    /// Keeps an answer for so long.
    pub(super) fn insert(&mut self, key: Key, answer: &Message, now: Instant, time: Duration) {
        let Ok(bytes) = answer.to_vec() else {
            return;
        };
        if bytes.len() > LONGEST {
            return;
        }
        self.remove(&key);
        while self.answers.len() >= CACHED {
            let Some((_, first)) = self.ends.pop_first() else {
                break;
            };
            self.answers.remove(&first);
        }
        self.inserted += 1;
        let end = (now + time, self.inserted);
        self.ends.insert(end, key.clone());
        let kept = Kept {
            since: now,
            end,
            answer: bytes.into(),
        };
        self.answers.insert(key, kept);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.answers.remove(key) {
            self.ends.remove(&kept.end);
        }
    }
}
