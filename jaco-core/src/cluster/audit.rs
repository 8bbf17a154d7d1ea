//! The audit ring: events appended by the entry that makes the change (spec 03).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::state::ClusterState;
use crate::id::Identity;
use crate::time::Timestamp;

/// What happened. The closed set of spec 03; a type is added here with the feature that emits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum EventType {
    ClusterInit,
    NodeJoin,
    NodeRemove,
    NodeLabel,
    NodeDrain,
    LeaderElected,
    Apply,
    Delete,
    Rollback,
    RolloutCompleted,
    RolloutAborted,
    RolloutInvariantHold,
    RebalanceMoved,
    RebalanceSkipped,
    TokenIssue,
    TokenRevoke,
    JoinTokenIssue,
    LoginFailed,
    SecretsShown,
    CertRenewRequested,
    SubnetAllocated,
    SubnetReleased,
    IsolationRulesetReconciled,
    IsolationUnavailable,
    PrivilegedWorkloadAdmitted,
    CertificateIssued,
    CertificateRenewed,
    CertificateFailed,
}

impl EventType {
    /// Every type that this version emits.
    pub const ALL: &[EventType] = &[
        EventType::ClusterInit,
        EventType::NodeJoin,
        EventType::NodeRemove,
        EventType::NodeLabel,
        EventType::NodeDrain,
        EventType::LeaderElected,
        EventType::Apply,
        EventType::Delete,
        EventType::Rollback,
        EventType::RolloutCompleted,
        EventType::RolloutAborted,
        EventType::RolloutInvariantHold,
        EventType::RebalanceMoved,
        EventType::RebalanceSkipped,
        EventType::TokenIssue,
        EventType::TokenRevoke,
        EventType::JoinTokenIssue,
        EventType::LoginFailed,
        EventType::SecretsShown,
        EventType::CertRenewRequested,
        EventType::SubnetAllocated,
        EventType::SubnetReleased,
        EventType::IsolationRulesetReconciled,
        EventType::IsolationUnavailable,
        EventType::PrivilegedWorkloadAdmitted,
        EventType::CertificateIssued,
        EventType::CertificateRenewed,
        EventType::CertificateFailed,
    ];

    /// The lower snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::ClusterInit => "cluster_init",
            EventType::NodeJoin => "node_join",
            EventType::NodeRemove => "node_remove",
            EventType::NodeLabel => "node_label",
            EventType::NodeDrain => "node_drain",
            EventType::LeaderElected => "leader_elected",
            EventType::Apply => "apply",
            EventType::Delete => "delete",
            EventType::Rollback => "rollback",
            EventType::RolloutCompleted => "rollout_completed",
            EventType::RolloutAborted => "rollout_aborted",
            EventType::RolloutInvariantHold => "rollout_invariant_hold",
            EventType::RebalanceMoved => "rebalance_moved",
            EventType::RebalanceSkipped => "rebalance_skipped",
            EventType::TokenIssue => "token_issue",
            EventType::TokenRevoke => "token_revoke",
            EventType::JoinTokenIssue => "join_token_issue",
            EventType::LoginFailed => "login_failed",
            EventType::SecretsShown => "secrets_shown",
            EventType::CertRenewRequested => "cert_renew_requested",
            EventType::SubnetAllocated => "subnet_allocated",
            EventType::SubnetReleased => "subnet_released",
            EventType::IsolationRulesetReconciled => "isolation_ruleset_reconciled",
            EventType::IsolationUnavailable => "isolation_unavailable",
            EventType::PrivilegedWorkloadAdmitted => "privileged_workload_admitted",
            EventType::CertificateIssued => "certificate_issued",
            EventType::CertificateRenewed => "certificate_renewed",
            EventType::CertificateFailed => "certificate_failed",
        }
    }
}

/// One committed change, for people. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Event {
    pub index: u64,
    pub at: Timestamp,
    #[serde(rename = "type")]
    pub kind: EventType,
    pub identity: Identity,
    pub payload: BTreeMap<String, String>,
}

/// Appends an event for the entry that is being applied, and lets the oldest go.
pub(super) fn record(
    state: &mut ClusterState,
    identity: &Identity,
    kind: EventType,
    payload: &[(&str, &dyn std::fmt::Display)],
) {
    let payload = payload
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.to_string()));
    state.audit.push_back(Event {
        index: state.index,
        at: state.clock,
        kind,
        identity: identity.clone(),
        payload: payload.collect(),
    });
    while state.audit.len() > state.audit_retention {
        state.audit.pop_front();
    }
}
