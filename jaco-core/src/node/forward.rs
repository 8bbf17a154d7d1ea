//! Where questions go that are not ours, and what becomes of the answers (spec 07, Forwarder).

use std::net::IpAddr;
use std::time::Duration;

use crate::cluster::addresses::Pool;
use crate::error::{Error, ErrorCode};

/// An upstream that failed is asked last for this long.
pub const HELD_BACK: Duration = Duration::from_secs(5);

/// No answer is kept for longer, in seconds.
pub const LONGEST_TTL: u32 = 300;

/// How many answers are kept.
pub const CACHED: usize = 10_000;

/// Why a source would lead back here.
const LOOP: &str = "configuring it as an upstream would create a forwarding loop";

/// Docker's embedded resolver, which hands questions to us.
const DOCKER: [u8; 4] = [127, 0, 0, 11];

/// The upstreams of a node, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstreams {
    /// Whom to ask.
    pub addresses: Vec<IpAddr>,
    /// What an operator should know about them; one line each.
    pub warnings: Vec<String>,
}

/// What came of asking one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No answer in time, no connection, or no DNS.
    Failed,
    /// An answer that did not fit into a datagram.
    Truncated,
    /// An answer with this response code.
    Answered(u16),
}

/// What to do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This is the answer.
    Final,
    /// Ask the same upstream over TCP.
    OverTcp,
    /// Ask the next one; this one failed.
    NextUpstream,
}

/// The upstreams of a node: the configured ones, else every usable one of `/etc/resolv.conf`.
///
/// # Errors
/// `config_invalid` for a configured one that is no address, or that would make a loop.
pub fn upstreams(forwarders: &[String], resolv_conf: &str, pool: Pool) -> Result<Upstreams, Error> {
    let mut upstreams = if forwarders.is_empty() {
        from_resolv_conf(resolv_conf, pool)
    } else {
        configured(forwarders, pool)?
    };
    if upstreams.addresses.is_empty() {
        let warning = "dns: no upstream resolvers configured";
        upstreams.warnings.push(warning.to_owned());
    }
    Ok(upstreams)
}

fn configured(forwarders: &[String], pool: Pool) -> Result<Upstreams, Error> {
    let mut upstreams = Upstreams::default();
    for (index, text) in forwarders.iter().enumerate() {
        let key = format!("dns.forwarders[{index}]");
        let refused = |message: String| {
            Error::new(ErrorCode::ConfigInvalid, format!("{key}: {message}")).with("field", &key)
        };
        let address: IpAddr = text
            .parse()
            .map_err(|_| refused(format!("\"{text}\" is not an IP address")))?;
        if let Some(what) = loops(address, pool) {
            return Err(refused(format!("{text} is {what}; {LOOP}")));
        }
        upstreams.addresses.push(address);
    }
    Ok(upstreams)
}

fn from_resolv_conf(text: &str, pool: Pool) -> Upstreams {
    let mut upstreams = Upstreams::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some("nameserver"), Some(word)) = (words.next(), words.next()) else {
            continue;
        };
        let warning = match word.parse() {
            Ok(address) => match loops(address, pool) {
                Some(what) => format!("{word} is {what}; {LOOP}"),
                None if upstreams.addresses.contains(&address) => continue,
                None => {
                    upstreams.addresses.push(address);
                    continue;
                }
            },
            Err(_) => format!("\"{word}\" is not an IP address"),
        };
        let warning = format!("dns: nameserver of /etc/resolv.conf left out: {warning}");
        upstreams.warnings.push(warning);
    }
    upstreams
}

/// What an address is, when asking it would come back to us.
fn loops(address: IpAddr, pool: Pool) -> Option<&'static str> {
    let IpAddr::V4(address) = address.to_canonical() else {
        return None;
    };
    match address.octets() {
        DOCKER => Some("docker's embedded resolver"),
        [.., 1] if pool.contains(address) => Some("a gateway of the pool"),
        _ => None,
    }
}

/// The order in which to ask, as indices: those that failed lately come last. `failed` tells how
/// long ago each upstream failed; `None` when it answered since.
pub fn order(failed: &[Option<Duration>]) -> Vec<usize> {
    let held_back = |&at: &usize| failed[at].is_some_and(|ago| ago < HELD_BACK);
    let mut order: Vec<usize> = (0..failed.len()).collect();
    // The sort is stable: each half keeps the operator's order.
    order.sort_by_key(held_back);
    order
}

/// What an outcome means. A response code that says "not me" or "not now" moves on; that the
/// name does not exist is an answer.
pub fn after(outcome: Outcome) -> Next {
    const NO_ERROR: u16 = 0;
    const NX_DOMAIN: u16 = 3;
    match outcome {
        Outcome::Truncated => Next::OverTcp,
        Outcome::Answered(NO_ERROR | NX_DOMAIN) => Next::Final,
        Outcome::Answered(_) | Outcome::Failed => Next::NextUpstream,
    }
}

/// True when an upstream that gave this outcome is held back. One that answers, whatever it
/// says, costs no time and keeps its place: the operator's order may mean that it alone knows
/// some names.
pub fn is_dead(outcome: Outcome) -> bool {
    outcome == Outcome::Failed
}

/// How long a final answer may be kept, in seconds; zero means not at all. `answers` are the
/// TTLs of its records; `denial` is the lesser of TTL and minimum of the SOA record that comes
/// with an answer that says no.
pub fn kept_for(answers: impl Iterator<Item = u32>, denial: Option<u32>) -> u32 {
    let shortest = answers.chain(denial).min();
    shortest.unwrap_or_default().min(LONGEST_TTL)
}
