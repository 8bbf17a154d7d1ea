//! `ClusterState`: everything that raft replicates, as one value that is cheap to clone.
//!
//! Maps are persistent (`imbl`), so that a clone shares structure: readers hold a snapshot for
//! as long as they like and a change costs the path to it. All iterate in key order; equal
//! logs therefore give byte-identical snapshots (`tests/cluster_props.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use super::addresses::{Pool, Scope, Subnet};
use super::audit::Event;
use super::certs::{Account, Certificate};
use super::deployment::{Deployment, Replica};
use super::mesh_pool::MeshPool;
use super::node::Node;
use super::token::{JoinToken, OperatorToken};
use crate::access::Rights;
use crate::error::{Error, ErrorCode};
use crate::id::{ClusterId, DeploymentName, Domain, MemberId, NetworkName, NodeName, ReplicaId};
use crate::time::Timestamp;

/// The version of this structure's meaning; a node that does not know it refuses to start.
pub const STATE_FORMAT: u32 = 1;

/// The replicated state of one cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    /// [`STATE_FORMAT`] of the writer.
    pub format: u32,
    /// Index of the last applied entry.
    pub index: u64,
    /// The greatest time that an entry carried; never goes back.
    pub clock: Timestamp,
    /// Absent before `cluster init`.
    pub cluster: Option<Cluster>,
    /// Members by hostname.
    pub nodes: OrdMap<NodeName, Arc<Node>>,
    /// The next member number to give out.
    pub next_member: MemberId,
    /// Serials of certificates that no peer accepts any more, as lower-case hex.
    pub revoked_serials: OrdMap<String, Timestamp>,
    /// Hashes of the public keys of members that were removed.
    #[serde(default, skip_serializing_if = "OrdMap::is_empty")]
    pub removed_keys: OrdMap<String, Timestamp>,
    /// Join tokens by the hex SHA-256 of their secret.
    pub join_tokens: OrdMap<String, JoinToken>,
    /// Operator tokens by the hex SHA-256 of their secret.
    pub tokens: OrdMap<String, OperatorToken>,
    /// Deployments with their revisions and replicas.
    pub deployments: OrdMap<DeploymentName, Arc<Deployment>>,
    /// The /24 of each (deployment, network), with the addresses in use.
    pub subnets: OrdMap<Scope, Subnet>,
    /// Released /24s whose addresses still rest.
    pub resting_subnets: OrdMap<Ipv4Addr, BTreeMap<u8, Timestamp>>,
    /// Certificates by domain, and the way to each.
    #[serde(default)]
    pub certs: OrdMap<Domain, Arc<Certificate>>,
    /// Accounts at certificate authorities, by the text of their key.
    #[serde(default)]
    pub acme_accounts: OrdMap<String, Account>,
    /// The newest term in which a leader presented itself.
    #[serde(default)]
    pub led_term: u64,
    /// Index of the newest plan, change of a node or new leader: plans made on a state before it
    /// are void.
    #[serde(default)]
    pub ground: u64,
    /// The newest events; older ones leave from the front.
    pub audit: Vector<Event>,
    /// How many events are kept.
    pub audit_retention: usize,
}

/// What `cluster init` fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Made once, never changed.
    pub id: ClusterId,
    /// For people.
    pub name: String,
    /// The CA's certificate, PEM.
    pub ca_cert: String,
    /// The CA's private key, sealed with the state key; hex.
    pub ca_key_sealed: String,
    /// Where new /24s come from.
    pub ipam_pool: Pool,
    /// Where new mesh addresses come from.
    pub mesh_pool: MeshPool,
    /// When it was initialised.
    pub created_at: Timestamp,
}

/// Whose a certificate is that the cluster's CA has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A present member's.
    Member(NodeName),
    /// That of a member that was removed.
    Removed,
    /// Nobody's that this copy of the state knows: a member that joined a moment ago, or a forgery.
    Unknown,
}

impl Default for ClusterState {
    fn default() -> Self {
        Self {
            format: STATE_FORMAT,
            index: 0,
            clock: Timestamp::default(),
            cluster: None,
            nodes: OrdMap::new(),
            next_member: 1,
            revoked_serials: OrdMap::new(),
            removed_keys: OrdMap::new(),
            join_tokens: OrdMap::new(),
            tokens: OrdMap::new(),
            deployments: OrdMap::new(),
            subnets: OrdMap::new(),
            resting_subnets: OrdMap::new(),
            certs: OrdMap::new(),
            acme_accounts: OrdMap::new(),
            led_term: 0,
            ground: 0,
            audit: Vector::new(),
            audit_retention: 10_000,
        }
    }
}

impl ClusterState {
    /// The deployment, or `deployment_not_found`.
    ///
    /// # Errors
    /// `deployment_not_found`.
    pub fn deployment(&self, name: &DeploymentName) -> Result<&Arc<Deployment>, Error> {
        self.deployments.get(name).ok_or_else(|| {
            Error::new(
                ErrorCode::DeploymentNotFound,
                format!("no deployment \"{name}\""),
            )
        })
    }

