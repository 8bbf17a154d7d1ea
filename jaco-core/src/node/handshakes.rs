//! Which handshakes may be under way on a listener (spec 10, Bounds).
//!
//! Nobody is made to wait: a new handshake always begins, and where there are too many the oldest
//! is given up. Members have slots of their own, so that no crowd of strangers keeps them out.
//!
//! Invariant (tests below): never more than [`PER_ADDRESS`] of one address nor [`IN_ALL`] of
//! strangers, and a stranger's handshake never ends a member's.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Handshakes of one address.
pub const PER_ADDRESS: usize = 16;
/// Handshakes of all addresses that are no member's.
pub const IN_ALL: usize = 1_024;

/// A handshake; later ones are greater.
pub type Ticket = u64;

/// The handshakes under way.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    next: Ticket,
    under_way: BTreeMap<Ticket, (IpAddr, bool)>,
    of_address: BTreeMap<IpAddr, Vec<Ticket>>,
    strangers: usize,
}

impl Handshakes {
    /// Lets one begin; says which one it takes the place of.
    pub fn begin(&mut self, address: IpAddr, is_member: bool) -> (Ticket, Option<Ticket>) {
        let address = address.to_canonical();
        let same = self.of_address.get(&address);
        let oldest = same.filter(|same| same.len() >= PER_ADDRESS);
        let mut given_up = oldest.and_then(|same| same.first().copied());
        if given_up.is_none() && !is_member && self.strangers >= IN_ALL {
            let mut strangers = self.under_way.iter().filter(|(_, (_, member))| !member);
            given_up = strangers.next().map(|(ticket, _)| *ticket);
        }
        if let Some(ticket) = given_up {
            self.end(ticket);
        }
        self.next += 1;
        let ticket = self.next;
        self.under_way.insert(ticket, (address, is_member));
        self.of_address.entry(address).or_default().push(ticket);
        self.strangers += usize::from(!is_member);
        (ticket, given_up)
    }

    /// Notes the end of one, however it ended; harmless when it was given up.
    pub fn end(&mut self, ticket: Ticket) {
        let Some((address, is_member)) = self.under_way.remove(&ticket) else {
            return;
        };
        self.strangers -= usize::from(!is_member);
        if let Some(same) = self.of_address.get_mut(&address) {
            same.retain(|other| *other != ticket);
            if same.is_empty() {
                self.of_address.remove(&address);
            }
        }
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strangers_are_bounded_and_end_no_members_handshake(
            acts in proptest::collection::vec((0..40u32, 0..4u32), 1..3_000),
        ) {
            let mut handshakes = Handshakes::default();
            let mut members = Vec::new();
            for (address, act) in acts {
                let is_member = address < 3;
                if act == 0 {
                    handshakes.end(u64::from(address) * 7);
                    continue;
                }
                let from = Ipv4Addr::from(address).into();
                let (ticket, given_up) = handshakes.begin(from, is_member);
                if let Some(given_up) = given_up {
                    prop_assert!(given_up < ticket);
                    prop_assert!(is_member || !members.contains(&given_up));
                }
                if is_member {
                    members.push(ticket);
                }
                let same = handshakes.of_address.values().map(Vec::len).max();
                prop_assert!(same.unwrap_or(0) <= PER_ADDRESS);
            }
        }
    }

    #[test]
    fn a_crowd_gives_up_its_own_oldest() {
        let mut handshakes = Handshakes::default();
        let address = |n: usize| Ipv4Addr::from(u32::try_from(n).unwrap_or(0)).into();
        let (member, _) = handshakes.begin(address(0), true);
        let (first, _) = handshakes.begin(address(1), false);
        for n in 2..=IN_ALL {
            assert_eq!(handshakes.begin(address(n), false).1, None);
        }
        assert_eq!(handshakes.begin(address(9_999), false).1, Some(first));
        assert_eq!(handshakes.begin(address(10_000), true).1, None);
        assert!(handshakes.under_way.contains_key(&member));
        assert_eq!(handshakes.len(), IN_ALL + 2);
    }
}
