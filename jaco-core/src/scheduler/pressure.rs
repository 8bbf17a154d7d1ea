//! Rebalancing under pressure: a node that uses too much of what it has gives one replica to a
//! cooler node, when that helps and can last (spec 05, Rebalancing under pressure).
//!
//! Invariants (`tests/pressure_props.rs`): each gate holds a move back by itself; an idle or
//! uniformly busy cluster makes none; one move at a time.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::placement::{Cluster, Demand, verdicts};
use super::rebalance;
use super::relocate::{is_followed, is_movable};
use crate::cluster::command::{Load, Skip, Step};
use crate::cluster::deployment::{Deployment, Replica};
use crate::cluster::node::{Node, NodeStatus};
use crate::cluster::state::ClusterState;
use crate::cluster::usage::{Dimension, TRIGGER, pressure, share};
use crate::id::{DeploymentName, NodeName};
use crate::manifest::spec::{Placement, Resources, ServiceSpec};
use crate::time::Timestamp;

/// Reports in a row that must show the pressure.
const CYCLES: u32 = 2;
/// How far the hottest and the coolest node must be apart. Shares are in thousandths.
const GAP: u64 = 250;
/// What a move must take off the source.
const LEAST_RELIEF: u64 = 100;
/// What the target must stay under.
const CEILING: u64 = 750;
/// What a move costs, in the score.
const COST: u64 = 10;
/// A replica that was placed or moved stays for so long.
const REPLICA_REST: Duration = Duration::from_secs(600);
/// A node that was given a replica gets no other one for so long.
const TARGET_REST: Duration = Duration::from_secs(120);
/// A reason is told again after so long.
const TOLD_FOR: Duration = Duration::from_secs(600);

/// True while some node is under pressure: only then is there anything to plan.
pub(super) fn is_lasting(state: &ClusterState, now: Timestamp) -> bool {
    source(state, now).is_some()
}

/// The next move, or why there is none. What is restless is left alone.
pub(super) fn plan(
    state: &ClusterState,
    restless: &BTreeSet<DeploymentName>,
    now: Timestamp,
    cluster: &mut Cluster,
) -> Vec<Step> {
    let Some(source) = source(state, now) else {
        return Vec::new();
    };
    let targets = targets(state, &source, now);
    let coolest = targets.first().map(|target| target.pressure);
    let apart = coolest.is_some_and(|coolest| source.pressure >= coolest + GAP);
    if !apart || is_moving(state, &source, now) {
        return Vec::new();
    }
    let mut best: Option<Candidate<'_>> = None;
    let mut skips = Vec::new();
    for deployment in state.deployments.values() {
        if restless.contains(&deployment.name) {
            continue;
        }
        cluster.enter(deployment);
        let here = deployment.replicas.values();
        for replica in here.filter(|replica| replica.node == source.node.name) {
            let scene = Scene {
                state,
                deployment,
                replica,
                source: &source,
                targets: &targets,
                now,
            };
            match scene.judge(cluster) {
                Ok(candidate) if best.as_ref().is_none_or(|best| candidate.beats(best)) => {
                    best = Some(candidate);
                }
                Ok(_) => {}
                Err(reason) => skips.extend(scene.tell(reason)),
            }
        }
    }
    match best {
        Some(best) => rebalance::steps(best.deployment, best.replica, best.to, Some(best.load)),
        None => skips,
    }
}

/// A node with its average pressure.
struct Seat<'a> {
    node: &'a Arc<Node>,
    pressure: u64,
    dimension: Dimension,
}

impl Seat<'_> {
    fn of(node: &Arc<Node>, now: Timestamp) -> Option<Seat<'_>> {
        let (pressure, dimension) = pressure(node, now)?;
        Some(Seat {
            node,
            pressure,
            dimension,
        })
    }

    fn capacity(&self) -> Resources {
        let engine = self.node.engine();
        engine.map(|engine| engine.capacity).unwrap_or_default()
    }
}

/// The hottest node, when it has been over the trigger for long enough.
fn source(state: &ClusterState, now: Timestamp) -> Option<Seat<'_>> {
    let lasting = |node: &&Arc<Node>| {
        let over = node.usage.is_some_and(|usage| usage.over >= CYCLES);
        over && node.status() == NodeStatus::Ready
    };
    let hot = state.nodes.values().filter(lasting);
    let hot = hot.filter_map(|node| Seat::of(node, now));
    let hot = hot.filter(|seat| seat.pressure > TRIGGER);
    hot.max_by_key(|seat| (seat.pressure, Reverse(&seat.node.name)))
}

/// The other nodes that are ready and were heard of lately, the coolest first.
fn targets<'a>(state: &'a ClusterState, source: &Seat<'_>, now: Timestamp) -> Vec<Seat<'a>> {
    let ready =
        |node: &&Arc<Node>| node.status() == NodeStatus::Ready && node.name != source.node.name;
    let others = state.nodes.values().filter(ready);
    let mut others: Vec<_> = others.filter_map(|node| Seat::of(node, now)).collect();
    others.sort_by_key(|seat| (seat.pressure, &seat.node.name));
    others
}

/// True while a move is under way, or when the last one is less than a cycle ago.
fn is_moving(state: &ClusterState, source: &Seat<'_>, now: Timestamp) -> bool {
    let cycle = source.node.usage.map(|usage| usage.interval);
    let last = state
        .nodes
        .values()
        .filter_map(|node| node.received_at)
        .max();
    let recent = last.is_some_and(|last| now < last + cycle.unwrap_or_default());
    recent || state.replicas().any(|replica| replica.move_to.is_some())
}

