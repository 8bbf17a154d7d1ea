//! What every `IngressProxy` promises.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use jaco_core::id::{DeploymentName, ReplicaId, ServiceName};
use jaco_core::manifest::spec::Protocol;
use jaco_core::node::ingress::{PortRoute, RouteTable, Upstream};
use jaco_core::ports::IngressProxy;

use super::wait::until;

/// The world around one proxy, which has no table yet.
pub struct World<'a> {
    /// A port that nobody listens on.
    pub free: u16,
    /// A port that somebody else listens on for as long as the suite runs.
    pub taken: u16,
    /// True when the proxy or somebody else listens on a port.
    pub listens: &'a (dyn Fn(u16) -> bool + Sync),
}

/// Runs every check.
pub async fn suite(proxy: &dyn IngressProxy, world: &World<'_>) {
    an_empty_table_opens_nothing(proxy, world);
    a_port_is_open_for_as_long_as_the_table_has_it(proxy, world).await;
    publishing_a_table_again_changes_nothing(proxy, world).await;
    a_port_that_is_taken_is_reported_for_as_long_as_it_is_wanted(proxy, world);
}

/// A table that publishes these TCP ports.
pub fn table(ports: &[u16]) -> Arc<RouteTable> {
    let upstream = Upstream {
        replica: ReplicaId::from("contract-store-0"),
        address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9),
        local: true,
    };
    let route = PortRoute {
        deployment: DeploymentName::from("contract"),
        service: ServiceName::from("store"),
        proxy_protocol: false,
        upstreams: Arc::new(vec![upstream]),
    };
    let mut table = RouteTable::default();
    for &port in ports {
        table.ports.insert((port, Protocol::Tcp), route.clone());
    }
    Arc::new(table)
}

fn an_empty_table_opens_nothing(proxy: &dyn IngressProxy, world: &World<'_>) {
    proxy.publish(table(&[]));
    assert!(!(world.listens)(world.free));
    assert_eq!(proxy.failed_listeners(), []);
}

async fn a_port_is_open_for_as_long_as_the_table_has_it(
    proxy: &dyn IngressProxy,
    world: &World<'_>,
) {
    proxy.publish(table(&[world.free]));
    assert_eq!(proxy.failed_listeners(), []);
    assert!((world.listens)(world.free));
    proxy.publish(table(&[]));
    until("the port is closed", async || {
        (!(world.listens)(world.free)).then_some(())
    })
    .await;
}

async fn publishing_a_table_again_changes_nothing(proxy: &dyn IngressProxy, world: &World<'_>) {
    for _ in 0..3 {
        proxy.publish(table(&[world.free]));
    }
    // The port may have been closing still at the first time.
    until("the port is open", async || {
        assert_eq!(proxy.failed_listeners(), []);
        (world.listens)(world.free).then_some(())
    })
    .await;
}

fn a_port_that_is_taken_is_reported_for_as_long_as_it_is_wanted(
    proxy: &dyn IngressProxy,
    world: &World<'_>,
) {
    proxy.publish(table(&[world.free, world.taken]));
    let failed = proxy.failed_listeners();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let (address, reason) = &failed[0];
    assert!(address.ends_with(&format!(":{}", world.taken)), "{address}");
    assert!(!reason.is_empty());
    assert!(
        (world.listens)(world.free),
        "the others are open all the same"
    );
    proxy.publish(table(&[world.free]));
    assert_eq!(proxy.failed_listeners(), []);
}
