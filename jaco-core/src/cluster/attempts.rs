//! How often one address may show a join token that is not right (spec 10).
//!
//! A bucket of tries for each address, and time puts tries back. Nothing here is replicated:
//! each node counts what is shown to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::error::{Error, ErrorCode};
use crate::time::Timestamp;

/// Wrong tokens that an address may show in a row.
pub const BURST: u32 = 5;
/// After this long it may show one more.
pub const REFILL: Duration = Duration::from_secs(10);
/// Addresses that are remembered at once; more than this many forget the oldest.
const REMEMBERED: usize = 1_024;

/// The tries that addresses have used up.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    used: BTreeMap<IpAddr, Used>,
}

#[derive(Clone, Copy, Debug)]
struct Used {
    tries: u32,
    /// When the last try was put back, or the first one made.
    since: Timestamp,
}

impl Attempts {
    /// Takes one try of an address; [`Attempts::forgive`] gives it back when the token was right.
    ///
    /// # Errors
    /// `join_token_invalid` while the address has no try left.
    pub fn begin(&mut self, address: IpAddr, now: Timestamp) -> Result<(), Error> {
        let key = network(address);
        if !self.used.contains_key(&key) && self.used.len() >= REMEMBERED {
            self.make_room(now);
        }
        let fresh = Used {
            tries: 0,
            since: now,
        };
        let used = self.used.entry(key).or_insert(fresh);
        used.refill(now);
        if used.tries >= BURST {
            let again = used.since + REFILL;
            let message = format!("too many wrong join tokens from {address}");
            return Err(Error::new(ErrorCode::JoinTokenInvalid, message).with("next_try_at", again));
        }
        used.tries += 1;
        Ok(())
    }

    /// Gives a try back.
    pub fn forgive(&mut self, address: IpAddr) {
        let key = network(address);
        if let Some(used) = self.used.get_mut(&key) {
            used.tries = used.tries.saturating_sub(1);
            if used.tries == 0 {
                self.used.remove(&key);
            }
        }
    }

    /// How many addresses are remembered.
    pub fn remembered(&self) -> usize {
        self.used.len()
    }

    /// Forgets all that have their tries back, or else the oldest.
    fn make_room(&mut self, now: Timestamp) {
        self.used.values_mut().for_each(|used| used.refill(now));
        self.used.retain(|_, used| used.tries > 0);
        if self.used.len() >= REMEMBERED {
            let oldest = self.used.iter().min_by_key(|(_, used)| used.since);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.used.remove(&oldest);
            }
        }
    }
}

impl Used {
    fn refill(&mut self, now: Timestamp) {
        let step = u64::try_from(REFILL.as_millis()).unwrap_or(u64::MAX);
        let back = now.0.saturating_sub(self.since.0) / step;
        let tries = u32::try_from(back).unwrap_or(u32::MAX);
        self.tries = self.tries.saturating_sub(tries);
        // With all tries left the wait for the next one begins anew.
        self.since = match self.tries {
            0 => now,
            _ => Timestamp(self.since.0 + back * step),
        };
    }
}

/// What one caller can freely choose addresses from: a /64 in IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}