    /// The node, or `node_not_found`.
    ///
    /// # Errors
    /// `node_not_found`.
    pub fn node(&self, name: &NodeName) -> Result<&Arc<Node>, Error> {
        self.nodes.get(name).ok_or_else(|| {
            Error::new(
                ErrorCode::NodeNotFound,
                format!("no node \"{name}\" in this cluster"),
            )
            .with("members", self.member_names())
        })
    }

    /// The member hostnames, comma separated, for messages.
    pub fn member_names(&self) -> String {
        let names: Vec<&str> = self.nodes.keys().map(NodeName::as_str).collect();
        names.join(", ")
    }

    /// Every replica of every deployment.
    pub fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.deployments
            .values()
            .flat_map(|deployment| deployment.replicas.values())
    }

    /// Finds a replica by its id, whatever its deployment.
    ///
    /// # Errors
    /// `replica_not_found`.
    pub fn replica(&self, id: &ReplicaId) -> Result<&Arc<Replica>, Error> {
        self.deployments
            .values()
            .find_map(|deployment| deployment.replicas.get(id))
            .ok_or_else(|| Error::new(ErrorCode::ReplicaNotFound, format!("no replica \"{id}\"")))
    }

    /// How many more replicas a network of a deployment can take at `now`.
    pub fn free_addresses(
        &self,
        deployment: &DeploymentName,
        network: &NetworkName,
        now: Timestamp,
    ) -> usize {
        let scope = Scope {
            deployment: deployment.clone(),
            network: network.clone(),
        };
        self.subnets
            .get(&scope)
            .map_or(0, |subnet| subnet.free(now))
    }

    /// The member with this number.
    pub fn member(&self, id: MemberId) -> Option<&Arc<Node>> {
        self.nodes.values().find(|node| node.member == id)
    }

    /// Whose a certificate of the cluster's CA is, by the hash of its public key and its serial.
    /// The serial counts only for a member whose key is not known yet.
    pub fn standing(&self, key_hash: &str, serial: &str) -> Standing {
        if self.revoked_serials.contains_key(serial) || self.removed_keys.contains_key(key_hash) {
            return Standing::Removed;
        }
        let is_it = |node: &&Arc<Node>| match node.key_hash.as_str() {
            "" => node.serial == serial,
            known => known == key_hash,
        };
        match self.nodes.values().find(is_it) {
            Some(node) => Standing::Member(node.name.clone()),
            None => Standing::Unknown,
        }
    }

    /// Who a bearer token belongs to, by the hex SHA-256 of its secret. The later of `now` and
    /// the log's clock counts, so that no node with a slow clock takes one that has expired.
    ///
    /// # Errors
    /// `token_invalid` for an unknown one, `token_revoked` for one that was revoked or expired.
    pub fn authenticate(&self, hash: &str, now: Timestamp) -> Result<&OperatorToken, Error> {
        let token = self.tokens.get(hash).ok_or_else(|| {
            Error::new(
                ErrorCode::TokenInvalid,
                "this bearer token is not known here",
            )
        })?;
        if token.is_active(now.max(self.clock)) {
            return Ok(token);
        }
        let message = match (token.revoked_at, token.expires_at) {
            (None, Some(end)) => format!("this bearer token expired at {end}"),
            _ => "this bearer token was revoked".to_owned(),
        };
        Err(Error::new(ErrorCode::TokenRevoked, message).with("name", &token.identity))
    }

    /// What a caller with these rights may see of the state: its deployments, and what belongs to
    /// them.
    pub fn seen_with(self: &Arc<Self>, rights: &Rights) -> Arc<Self> {
        if rights.deployments.is_none() {
            return Arc::clone(self);
        }
        let mut seen = Self::clone(self);
        seen.deployments = part(&seen.deployments, |name| rights.covers(name));
        seen.subnets = part(&seen.subnets, |scope| rights.covers(&scope.deployment));
        let domains = seen.deployments.values().flat_map(|deployment| {
            let routes = deployment.spec().routes.iter();
            routes.map(|route| route.domain.clone())
        });
        let domains: BTreeSet<Domain> = domains.collect();
        seen.certs = part(&seen.certs, |domain| domains.contains(domain));
        let is_theirs = |event: &Event| {
            let named = event.payload.get("deployment");
            named.is_some_and(|name| rights.covers(&DeploymentName::new(name)))
        };
        seen.audit = seen.audit.into_iter().filter(is_theirs).collect();
        Arc::new(seen)
    }
}

/// The entries whose keys are wanted.
fn part<K: Ord + Clone, V: Clone>(
    map: &OrdMap<K, V>,
    is_wanted: impl Fn(&K) -> bool,
) -> OrdMap<K, V> {
    let wanted = map.iter().filter(|(key, _)| is_wanted(key));
    wanted
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
