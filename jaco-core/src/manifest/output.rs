//! The JSON of `jaco validate` (spec 09).

use serde::{Deserialize, Serialize};

use super::classify::KeyUse;
use super::findings::Notice;
use super::host_access::{Allowed, Class, Demand, class, demands};
use super::resolve::Resolved;
use super::spec::DeploymentSpec;
use crate::error::Violation;

/// What `jaco validate -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ValidateOutput {
    pub valid: bool,
    pub violations: Vec<Violation>,
    pub keys: Vec<KeyUse>,
    pub notices: Vec<Notice>,
    /// What each service asks of its host; those that ask for nothing are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_access: Vec<HostAccess>,
}

/// What one service asks of its host, and so of whoever applies it (spec 10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct HostAccess {
    pub service: String,
    pub class: Class,
    pub demands: Vec<Demand>,
}

/// What the services ask of their hosts where the nodes allow nothing by themselves.
fn host_access(spec: &DeploymentSpec) -> Vec<HostAccess> {
    let services = spec.services.iter().map(|(name, service)| {
        let demands = demands(spec, service, &Allowed::default());
        HostAccess {
            service: name.to_string(),
            class: class(&demands),
            demands,
        }
    });
    services
        .filter(|asked| asked.class > Class::Baseline)
        .collect()
}

impl From<Resolved> for ValidateOutput {
    fn from(resolved: Resolved) -> Self {
        Self {
            valid: resolved.report.is_empty(),
            violations: resolved.report.violations,
            host_access: resolved.spec.as_ref().map(host_access).unwrap_or_default(),
            keys: resolved.keys,
            notices: resolved.notices,
        }
    }
}
