//! Deployments: the list, one in full, and its history.

use serde::{Deserialize, Serialize};

use super::status::{DeploymentRow, ServiceProgress, progress, status};
use crate::cluster::deployment::Revision;
use crate::cluster::state::ClusterState;
use crate::error::Error;
use crate::id::{DeploymentName, Identity};
use crate::time::Timestamp;

/// `jaco get deployment`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DeploymentDetail {
    #[serde(flatten)]
    pub row: DeploymentRow,
    pub services: Vec<ServiceProgress>,
    /// As it was applied.
    pub jaco: String,
    /// The resolved compose document; values are redacted unless they were asked for.
    pub compose: serde_json::Value,
}

/// `jaco history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct History {
    pub deployment: DeploymentName,
    /// Newest first.
    pub revisions: Vec<RevisionRow>,
}

/// One revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RevisionRow {
    pub revision: u64,
    pub current: bool,
    pub at: Timestamp,
    pub identity: Identity,
    pub cause: String,
}

/// One deployment in full.
///
/// # Errors
/// `deployment_not_found`.
pub fn detail(
    state: &ClusterState,
    name: &DeploymentName,
    show_secrets: bool,
) -> Result<DeploymentDetail, Error> {
    let deployment = state.deployment(name)?;
    let row = status(state, Some(name), None)?.deployments.remove(0);
    let bundle = &deployment.revision().bundle;
    let compose = if show_secrets {
        serde_json::from_str(&bundle.compose).map_err(Error::internal)?
    } else {
        crate::manifest::redacted(bundle)
    };
    Ok(DeploymentDetail {
        row,
        services: progress(state, deployment),
        jaco: bundle.jaco.clone(),
        compose,
    })
}

/// The kept revisions of a deployment.
///
/// # Errors
/// `deployment_not_found`.
pub fn history(state: &ClusterState, name: &DeploymentName) -> Result<History, Error> {
    let deployment = state.deployment(name)?;
    let row = |revision: &std::sync::Arc<Revision>| RevisionRow {
        revision: revision.number,
        current: revision.number == deployment.current,
        at: revision.at,
        identity: revision.identity.clone(),
        cause: revision.cause.clone(),
    };
    let revisions = deployment.revisions.values().rev().map(row).collect();
    Ok(History {
        deployment: name.clone(),
        revisions,
    })
}
