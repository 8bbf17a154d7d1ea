//! Failed logins: counted by address, told at most once a minute each (spec 10, Tokens).
//!
//! Nothing here is replicated; each node counts what is shown to it. Addresses beyond what is
//! remembered are counted together, so that no crowd of them fills the memory or the audit log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::error::{Error, ErrorCode};
use crate::time::Timestamp;

/// How often one address is told of.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Failures of one address within a [`REPORT_INTERVAL`] whose tokens are still looked up.
pub const MAX_FAILURES: u32 = 30;
/// Addresses that are told apart at once.
pub const MAX_ADDRESSES: usize = 64;

/// What is to be told of an address: how many failures there were since it was last told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// Absent for all the addresses that are not told apart.
    pub address: Option<IpAddr>,
    /// How many.
    pub count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    told_at: Timestamp,
    /// Since it was last told of.
    untold: u32,
    /// Within the present interval.
    failures: u32,
}

/// The failed logins of one node.
#[derive(Clone, Debug, Default)]
pub struct Logins {
    counted: BTreeMap<Option<IpAddr>, Counted>,
}

impl Logins {
    /// Refuses an address that has failed too often in this minute.
    ///
    /// # Errors
    /// `token_invalid`, with when it may try again.
    pub fn admit(&self, address: IpAddr, now: Timestamp) -> Result<(), Error> {
        let key = Some(address.to_canonical());
        let Some(counted) = self.counted.get(&key) else {
            return Ok(());
        };
        let until = counted.told_at + REPORT_INTERVAL;
        if counted.failures < MAX_FAILURES || now >= until {
            return Ok(());
        }
        let message = format!("too many failed logins from {address}");
        Err(Error::new(ErrorCode::TokenInvalid, message).with("next_try_at", until))
    }

    /// Counts a failure. Gives what is to be told now, at most once an interval and address.
    pub fn fail(&mut self, address: IpAddr, now: Timestamp) -> Option<Failures> {
        let mut key = Some(address.to_canonical());
        if !self.counted.contains_key(&key) && self.counted.len() >= MAX_ADDRESSES {
            self.counted
                .retain(|_, counted| now < counted.told_at + REPORT_INTERVAL);
            if self.counted.len() >= MAX_ADDRESSES {
                key = None;
            }
        }
        let Some(counted) = self.counted.get_mut(&key) else {
            let counted = Counted {
                told_at: now,
                untold: 0,
                failures: 1,
            };
            self.counted.insert(key, counted);
            return Some(Failures {
                address: key,
                count: 1,
            });
        };
        counted.failures = counted.failures.saturating_add(1);
        counted.untold = counted.untold.saturating_add(1);
        if now < counted.told_at + REPORT_INTERVAL {
            return None;
        }
        let count = counted.untold;
        *counted = Counted {
            told_at: now,
            untold: 0,
            failures: 1,
        };
        Some(Failures {
            address: key,
            count,
        })
    }
}
