//! Rules of a deployment that only the whole cluster can check (spec 02).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access::Rights;
use crate::access::entry::Behalf;
use crate::cluster::addresses::ADDRESSES_PER_NETWORK;
use crate::cluster::deployment::Deployment;
use crate::cluster::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{NetworkName, NodeName};
use crate::manifest::bounds::{self, MAX_CLUSTER_REPLICAS};
use crate::manifest::host_access::{self, Allowed, Class};
use crate::manifest::spec::{DeploymentSpec, Placement, PublishedPort, ServiceSpec};

/// Says whether the cluster as it is now can take this deployment.
///
/// # Errors
/// `permission_denied`, `unknown_host`, `port_conflict`, `subnet_pool_exhausted`, or
/// `validation_failed` for a domain or replica ids that another deployment owns.
pub(in crate::cluster) fn check(
    state: &ClusterState,
    spec: &DeploymentSpec,
    behalf: &Behalf,
) -> Result<(), Error> {
    if behalf.is_named {
        check_bounds(state, spec)?;
        check_reserved_ports(state, spec)?;
    }
    check_host_access(state, spec, &behalf.rights)?;
    check_hosts(state, spec)?;
    check_network_sizes(spec)?;
    for other in state
        .deployments
        .values()
        .filter(|other| other.name != spec.name)
    {
        check_ports(spec, other)?;
        check_domains(spec, other)?;
        check_replica_ids(spec, other)?;
    }
    Ok(())
}

/// No deployment is too large, and all of them together are not.
fn check_bounds(state: &ClusterState, spec: &DeploymentSpec) -> Result<(), Error> {
    bounds::check(spec)?;
    let nodes = state.nodes.len();
    let others = state.deployments.values();
    let others = others.filter(|it| it.name != spec.name && !it.deleting);
    let others: u64 = others.map(|it| bounds::replicas(it.spec(), nodes)).sum();
    let all = others.saturating_add(bounds::replicas(spec, nodes));
    if all <= MAX_CLUSTER_REPLICAS {
        return Ok(());
    }
    let message = format!(
        "the cluster would have {all} replicas; at most {MAX_CLUSTER_REPLICAS} are allowed"
    );
    Err(Error::new(ErrorCode::ValidationFailed, message).with("field", "replicas"))
}

/// No service takes a port of a daemon or of the mesh (spec 08).
fn check_reserved_ports(state: &ClusterState, spec: &DeploymentSpec) -> Result<(), Error> {
    let mut taken = BTreeMap::new();
    for node in state.nodes.values() {
        for address in [&node.api_address, &node.cluster_address] {
            let port = address
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse().ok());
            taken.extend(port.map(|port: u16| (port, &node.name)));
        }
        let mesh = node.report.as_ref().and_then(|report| report.mesh.as_ref());
        taken.extend(mesh.map(|mesh| (mesh.port, &node.name)));
    }
    for (service, port) in published(spec) {
        if let Some(node) = taken.get(&port.host) {
            let message = format!(
                "service \"{service}\" publishes host port {}, on which the daemon of \"{node}\" \
                 listens",
                port.host
            );
            return Err(Error::new(ErrorCode::ReservedPort, message)
                .with("port", port.host)
                .with("service", service));
        }
    }
    Ok(())
}

/// Whoever brings a deployment has the rights that its services ask for (spec 10).
fn check_host_access(
    state: &ClusterState,
    spec: &DeploymentSpec,
    rights: &Rights,
) -> Result<(), Error> {
    let has = |class| match class {
        Class::Baseline => true,
        Class::Host => rights.allow_host,
        Class::Privileged => rights.allow_privileged,
    };
    for (name, service) in &spec.services {
        let demands = host_access::demands(spec, service, &allowed(state, service));
        let Some(first) = demands.iter().find(|demand| !has(demand.class)) else {
            continue;
        };
        let right = first.class.as_str();
        let (key, value) = (&first.key, &first.value);
        let message = format!(
            "service \"{name}\" asks for {key}: {value}, which needs the right \"{right}\""
        );
        return Err(Error::new(ErrorCode::PermissionDenied, message)
            .with("right", right)
            .with("service", name)
            .with("key", key));
    }
    Ok(())
}

