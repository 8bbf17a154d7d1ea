//! What every `DnsResponder` promises.

use std::net::Ipv4Addr;
use std::sync::Arc;

use jaco_core::cluster::addresses::Pool;
use jaco_core::id::NodeName;
use jaco_core::node::dns::{Zones, zones};
use jaco_core::ports::DnsResponder;

use super::wait::until;
use crate::builders::{Cluster, deployment, service};

/// The world around one responder, which has no zones yet.
pub struct World<'a> {
    /// Where gateways come from; all of it is reachable.
    pub pool: Pool,
    /// True when the responder answers on a gateway.
    pub answers: &'a (dyn Fn(Ipv4Addr) -> bool + Sync),
}

/// The gateways that the suite uses. Somebody else listens on the second for as long as it runs.
pub fn gateways(pool: Pool) -> [Ipv4Addr; 2] {
    let both: Vec<_> = published(pool, 2).gateways().collect();
    [both[0], both[1]]
}

/// Runs every check.
pub async fn suite(responder: &dyn DnsResponder, world: &World<'_>) {
    no_zone_opens_nothing(responder, world);
    a_gateway_is_served_for_as_long_as_a_zone_has_it(responder, world).await;
    publishing_zones_again_changes_nothing(responder, world).await;
    an_address_that_is_taken_is_reported_for_as_long_as_it_is_wanted(responder, world);
}

/// The zones of a node with so many deployments of one service, `web`, and one network each.
pub fn published(pool: Pool, deployments: usize) -> Arc<Zones> {
    let mut cluster = Cluster::of(1);
    if let Some(formed) = &mut cluster.state.cluster {
        formed.ipam_pool = pool;
    }
    for number in 0..deployments {
        let spec = deployment(&format!("contract{number}"), [("web", service(1, "a"))]);
        cluster.deploy(spec).expect("the pool has room");
    }
    cluster.settle();
    Arc::new(zones(&cluster.state, &NodeName::new("n1")))
}

fn no_zone_opens_nothing(responder: &dyn DnsResponder, world: &World<'_>) {
    responder.publish(Arc::default());
    assert!(!(world.answers)(gateways(world.pool)[0]));
    assert_eq!(responder.failed_listeners(), []);
}

async fn a_gateway_is_served_for_as_long_as_a_zone_has_it(
    responder: &dyn DnsResponder,
    world: &World<'_>,
) {
    let [free, _] = gateways(world.pool);
    responder.publish(published(world.pool, 1));
    assert_eq!(responder.failed_listeners(), []);
    assert!((world.answers)(free));
    responder.publish(Arc::default());
    until("the gateway is closed", async || {
        (!(world.answers)(free)).then_some(())
    })
    .await;
}

async fn publishing_zones_again_changes_nothing(responder: &dyn DnsResponder, world: &World<'_>) {
    let [free, _] = gateways(world.pool);
    for _ in 0..3 {
        responder.publish(published(world.pool, 1));
    }
    // The gateway may have been closing still at the first time.
    until("the gateway answers", async || {
        assert_eq!(responder.failed_listeners(), []);
        (world.answers)(free).then_some(())
    })
    .await;
}

fn an_address_that_is_taken_is_reported_for_as_long_as_it_is_wanted(
    responder: &dyn DnsResponder,
    world: &World<'_>,
) {
    let [free, taken] = gateways(world.pool);
    responder.publish(published(world.pool, 2));
    let failed = responder.failed_listeners();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let (address, reason) = &failed[0];
    assert!(address.starts_with(&format!("{taken}:")), "{address}");
    assert!(!reason.is_empty());
    assert!((world.answers)(free), "the others answer all the same");
    responder.publish(published(world.pool, 1));
    assert_eq!(responder.failed_listeners(), []);
}
