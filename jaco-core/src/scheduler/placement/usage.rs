//! What every node holds already, indexed for placing many replicas in one plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use indexmap::IndexMap;

use crate::cluster::deployment::{Deployment, Phase, Replica};
use crate::cluster::node::Node;
use crate::cluster::state::ClusterState;
use crate::id::{NodeName, ServiceName};
use crate::manifest::spec::{Resources, ServiceSpec};

use super::filter;

/// The nodes in name order with their present load. Kept up to date while a plan is made, and
/// from one plan to the next.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(super) nodes: Vec<Slot>,
    /// Looked up once a replica, never walked.
    index: Arc<IndexMap<NodeName, usize>>,
    /// The nodes in the order of the ring.
    pub(super) by_ring: Arc<[usize]>,
    /// Replicas of the deployment in hand, per node and service.
    per_service: BTreeMap<ServiceName, Vec<u32>>,
    /// Where this plan has placed replicas of the deployment in hand.
    booked: Vec<(ServiceName, usize)>,
}

/// One node as placement sees it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) node: Arc<Node>,
    pub(super) reserved: Resources,
    /// Replicas of the deployment in hand.
    pub(super) deployment_count: u32,
    /// Where the node stands on the ring that breaks ties.
    pub(super) ring: u64,
}

impl Cluster {
    /// Counts what the state holds.
    pub fn of(state: &ClusterState) -> Self {
        let slot = |node: &Arc<Node>| Slot {
            node: Arc::clone(node),
            reserved: Resources::default(),
            deployment_count: 0,
            ring: super::score::ring_position(&[node.name.as_str()]),
        };
        let nodes: Vec<Slot> = state.nodes.values().map(slot).collect();
        let names = state.nodes.keys().cloned().enumerate();
        let index: IndexMap<_, _> = names.map(|(i, name)| (name, i)).collect();
        let mut by_ring: Vec<usize> = (0..nodes.len()).collect();
        by_ring.sort_by_key(|i| nodes[*i].ring);
        let mut cluster = Self {
            nodes,
            index: Arc::new(index),
            by_ring: by_ring.into(),
            per_service: BTreeMap::new(),
            booked: Vec::new(),
        };
        for replica in state.replicas() {
            cluster.add(replica);
        }
        cluster
    }

    /// Counts a deployment as it is now instead of as it was.
    pub(in crate::scheduler) fn shift(
        &mut self,
        before: Option<&Deployment>,
        after: Option<&Deployment>,
    ) {
        let none = OrdMap::new();
        let replicas = |of: Option<&Deployment>| of.map_or(&none, |it| &it.replicas).clone();
        for item in replicas(before).diff(&replicas(after)) {
            match item {
                DiffItem::Add(_, new) => self.add(new),
                DiffItem::Remove(_, old) => self.take(old),
                DiffItem::Update { old, new } => {
                    self.take(old.1);
                    self.add(new.1);
                }
            }
        }
    }

    /// Sees a member as it is now.
    pub(in crate::scheduler) fn renew(&mut self, node: &Arc<Node>) {
        if let Some(i) = self.position(&node.name) {
            self.nodes[i].node = Arc::clone(node);
        }
    }

    /// What has stopped takes nothing, so that the plan can use its room.
    fn add(&mut self, replica: &Replica) {
        if let Some(i) = self
            .position(&replica.node)
            .filter(|_| !replica.is_stopped())
        {
            add(&mut self.nodes[i].reserved, replica.reserved);
        }
    }

    fn take(&mut self, replica: &Replica) {
        if let Some(i) = self
            .position(&replica.node)
            .filter(|_| !replica.is_stopped())
        {
            let reserved = &mut self.nodes[i].reserved;
            reserved.cpu_millis -= replica.reserved.cpu_millis;
            reserved.memory_bytes -= replica.reserved.memory_bytes;
        }
    }

    /// Turns to a deployment: its replicas are counted per node and service.
    pub fn enter(&mut self, deployment: &Deployment) {
        self.per_service.clear();
        self.booked.clear();
        for slot in &mut self.nodes {
            slot.deployment_count = 0;
        }
        for replica in deployment.replicas.values().filter(|r| !r.is_stopped()) {
            if let Some(i) = self.index.get(&replica.node).copied() {
                self.count(&replica.service, i);
            }
        }
    }

    /// The nodes that pass every filter but capacity, for `global` counts.
    pub fn eligible(&self, state: &ClusterState, service: &ServiceSpec) -> Vec<usize> {
        let passes = |i: &usize| filter::standing(state, &self.nodes[*i].node, service).is_none();
        (0..self.nodes.len()).filter(passes).collect()
    }

    /// The nodes where a service has an active replica, those of this plan included.
    pub(super) fn hosts_of(
        &self,
        deployment: &Deployment,
        service: &ServiceName,
    ) -> BTreeSet<usize> {
        let active = deployment
            .replicas_of(service)
            .filter(|replica| replica.phase == Phase::Active)
            .filter_map(|replica| self.position(&replica.node));
        let booked = self.booked.iter().filter(|(name, _)| name == service);
        active.chain(booked.map(|(_, i)| *i)).collect()
    }

    /// How many replicas of a service each node holds.
    pub(super) fn counts(&mut self, service: &ServiceName) -> &[u32] {
        let nodes = self.nodes.len();
        self.per_service
            .entry(service.clone())
            .or_insert_with(|| vec![0; nodes])
    }

    /// Books one more replica on a node.
    pub(super) fn book(&mut self, service: &ServiceName, i: usize, demand: Resources) {
        add(&mut self.nodes[i].reserved, demand);
        self.count(service, i);
        self.booked.push((service.clone(), i));
    }

    fn count(&mut self, service: &ServiceName, i: usize) {
        self.nodes[i].deployment_count += 1;
        let nodes = self.nodes.len();
        match self.per_service.get_mut(service) {
            Some(counts) => counts[i] += 1,
            None => {
                let mut counts = vec![0; nodes];
                counts[i] = 1;
                self.per_service.insert(service.clone(), counts);
            }
        }
    }

    pub(super) fn position(&self, node: &NodeName) -> Option<usize> {
        self.index.get(node).copied()
    }
}

fn add(to: &mut Resources, more: Resources) {
    to.cpu_millis += more.cpu_millis;
    to.memory_bytes += more.memory_bytes;
}
