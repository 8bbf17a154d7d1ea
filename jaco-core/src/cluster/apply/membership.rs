//! Forming the cluster, and who is in it (spec 04).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::access::{Rights, Role};
use crate::cluster::addresses::Pool;
use crate::cluster::audit::{EventType, record};
use crate::cluster::command::{Applied, ClusterInit, NewNode, Outcome};
use crate::cluster::deployment::Replica;
use crate::cluster::mesh_pool::{self, MeshPool};
use crate::cluster::node::{Drain, Isolation, Node, NodeCondition, NodeReport};
use crate::cluster::state::{Cluster, ClusterState};
use crate::cluster::token::{BOOTSTRAP, OperatorToken};
use crate::error::{Error, ErrorCode};
use crate::id::{Identity, NodeName};
use crate::manifest::spec::{Placement, ServiceSpec};

use super::{schedule, tokens};

pub(super) fn init(state: &mut ClusterState, identity: &Identity, init: &ClusterInit) -> Applied {
    if state.cluster.is_some() {
        let message = "this node is part of a cluster already";
        return Err(Error::new(ErrorCode::ClusterAlreadyInitialized, message));
    }
    state.cluster = Some(Cluster {
        id: init.id.clone(),
        name: init.name.clone(),
        ca_cert: init.ca_cert.clone(),
        ca_key_sealed: init.ca_key_sealed.clone(),
        ipam_pool: init.ipam_pool,
        mesh_pool: init.mesh_pool,
        created_at: state.clock,
    });
    state.tokens.insert(
        init.token_hash.clone(),
        OperatorToken {
            identity: Identity::new(BOOTSTRAP),
            rights: Rights::of(Role::Admin),
            issued_at: state.clock,
            revoked_at: None,
            expires_at: None,
        },
    );
    let member = admit(state, &init.node, init.mesh_pool)?;
    record(
        state,
        identity,
        EventType::ClusterInit,
        &[("id", &init.id), ("name", &init.name)],
    );
    Ok(Outcome::Admitted { member })
}

pub(super) fn lead(
    state: &mut ClusterState,
    node: &NodeName,
    term: u64,
    ipam_pool: Pool,
    mesh_pool: MeshPool,
) -> Applied {
    if let Some(cluster) = &mut state.cluster {
        cluster.ipam_pool = ipam_pool;
        cluster.mesh_pool = mesh_pool;
    }
    // One that does not know what became of its word says it again.
    if state.led_term != term {
        state.led_term = term;
        let payload: &[(&str, &dyn std::fmt::Display)] = &[("node", node), ("term", &term)];
        let system = Identity::new("system");
        record(state, &system, EventType::LeaderElected, payload);
    }
    Ok(Outcome::Done)
}

pub(super) fn join(
    state: &mut ClusterState,
    identity: &Identity,
    token_hash: &str,
    node: &NewNode,
) -> Applied {
    if state.nodes.contains_key(&node.name) {
        let message = format!("a node named \"{}\" is a member already", node.name);
        return Err(Error::new(ErrorCode::NodeAlreadyMember, message).with("node", &node.name));
    }
    tokens::use_join(state, token_hash, &node.name)?;
    let cluster = state.cluster.as_ref();
    let pool = cluster
        .ok_or_else(|| Error::internal("a node joins no cluster"))?
        .mesh_pool;
    let member = admit(state, node, pool)?;
    let payload: &[(&str, &dyn std::fmt::Display)] =
        &[("node", &node.name), ("address", &node.api_address)];
    record(state, identity, EventType::NodeJoin, payload);
    Ok(Outcome::Admitted { member })
}

