//! The JSON of `jaco validate` (spec 09).

use serde::{Deserialize, Serialize};

use super::classify::KeyUse;
use super::findings::Notice;
use super::resolve::Resolved;
use crate::error::Violation;

/// What `jaco validate -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ValidateOutput {
    pub valid: bool,
    pub violations: Vec<Violation>,
    pub keys: Vec<KeyUse>,
    pub notices: Vec<Notice>,
}

impl From<Resolved> for ValidateOutput {
    fn from(resolved: Resolved) -> Self {
        Self {
            valid: resolved.report.is_empty(),
            violations: resolved.report.violations,
            keys: resolved.keys,
            notices: resolved.notices,
        }
    }
}
