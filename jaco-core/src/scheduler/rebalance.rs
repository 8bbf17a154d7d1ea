//! Evening out: while everything is at rest, replicas move from the fullest node of their service
//! to the emptiest, one at a time (spec 05, Placement). So a node that joins or returns gets its
//! share.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::placement::{Cluster, Demand, place_at, standing};
use super::relocate::{is_followed, is_movable};
use crate::cluster::command::{Load, Step};
use crate::cluster::deployment::{Deployment, Replica};
use crate::cluster::node::Node;
use crate::cluster::state::ClusterState;
use crate::id::{NodeName, ServiceName};
use crate::manifest::spec::{Placement, ServiceSpec};

/// A service with one node more than one replica ahead of another.
pub(super) struct Uneven<'a> {
    name: &'a ServiceName,
    spec: &'a ServiceSpec,
    /// A replica on the fullest node.
    from: &'a Replica,
    /// The emptiest node.
    to: &'a NodeName,
}

/// The services of a deployment that lie uneven.
pub(super) fn uneven<'a>(state: &'a ClusterState, deployment: &'a Deployment) -> Vec<Uneven<'a>> {
    let services = deployment.spec().services.iter();
    services
        .filter(|(name, spec)| may_lie_uneven(spec) && !is_followed(deployment.spec(), name))
        .filter_map(|(name, spec)| {
            let (from, to) = ends(state, deployment, name, spec)?;
            Some(Uneven {
                name,
                spec,
                from,
                to,
            })
        })
        .collect()
}

/// The first move that there is room for.
pub(super) fn plan(
    state: &ClusterState,
    deployment: &Deployment,
    uneven: &[Uneven<'_>],
    cluster: &mut Cluster,
) -> Vec<Step> {
    cluster.enter(deployment);
    let addressable = |network| state.free_addresses(&deployment.name, network, state.clock) > 0;
    for it in uneven {
        let demand = Demand {
            state,
            deployment,
            name: it.name,
            service: it.spec,
            count: 1,
            avoid: None,
        };
        if it.spec.networks.keys().all(addressable) && place_at(&demand, it.to, cluster) {
            return steps(deployment, it.from, it.to, None);
        }
    }
    Vec::new()
}

fn may_lie_uneven(spec: &ServiceSpec) -> bool {
    is_movable(spec) && spec.placement == Placement::Spread && spec.replicas > 1
}

/// The steps of one move.
pub(super) fn steps(
    deployment: &Deployment,
    from: &Replica,
    to: &NodeName,
    load: Option<Load>,
) -> Vec<Step> {
    vec![
        Step::Move {
            deployment: deployment.name.clone(),
            replica: from.id.clone(),
            to: to.clone(),
            load,
        },
        Step::Place {
            deployment: deployment.name.clone(),
            service: from.service.clone(),
            revision: deployment.current,
            node: to.clone(),
        },
    ]
}

/// The newest replica on the fullest node and the emptiest node, when they are more than one
/// apart.
fn ends<'a>(
    state: &'a ClusterState,
    deployment: &'a Deployment,
    name: &'a ServiceName,
    spec: &ServiceSpec,
) -> Option<(&'a Replica, &'a NodeName)> {
    let mut held: BTreeMap<&NodeName, u32> = BTreeMap::new();
    for replica in deployment.replicas_of(name) {
        *held.entry(&replica.node).or_default() += 1;
    }
    let (fullest, most) = held.iter().max_by_key(|(_, count)| **count)?;
    let bound = most.checked_sub(2)?;
    // Most services hold one replica a node, or leave some node empty: few nodes are looked at.
    let count = |node: &NodeName| held.get(node).copied().unwrap_or(0);
    // What fled from a node would come back to it only to fail again.
    let replicas = || deployment.replicas_of(name);
    let fled: Vec<_> = replicas()
        .filter_map(|replica| replica.fled_from.as_ref())
        .collect();
    let may_take =
        |node: &&Arc<Node>| standing(state, node, spec).is_none() && !fled.contains(&&node.name);
    let mut emptiest: Option<(u32, &NodeName)> = None;
    for node in state.nodes.values().filter(may_take) {
        let here = count(&node.name);
        if here <= bound && emptiest.is_none_or(|(least, _)| here < least) {
            emptiest = Some((here, &node.name));
        }
        if here == 0 {
            break;
        }
    }
    let (_, to) = emptiest?;
    let here = deployment.replicas_of(name).filter(|r| r.node == **fullest);
    here.max_by_key(|replica| replica.number)
        .map(|replica| (&**replica, to))
}
