//! `jaco status`: deployments, replicas, routes, certificates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cert::{self, CertRow};
use super::replica::{self, ReplicaRow};
use super::route::{self, RouteRow};
use crate::cluster::deployment::{Deployment, Phase, ReplicaState};
use crate::cluster::rollout::{Rollout, RolloutStatus};
use crate::cluster::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, ServiceName};
use crate::manifest::spec::{Placement, ServiceKind};
use crate::scheduler::explain;

/// The answer to `jaco status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Status {
    pub deployments: Vec<DeploymentRow>,
    pub replicas: Vec<ReplicaRow>,
    pub routes: Vec<RouteRow>,
    pub certs: Vec<CertRow>,
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DeploymentRow {
    pub name: DeploymentName,
    pub applied_revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_revision: Option<u64>,
    pub status: DeploymentStatus,
    /// Per service that is not as wanted: why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub status_details: BTreeMap<String, String>,
    /// The latest rollout of each service that had one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rollouts: BTreeMap<ServiceName, RolloutStatus>,
}

impl DeploymentRow {
    /// True when a rollout waits for the next apply.
    fn is_paused(&self) -> bool {
        let mut rollouts = self.rollouts.values();
        rollouts.any(|status| *status == RolloutStatus::Paused)
    }
}

/// A deployment's state (spec 03, States).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum DeploymentStatus {
    Pending,
    Progressing,
    Active,
    RollingBack,
    Deleting,
}

/// How far one service of a deployment is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ServiceProgress {
    pub service: ServiceName,
    pub wanted: usize,
    /// Running, or completed for a job, with the present spec.
    pub ready: usize,
    /// Of the present spec, in any state.
    pub current: usize,
    /// Old or surplus replicas that are still there.
    pub leaving: usize,
    /// Failed for good.
    pub failed: usize,
}

impl ServiceProgress {
    /// True when the service is exactly as wanted.
    pub fn is_steady(&self) -> bool {
        self.ready == self.wanted && self.leaving == 0 && self.current == self.wanted
    }
}

/// The whole status, or that of one deployment, or of one of its services.
///
/// # Errors
/// `deployment_not_found`, `service_not_found`.
pub fn status(
    state: &ClusterState,
    deployment: Option<&DeploymentName>,
    service: Option<&ServiceName>,
) -> Result<Status, Error> {
    let mut status = Status::default();
    let one;
    let chosen: Vec<&Deployment> = match deployment {
        Some(name) => {
            one = state.deployment(name)?;
            vec![one]
        }
        None => state.deployments.values().map(AsRef::as_ref).collect(),
    };
    if let (Some(service), Some(deployment)) = (service, chosen.first())
        && !deployment.spec().services.contains_key(service)
    {
        return Err(crate::cluster::apply::service_not_found(
            deployment.spec(),
            service,
        ));
    }
    let shown = |name: &ServiceName| service.is_none_or(|wanted| wanted == name);
    for deployment in chosen {
        status.deployments.push(row(state, deployment));
        let replicas = deployment.replicas.values().filter(|r| shown(&r.service));
        status
            .replicas
            .extend(replicas.map(|r| replica::row(state, deployment, r)));
        let routes = route::rows(deployment)
            .into_iter()
            .filter(|r| shown(&r.service));
        status.routes.extend(routes);
        if service.is_none() {
            status.certs.extend(cert::rows(state, &deployment.name));
        }
    }
    status.replicas.sort_by(|a, b| {
        (&a.deployment, &a.service, a.id.as_str().len(), &a.id).cmp(&(
            &b.deployment,
            &b.service,
            b.id.as_str().len(),
            &b.id,
        ))
    });
    Ok(status)
}

fn row(state: &ClusterState, deployment: &Deployment) -> DeploymentRow {
    let (status, status_details) = condition(state, deployment);
    let rollouts = deployment.rollouts.iter();
    DeploymentRow {
        name: deployment.name.clone(),
        applied_revision: deployment.current,
        previous_revision: deployment.previous(),
        status,
        status_details,
        rollouts: rollouts
            .map(|(name, rollout)| (name.clone(), rollout.status))
            .collect(),
    }
}

