//! The tables: one zone per bridge of the node, names and addresses both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::cluster::addresses::{Pool, gateway};
use crate::cluster::deployment::{Deployment, Replica};
use crate::cluster::state::ClusterState;
use crate::id::{NetworkName, NodeName, ServiceName};
use crate::manifest::spec::{NetworkMode, ServiceSpec};
use crate::node::{bridges, containers};

/// Every name of a cluster is below this one.
pub(super) const DOMAIN: &str = "jaco.internal";

/// Everything that a node's responders know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    pub(super) zones: Vec<Zone>,
    /// Which zone a bridge serves, by its gateway.
    pub(super) bridges: BTreeMap<Ipv4Addr, usize>,
    /// The zones that a replica sees, by each of its addresses.
    pub(super) askers: BTreeMap<Ipv4Addr, Vec<usize>>,
    /// Where new /24s come from.
    pub(super) pool: Option<Pool>,
    /// The gateways of all /24s, of earlier pools too.
    pub(super) subnets: BTreeSet<Ipv4Addr>,
}

/// The names of one network of one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    /// `.<deployment>`.
    pub(super) suffix: String,
    /// Addresses by what stands before the suffix or the domain; none while nothing serves.
    pub(super) names: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Full names by address.
    pub(super) pointers: BTreeMap<Ipv4Addr, String>,
}

impl Zones {
    /// The gateways on which the node answers.
    pub fn gateways(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.bridges.keys().copied()
    }
}

/// What this node answers: a zone for each network that it has a bridge of.
pub fn zones(state: &ClusterState, node: &NodeName) -> Zones {
    let mut hosted: BTreeMap<_, Vec<(NetworkName, Ipv4Addr)>> = BTreeMap::new();
    for scope in bridges::hosted(state, node) {
        if let Some(subnet) = state.subnets.get(&scope) {
            let networks = hosted.entry(scope.deployment).or_default();
            networks.push((scope.network, subnet.gateway()));
        }
    }
    let mut zones = Zones {
        pool: state.cluster.as_ref().map(|cluster| cluster.ipam_pool),
        subnets: state.subnets.values().map(|s| s.gateway()).collect(),
        ..Zones::default()
    };
    for (deployment, networks) in hosted {
        if let Some(deployment) = state.deployments.get(&deployment) {
            zones.add(deployment, &networks);
        }
    }
    zones
}

impl Zones {
    fn add(&mut self, deployment: &Deployment, networks: &[(NetworkName, Ipv4Addr)]) {
        let mut numbers = BTreeMap::new();
        for (network, gateway) in networks {
            numbers.insert(network, self.zones.len());
            self.bridges.insert(*gateway, self.zones.len());
            self.zones.push(Zone::new(deployment, network));
        }
        for replica in deployment.replicas.values() {
            let seen = replica.addresses.keys().filter_map(|n| numbers.get(n));
            let seen: Vec<usize> = seen.copied().collect();
            for address in replica.addresses.values() {
                self.askers.insert(*address, seen.clone());
            }
        }
    }

    /// True for an address that only a replica can have.
    pub(super) fn is_ours(&self, address: Ipv4Addr) -> bool {
        self.pool.is_some_and(|pool| pool.contains(address))
            || self.subnets.contains(&gateway(address))
    }
}

impl Zone {
    fn new(deployment: &Deployment, network: &NetworkName) -> Self {
        let name = deployment.name.as_str().to_ascii_lowercase();
        let mut zone = Self {
            suffix: format!(".{name}"),
            names: BTreeMap::new(),
            pointers: BTreeMap::new(),
        };
        // A service without replicas keeps its name: they will come.
        for (name, service) in &deployment.spec().services {
            if is_on(deployment, service, network) {
                zone.name_service(name, service, network, None);
            }
        }
        for replica in deployment.replicas.values() {
            zone.add(deployment, replica, network);
        }
        zone
    }

    fn add(&mut self, deployment: &Deployment, replica: &Arc<Replica>, network: &NetworkName) {
        let Some(service) = deployment.service_of(replica) else {
            return;
        };
        let Some(holder) = holder(deployment, replica) else {
            return;
        };
        let Some(&address) = holder.addresses.get(network) else {
            return;
        };
        let serving = replica.is_serving().then_some(address);
        self.name_service(&replica.service, service, network, serving);
        self.name(replica.id.as_str(), serving);
        if holder.id == replica.id {
            let id = replica.id.as_str().to_ascii_lowercase();
            let full = format!("{id}{}.{DOMAIN}", self.suffix);
            self.pointers.insert(address, full);
        }
    }

    fn name_service(
        &mut self,
        name: &ServiceName,
        service: &ServiceSpec,
        network: &NetworkName,
        address: Option<Ipv4Addr>,
    ) {
        self.name(name.as_str(), address);
        if let Some(attachment) = service.networks.get(network) {
            for alias in &attachment.aliases {
                self.name(alias, address);
            }
        }
    }

    fn name(&mut self, name: &str, address: Option<Ipv4Addr>) {
        let name = name.to_ascii_lowercase();
        let addresses = self
            .names
            .entry(below_domain(&name).unwrap_or(&name).to_owned());
        let addresses = addresses.or_default();
        // A service may carry an alias twice, or one that is its own name.
        let new = address.filter(|address| addresses.last() != Some(address));
        addresses.extend(new);
    }
}

/// What stands before [`DOMAIN`].
pub(super) fn below_domain(name: &str) -> Option<&str> {
    name.strip_suffix(DOMAIN)?.strip_suffix('.')
}

/// True when replicas of the service are reached on the network.
fn is_on(deployment: &Deployment, service: &ServiceSpec, network: &NetworkName) -> bool {
    let services = &deployment.spec().services;
    let mut service = service;
    // Validation refuses circles, so this bound is never reached.
    for _ in 0..=services.len() {
        match &service.network_mode {
            NetworkMode::Networks => return service.networks.contains_key(network),
            NetworkMode::None => return false,
            NetworkMode::Service(with) => match services.get(with) {
                Some(other) => service = other,
                None => return false,
            },
        }
    }
    false
}

/// The replica whose addresses a replica is reached by: itself, unless it shares the network of
/// another.
fn holder<'a>(deployment: &'a Deployment, replica: &'a Arc<Replica>) -> Option<&'a Arc<Replica>> {
    let mut holder = replica;
    // Two revisions together could make a circle.
    for _ in 0..=deployment.replicas.len() {
        match &deployment.service_of(holder)?.network_mode {
            NetworkMode::Service(with) => {
                holder = containers::beside(deployment, holder, with)?;
            }
            NetworkMode::Networks | NetworkMode::None => return Some(holder),
        }
    }
    None
}