/// What every node allows where a service may run.
fn allowed(state: &ClusterState, service: &ServiceSpec) -> Allowed {
    let may_run_on = |name: &NodeName| match &service.placement {
        Placement::Hosts(hosts) => hosts.contains(name),
        _ => true,
    };
    let nodes = state.nodes.values().filter(|node| may_run_on(&node.name));
    let allowed = nodes.map(|node| {
        let report = node.report.as_ref();
        report
            .map(|report| report.workloads.clone())
            .unwrap_or_default()
    });
    allowed.reduce(|all, one| all.and(&one)).unwrap_or_default()
}

fn check_hosts(state: &ClusterState, spec: &DeploymentSpec) -> Result<(), Error> {
    for (name, service) in &spec.services {
        let Placement::Hosts(hosts) = &service.placement else {
            continue;
        };
        if let Some(host) = hosts.iter().find(|host| !state.nodes.contains_key(*host)) {
            let members = state.member_names();
            let message = format!(
                "service \"{name}\" is pinned to \"{host}\", which is not a member; \
                 members: {members}"
            );
            return Err(Error::new(ErrorCode::UnknownHost, message)
                .with("host", host)
                .with("members", members));
        }
    }
    Ok(())
}

fn check_network_sizes(spec: &DeploymentSpec) -> Result<(), Error> {
    for network in spec.networks.keys() {
        let wanted: usize = spec
            .services
            .values()
            .filter(|service| service.networks.contains_key(network))
            .filter(|service| service.placement != Placement::Global)
            .map(|service| service.replicas as usize)
            .sum();
        if wanted > ADDRESSES_PER_NETWORK {
            return Err(network_full(spec, network, wanted));
        }
    }
    Ok(())
}

fn network_full(spec: &DeploymentSpec, network: &NetworkName, wanted: usize) -> Error {
    let message = format!(
        "network \"{network}\" of \"{}\" would need {wanted} addresses and has \
         {ADDRESSES_PER_NETWORK}",
        spec.name
    );
    Error::new(ErrorCode::SubnetPoolExhausted, message)
        .with("pool", format!("{}/{network}", spec.name))
        .with("allocated", ADDRESSES_PER_NETWORK)
}

fn published(spec: &DeploymentSpec) -> impl Iterator<Item = (&str, &PublishedPort)> {
    spec.services
        .iter()
        .flat_map(|(name, service)| service.ports.iter().map(move |port| (name.as_str(), port)))
}

fn check_ports(spec: &DeploymentSpec, other: &Arc<Deployment>) -> Result<(), Error> {
    for (service, port) in published(spec) {
        let same =
            |theirs: &PublishedPort| theirs.host == port.host && theirs.protocol == port.protocol;
        if let Some((owner, _)) = published(other.spec()).find(|(_, theirs)| same(theirs)) {
            let message = format!(
                "service \"{service}\" publishes host port {}/{}, which service \"{owner}\" of \
                 deployment \"{}\" owns",
                port.host, port.protocol, other.name
            );
            return Err(Error::new(ErrorCode::PortConflict, message)
                .with("owner", format!("{}/{owner}", other.name))
                .with("port", port.host));
        }
    }
    Ok(())
}

fn check_domains(spec: &DeploymentSpec, other: &Arc<Deployment>) -> Result<(), Error> {
    for route in &spec.routes {
        if other
            .spec()
            .routes
            .iter()
            .any(|theirs| theirs.domain == route.domain)
        {
            let message = format!(
                "domain \"{}\" belongs to deployment \"{}\"",
                route.domain, other.name
            );
            return Err(Error::new(ErrorCode::ValidationFailed, message)
                .with("field", "routes")
                .with("owner", &other.name));
        }
    }
    Ok(())
}

/// `a-b` with service `c` and `a` with service `b-c` would name the same containers.
fn check_replica_ids(spec: &DeploymentSpec, other: &Arc<Deployment>) -> Result<(), Error> {
    for name in spec.services.keys() {
        let prefix = format!("{}-{name}", spec.name);
        let theirs = other.spec().services.keys();
        let mut theirs = theirs.filter(|theirs| format!("{}-{theirs}", other.name) == prefix);
        if let Some(theirs) = theirs.next() {
            let message = format!(
                "replicas of service \"{name}\" would be named like those of service \
                 \"{theirs}\" of deployment \"{}\"",
                other.name
            );
            return Err(Error::new(ErrorCode::ValidationFailed, message)
                .with("field", format!("services.{name}")));
        }
    }
    Ok(())
}
