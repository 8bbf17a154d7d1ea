//! Addresses: a pool cut into /24s, one per (deployment, network), and one address per replica
//! per network (spec 07, Addresses).
//!
//! Invariants (`tests/addresses_props.rs`): no two scopes share a /24; no two replicas share an
//! address; an address rests for [`REST`] before it is given out again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, NetworkName, ReplicaId};
use crate::time::Timestamp;

/// How long an address is not given out again after its replica is gone.
pub const REST: Duration = Duration::from_secs(60);

/// How many replicas fit in one network: `.2` to `.254`.
pub const ADDRESSES_PER_NETWORK: usize = 253;

/// A private /16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool([u8; 2]);

impl Pool {
    /// Reads `a.b.0.0/16`; any other prefix is refused.
    pub fn parse(text: &str) -> Option<Self> {
        let address: Ipv4Addr = text.strip_suffix("/16")?.parse().ok()?;
        let [a, b, 0, 0] = address.octets() else {
            return None;
        };
        Some(Self([a, b]))
    }

    /// True for an address of the pool.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.octets().starts_with(&self.0)
    }

    /// The pool that an address belongs to, if it were one.
    pub fn around(address: Ipv4Addr) -> Self {
        let [a, b, ..] = address.octets();
        Self([a, b])
    }

    /// The 256 /24s, lowest first, by their first address.
    fn subnets(self) -> impl Iterator<Item = Ipv4Addr> {
        (0..=255).map(move |third| Ipv4Addr::new(self.0[0], self.0[1], third, 0))
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0.0/16", self.0[0], self.0[1])
    }
}

impl Serialize for Pool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a /16 like 10.244.0.0/16"))
    }
}

/// What owns a /24. Written as `<deployment>/<network>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct Scope {
    pub deployment: DeploymentName,
    pub network: NetworkName,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.deployment, self.network)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (deployment, network) = text
            .split_once('/')
            .ok_or_else(|| de::Error::custom("not deployment/network"))?;
        Ok(Self {
            deployment: deployment.into(),
            network: network.into(),
        })
    }
}

/// A /24 and who has which address of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The address that ends in `.0`.
    pub base: Ipv4Addr,
    /// Holders by last octet.
    pub used: BTreeMap<u8, ReplicaId>,
    /// Resting addresses by last octet, with the moment each may be given out again.
    pub resting: BTreeMap<u8, Timestamp>,
}

impl Subnet {
    /// `.1`, on every node.
    pub fn gateway(&self) -> Ipv4Addr {
        gateway(self.base)
    }

    /// How many more replicas it can take at `now`.
    pub fn free(&self, now: Timestamp) -> usize {
        let resting = self.resting.values().filter(|until| **until > now).count();
        ADDRESSES_PER_NETWORK.saturating_sub(self.used.len() + resting)
    }

    fn host(&self, last: u8) -> Ipv4Addr {
        sibling(self.base, last)
    }

    fn allocate(&mut self, replica: &ReplicaId, now: Timestamp) -> Option<Ipv4Addr> {
        self.resting.retain(|_, until| *until > now);
        let free = |last: &u8| !self.used.contains_key(last) && !self.resting.contains_key(last);
        let last = (2..=254).find(free)?;
        self.used.insert(last, replica.clone());
        Some(self.host(last))
    }

    fn release(&mut self, replica: &ReplicaId, now: Timestamp) {
        let freed = self.used.iter().filter(|(_, holder)| *holder == replica);
        let freed: Vec<u8> = freed.map(|(last, _)| *last).collect();
        for last in freed {
            self.used.remove(&last);
            self.resting.insert(last, now + REST);
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/24", self.base)
    }
}

/// The gateway of the /24 that an address is in.
pub fn gateway(address: Ipv4Addr) -> Ipv4Addr {
    sibling(address, 1)
}

fn sibling(address: Ipv4Addr, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, last)
}

