//! Routes: one line of `status`, and a domain in match order.

use serde::{Deserialize, Serialize};

use crate::cluster::deployment::{Deployment, Phase};
use crate::cluster::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, Domain, NodeName, ServiceName};
use crate::node::mesh;

/// One line of `jaco status` and `jaco get routes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RouteRow {
    pub domain: Domain,
    pub path: String,
    pub deployment: DeploymentName,
    pub service: ServiceName,
    pub port: u16,
    pub tls: bool,
}

/// `jaco get route <domain>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DomainDetail {
    pub domain: Domain,
    /// In match order.
    pub routes: Vec<DomainRoute>,
}

/// One route of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DomainRoute {
    pub path: String,
    pub catch_all: bool,
    pub deployment: DeploymentName,
    pub service: ServiceName,
    pub port: u16,
    pub tls: bool,
    pub strip_path: bool,
    pub ready_replicas: usize,
    pub total_replicas: usize,
    /// What stands in the way, e.g. that the asked node reaches no replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The routes of one deployment, in file order.
pub fn rows(deployment: &Deployment) -> Vec<RouteRow> {
    if deployment.deleting {
        return Vec::new();
    }
    let row = |route: &crate::manifest::spec::RouteSpec| RouteRow {
        domain: route.domain.clone(),
        path: route.path.clone(),
        deployment: deployment.name.clone(),
        service: route.service.clone(),
        port: route.port,
        tls: route.tls,
    };
    deployment.spec().routes.iter().map(row).collect()
}

/// A domain's routes in match order, as the node that is asked serves them.
///
/// # Errors
/// `route_not_found`.
pub fn detail(
    state: &ClusterState,
    node: &NodeName,
    domain: &Domain,
) -> Result<DomainDetail, Error> {
    let mut routes = Vec::new();
    for deployment in state.deployments.values().filter(|d| !d.deleting) {
        for route in deployment
            .spec()
            .routes
            .iter()
            .filter(|r| r.domain == *domain)
        {
            let active = || {
                deployment
                    .replicas_of(&route.service)
                    .filter(|r| r.phase == Phase::Active)
            };
            let ready = active().filter(|replica| replica.is_serving()).count();
            let reached = active()
                .filter(|r| r.is_serving() && mesh::reaches(state, node, &r.node))
                .count();
            routes.push(DomainRoute {
                path: route.path.clone(),
                catch_all: route.path.is_empty(),
                deployment: deployment.name.clone(),
                service: route.service.clone(),
                port: route.port,
                tls: route.tls,
                strip_path: route.strip_path,
                ready_replicas: ready,
                total_replicas: active().count(),
                note: note(node, ready, reached),
            });
        }
    }
    if routes.is_empty() {
        let message = format!("no deployment routes the domain \"{domain}\"");
        return Err(Error::new(ErrorCode::RouteNotFound, message));
    }
    routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
    Ok(DomainDetail {
        domain: domain.clone(),
        routes,
    })
}

fn note(node: &NodeName, ready: usize, reached: usize) -> Option<String> {
    match (ready, reached) {
        (0, _) => Some("no replica is ready: requests get 502".to_owned()),
        (_, 0) => Some(format!(
            "{node} reaches none of the ready replicas: its mesh, or that of their nodes, is down"
        )),
        _ => None,
    }
}
