//! Certificates: one line of `status`, and `jaco cert list`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::certs::{is_routed, warning};
use crate::cluster::certs::{CertFailure, CertState, Certificate, Environment};
use crate::cluster::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, Domain};
use crate::time::Timestamp;

/// One domain's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CertRow {
    pub domain: Domain,
    pub deployment: DeploymentName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    pub state: CertState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_renewal_at: Option<Timestamp>,
    /// That it will expire, when its renewal is overdue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The last reason in words; `details` has it in parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// `jaco cert list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CertList {
    pub certs: Vec<CertRow>,
}

/// The certificates that routes want, in the order of their domains.
pub fn list(state: &ClusterState) -> CertList {
    let deployments = state.deployments.values().filter(|d| !d.deleting);
    let routes = deployments.flat_map(|d| d.spec().routes.iter().map(|r| (&d.name, r)));
    let routed: BTreeSet<_> = routes
        .filter(|(_, route)| route.tls)
        .map(|(deployment, route)| (deployment, &route.domain))
        .collect();
    let wanted = state
        .certs
        .values()
        .filter(|c| routed.contains(&(&c.deployment, &c.domain)));
    CertList {
        certs: wanted.map(|c| row(c, state.clock)).collect(),
    }
}

/// Those of one deployment.
pub(super) fn rows(state: &ClusterState, deployment: &DeploymentName) -> Vec<CertRow> {
    let mut rows = list(state).certs;
    rows.retain(|row| row.deployment == *deployment);
    rows
}

/// One domain's.
///
/// # Errors
/// `route_not_found`.
pub fn one(state: &ClusterState, domain: &Domain) -> Result<CertRow, Error> {
    let certificate = state.certs.get(domain).filter(|c| is_routed(state, c));
    certificate
        .map(|certificate| row(certificate, state.clock))
        .ok_or_else(|| {
            let message = format!("no deployment routes the domain \"{domain}\" over TLS");
            Error::new(ErrorCode::RouteNotFound, message)
        })
}

/// `now` may be somewhat behind: it is when the state last changed, which a live cluster does
/// every half minute.
fn row(certificate: &Certificate, now: Timestamp) -> CertRow {
    let failure = certificate.failure.as_ref();
    let served = certificate.served.as_ref();
    CertRow {
        domain: certificate.domain.clone(),
        deployment: certificate.deployment.clone(),
        environment: certificate.environment(),
        state: certificate.state(),
        serial: served.map(|served| served.serial.clone()),
        not_after: served.map(|served| served.not_after),
        last_renewal_at: certificate.renewed_at,
        warning: warning(certificate, now).map(|expiring| expiring.reason),
        last_error: failure.map(words),
        next_attempt_at: failure.map(|failure| failure.next_attempt_at),
        code: failure.map(|_| ErrorCode::CertFailed),
        details: failure.map(details).unwrap_or_default(),
    }
}

fn words(failure: &CertFailure) -> String {
    let limit = match failure.rate_limited {
        true => "rate limited by the CA: ",
        false => "",
    };
    format!("{}: {limit}{}", failure.stage, failure.reason)
}

/// As the page of `cert_failed` has them.
fn details(failure: &CertFailure) -> BTreeMap<String, String> {
    let details = [
        ("stage", failure.stage.to_string()),
        ("environment", failure.environment.to_string()),
        ("attempt", failure.attempts.to_string()),
        ("next_retry_at", failure.next_attempt_at.to_string()),
        ("rate_limited", failure.rate_limited.to_string()),
        ("reason", failure.reason.clone()),
    ];
    details.map(|(key, value)| (key.to_owned(), value)).into()
}
