//! Which replica a request or connection goes to, and whether it goes to another one after a
//! failure (spec 08).
//!
//! Invariants (`tests/ingress_props.rs`): a replica that was tried is never chosen again; an
//! ejected one only when nothing else is left; what may have been carried out already is
//! repeated only when repeating is harmless.

use std::time::Duration;

use super::ingress::Upstream;

/// Retries after the first attempt.
pub const RETRIES: u8 = 2;
/// No attempt begins later than this after the request came.
pub const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// What a node knows of one upstream at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests or connections under way.
    pub in_flight: u32,
    /// A connection failed a moment ago.
    pub ejected: bool,
}

/// Chooses for a request: the less busy of two upstreams drawn with `random`, the local one
/// when both are as busy. `tried` holds positions that must not be chosen again.
pub fn power_of_two(
    upstreams: &[Upstream],
    tried: &[usize],
    random: u64,
    load: impl Fn(&Upstream) -> Load,
) -> Option<usize> {
    if tried.is_empty() && upstreams.len() > 1 {
        let (first, second) = two_of(upstreams.len(), random);
        let (a, b) = (load(&upstreams[first]), load(&upstreams[second]));
        if !a.ejected && !b.ejected {
            let second_wins = rank(&upstreams[second], b) < rank(&upstreams[first], a);
            return Some(if second_wins { second } else { first });
        }
    }
    let left = untried(upstreams, tried);
    let healthy: Vec<usize> = left
        .iter()
        .copied()
        .filter(|&at| !load(&upstreams[at]).ejected)
        .collect();
    // With everything ejected, trying one costs a refused connection at worst; not trying
    // would turn one lost connection into two seconds of outage.
    let candidates = if healthy.is_empty() { left } else { healthy };
    match candidates.len() {
        0 => None,
        1 => Some(candidates[0]),
        count => {
            let (first, second) = two_of(count, random);
            [candidates[first], candidates[second]]
                .into_iter()
                .min_by_key(|&at| rank(&upstreams[at], load(&upstreams[at])))
        }
    }
}

/// Chooses for a connection that may last: the least busy of all, ejected ones last, the local
/// one when equal.
pub fn least_connections(
    upstreams: &[Upstream],
    tried: &[usize],
    load: impl Fn(&Upstream) -> Load,
) -> Option<usize> {
    untried(upstreams, tried).into_iter().min_by_key(|&at| {
        let load = load(&upstreams[at]);
        (load.ejected, rank(&upstreams[at], load))
    })
}

fn untried(upstreams: &[Upstream], tried: &[usize]) -> Vec<usize> {
    (0..upstreams.len())
        .filter(|at| !tried.contains(at))
        .collect()
}

/// The smaller is taken.
fn rank(upstream: &Upstream, load: Load) -> (u32, bool) {
    (load.in_flight, !upstream.local)
}

/// Two different positions below `count`, which is at least two.
fn two_of(count: usize, random: u64) -> (usize, usize) {
    let count = count as u64;
    let first = (random & 0xffff_ffff) % count;
    let step = 1 + (random >> 32) % (count - 1);
    (first as usize, ((first + step) % count) as usize)
}

/// How an attempt to forward a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Retries made before this attempt.
    pub retries: u8,
    /// Since the request came.
    pub elapsed: Duration,
    /// Repeating the request does no harm (RFC 9110, 9.2.2).
    pub idempotent: bool,
    /// Some of the request may have reached the replica.
    pub sent: bool,
    /// The body is still there to be sent again.
    pub replayable: bool,
    /// The connection came from the pool, so that the replica may just have closed it.
    pub pooled: bool,
}

/// What to do about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Once more to the same replica, on a new connection.
    SameReplica,
    /// To a replica that was not tried yet.
    OtherReplica,
    /// Tell the client.
    GiveUp,
}

/// Decides on a failed attempt.
pub fn after(failure: &Failure) -> Next {
    let in_time = failure.retries < RETRIES && failure.elapsed < RETRY_WINDOW;
    let harmless = !failure.sent || failure.idempotent;
    if !(in_time && harmless && failure.replayable) {
        Next::GiveUp
    } else if failure.pooled {
        Next::SameReplica
    } else {
        Next::OtherReplica
    }
}

/// True for the methods that RFC 9110 calls idempotent.
pub fn is_idempotent(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
    )
}
