//! What every `BridgeNetworks` promises.

use jaco_core::cluster::addresses::Scope;
use jaco_core::id::{ClusterId, DeploymentName, NetworkName};
use jaco_core::node::bridges::{self, Bridge, CLUSTER_LABEL, ObservedBridge};
use jaco_core::ports::{BridgeNetworks, RuntimeError};

/// The world around the networks of one node.
pub struct World<'a> {
    /// Whose networks are seen; nothing has its label yet.
    pub cluster: ClusterId,
    /// Puts a container on the network of that engine name.
    pub occupy: &'a (dyn Fn(&str) + Sync),
    /// Takes it off again.
    pub vacate: &'a (dyn Fn(&str) + Sync),
}

/// Runs every check.
pub async fn suite(networks: &dyn BridgeNetworks, world: &World<'_>) {
    a_made_network_is_observed_as_asked(networks, world).await;
    only_the_cluster_s_own_networks_are_seen(networks, world).await;
    a_name_is_not_reused_for_another_network(networks, world).await;
    a_network_in_use_is_kept(networks, world).await;
    removing_is_final_and_repeatable(networks, world).await;
}

/// The bridge of deployment `contract` on `10.244.<third>.0/24`.
pub fn bridge(world: &World<'_>, network: &str, third: u8) -> Bridge {
    let scope = Scope {
        deployment: DeploymentName::from("contract"),
        network: NetworkName::from(network),
    };
    let labels = [
        (CLUSTER_LABEL, world.cluster.as_str()),
        ("jaco.deployment", "contract"),
        ("jaco.network", network),
    ];
    Bridge {
        engine_name: bridges::engine_name(&scope),
        interface: format!("jaco-c0de-{third:04x}"),
        subnet: format!("10.244.{third}.0/24"),
        gateway: [10, 244, third, 1].into(),
        internal: false,
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        scope,
    }
}

async fn a_made_network_is_observed_as_asked(networks: &dyn BridgeNetworks, world: &World<'_>) {
    let open = bridge(world, "_default", 7);
    let inner = Bridge {
        internal: true,
        ..bridge(world, "back", 8)
    };
    for _ in 0..2 {
        ensure(networks, &open).await;
        ensure(networks, &inner).await;
        assert_eq!(observe(networks, world).await, [seen(&open), seen(&inner)]);
    }
    remove(networks, &open).await;
    assert_eq!(observe(networks, world).await, [seen(&inner)]);
    remove(networks, &inner).await;
}

async fn only_the_cluster_s_own_networks_are_seen(
    networks: &dyn BridgeNetworks,
    world: &World<'_>,
) {
    let ours = bridge(world, "front", 7);
    ensure(networks, &ours).await;
    let other = ClusterId::from("another-cluster");
    assert_eq!(networks.observe(&other).await, Ok(Vec::new()));
    remove(networks, &ours).await;
}

async fn a_name_is_not_reused_for_another_network(
    networks: &dyn BridgeNetworks,
    world: &World<'_>,
) {
    let first = bridge(world, "front", 7);
    let other = bridge(world, "front", 9);
    ensure(networks, &first).await;
    let refused = networks.ensure(&other).await;
    assert!(
        matches!(refused, Err(RuntimeError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(observe(networks, world).await, [seen(&first)]);
    remove(networks, &first).await;
    ensure(networks, &other).await;
    assert_eq!(observe(networks, world).await, [seen(&other)]);
    remove(networks, &other).await;
}

async fn a_network_in_use_is_kept(networks: &dyn BridgeNetworks, world: &World<'_>) {
    let used = bridge(world, "front", 7);
    ensure(networks, &used).await;
    (world.occupy)(&used.engine_name);
    let refused = networks.remove(&used.engine_name).await;
    assert!(
        matches!(refused, Err(RuntimeError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(observe(networks, world).await, [seen(&used)]);
    (world.vacate)(&used.engine_name);
    remove(networks, &used).await;
}

async fn removing_is_final_and_repeatable(networks: &dyn BridgeNetworks, world: &World<'_>) {
    let gone = bridge(world, "front", 7);
    ensure(networks, &gone).await;
    for _ in 0..2 {
        remove(networks, &gone).await;
        assert_eq!(observe(networks, world).await, []);
    }
}

fn seen(bridge: &Bridge) -> ObservedBridge {
    ObservedBridge {
        engine_name: bridge.engine_name.clone(),
        interface: bridge.interface.clone(),
        subnet: bridge.subnet.clone(),
    }
}

async fn ensure(networks: &dyn BridgeNetworks, bridge: &Bridge) {
    let made = networks.ensure(bridge).await;
    assert_eq!(made, Ok(()), "making {}", bridge.engine_name);
}

async fn remove(networks: &dyn BridgeNetworks, bridge: &Bridge) {
    let removed = networks.remove(&bridge.engine_name).await;
    assert_eq!(removed, Ok(()), "removing {}", bridge.engine_name);
}

async fn observe(networks: &dyn BridgeNetworks, world: &World<'_>) -> Vec<ObservedBridge> {
    let seen = networks.observe(&world.cluster).await;
    seen.expect("the engine answers")
}