fn admit(state: &mut ClusterState, node: &NewNode, pool: MeshPool) -> Result<u64, Error> {
    let member = state.next_member;
    let mesh_address = mesh_pool::allocate(state, pool, member)?;
    state.next_member += 1;
    let node = Node {
        name: node.name.clone(),
        member,
        api_address: node.api_address.clone(),
        cluster_address: node.cluster_address.clone(),
        mesh_address,
        serial: node.serial.clone(),
        key_hash: node.key_hash.clone(),
        report: None,
        labels: BTreeMap::new(),
        condition: NodeCondition::Reachable,
        drain: None,
        usage: None,
        received_at: None,
        returned: None,
        published: 0,
        joined_at: state.clock,
    };
    state.nodes.insert(node.name.clone(), Arc::new(node));
    Ok(member)
}

pub(super) fn update(
    state: &mut ClusterState,
    name: &NodeName,
    change: impl FnOnce(&mut Node),
) -> Applied {
    let mut node = Arc::clone(state.node(name)?);
    change(Arc::make_mut(&mut node));
    state.nodes.insert(name.clone(), node);
    Ok(Outcome::Done)
}

/// Calls a node something, or does not any more. What its configuration says cannot be removed
/// here, only called otherwise.
pub(super) fn label(
    state: &mut ClusterState,
    identity: &Identity,
    name: &NodeName,
    set: &BTreeMap<String, String>,
    remove: &BTreeSet<String>,
) -> Applied {
    let node = Arc::clone(state.node(name)?);
    let invalid = |message: String| {
        Err(Error::new(ErrorCode::ValidationFailed, message).with("field", "labels"))
    };
    for (key, value) in set {
        if !is_label(key) || !(value.is_empty() || is_label(value)) {
            return invalid(format!(
                "\"{key}={value}\" is not a label like zone=north-1"
            ));
        }
    }
    if let Some(both) = remove.iter().find(|key| set.contains_key(*key)) {
        return invalid(format!("label \"{both}\" is both set and removed"));
    }
    let configured = node.configured_labels();
    let fixed = |key: &&String| {
        let is_configured = configured.is_some_and(|labels| labels.contains_key(*key));
        is_configured && !node.labels.contains_key(*key)
    };
    if let Some(fixed) = remove.iter().find(fixed) {
        return invalid(format!(
            "label \"{fixed}\" is of node_labels in the configuration of \"{name}\""
        ));
    }
    let mut labels = node.labels.clone();
    labels.retain(|key, _| !remove.contains(key));
    labels.extend(set.clone());
    if labels == node.labels {
        return Ok(Outcome::Done);
    }
    update(state, name, |node| node.labels = labels)?;
    let words = set.iter().map(|(key, value)| format!("{key}={value}"));
    let words: Vec<String> = words
        .chain(remove.iter().map(|key| format!("{key}-")))
        .collect();
    let payload: &[(&str, &dyn std::fmt::Display)] =
        &[("node", name), ("labels", &words.join(" "))];
    record(state, identity, EventType::NodeLabel, payload);
    Ok(Outcome::Done)
}

/// Letters, digits and `._/-`, as constraints can name them.
fn is_label(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    !text.is_empty() && text.len() <= 128 && text.chars().all(allowed)
}

/// Begins to empty a node, or lets it take replicas again.
pub(super) fn drain(state: &mut ClusterState, name: &NodeName, wanted: bool) -> Applied {
    let progressed_at = state.clock;
    update(state, name, |node| {
        node.drain = wanted.then_some(Drain {
            progressed_at,
            timed_out: false,
        });
    })
}

/// Notes that a replica left a node that is being emptied.
pub(super) fn drained(state: &mut ClusterState, name: &NodeName) {
    let now = state.clock;
    let Some(node) = state
        .nodes
        .get_mut(name)
        .filter(|node| node.drain.is_some())
    else {
        return;
    };
    if let Some(drain) = &mut Arc::make_mut(node).drain {
        drain.progressed_at = now;
    }
}