/// One replica on the source, and everything that its move depends on.
struct Scene<'a> {
    state: &'a ClusterState,
    deployment: &'a Arc<Deployment>,
    replica: &'a Arc<Replica>,
    source: &'a Seat<'a>,
    targets: &'a [Seat<'a>],
    now: Timestamp,
}

/// A move that passes every gate.
struct Candidate<'a> {
    deployment: &'a Arc<Deployment>,
    replica: &'a Arc<Replica>,
    to: &'a NodeName,
    load: Load,
}

impl Candidate<'_> {
    fn score(&self) -> u64 {
        self.load.relief - COST
    }

    fn beats(&self, other: &Self) -> bool {
        (self.score(), Reverse(&self.replica.id)) > (other.score(), Reverse(&other.replica.id))
    }
}

impl<'a> Scene<'a> {
    fn judge(&self, cluster: &mut Cluster) -> Result<Candidate<'a>, Skip> {
        let services = &self.deployment.spec().services;
        let service = services.get(&self.replica.service).ok_or(Skip::Bound)?;
        if service.is_stateful() {
            return Err(Skip::Stateful);
        }
        if !is_movable(service) || is_followed(self.deployment.spec(), &self.replica.service) {
            return Err(Skip::Bound);
        }
        if self.now < self.replica.placed_at + REPLICA_REST {
            return Err(Skip::PlacedRecently);
        }
        let footprint = footprint(self.replica, service).ok_or(Skip::NotMeasured)?;
        let relief = of_dimension(footprint, self.source.capacity(), self.source.dimension);
        if relief < LEAST_RELIEF {
            return Err(Skip::LittleRelief);
        }
        self.target(service, footprint, relief, cluster)
    }

    /// The coolest node that may take the replica.
    fn target(
        &self,
        service: &'a ServiceSpec,
        footprint: Resources,
        relief: u64,
        cluster: &mut Cluster,
    ) -> Result<Candidate<'a>, Skip> {
        let name = &self.replica.service;
        let demand = Demand {
            state: self.state,
            deployment: self.deployment,
            name,
            service,
            count: 1,
            avoid: None,
        };
        let addressable = |network| {
            let deployment = &self.deployment.name;
            self.state.free_addresses(deployment, network, self.now) > 0
        };
        if !service.networks.keys().all(addressable) {
            return Err(Skip::NoTarget);
        }
        let verdicts = verdicts(&demand, cluster);
        let takes = |node: &NodeName| {
            let verdict = verdicts.iter().find(|(name, _)| name == node);
            verdict.is_some_and(|(_, why)| why.is_none())
        };
        let fit = |seat: &&Seat<'_>| takes(&seat.node.name) && self.may_last(service, seat.node);
        let mut reason = Skip::NoTarget;
        for seat in self.targets.iter().filter(fit) {
            let after = seat.node.usage.map(|usage| Resources {
                cpu_millis: usage
                    .average
                    .cpu_millis
                    .saturating_add(footprint.cpu_millis),
                memory_bytes: usage
                    .average
                    .memory_bytes
                    .saturating_add(footprint.memory_bytes),
            });
            let (target_after, _) = share(after.unwrap_or_default(), seat.capacity());
            let received = seat.node.received_at;
            if received.is_some_and(|at| self.now < at + TARGET_REST) {
                reason = Skip::TargetsBusy;
            } else if target_after >= CEILING {
                reason = Skip::TargetsFull;
            } else {
                return Ok(Candidate {
                    deployment: self.deployment,
                    replica: self.replica,
                    to: &seat.node.name,
                    load: Load {
                        source: self.source.pressure,
                        target: seat.pressure,
                        relief,
                        target_after,
                        footprint,
                    },
                });
            }
        }
        Err(reason)
    }

    /// False when the replica would be brought back: it fled from there, or its service would then
    /// lie uneven and be evened out.
    fn may_last(&self, service: &ServiceSpec, to: &Node) -> bool {
        let replicas = || self.deployment.replicas_of(&self.replica.service);
        let held = |node: &NodeName| replicas().filter(|replica| replica.node == *node).count();
        let fled = replicas().any(|replica| replica.fled_from.as_ref() == Some(&to.name));
        let even = service.placement != Placement::Spread
            || service.replicas < 2
            || held(&to.name) < held(&self.source.node.name);
        !fled && even
    }

    /// Tells a reason, unless it was told a while ago.
    fn tell(&self, reason: Skip) -> Option<Step> {
        let told = self.replica.skips.get(&reason);
        let is_news = told.is_none_or(|told| self.now >= *told + TOLD_FOR);
        is_news.then(|| Step::Skip {
            deployment: self.deployment.name.clone(),
            replica: self.replica.id.clone(),
            reason,
        })
    }
}

/// What a replica takes from its node: what it may use at most, if that is declared, else what it
/// was seen to use.
fn footprint(replica: &Replica, service: &ServiceSpec) -> Option<Resources> {
    let limits = &service.container.limits;
    let used = replica.usage;
    Some(Resources {
        cpu_millis: limits.cpu_millis.or(used.map(|used| used.cpu_millis))?,
        memory_bytes: limits.memory_bytes.or(used.map(|used| used.memory_bytes))?,
    })
}

fn of_dimension(used: Resources, capacity: Resources, dimension: Dimension) -> u64 {
    let only = match dimension {
        Dimension::Cpu => Resources {
            memory_bytes: 0,
            ..used
        },
        Dimension::Memory => Resources {
            cpu_millis: 0,
            ..used
        },
    };
    share(only, capacity).0
}
