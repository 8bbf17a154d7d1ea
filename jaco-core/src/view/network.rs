//! A network of a deployment: its addresses, who has them, and where.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::cluster::addresses::Scope;
use crate::cluster::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, NetworkName, NodeName, ReplicaId, ServiceName};

/// `jaco get network <deployment>/<network>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NetworkDetail {
    pub deployment: DeploymentName,
    pub network: NetworkName,
    /// `a.b.c.0/24`, on every node.
    pub subnet: String,
    pub gateway: Ipv4Addr,
    /// No way out through the host.
    pub internal: bool,
    /// The nodes that have its bridge, by name.
    pub nodes: Vec<NodeName>,
    /// Lowest first.
    pub addresses: Vec<AddressRow>,
}

/// An address that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AddressRow {
    pub address: Ipv4Addr,
    pub service: ServiceName,
    pub replica: ReplicaId,
    pub host: NodeName,
}

/// One network in full.
///
/// # Errors
/// `deployment_not_found`, `validation_failed` when the deployment has no such network.
pub fn detail(state: &ClusterState, scope: &Scope) -> Result<NetworkDetail, Error> {
    let deployment = state.deployment(&scope.deployment)?;
    let subnet = state
        .subnets
        .get(scope)
        .ok_or_else(|| unknown(state, scope))?;
    let declared = deployment.spec().networks.get(&scope.network);
    let replicas = deployment.replicas.values().filter_map(|replica| {
        let address = *replica.addresses.get(&scope.network)?;
        Some(AddressRow {
            address,
            service: replica.service.clone(),
            replica: replica.id.clone(),
            host: replica.node.clone(),
        })
    });
    let mut addresses: Vec<AddressRow> = replicas.collect();
    addresses.sort_by_key(|row| row.address);
    let nodes: BTreeSet<NodeName> = addresses.iter().map(|row| row.host.clone()).collect();
    Ok(NetworkDetail {
        deployment: scope.deployment.clone(),
        network: scope.network.clone(),
        subnet: subnet.to_string(),
        gateway: subnet.gateway(),
        internal: declared.is_some_and(|network| network.internal),
        nodes: nodes.into_iter().collect(),
        addresses,
    })
}

fn unknown(state: &ClusterState, scope: &Scope) -> Error {
    let of_it = state.subnets.keys();
    let known: Vec<&str> = of_it
        .filter(|other| other.deployment == scope.deployment)
        .map(|other| other.network.as_str())
        .collect();
    let message = format!(
        "deployment \"{}\" has no network \"{}\"; it has: {}",
        scope.deployment,
        scope.network,
        known.join(", ")
    );
    Error::new(ErrorCode::ValidationFailed, message).with("field", "name")
}
