//! The mesh: who is reached through whom, and what to change.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use jaco_core::cluster::Command;
use jaco_core::cluster::node::NodeCondition;
use jaco_core::id::{MeshKey, NodeName};
use jaco_core::manifest::spec::{Protocol, PublishedPort};
use jaco_core::node::ingress;
use jaco_core::node::mesh::{self, Mesh, Peer, PeerAction, RouteAction};
use jaco_testkit::builders::{Cluster, deployment, service};
use proptest::prelude::*;

fn resolve(host: &str) -> Option<IpAddr> {
    let number: u8 = host.strip_prefix('n')?.parse().ok()?;
    Some(IpAddr::from([10, 99, 0, number]))
}

fn desired(cluster: &Cluster, node: &str) -> Mesh {
    mesh::desired(&cluster.state, &NodeName::new(node), resolve).unwrap()
}

fn running(nodes: usize, counts: &[u32]) -> Cluster {
    let mut cluster = Cluster::of(nodes);
    for (i, count) in counts.iter().enumerate() {
        let spec = deployment(&format!("d{i}"), [("web", service(*count, "a"))]);
        cluster.deploy(spec).unwrap();
    }
    cluster.settle();
    cluster.obey();
    cluster
}

/// Carries out actions on what a host would have.
fn act(wanted: &Mesh, peers: &mut BTreeMap<MeshKey, Peer>, routes: &mut BTreeSet<Ipv4Addr>) {
    let seen: Vec<Peer> = peers.values().cloned().collect();
    for action in mesh::diff_peers(wanted, &seen) {
        match action {
            PeerAction::Set(peer) => {
                for other in peers.values_mut().filter(|other| other.key != peer.key) {
                    // As WireGuard does: an address belongs to the peer that got it last.
                    other
                        .allowed
                        .retain(|address| !peer.allowed.contains(address));
                }
                peers.insert(peer.key, peer);
            }
            PeerAction::Remove(key) => {
                peers.remove(&key);
            }
        }
    }
    for action in mesh::diff_routes(wanted, routes) {
        match action {
            RouteAction::Add(to) => routes.insert(to),
            RouteAction::Remove(to) => routes.remove(&to),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_remote_replica_is_behind_its_own_node_and_no_local_one_is_routed(
        nodes in 1..6usize,
        counts in prop::collection::vec(0..7u32, 0..4),
    ) {
        let cluster = running(nodes, &counts);
        for (name, _) in &cluster.state.nodes {
            let mesh = desired(&cluster, name.as_str());
            prop_assert_eq!(mesh.peers.len(), nodes - 1);
            let behind: usize = mesh.peers.values().map(|peer| peer.allowed.len()).sum();
            prop_assert_eq!(behind, mesh.routes().len(), "an address has two peers");
            for replica in cluster.state.replicas() {
                let address = replica.address().unwrap();
                let there = &cluster.state.nodes[&replica.node];
                let end = there.report.as_ref().unwrap().mesh.as_ref().unwrap();
                let peer = mesh.peers.get(&end.public_key);
                let routed = peer.is_some_and(|peer| peer.allowed.contains(&address));
                prop_assert_eq!(routed, replica.node != *name);
                prop_assert_eq!(mesh.routes().contains(&address), replica.node != *name);
            }
        }
    }

    #[test]
    fn carrying_out_a_diff_leaves_nothing_to_do(
        before in (1..5usize, prop::collection::vec(0..6u32, 0..3)),
        after in (1..5usize, prop::collection::vec(0..6u32, 0..3)),
    ) {
        let (mut peers, mut routes) = (BTreeMap::new(), BTreeSet::new());
        for (nodes, counts) in [before, after] {
            let wanted = desired(&running(nodes, &counts), "n1");
            act(&wanted, &mut peers, &mut routes);
            let seen: Vec<Peer> = peers.values().cloned().collect();
            prop_assert_eq!(mesh::diff_peers(&wanted, &seen), vec![]);
            prop_assert_eq!(mesh::diff_routes(&wanted, &routes), vec![]);
        }
    }

    #[test]
    fn no_two_members_share_a_mesh_address(nodes in 1..40usize) {
        let cluster = Cluster::of(nodes);
        let addresses: BTreeSet<Ipv4Addr> =
            cluster.state.nodes.values().map(|node| node.mesh_address).collect();
        prop_assert_eq!(addresses.len(), nodes);
    }
}

#[test]
fn ingress_dials_replicas_everywhere_but_on_nodes_that_are_not_heard_from() {
    let mut cluster = Cluster::of(3);
    let mut web = service(3, "a");
    web.ports = vec![PublishedPort {
        host: 6379,
        container: 6379,
        protocol: Protocol::Tcp,
        proxy_protocol: false,
    }];
    cluster.deploy(deployment("d", [("web", web)])).unwrap();
    cluster.settle();
    cluster.obey();
    let dialled = |cluster: &Cluster| {
        let table = ingress::table(&cluster.state, &NodeName::new("n1"));
        let port = table.ports.values().next().unwrap();
        let local = port
            .upstreams
            .iter()
            .filter(|upstream| upstream.local)
            .count();
        (port.upstreams.len(), local)
    };
    assert_eq!(dialled(&cluster), (3, 1));
    let (node, condition) = (NodeName::new("n2"), NodeCondition::Unreachable);
    cluster.must(Command::NodeCondition { node, condition });
    assert_eq!(dialled(&cluster), (2, 1));
}
