//! Engine networks with fixed subnets.

use std::collections::HashMap;

use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use jaco_core::id::ClusterId;
use jaco_core::node::bridges::{Bridge, CLUSTER_LABEL, ObservedBridge};
use jaco_core::node::mesh;
use jaco_core::ports::RuntimeError;

use super::convert::map;
use super::engine::{Engine, SHORT};
use super::error::{Failure, gone_is_fine};

/// The bridge driver's option that names the Linux bridge.
const INTERFACE: &str = "com.docker.network.bridge.name";
/// Off: the engine would hide who sends to other nodes. What leaves for the outside world is
/// masqueraded by the firewall.
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const MTU: &str = "com.docker.network.driver.mtu";

/// Every network with the cluster's label.
pub(super) async fn observe(
    engine: &Engine,
    cluster: &ClusterId,
) -> Result<Vec<ObservedBridge>, Failure> {
    let label = format!("{CLUSTER_LABEL}={cluster}");
    let mut seen: Vec<_> = list(engine, "label", label)
        .await?
        .into_iter()
        .map(observed)
        .collect();
    seen.sort_by(|a, b| a.engine_name.cmp(&b.engine_name));
    Ok(seen)
}

/// Makes a network unless it is there as asked.
pub(super) async fn ensure(engine: &Engine, bridge: &Bridge) -> Result<(), RuntimeError> {
    if let Some(network) = find(engine, &bridge.engine_name).await? {
        return check(bridge, network);
    }
    let docker = engine.client().await?.docker;
    let created = docker.create_network(request(bridge));
    let Err(refusal) = engine.within(SHORT, created).await else {
        return Ok(());
    };
    // Another call may have been quicker.
    match find(engine, &bridge.engine_name).await? {
        Some(network) => check(bridge, network),
        None => Err(refusal.into()),
    }
}

/// Removes a network that is empty or gone.
pub(super) async fn remove(engine: &Engine, engine_name: &str) -> Result<(), RuntimeError> {
    let Some(network) = find(engine, engine_name).await? else {
        return Ok(());
    };
    if !is_ours(&network) {
        let reason = format!("network {engine_name} is not the cluster's");
        return Err(RuntimeError::Refused(reason));
    }
    let docker = engine.client().await?.docker;
    let id = network.id.unwrap_or_default();
    let removal = engine.within(SHORT, docker.remove_network(&id)).await;
    Ok(gone_is_fine(removal)?)
}

async fn find(engine: &Engine, engine_name: &str) -> Result<Option<Network>, Failure> {
    let found = list(engine, "name", engine_name.to_owned()).await?;
    // The engine's filter takes parts of names too.
    Ok(found
        .into_iter()
        .find(|network| network.name.as_deref() == Some(engine_name)))
}

async fn list(engine: &Engine, key: &str, value: String) -> Result<Vec<Network>, Failure> {
    let docker = engine.client().await?.docker;
    let options = ListNetworksOptionsBuilder::new()
        .filters(&HashMap::from([(key, vec![value])]))
        .build();
    engine
        .within(SHORT, docker.list_networks(Some(options)))
        .await
}

fn request(bridge: &Bridge) -> NetworkCreateRequest {
    let subnet = IpamConfig {
        subnet: Some(bridge.subnet.clone()),
        gateway: Some(bridge.gateway.to_string()),
        ..Default::default()
    };
    let options = HashMap::from([
        (INTERFACE.to_owned(), bridge.interface.clone()),
        (MASQUERADE.to_owned(), "false".to_owned()),
        (MTU.to_owned(), mesh::MTU.to_string()),
    ]);
    NetworkCreateRequest {
        name: bridge.engine_name.clone(),
        driver: Some("bridge".to_owned()),
        internal: Some(bridge.internal),
        ipam: Some(Ipam {
            config: Some(vec![subnet]),
            ..Default::default()
        }),
        options: Some(options),
        labels: Some(map(&bridge.labels)),
        ..Default::default()
    }
}

fn observed(network: Network) -> ObservedBridge {
    let option = |key: &str| network.options.as_ref()?.get(key).cloned();
    ObservedBridge {
        interface: option(INTERFACE).unwrap_or_default(),
        subnet: subnet(&network).unwrap_or_default(),
        engine_name: network.name.unwrap_or_default(),
    }
}

fn subnet(network: &Network) -> Option<String> {
    let config = network.ipam.as_ref()?.config.as_ref()?.first()?;
    config.subnet.clone()
}

/// Refuses a network of the right name that is another, since replicas would not be reached
/// on it.
fn check(bridge: &Bridge, network: Network) -> Result<(), RuntimeError> {
    let ours = label(&network, CLUSTER_LABEL) == bridge.labels.get(CLUSTER_LABEL);
    let internal = network.internal.unwrap_or_default() == bridge.internal;
    let seen = observed(network);
    if ours && internal && seen.subnet == bridge.subnet && seen.interface == bridge.interface {
        return Ok(());
    }
    Err(RuntimeError::Refused(format!(
        "network {} exists with subnet {:?} on bridge {:?} and is not the one asked for",
        bridge.engine_name, seen.subnet, seen.interface
    )))
}

fn is_ours(network: &Network) -> bool {
    label(network, CLUSTER_LABEL).is_some()
}

fn label<'a>(network: &'a Network, key: &str) -> Option<&'a String> {
    network.labels.as_ref()?.get(key)
}
