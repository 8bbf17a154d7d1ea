//! Evening out: while everything is at rest, replicas move from the fullest node of their service
//! to the emptiest, one at a time (spec 05, Placement). So a node that joins or returns gets its
//! share.

use std::collections::BTreeMap;

use super::placement::{Cluster, Demand, place_at, standing};
use super::relocate::is_movable;
use crate::cluster::command::{Load, Step};
use crate::cluster::deployment::{Deployment, Replica};
use crate::cluster::state::ClusterState;
use crate::id::{NodeName, ServiceName};
use crate::manifest::spec::{Placement, ServiceSpec};

/// The next move, when the cluster is at rest and some service lies uneven.
pub(super) fn plan(state: &ClusterState) -> Vec<Step> {
    let services = state.deployments.values().flat_map(|deployment| {
        let services = deployment.spec().services.iter();
        services.map(move |(name, spec)| (deployment, name, spec))
    });
    for (deployment, name, spec) in services {
        let Some((from, to)) = uneven(state, deployment, name, spec) else {
            continue;
        };
        let mut cluster = Cluster::of(state);
        cluster.enter(deployment);
        let demand = Demand {
            state,
            deployment,
            name,
            service: spec,
            count: 1,
            avoid: None,
        };
        let addressable =
            |network| state.free_addresses(&deployment.name, network, state.clock) > 0;
        if spec.networks.keys().all(addressable) && place_at(&demand, to, &mut cluster) {
            return steps(deployment, from, to, None);
        }
    }
    Vec::new()
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

/// A replica on the fullest node and the emptiest node, when they are more than one apart.
fn uneven<'a>(
    state: &'a ClusterState,
    deployment: &'a Deployment,
    name: &'a ServiceName,
    spec: &ServiceSpec,
) -> Option<(&'a Replica, &'a NodeName)> {
    if !is_movable(spec) || spec.placement != Placement::Spread || spec.replicas < 2 {
        return None;
    }
    // What fled from a node would come back to it only to fail again.
    let fled = |node: &NodeName| {
        let mut replicas = deployment.replicas_of(name);
        replicas.any(|replica| replica.fled_from.as_ref() == Some(node))
    };
    let open = state
        .nodes
        .values()
        .filter(|node| standing(state, node, spec).is_none() && !fled(&node.name));
    let mut held: BTreeMap<&NodeName, u32> = open.map(|node| (&node.name, 0)).collect();
    for replica in deployment.replicas_of(name) {
        *held.entry(&replica.node).or_default() += 1;
    }
    let (fullest, most) = held.iter().max_by_key(|(_, count)| **count)?;
    let (emptiest, least) = held.iter().min_by_key(|(_, count)| **count)?;
    if most - least < 2 {
        return None;
    }
    let here = deployment.replicas_of(name).filter(|r| r.node == **fullest);
    here.max_by_key(|replica| replica.number)
        .map(|replica| (&**replica, *emptiest))
}
