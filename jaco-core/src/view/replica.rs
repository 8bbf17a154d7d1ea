//! Replicas: one line of `status`, and everything about one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::cluster::deployment::{Deployment, Phase, Replica, ReplicaState};
use crate::cluster::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, NodeName, ReplicaId, ServiceName, SpecHash};
use crate::node::gates;
use crate::scheduler::{explain, restart};
use crate::time::Timestamp;

/// One line of `jaco status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ReplicaRow {
    pub id: ReplicaId,
    pub deployment: DeploymentName,
    pub service: ServiceName,
    pub state: ReplicaState,
    pub host: NodeName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_health_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
    /// True when it is of an older spec or on its way out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outgoing: bool,
}

/// How many replicas of each service (`deployment/service`) are in which state.
pub fn counts(state: &ClusterState) -> BTreeMap<(String, ReplicaState), u64> {
    let mut counts = BTreeMap::new();
    for replica in state.deployments.values().flat_map(|d| d.replicas.values()) {
        let service = format!("{}/{}", replica.deployment, replica.service);
        *counts.entry((service, replica.state())).or_default() += 1;
    }
    counts
}

/// `jaco get replica`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ReplicaDetail {
    #[serde(flatten)]
    pub row: ReplicaRow,
    pub image: String,
    pub revision: u64,
    pub spec_hash: SpecHash,
    pub restart_count: u32,
    pub placed_at: Timestamp,
    /// The node that alone failed the replica before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fled_from: Option<NodeName>,
    pub depends_on: Vec<GateRow>,
    pub placement: Vec<PlacementRow>,
}

/// One gate of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct GateRow {
    pub service: ServiceName,
    pub condition: String,
    pub state: String,
    pub satisfied: bool,
}

/// One node's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PlacementRow {
    pub node: NodeName,
    pub chosen: bool,
    pub reason: String,
}

/// One line of `jaco status`.
pub fn row(state: &ClusterState, deployment: &Deployment, replica: &Replica) -> ReplicaRow {
    let fresh = replica.observed.generation == replica.generation;
    let seen = fresh.then_some(&replica.observed);
    let cause = seen.and_then(|seen| seen.cause.as_ref());
    let mut row = ReplicaRow {
        id: replica.id.clone(),
        deployment: replica.deployment.clone(),
        service: replica.service.clone(),
        state: replica.state(),
        host: replica.node.clone(),
        address: replica.address(),
        container_id: seen.and_then(|seen| seen.container_id.clone()),
        started_at: seen.and_then(|seen| seen.started_at),
        last_health_at: seen.and_then(|seen| seen.since),
        code: cause.and_then(|cause| cause.code),
        message: cause.map(|cause| cause.message.clone()),
        details: cause.map(|cause| cause.details.clone()).unwrap_or_default(),
        outgoing: replica.phase != Phase::Active || replica.revision != deployment.current,
    };
    let exhausted = |service| restart::is_exhausted(replica, service);
    let given_up =
        row.state == ReplicaState::Failed && deployment.service_of(replica).is_some_and(exhausted);
    let given_up = given_up && replica.phase == Phase::Active;
    if given_up && !explain::goes_elsewhere(state, deployment, replica) {
        let last = row.message.take().unwrap_or_else(|| "it failed".to_owned());
        row.code = Some(ErrorCode::RestartExhausted);
        row.message = Some(format!(
            "given up after {} restarts: {last}",
            replica.restarts.consecutive
        ));
    }
    row
}

/// Everything about one replica.
///
/// # Errors
/// `replica_not_found`.
pub fn detail(state: &ClusterState, id: &ReplicaId) -> Result<ReplicaDetail, Error> {
    let replica = state.replica(id)?;
    let deployment: &Deployment = state.deployment(&replica.deployment)?;
    let service = deployment.service_of(replica);
    let gates = gates::gates(deployment, replica)
        .into_iter()
        .map(|gate| GateRow {
            service: gate.service,
            condition: serde_json::to_value(gate.condition)
                .ok()
                .and_then(|text| text.as_str().map(str::to_owned))
                .unwrap_or_default(),
            state: gate.state,
            satisfied: gate.satisfied,
        });
    let verdicts = service
        .map(|service| explain::placement(state, deployment, &replica.service, service))
        .unwrap_or_default();
    let placement = verdicts.into_iter().map(|(node, why)| {
        let chosen = node == replica.node;
        let reason = match (chosen, why) {
            (true, _) => "runs here".to_owned(),
            (false, Some(why)) => why.to_string(),
            (false, None) => "eligible; another node came first".to_owned(),
        };
        PlacementRow {
            node,
            chosen,
            reason,
        }
    });
    Ok(ReplicaDetail {
        row: row(state, deployment, replica),
        image: service
            .map(|service| service.container.image.clone())
            .unwrap_or_default(),
        revision: replica.revision,
        spec_hash: replica.spec_hash.clone(),
        restart_count: replica.restarts.total,
        placed_at: replica.placed_at,
        fled_from: replica.fled_from.clone(),
        depends_on: gates.collect(),
        placement: placement.collect(),
    })
}
