//! The route table of one node: domains, paths and published ports with their upstreams.
//!
//! Invariants (`tests/ingress_props.rs`): the longest path on a segment boundary wins; only
//! serving replicas are named.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use serde::Serialize;

use super::mesh;
use crate::certs;
use crate::cluster::certs::{Challenge, Issued};
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
    /// What visitors get over TLS, by domain.
    pub certificates: BTreeMap<Domain, Arc<Issued>>,
    /// Answers at the challenge path, by token.
    pub challenges: BTreeMap<String, String>,
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
    /// Replicas are told the client's address by the PROXY protocol.
    pub proxy_protocol: bool,
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

    /// True when some domain has a certificate, so that the TLS listener is needed.
    pub fn needs_https(&self) -> bool {
        !self.certificates.is_empty()
    }
}

/// True when `prefix` matches on a segment boundary: `/api` covers `/api` and `/api/x`.
pub fn covers(prefix: &str, path: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// The path that prefixes are matched on: with its dot segments resolved, however they are
/// written. `None` for one that leads above the root.
pub fn matched_path(path: &str) -> Option<Cow<'_, str>> {
    let may_hide = |segment: &str| {
        let plain = segment.len() <= 6 && segment.starts_with(['.', '%']);
        plain && dots(segment).is_some()
    };
    if !path.split('/').any(may_hide) {
        return Some(Cow::Borrowed(path));
    }
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path.split('/').skip(1) {
        let dots = dots(segment);
        ends_open = dots.is_some();
        match dots {
            None => segments.push(segment),
            Some(1) => {}
            Some(_) => drop(segments.pop()?),
        }
    }
    let end = if ends_open && !segments.is_empty() {
        "/"
    } else {
        ""
    };
    Some(Cow::Owned(format!("/{}{end}", segments.join("/"))))
}

/// How many dots a segment is, when it is `.` or `..` with each dot as it is or as `%2e`.
fn dots(segment: &str) -> Option<usize> {
    let mut rest = segment;
    let mut count = 0;
    while !rest.is_empty() {
        let escaped = rest
            .get(..3)
            .is_some_and(|it| it.eq_ignore_ascii_case("%2e"));
        rest = match escaped {
            true => &rest[3..],
            false => rest.strip_prefix('.')?,
        };
        count += 1;
    }
    (1..=2).contains(&count).then_some(count)
}

/// What this node serves: every route and published port, with the replicas that it can dial.
pub fn table(state: &ClusterState, node: &NodeName) -> RouteTable {
    let mut table = RouteTable::default();
    for deployment in state
        .deployments
        .values()
        .filter(|deployment| !deployment.deleting)
    {
        let reach = Reach { state, node };
        add_routes(&mut table, deployment, reach);
        add_ports(&mut table, deployment, reach);
    }
    add_certificates(&mut table, state);
    for routes in table.domains.values_mut() {
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
    }
    table
}

/// From where the replicas are dialled.
#[derive(Clone, Copy)]
struct Reach<'a> {
    state: &'a ClusterState,
    node: &'a NodeName,
}

fn add_routes(table: &mut RouteTable, deployment: &Deployment, reach: Reach<'_>) {
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
                upstreams: upstreams(deployment, &route.service, route.port, reach),
            });
    }
}

fn add_certificates(table: &mut RouteTable, state: &ClusterState) {
    for certificate in state.certs.values() {
        if let Some(challenge) = certificate
            .order
            .as_ref()
            .and_then(|o| o.challenge.as_ref())
        {
            let Challenge { token, answer } = challenge.clone();
            table.challenges.insert(token, answer);
        }
        let routes = table.domains.get(&certificate.domain);
        let routed = routes.is_some_and(|routes| routes.iter().any(|route| route.tls));
        if let Some(issued) = certificate.served.as_ref().filter(|_| routed) {
            let domain = certificate.domain.clone();
            table.certificates.insert(domain, Arc::clone(issued));
        }
    }
    if let (Some(cluster), false) = (&state.cluster, state.certs.is_empty()) {
        let answer = certs::probe_answer(cluster);
        table
            .challenges
            .insert(certs::probe_token().to_owned(), answer);
    }
}

fn add_ports(table: &mut RouteTable, deployment: &Deployment, reach: Reach<'_>) {
    for (name, service) in &deployment.spec().services {
        for port in &service.ports {
            let route = PortRoute {
                deployment: deployment.name.clone(),
                service: name.clone(),
                proxy_protocol: port.proxy_protocol,
                upstreams: upstreams(deployment, name, port.container, reach),
            };
            table.ports.insert((port.host, port.protocol), route);
        }
    }
}

fn upstreams(
    deployment: &Deployment,
    service: &ServiceName,
    port: u16,
    reach: Reach<'_>,
) -> Arc<Vec<Upstream>> {
    let Reach { state, node } = reach;
    let dialled =
        |replica: &Arc<Replica>| replica.is_serving() && mesh::reaches(state, node, &replica.node);
    let upstream = |replica: &Arc<Replica>, address: Ipv4Addr| Upstream {
        replica: replica.id.clone(),
        address: SocketAddrV4::new(address, port),
        local: replica.node == *node,
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
