//! Bridges: one engine network per (deployment, network) that this node hosts (spec 07).
//!
//! Invariant (`tests/node_props.rs`): carrying out a diff leaves nothing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::cluster::addresses::Scope;
use crate::cluster::state::ClusterState;
use crate::id::NodeName;
use crate::manifest::hash::sha256_hex;

/// The label that marks everything of one cluster.
pub const CLUSTER_LABEL: &str = "jaco.cluster_id";

/// One engine network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Bridge {
    pub scope: Scope,
    /// `jaco_<deployment>_<network>`.
    pub engine_name: String,
    /// The Linux bridge: `jaco-<4 hex>-<4 hex>`.
    pub interface: String,
    /// `a.b.c.0/24`.
    pub subnet: String,
    pub gateway: Ipv4Addr,
    /// No way out through the host.
    pub internal: bool,
    pub labels: BTreeMap<String, String>,
}

/// An engine network as the engine shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ObservedBridge {
    pub engine_name: String,
    pub interface: String,
    pub subnet: String,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    Ensure(Bridge),
    Remove(String),
}

/// The name of the engine network of a scope.
pub fn engine_name(scope: &Scope) -> String {
    format!("jaco_{}_{}", scope.deployment, scope.network)
}

/// The networks that replicas on this node need.
pub fn desired(state: &ClusterState, node: &NodeName) -> BTreeMap<String, Bridge> {
    let interfaces = interfaces(state);
    hosted(state, node)
        .iter()
        .filter_map(|scope| bridge(state, scope, &interfaces))
        .map(|bridge| (bridge.engine_name.clone(), bridge))
        .collect()
}

/// What those networks belong to.
pub(super) fn hosted(state: &ClusterState, node: &NodeName) -> BTreeSet<Scope> {
    let mut hosted = BTreeSet::new();
    for replica in state.replicas().filter(|replica| replica.node == *node) {
        for network in replica.addresses.keys() {
            hosted.insert(Scope {
                deployment: replica.deployment.clone(),
                network: network.clone(),
            });
        }
    }
    hosted
}

fn bridge(
    state: &ClusterState,
    scope: &Scope,
    interfaces: &BTreeMap<Scope, String>,
) -> Option<Bridge> {
    let cluster = state.cluster.as_ref()?;
    let subnet = state.subnets.get(scope)?;
    let deployment = state.deployments.get(&scope.deployment)?;
    let declared = deployment.spec().networks.get(&scope.network);
    let mut labels = declared
        .map(|network| network.labels.clone())
        .unwrap_or_default();
    labels.insert(CLUSTER_LABEL.to_owned(), cluster.id.to_string());
    labels.insert("jaco.deployment".to_owned(), scope.deployment.to_string());
    labels.insert("jaco.network".to_owned(), scope.network.to_string());
    labels.insert("jaco.subnet".to_owned(), subnet.to_string());
    Some(Bridge {
        engine_name: engine_name(scope),
        interface: interfaces.get(scope)?.clone(),
        subnet: subnet.to_string(),
        gateway: subnet.gateway(),
        internal: declared.is_some_and(|network| network.internal),
        labels,
        scope: scope.clone(),
    })
}

/// The name of the bridge of a network, on every node that has it.
pub fn interface_of(state: &ClusterState, scope: &Scope) -> Option<String> {
    interfaces(state).remove(scope)
}

/// Interface names of all scopes. Two scopes whose short hashes collide get different names, the
/// same on every node, because all scopes are considered in one order.
pub(super) fn interfaces(state: &ClusterState) -> BTreeMap<Scope, String> {
    let mut taken = BTreeSet::new();
    let mut names = BTreeMap::new();
    for scope in state.subnets.keys() {
        let name = (0u32..)
            .map(|attempt| interface_name(scope, attempt))
            .find(|name| !taken.contains(name))
            .expect("there are more names than the 256 scopes of a pool");
        taken.insert(name.clone());
        names.insert(scope.clone(), name);
    }
    names
}

fn interface_name(scope: &Scope, attempt: u32) -> String {
    let salt = if attempt == 0 {
        String::new()
    } else {
        format!("#{attempt}")
    };
    let deployment = sha256_hex(scope.deployment.as_str().as_bytes());
    let network = sha256_hex(format!("{}{salt}", scope.network).as_bytes());
    format!("jaco-{}-{}", &deployment[..4], &network[..4])
}

/// What to do so that the node has exactly the desired networks.
pub fn diff(desired: &BTreeMap<String, Bridge>, observed: &[ObservedBridge]) -> Vec<Action> {
    let mut actions = Vec::new();
    let is_right = |bridge: &Bridge| {
        observed.iter().any(|seen| {
            seen.engine_name == bridge.engine_name
                && seen.subnet == bridge.subnet
                && seen.interface == bridge.interface
        })
    };
    for seen in observed {
        if !desired.get(&seen.engine_name).is_some_and(is_right) {
            actions.push(Action::Remove(seen.engine_name.clone()));
        }
    }
    let missing = desired.values().filter(|bridge| !is_right(bridge));
    actions.extend(missing.cloned().map(Action::Ensure));
    actions
}