/// Gives a scope its /24; the one that it has already, or the lowest free one of the pool.
/// True when it is new.
///
/// # Errors
/// `subnet_pool_exhausted` when all 256 are taken.
pub(super) fn ensure_subnet(state: &mut ClusterState, scope: &Scope) -> Result<bool, Error> {
    if state.subnets.contains_key(scope) {
        return Ok(false);
    }
    let pool = match &state.cluster {
        Some(cluster) => cluster.ipam_pool,
        None => {
            return Err(Error::internal(
                "a subnet was asked for before the cluster exists",
            ));
        }
    };
    let taken: BTreeSet<Ipv4Addr> = state.subnets.values().map(|subnet| subnet.base).collect();
    let now = state.clock;
    let still_resting = |resting: &BTreeMap<u8, Timestamp>| resting.values().any(|t| *t > now);
    let resting = state
        .resting_subnets
        .iter()
        .filter(|(_, resting)| still_resting(resting));
    state.resting_subnets = resting
        .map(|(base, resting)| (*base, resting.clone()))
        .collect();
    let free = || pool.subnets().filter(|base| !taken.contains(base));
    // A /24 that was just released is taken only when there is no other, and then with its
    // resting addresses.
    let rested = free().find(|base| !state.resting_subnets.contains_key(base));
    let base = rested.or_else(|| free().next()).ok_or_else(|| {
        Error::new(
            ErrorCode::SubnetPoolExhausted,
            format!("no free /24 is left in {pool}"),
        )
        .with("pool", pool)
        .with("allocated", taken.len())
    })?;
    let resting = state.resting_subnets.remove(&base).unwrap_or_default();
    state.subnets.insert(
        scope.clone(),
        Subnet {
            base,
            used: BTreeMap::new(),
            resting,
        },
    );
    Ok(true)
}

/// Takes back a scope's /24; its addresses go on resting.
pub(super) fn release_subnet(state: &mut ClusterState, scope: &Scope) {
    if let Some(subnet) = state.subnets.remove(scope) {
        state.resting_subnets.insert(subnet.base, subnet.resting);
    }
}

/// Gives a replica an address in each of the networks; all or none.
///
/// # Errors
/// `subnet_pool_exhausted` when one of them has no free address.
pub(super) fn allocate(
    state: &mut ClusterState,
    deployment: &DeploymentName,
    networks: impl Iterator<Item = NetworkName>,
    replica: &ReplicaId,
) -> Result<BTreeMap<NetworkName, Ipv4Addr>, Error> {
    let now = state.clock;
    let mut addresses = BTreeMap::new();
    let mut subnets = state.subnets.clone();
    for network in networks {
        let scope = Scope {
            deployment: deployment.clone(),
            network: network.clone(),
        };
        let subnet = subnets
            .get_mut(&scope)
            .ok_or_else(|| Error::internal(format!("network {scope} has no subnet")))?;
        let address = subnet
            .allocate(replica, now)
            .ok_or_else(|| exhausted(&scope, subnet))?;
        addresses.insert(network, address);
    }
    state.subnets = subnets;
    Ok(addresses)
}

fn exhausted(scope: &Scope, subnet: &Subnet) -> Error {
    let message = format!("no free address is left in network {scope} ({subnet})");
    Error::new(ErrorCode::SubnetPoolExhausted, message)
        .with("pool", subnet)
        .with("allocated", subnet.used.len())
}

/// Takes back every address of a replica; each rests before its next use.
pub(super) fn release(
    state: &mut ClusterState,
    deployment: &DeploymentName,
    networks: impl Iterator<Item = NetworkName>,
    replica: &ReplicaId,
) {
    let now = state.clock;
    for network in networks {
        let scope = Scope {
            deployment: deployment.clone(),
            network,
        };
        if let Some(subnet) = state.subnets.get_mut(&scope) {
            subnet.release(replica, now);
        }
    }
}