fn condition(
    state: &ClusterState,
    deployment: &Deployment,
) -> (DeploymentStatus, BTreeMap<String, String>) {
    if deployment.deleting {
        return (DeploymentStatus::Deleting, BTreeMap::new());
    }
    let mut details = rollout_details(deployment);
    let moving = |rollout: &&Rollout| rollout.is_moving();
    let mut rollouts = deployment.rollouts.values().filter(moving).peekable();
    let mut steady = rollouts.peek().is_none();
    let rolls_back = rollouts.any(|rollout| rollout.is_rollback);
    let mut pending = false;
    for progress in progress(state, deployment) {
        if progress.is_steady() {
            continue;
        }
        steady = false;
        let spec = &deployment.spec().services[&progress.service];
        if let Some(cause) = explain::pending(state, deployment, &progress.service, spec) {
            pending = true;
            details.insert(progress.service.to_string(), cause.message);
        } else if progress.failed > 0 {
            let words = format!("{} of {} replicas failed", progress.failed, progress.wanted);
            details.insert(progress.service.to_string(), words);
        }
    }
    let status = match (steady, pending) {
        _ if rolls_back => DeploymentStatus::RollingBack,
        (true, _) => DeploymentStatus::Active,
        (false, true) => DeploymentStatus::Pending,
        (false, false) => DeploymentStatus::Progressing,
    };
    (status, details)
}

/// Which rollouts stopped or were taken back, and why.
fn rollout_details(deployment: &Deployment) -> BTreeMap<String, String> {
    let words = |(service, rollout): (&ServiceName, &Rollout)| {
        let cause = &rollout.cause.as_ref()?.message;
        let words = match rollout.status {
            RolloutStatus::Paused => format!("rollout paused: {cause}"),
            _ => format!("rolled back: {cause}"),
        };
        Some((service.to_string(), words))
    };
    deployment.rollouts.iter().filter_map(words).collect()
}

/// How far each service is, in name order.
pub fn progress(state: &ClusterState, deployment: &Deployment) -> Vec<ServiceProgress> {
    let spec = deployment.spec();
    let count = |name: &ServiceName| {
        let service = &spec.services[name];
        let mut progress = ServiceProgress {
            service: name.clone(),
            wanted: match service.placement {
                Placement::Global => state
                    .nodes
                    .keys()
                    .filter(|node| {
                        explain::placement(state, deployment, name, service)
                            .iter()
                            .any(|(other, why)| {
                                other == *node
                                    && matches!(
                                        why,
                                        None | Some(
                                            crate::scheduler::placement::Rejection::HostTaken
                                        )
                                    )
                            })
                    })
                    .count(),
                _ => service.replicas as usize,
            },
            ready: 0,
            current: 0,
            leaving: 0,
            failed: 0,
        };
        for replica in deployment.replicas_of(name) {
            if replica.phase != Phase::Active || replica.spec_hash != service.spec_hash {
                progress.leaving += 1;
                continue;
            }
            progress.current += 1;
            match (replica.state(), service.kind) {
                (ReplicaState::Running, _) | (ReplicaState::Completed, ServiceKind::Job) => {
                    progress.ready += 1;
                }
                (ReplicaState::Failed, _) => progress.failed += 1,
                _ => {}
            }
        }
        progress
    };
    spec.services.keys().map(count).collect()
}

/// What somebody who waits for a deployment makes of its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is as wanted.
    Steady,
    /// Not yet.
    Moving,
    /// It will not become as wanted without a change; the first reason.
    Stuck(String),
}

/// How many pull attempts are waited for before the image counts as missing.
const PULL_PATIENCE: u32 = 3;

/// Whether waiting for this deployment makes sense.
pub fn verdict(status: &Status) -> Verdict {
    let present = status.replicas.iter().filter(|row| !row.outgoing);
    let stuck = present.into_iter().find_map(|row| {
        let message = row.message.as_deref().unwrap_or_default();
        let attempt = || {
            row.details
                .get("attempt")
                .and_then(|text| text.parse::<u32>().ok())
        };
        let given_up = match row.code? {
            ErrorCode::RestartExhausted => true,
            ErrorCode::ImagePullFailed => attempt() >= Some(PULL_PATIENCE),
            _ => false,
        };
        given_up.then(|| format!("{}: {message}", row.id))
    });
    if let Some(reason) = stuck {
        return Verdict::Stuck(reason);
    }
    match status.deployments.first() {
        Some(row) if row.status == DeploymentStatus::Active => Verdict::Steady,
        Some(row) if row.status == DeploymentStatus::Pending => {
            let first = row.status_details.iter().next();
            Verdict::Stuck(first.map_or_else(String::new, |(s, why)| format!("{s}: {why}")))
        }
        Some(row) if row.status == DeploymentStatus::RollingBack || row.is_paused() => {
            let first = row.status_details.iter().next();
            Verdict::Stuck(first.map_or_else(String::new, |(s, why)| format!("{s}: {why}")))
        }
        Some(_) => Verdict::Moving,
        None => Verdict::Stuck("the deployment is gone".to_owned()),
    }
}
