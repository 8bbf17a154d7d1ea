//! The route table of one node: domains, paths and published ports with their upstreams.
//!
//! Invariants (`tests/ingress_props.rs`): the longest path on a segment boundary wins; only
//! serving replicas are named.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use serde::Serialize;

use crate::cluster::deployment::{Deployment, Replica};
use crate::cluster::state::ClusterState;
use crate::id::{DeploymentName, Domain, NodeName, ReplicaId, ServiceName};
use crate::manifest::spec::Protocol;

/// Everything that a node's ingress serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// Routes by domain; each list in match order, longest path first.
    pub domains: BTreeMap<Domain, Vec<Route>>,
    /// Published ports.
    pub ports: BTreeMap<(u16, Protocol), PortRoute>,
}

/// One route of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Route {
    /// Empty for the catch-all.
    pub path: String,
    pub strip_path: bool,
    pub tls: bool,
    pub deployment: DeploymentName,
    pub service: ServiceName,
    pub upstreams: Arc<Vec<Upstream>>,
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PortRoute {
    pub deployment: DeploymentName,
    pub service: ServiceName,
    pub upstreams: Arc<Vec<Upstream>>,
}

/// One replica that may be dialled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[allow(missing_docs)]
pub struct Upstream {
    pub replica: ReplicaId,
    pub address: SocketAddrV4,
    /// On this node: preferred when equal.
    pub local: bool,
}

impl RouteTable {
    /// The route for a host and a path; the port of the host must be stripped already.
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        let routes = match self.domains.get(host) {
            Some(routes) => routes,
            None if host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                self.domains.get(host.to_ascii_lowercase().as_str())?
            }
            None => return None,
        };
        routes.iter().find(|route| covers(&route.path, path))
    }

    /// True when some domain is routed, so that the HTTP listener is needed.
    pub fn needs_http(&self) -> bool {
        !self.domains.is_empty()
    }
}

/// True when `prefix` matches on a segment boundary: `/api` covers `/api` and `/api/x`.
pub fn covers(prefix: &str, path: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// What this node serves. Until the mesh carries traffic between nodes, only replicas of this
/// node can be dialled, so only they are named.
pub fn table(state: &ClusterState, node: &NodeName) -> RouteTable {
    let mut table = RouteTable::default();
    for deployment in state
        .deployments
        .values()
        .filter(|deployment| !deployment.deleting)
    {
        add_routes(&mut table, deployment, node);
        add_ports(&mut table, deployment, node);
    }
    for routes in table.domains.values_mut() {
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
    }
    table
}

fn add_routes(table: &mut RouteTable, deployment: &Deployment, node: &NodeName) {
    for route in &deployment.spec().routes {
        table
            .domains
            .entry(route.domain.clone())
            .or_default()
            .push(Route {
                path: route.path.clone(),
                strip_path: route.strip_path,
                tls: route.tls,
                deployment: deployment.name.clone(),
                service: route.service.clone(),
                upstreams: upstreams(deployment, &route.service, route.port, node),
            });
    }
}

fn add_ports(table: &mut RouteTable, deployment: &Deployment, node: &NodeName) {
    for (name, service) in &deployment.spec().services {
        for port in &service.ports {
            let route = PortRoute {
                deployment: deployment.name.clone(),
                service: name.clone(),
                upstreams: upstreams(deployment, name, port.container, node),
            };
            table.ports.insert((port.host, port.protocol), route);
        }
    }
}

fn upstreams(
    deployment: &Deployment,
    service: &ServiceName,
    port: u16,
    node: &NodeName,
) -> Arc<Vec<Upstream>> {
    let dialled = |replica: &Arc<Replica>| replica.is_serving() && replica.node == *node;
    let upstream = |replica: &Arc<Replica>, address: Ipv4Addr| Upstream {
        replica: replica.id.clone(),
        address: SocketAddrV4::new(address, port),
        local: true,
    };
    let replicas = deployment
        .replicas_of(service)
        .filter(|replica| dialled(replica));
    Arc::new(
        replicas
            .filter_map(|r| r.address().map(|a| upstream(r, a)))
            .collect(),
    )
}
