//! Choosing nodes for the missing replicas of one service.

use std::collections::{BTreeMap, BTreeSet};

use super::score::{Score, ring_position, score};
use super::usage::Cluster;
use super::{filter, reject};
use crate::cluster::deployment::Deployment;
use crate::cluster::state::ClusterState;
use crate::id::{NodeName, ServiceName};
use crate::manifest::spec::{NetworkMode, Placement, ServiceSpec};

/// What is to be placed.
#[allow(missing_docs)]
pub struct Demand<'a> {
    pub state: &'a ClusterState,
    pub deployment: &'a Deployment,
    pub name: &'a ServiceName,
    pub service: &'a ServiceSpec,
    pub count: usize,
}

/// Chooses up to `count` nodes, in the order of the replicas. Fewer when there is no room;
/// none at all for `hosts` that cannot be satisfied in full.
pub fn place(demand: &Demand<'_>, cluster: &mut Cluster) -> Vec<NodeName> {
    let mut candidates = Candidates::of(demand, cluster);
    if matches!(demand.service.placement, Placement::Hosts(_)) && candidates.len() < demand.count {
        return Vec::new();
    }
    let first = demand
        .deployment
        .counters
        .get(demand.name)
        .copied()
        .unwrap_or(0)
        + 1;
    let mut chosen = Vec::with_capacity(demand.count);
    for number in (first..).take(demand.count) {
        let Some(i) = candidates.take_best(demand, number) else {
            break;
        };
        cluster.book(demand.name, i, demand.service.reservations);
        chosen.push(cluster.nodes[i].node.name.clone());
        candidates.offer(demand, cluster, i);
    }
    chosen
}

/// Nodes that can take one more replica, by score, then by place on the ring.
struct Candidates {
    by_score: BTreeMap<Score, BTreeSet<(u64, usize)>>,
    count: usize,
}

impl Candidates {
    fn of(demand: &Demand<'_>, cluster: &mut Cluster) -> Self {
        let mut candidates = Self {
            by_score: BTreeMap::new(),
            count: 0,
        };
        let beside = hosts_beside(demand, cluster);
        for i in 0..cluster.nodes.len() {
            let co_located = beside.as_ref().is_none_or(|hosts| hosts.contains(&i));
            let node = &cluster.nodes[i].node;
            if co_located && filter::standing(demand.state, node, demand.service).is_none() {
                candidates.offer(demand, cluster, i);
            }
        }
        candidates
    }

    fn len(&self) -> usize {
        self.count
    }

    /// Puts a node in its place, unless it is full for this service.
    fn offer(&mut self, demand: &Demand<'_>, cluster: &mut Cluster, i: usize) {
        let here = cluster.counts(demand.name)[i];
        let slot = &cluster.nodes[i];
        if filter::room(&slot.node, demand.service, here, slot.reserved).is_none() {
            let score = score(&demand.service.placement, slot, here);
            self.by_score
                .entry(score)
                .or_default()
                .insert((slot.ring, i));
            self.count += 1;
        }
    }

    /// Removes and returns the best node for replica `number`.
    fn take_best(&mut self, demand: &Demand<'_>, number: u64) -> Option<usize> {
        let mut best = self.by_score.first_entry()?;
        let ring = best.get_mut();
        let (deployment, number) = (&demand.deployment.name, number.to_string());
        let at = ring_position(&[deployment.as_str(), demand.name.as_str(), &number]);
        let next = ring
            .range((at, 0)..)
            .next()
            .or_else(|| ring.first())
            .copied()?;
        ring.remove(&next);
        if ring.is_empty() {
            best.remove();
        }
        self.count -= 1;
        Some(next.1)
    }
}

/// The nodes that hold the service whose network this one shares; `None` when it shares none.
fn hosts_beside(demand: &Demand<'_>, cluster: &Cluster) -> Option<BTreeSet<usize>> {
    let NetworkMode::Service(with) = &demand.service.network_mode else {
        return None;
    };
    Some(cluster.hosts_of(demand.deployment, with))
}

/// Books one replica on this very node; false when the node does not take it.
pub(in crate::scheduler) fn place_at(
    demand: &Demand<'_>,
    node: &NodeName,
    cluster: &mut Cluster,
) -> bool {
    let Some(i) = cluster.position(node) else {
        return false;
    };
    let beside = hosts_beside(demand, cluster);
    let here = cluster.counts(demand.name)[i];
    let slot = &cluster.nodes[i];
    let co_located = beside.is_none_or(|hosts| hosts.contains(&i));
    let takes = reject(
        demand.state,
        &slot.node,
        demand.service,
        here,
        slot.reserved,
    )
    .is_none();
    if co_located && takes {
        cluster.book(demand.name, i, demand.service.reservations);
    }
    co_located && takes
}

/// True when a replica stands where its service may not run, while some node may run it.
pub(in crate::scheduler) fn is_misplaced(
    demand: &Demand<'_>,
    node: &NodeName,
    cluster: &Cluster,
) -> bool {
    let beside = hosts_beside(demand, cluster);
    let suits = |i: usize| {
        beside.as_ref().is_none_or(|hosts| hosts.contains(&i))
            && filter::standing(demand.state, &cluster.nodes[i].node, demand.service).is_none()
    };
    let stands_well = cluster.position(node).is_some_and(suits);
    let global = demand.service.placement == Placement::Global;
    !stands_well && (global || (0..cluster.nodes.len()).any(suits))
}

/// For each node, why it would or would not take one more replica of the service.
pub(in crate::scheduler) fn verdicts(
    demand: &Demand<'_>,
    cluster: &mut Cluster,
) -> Vec<(NodeName, Option<super::Rejection>)> {
    let beside = hosts_beside(demand, cluster);
    (0..cluster.nodes.len())
        .map(|i| {
            let here = cluster.counts(demand.name)[i];
            let slot = &cluster.nodes[i];
            let verdict = reject(
                demand.state,
                &slot.node,
                demand.service,
                here,
                slot.reserved,
            );
            let apart = match (&beside, &demand.service.network_mode) {
                (Some(hosts), NetworkMode::Service(with)) if !hosts.contains(&i) => {
                    Some(super::Rejection::CoLocation(with.to_string()))
                }
                _ => None,
            };
            (slot.node.name.clone(), verdict.or(apart))
        })
        .collect()
}
