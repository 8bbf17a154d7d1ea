//! One question, one answer.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::slice;

use super::zone::{DOMAIN, Zone, Zones, below_domain};

/// How long an answer may be kept, in seconds: a replica that is gone is forgotten soon.
pub const TTL: u32 = 5;

/// What is asked. Without the dot of the root, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Question<'a> {
    pub name: &'a str,
    pub kind: Kind,
}

/// The record types that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses.
    A,
    /// The name of an address.
    Ptr,
    /// Whatever no name of ours has: AAAA, MX, TXT, …
    Other,
}

/// What to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// These, in this order.
    Addresses(Vec<Ipv4Addr>),
    /// This name.
    Pointer(&'a str),
    /// The name exists and has nothing of the kind: NOERROR without records.
    Empty,
    /// There is no such name.
    NxDomain,
    /// Not ours: an upstream may know.
    Forward,
}

impl Zones {
    /// Answers what came from `asker` to the responder of a bridge. A replica sees the names of
    /// every network that it is attached to; an asker that is no replica those of the bridge.
    /// `random` decides the order of addresses.
    pub fn answer(
        &self,
        gateway: Ipv4Addr,
        asker: Ipv4Addr,
        question: &Question<'_>,
        random: u64,
    ) -> Answer<'_> {
        let zones = self.visible(gateway, asker);
        let name = lower(question.name);
        if question.kind == Kind::Ptr
            && let Some(address) = reversed(&name)
        {
            return self.pointer(&zones, address);
        }
        let below = below_domain(&name);
        let Some(addresses) = find(&zones, below.unwrap_or(&name)) else {
            return unknown(&zones, &name, below);
        };
        if question.kind != Kind::A || addresses.is_empty() {
            return Answer::Empty;
        }
        Answer::Addresses(shuffled(addresses, random))
    }

    fn visible(&self, gateway: Ipv4Addr, asker: Ipv4Addr) -> Vec<&Zone> {
        let numbers = match self.askers.get(&asker) {
            Some(numbers) => numbers.as_slice(),
            None => self.bridges.get(&gateway).map_or(&[][..], slice::from_ref),
        };
        numbers.iter().map(|&number| &self.zones[number]).collect()
    }

    fn pointer<'a>(&self, zones: &[&'a Zone], address: Ipv4Addr) -> Answer<'a> {
        let mut names = zones.iter().filter_map(|zone| zone.pointers.get(&address));
        match names.next() {
            Some(name) => Answer::Pointer(name),
            // Whether another network has the address is not the asker's business.
            None if self.is_ours(address) => Answer::NxDomain,
            None => Answer::Forward,
        }
    }
}

/// The addresses of a name in all of the zones; `None` when no zone has it.
fn find(zones: &[&Zone], name: &str) -> Option<Vec<Ipv4Addr>> {
    let mut found: Option<Vec<Ipv4Addr>> = None;
    for zone in zones {
        let short = name.strip_suffix(zone.suffix.as_str());
        for name in [Some(name), short].into_iter().flatten() {
            if let Some(addresses) = zone.names.get(name) {
                found.get_or_insert_default().extend(addresses);
            }
        }
    }
    found
}

/// The answer for a name that no visible zone has.
fn unknown<'a>(zones: &[&Zone], name: &str, below: Option<&str>) -> Answer<'a> {
    let is_deployment = |name: &str| zones.iter().any(|zone| zone.suffix[1..] == *name);
    match below {
        // Names stand below these two.
        _ if name == DOMAIN => Answer::Empty,
        Some(below) if is_deployment(below) => Answer::Empty,
        Some(_) => Answer::NxDomain,
        None if !name.is_empty() && !name.contains('.') => Answer::NxDomain,
        None => Answer::Forward,
    }
}

fn lower(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The address that `d.c.b.a.in-addr.arpa` asks for.
fn reversed(name: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = address.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

/// Every order is as likely as any other, given numbers that are.
fn shuffled(mut addresses: Vec<Ipv4Addr>, random: u64) -> Vec<Ipv4Addr> {
    let mut state = random;
    for last in (1..addresses.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let range = last as u128 + 1;
        let chosen = (u128::from(mixed(state)) * range) >> 64;
        addresses.swap(last, chosen as usize);
    }
    addresses
}

/// The finaliser of SplitMix64: a counter becomes a number without a pattern.
fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
