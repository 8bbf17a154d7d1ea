//! Choosing nodes for the missing replicas of one service.

use std::collections::{BTreeMap, BTreeSet};

use super::score::{Score, ring_position, score};
use super::usage::{Cluster, Slot};
use super::{filter, reject};
use crate::cluster::deployment::Deployment;
use crate::cluster::node::NodeStatus;
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
    /// A node that is not to be chosen by [`place`].
    pub avoid: Option<&'a NodeName>,
}

/// Up to this many replicas are placed by looking at every node for each of them, which costs
/// less than sorting all nodes first. Both ways choose the same nodes
/// (`few_and_many_replicas_are_placed_alike`).
const FEW: usize = 8;

/// Chooses up to `count` nodes, in the order of the replicas. Fewer when there is no room;
/// none at all for `hosts` that cannot be satisfied in full.
pub fn place(demand: &Demand<'_>, cluster: &mut Cluster) -> Vec<NodeName> {
    let all_or_none = matches!(demand.service.placement, Placement::Hosts(_));
    if demand.count <= FEW && !all_or_none {
        return place_few(demand, cluster);
    }
    let mut candidates = Candidates::of(demand, cluster);
    if all_or_none && candidates.len() < demand.count {
        return Vec::new();
    }
    let mut chosen = Vec::new();
    for number in numbers(demand) {
        let Some(i) = candidates.take_best(demand, number) else {
            break;
        };
        cluster.book(demand.name, i, demand.service.reservations);
        chosen.push(cluster.nodes[i].node.name.clone());
        candidates.offer(demand, cluster, i);
    }
    chosen
}

fn place_few(demand: &Demand<'_>, cluster: &mut Cluster) -> Vec<NodeName> {
    let standing = standing(demand, cluster);
    let mut chosen = Vec::with_capacity(demand.count);
    for number in numbers(demand) {
        let at = ring_place(demand, number);
        let counts = cluster.counts(demand.name).to_vec();
        let open = standing.iter().filter_map(|&i| {
            let slot = &cluster.nodes[i];
            let score = score_if_room(demand, slot, counts[i])?;
            Some((score, slot.ring.wrapping_sub(at), i))
        });
        let Some((_, _, i)) = open.min() else {
            break;
        };
        cluster.book(demand.name, i, demand.service.reservations);
        chosen.push(cluster.nodes[i].node.name.clone());
    }
    chosen
}

/// The numbers that the replicas will get.
fn numbers(demand: &Demand<'_>) -> impl Iterator<Item = u64> {
    let given = demand.deployment.counters.get(demand.name).copied();
    (given.unwrap_or(0) + 1..).take(demand.count)
}

/// Where a replica stands on the ring of nodes.
fn ring_place(demand: &Demand<'_>, number: u64) -> u64 {
    let (deployment, number) = (&demand.deployment.name, number.to_string());
    ring_position(&[deployment.as_str(), demand.name.as_str(), &number])
}

/// The nodes that may run the service, whatever they hold, in ring order.
fn standing(demand: &Demand<'_>, cluster: &Cluster) -> Vec<usize> {
    let beside = hosts_beside(demand, cluster);
    let may_run = |i: &usize| {
        let co_located = beside.as_ref().is_none_or(|hosts| hosts.contains(i));
        let node = &cluster.nodes[*i].node;
        co_located
            && demand.avoid != Some(&node.name)
            && filter::standing(demand.state, node, demand.service).is_none()
    };
    cluster.by_ring.iter().copied().filter(may_run).collect()
}

/// Nodes that can take one more replica, by score, then by place on the ring.
struct Candidates {
    by_score: BTreeMap<Score, BTreeSet<(u64, usize)>>,
    count: usize,
}

impl Candidates {
    fn of(demand: &Demand<'_>, cluster: &mut Cluster) -> Self {
        let counts = cluster.counts(demand.name).to_vec();
        // In ring order, so that each set is built from a sorted list.
        let mut by_score: BTreeMap<Score, Vec<(u64, usize)>> = BTreeMap::new();
        for i in standing(demand, cluster) {
            let slot = &cluster.nodes[i];
            if let Some(score) = score_if_room(demand, slot, counts[i]) {
                by_score.entry(score).or_default().push((slot.ring, i));
            }
        }
        Self {
            count: by_score.values().map(Vec::len).sum(),
            by_score: by_score
                .into_iter()
                .map(|(score, nodes)| (score, nodes.into_iter().collect()))
                .collect(),
        }
    }

    fn len(&self) -> usize {
        self.count
    }

    /// Puts a node in its place, unless it is full for this service.
    fn offer(&mut self, demand: &Demand<'_>, cluster: &mut Cluster, i: usize) {
        let here = cluster.counts(demand.name)[i];
        let slot = &cluster.nodes[i];
        if let Some(score) = score_if_room(demand, slot, here) {
            let nodes = self.by_score.entry(score).or_default();
            nodes.insert((slot.ring, i));
            self.count += 1;
        }
    }

    /// Removes and returns the best node for replica `number`.
    fn take_best(&mut self, demand: &Demand<'_>, number: u64) -> Option<usize> {
        let mut best = self.by_score.first_entry()?;
        let ring = best.get_mut();
        let at = ring_place(demand, number);
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

/// The score of a node that has room for one more replica.
fn score_if_room(demand: &Demand<'_>, slot: &Slot, here: u32) -> Option<Score> {
    let full = filter::room(&slot.node, demand.service, here, slot.reserved).is_some();
    (!full).then(|| score(&demand.service.placement, slot, here))
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

/// True when a replica stands where its service may not run, while some node may run it. What
/// runs on a node that comes up again, or that lost its isolation, stays: the one is ready in a
/// moment, and stopping protects nobody on the other.
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
    let kept = cluster.position(node).is_some_and(|i| {
        use NodeStatus::{DrainTimeout, IsolationUnavailable, Joining};
        let status = cluster.nodes[i].node.status();
        matches!(status, Joining | IsolationUnavailable | DrainTimeout)
    });
    !stands_well && !kept && (global || (0..cluster.nodes.len()).any(suits))
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