/// Notes whether a node is heard of. What it ran before may still be there when it is again.
pub(super) fn condition(
    state: &mut ClusterState,
    name: &NodeName,
    condition: NodeCondition,
) -> Applied {
    let index = state.index;
    update(state, name, |node| {
        if node.condition == NodeCondition::Unreachable && condition == NodeCondition::Reachable {
            node.returned = Some(index);
        }
        node.condition = condition;
    })
}

/// Takes in what a node says of itself. That it cannot keep containers apart is an event.
pub(super) fn report(state: &mut ClusterState, name: &NodeName, report: &NodeReport) -> Applied {
    let before = state.node(name)?.isolation().clone();
    let index = state.index;
    update(state, name, |node| {
        let had_no_engine = node.report.as_ref().is_some_and(|old| old.engine.is_none());
        if had_no_engine && report.engine.is_some() {
            node.returned = Some(index);
        }
        if node.key_hash.is_empty() {
            node.key_hash.clone_from(&report.key_hash);
        }
        node.report = Some(report.clone());
    })?;
    if let Isolation::Unavailable { code, reason } = &report.isolation
        && !matches!(before, Isolation::Unavailable { .. })
    {
        let (system, kind) = (Identity::new("system"), EventType::IsolationUnavailable);
        let payload: &[(&str, &dyn std::fmt::Display)] =
            &[("node", name), ("code", &code.as_str()), ("reason", reason)];
        record(state, &system, kind, payload);
    }
    Ok(Outcome::Done)
}

pub(super) fn repaired(state: &mut ClusterState, name: &NodeName, diff: &[String]) -> Applied {
    state.node(name)?;
    let (system, kind) = (
        Identity::new("system"),
        EventType::IsolationRulesetReconciled,
    );
    record(
        state,
        &system,
        kind,
        &[("node", name), ("diff", &diff.join("\n"))],
    );
    Ok(Outcome::Done)
}

pub(super) fn remove(
    state: &mut ClusterState,
    identity: &Identity,
    name: &NodeName,
    force: bool,
) -> Applied {
    let node = Arc::clone(state.node(name)?);
    if state.nodes.len() == 1 {
        let message = format!("\"{name}\" is the only node of the cluster");
        return Err(Error::new(ErrorCode::ValidationFailed, message).with("node", name));
    }
    // A job that is done stays so without the node.
    let here: Vec<Arc<Replica>> = state
        .replicas()
        .filter(|replica| replica.node == *name && !outlives(state, replica))
        .cloned()
        .collect();
    let pinned: Vec<&str> = here
        .iter()
        .filter(|replica| is_stateful(state, replica))
        .map(|replica| replica.id.as_str())
        .collect();
    if !pinned.is_empty() && !force {
        let message = format!("node \"{name}\" holds replicas that cannot move");
        return Err(Error::new(ErrorCode::NodeHostsPinnedReplicas, message)
            .with("replicas", pinned.join(", ")));
    }
    for replica in here {
        schedule::forget(state, &replica.deployment, &replica.id);
    }
    state.nodes.remove(name);
    state
        .revoked_serials
        .insert(node.serial.clone(), state.clock);
    if !node.key_hash.is_empty() {
        let gone = (node.key_hash.clone(), state.clock);
        state.removed_keys.insert(gone.0, gone.1);
    }
    record(
        state,
        identity,
        EventType::NodeRemove,
        &[("node", name), ("force", &force)],
    );
    Ok(Outcome::Done)
}

fn is_stateful(state: &ClusterState, replica: &Replica) -> bool {
    service_of(state, replica).is_some_and(ServiceSpec::is_stateful)
}

/// True for a job that is done and does not have to be done on every node.
fn outlives(state: &ClusterState, replica: &Replica) -> bool {
    service_of(state, replica)
        .is_some_and(|service| replica.is_done(service) && service.placement != Placement::Global)
}

fn service_of<'a>(state: &'a ClusterState, replica: &Replica) -> Option<&'a ServiceSpec> {
    let deployment = state.deployments.get(&replica.deployment)?;
    deployment.service_of(replica)
}
