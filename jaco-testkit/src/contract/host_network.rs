//! What every `Mesh`, `HostNetwork` and `Firewall` promises.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use jaco_core::id::MeshKey;
use jaco_core::node::firewall::{self, Ruleset};
use jaco_core::node::mesh::{Passage, Peer};
use jaco_core::ports::{Firewall, HostNetwork, Mesh};

use crate::builders::{Cluster, deployment, service};

/// The host's own mesh address in the suites.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 1);
/// A replica elsewhere.
const REPLICA: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 9);

fn peer(number: u8, allowed: &[Ipv4Addr]) -> Peer {
    Peer {
        key: MeshKey([number; 32]),
        endpoint: ([192, 0, 2, number], 51820).into(),
        allowed: allowed.iter().copied().collect(),
    }
}

/// Runs every check of a mesh that was not brought up yet; leaves it up, without peers.
pub async fn mesh(mesh: &dyn Mesh) {
    assert!(mesh.set(&peer(2, &[])).await.is_err(), "it is not up");
    let end = mesh.ensure(OWN).await.expect("it comes up");
    let again = mesh.ensure(OWN).await.expect("it is up");
    assert_eq!(end, again);
    let (second, third) = (peer(2, &[REPLICA]), peer(3, &[]));
    for peer in [&second, &third, &second] {
        mesh.set(peer).await.expect("a peer is set");
    }
    assert_eq!(peers(mesh).await, [second.clone(), third.clone()]);
    // An address moves: it is taken from one before another has it.
    let (second, third) = (peer(2, &[]), peer(3, &[REPLICA]));
    for peer in [&second, &third] {
        mesh.set(peer).await.expect("a peer is changed");
    }
    assert_eq!(peers(mesh).await, [second.clone(), third.clone()]);
    for key in [second.key, third.key, third.key] {
        mesh.remove(key)
            .await
            .expect("a peer is forgotten, twice too");
    }
    assert_eq!(peers(mesh).await, []);
}

async fn peers(mesh: &dyn Mesh) -> Vec<Peer> {
    let mut peers = mesh.observe().await.expect("peers are listed");
    peers.sort_by_key(|peer| peer.key);
    peers
}

/// Runs every check on a host whose mesh is up; `bridge` is one of its bridges.
pub async fn host_network(host: &dyn HostNetwork, bridge: &str) {
    let routes = async || host.routes().await.expect("routes are listed");
    assert_eq!(routes().await, BTreeSet::new());
    for _ in 0..2 {
        let added = host.add_route(REPLICA, OWN).await;
        added.expect("a route is added, twice too");
        assert_eq!(routes().await, BTreeSet::from([REPLICA]));
    }
    for _ in 0..2 {
        let removed = host.remove_route(REPLICA).await;
        removed.expect("a route is removed, twice too");
        assert_eq!(routes().await, BTreeSet::new());
    }
    let passage = Passage {
        from: "10.245.0.0/24".to_owned(),
        to: "10.244.0.0/16".to_owned(),
    };
    for _ in 0..2 {
        host.prepare_bridge(bridge)
            .await
            .expect("a bridge is prepared");
        let let_through = host.ensure_passages(std::slice::from_ref(&passage)).await;
        let_through.expect("traffic is let through");
    }
}

/// Runs every check on a packet filter without our table; leaves the table there.
pub async fn firewall(firewall: &dyn Firewall) {
    let observe = async || firewall.observe().await.expect("the table is listed");
    assert_eq!(observe().await, Ruleset::default());
    for nodes in [1, 3, 3, 2] {
        let wanted = ruleset(nodes);
        firewall
            .replace(&wanted)
            .await
            .expect("the table is loaded");
        assert_eq!(wanted.differences(&observe().await), Vec::<String>::new());
        assert_eq!(observe().await, wanted);
    }
}

fn ruleset(nodes: usize) -> Ruleset {
    let somewhere = |_: &str| Some(IpAddr::from([192, 0, 2, 1]));
    let mut cluster = Cluster::of(nodes);
    for name in ["shop", "a-deployment-with-a-name-of-forty-characters"] {
        let spec = deployment(name, [("web", service(1, "a"))]);
        cluster.deploy(spec).expect("a deployment is applied");
    }
    firewall::desired(&cluster.state, &local(), somewhere).expect("there is a cluster")
}

fn local() -> firewall::Local {
    firewall::Local {
        deny: vec![([169, 254, 169, 254].into(), 32)],
        metrics_port: Some(9_100),
    }
}
