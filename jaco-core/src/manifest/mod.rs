//! Manifests: text → nodes with spans → one resolved [`spec::DeploymentSpec`], or every violation.

mod container_spec;
pub mod hash;
pub mod spec;

use std::collections::BTreeMap;

/// STUB
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bundle {
    /// j
    pub jaco: String,
    /// c
    pub compose: String,
    /// c
    pub contents: BTreeMap<String, spec::Content>,
}
impl spec::DeploymentSpec {
    /// p
    pub fn privileged_services(&self) -> Vec<crate::id::ServiceName> {
        self.services
            .iter()
            .filter(|(_, s)| s.container.privileged || !s.container.security_opt.is_empty())
            .map(|(n, _)| n.clone())
            .collect()
    }
}

/// r
pub fn redacted(_: &Bundle) -> serde_json::Value {
    serde_json::Value::Null
}

/// p
pub fn parse(_: &Bundle) -> Result<spec::DeploymentSpec, crate::error::Report> {
    Err(crate::error::Report::default())
}
