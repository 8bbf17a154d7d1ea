//! When an image is pulled, and when a failed pull is tried again: after 1 s, 2 s, 4 s … 1 h, anew
//! for a new revision (spec 06).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::manifest::spec::PullPolicy;
use crate::time::Timestamp;

const LONGEST: Duration = Duration::from_secs(3600);

/// The failures of pulls on one node, by image.
#[derive(Clone, Debug, Default)]
pub struct PullBook {
    failures: BTreeMap<String, Failure>,
}

/// A pull that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Failure {
    pub attempt: u32,
    pub next_retry_at: Timestamp,
    pub reason: String,
    /// The newest revision that asked; a newer one does not wait.
    pub revision: u64,
}

/// What a container's start has to do about its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// It is there.
    Nothing,
    /// Have the engine pull it.
    Pull,
    /// A pull for this revision has failed, for this reason, and is not due again.
    Wait(String),
    /// It is not there and may not be pulled.
    Refuse,
}

/// An image as a replica needs it, and what is known of it on its node.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// Its reference.
    pub image: &'a str,
    /// When it is pulled.
    pub policy: PullPolicy,
    /// The replica's revision.
    pub revision: u64,
    /// The newest revision that it was pulled for since the daemon began; zero for none.
    pub pulled_for: u64,
    /// True when the engine was seen to have it.
    pub is_here: bool,
}

impl PullBook {
    /// What is to be done now. A policy of `always` means once a revision, not once a replica.
    pub fn fetch(&self, need: Need<'_>, now: Timestamp) -> Fetch {
        // What was pulled may have been removed from the node since.
        let new_enough = need.policy != PullPolicy::Always || need.pulled_for >= need.revision;
        if need.is_here && new_enough {
            return Fetch::Nothing;
        }
        if need.policy == PullPolicy::Never {
            return Fetch::Refuse;
        }
        // Another replica's turn may just have failed; all of them wait for the next try.
        match self.held(need.image, need.revision, now) {
            Some(failure) => Fetch::Wait(failure.reason.clone()),
            None => Fetch::Pull,
        }
    }

    /// The failure that holds an image back now, if one does.
    pub fn held(&self, image: &str, revision: u64, now: Timestamp) -> Option<&Failure> {
        let failure = self.failures.get(image)?;
        (failure.revision >= revision && failure.next_retry_at > now).then_some(failure)
    }

    /// Notes a failure and says when to try again.
    pub fn failed(&mut self, image: &str, revision: u64, reason: &str, now: Timestamp) {
        let before = self
            .failures
            .get(image)
            .filter(|failure| failure.revision >= revision);
        let attempt = before.map_or(0, |failure| failure.attempt) + 1;
        let failure = Failure {
            attempt,
            next_retry_at: now + backoff(attempt),
            reason: reason.to_owned(),
            revision,
        };
        self.failures.insert(image.to_owned(), failure);
    }

    /// Forgets the failures of an image that is there now.
    pub fn succeeded(&mut self, image: &str) {
        self.failures.remove(image);
    }

    /// The next moment at which some image may be tried again.
    pub fn next_retry(&self) -> Option<Timestamp> {
        self.failures
            .values()
            .map(|failure| failure.next_retry_at)
            .min()
    }
}

fn backoff(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(12);
    Duration::from_secs(1 << doublings).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_and_a_new_revision_starts_over() {
        let mut book = PullBook::default();
        let mut waits = Vec::new();
        for _ in 0..14 {
            book.failed("web:1", 1, "no", Timestamp(0));
            let failure = book.held("web:1", 1, Timestamp(0)).unwrap();
            waits.push(failure.next_retry_at.0 / 1000);
        }
        assert_eq!(
            waits,
            [
                1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600
            ]
        );
        assert_eq!(book.held("web:1", 2, Timestamp(0)), None);
        book.failed("web:1", 2, "no", Timestamp(0));
        assert_eq!(book.held("web:1", 2, Timestamp(0)).unwrap().attempt, 1);
    }
}
