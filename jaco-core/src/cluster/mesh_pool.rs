//! Mesh addresses: one /32 per node, from a pool of their own (spec 07, Mesh).
//!
//! Invariant (`tests/mesh_props.rs`): no two members share a mesh address.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::addresses::Pool;
use super::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::MemberId;

/// A network of 14 to 65,534 mesh addresses: `/28` to `/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshPool {
    base: Ipv4Addr,
    prefix: u8,
}

impl MeshPool {
    /// Reads `a.b.c.d/n` with n from 16 to 28 and no host bits set.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        let (base, prefix): (Ipv4Addr, u8) = (base.parse().ok()?, prefix.parse().ok()?);
        let pool = Self { base, prefix };
        let sound = (16..=28).contains(&prefix) && base.to_bits() & (pool.size() - 1) == 0;
        sound.then_some(pool)
    }

    /// Its first address.
    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    /// The length of its prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// True when no address is in both.
    pub fn is_apart_from(self, pool: Pool) -> bool {
        !pool.contains(self.base)
    }

    /// Addresses in the pool, its first and last included.
    fn size(self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The addresses that nodes may have, from the one that a member's number suggests on.
    fn hosts(self, member: MemberId) -> impl Iterator<Item = Ipv4Addr> {
        let (base, count) = (self.base.to_bits(), self.size() - 2);
        // The remainder is less than 2^16, so it fits.
        let first = (member.saturating_sub(1) % u64::from(count)) as u32;
        (0..count).map(move |step| Ipv4Addr::from_bits(base + 1 + (first + step) % count))
    }
}

impl fmt::Display for MeshPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl Serialize for MeshPool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MeshPool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a network from /16 to /28"))
    }
}

/// A mesh address that no member has, for the member with this number. Numbers are never used
/// again, so that an address rests for as long as the pool allows.
///
/// # Errors
/// `subnet_pool_exhausted` when every one is taken.
pub(super) fn allocate(
    state: &ClusterState,
    pool: MeshPool,
    member: MemberId,
) -> Result<Ipv4Addr, Error> {
    let taken = |address: &Ipv4Addr| state.nodes.values().any(|n| n.mesh_address == *address);
    let free = pool.hosts(member).find(|address| !taken(address));
    free.ok_or_else(|| {
        let message = format!("no mesh address is left in {pool}");
        Error::new(ErrorCode::SubnetPoolExhausted, message)
            .with("pool", pool)
            .with("allocated", state.nodes.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_networks_of_a_fitting_size_are_pools() {
        for text in ["10.245.0.0/24", "10.245.0.0/16", "10.245.0.16/28"] {
            assert_eq!(MeshPool::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "10.245.0.1/24",
            "10.245.0.0/15",
            "10.245.0.0/29",
            "10.245.0.0",
            "x/24",
        ] {
            assert_eq!(MeshPool::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_pool_inside_the_containers_pool_is_seen() {
        let containers = Pool::parse("10.244.0.0/16").unwrap();
        let inside = MeshPool::parse("10.244.7.0/24").unwrap();
        let beside = MeshPool::parse("10.245.0.0/24").unwrap();
        assert!(!inside.is_apart_from(containers));
        assert!(beside.is_apart_from(containers));
    }
}
