//! Operator tokens and join tokens (spec 10). Only hashes of secrets are kept.

use serde::{Deserialize, Serialize};

use crate::id::{Identity, NodeName};
use crate::time::Timestamp;

/// A bearer token of one person or program. Kept after revocation, so that its holder is told
/// `token_revoked` and not `token_invalid`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct OperatorToken {
    pub identity: Identity,
    pub allow_privileged: bool,
    pub issued_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// A single-use permission to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct JoinToken {
    /// Only this host may use it, when set.
    pub node: Option<NodeName>,
    /// Names and addresses that the certificate may carry besides the hostname and the
    /// address that the joiner advertises.
    pub sans: Vec<String>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    /// The host that used it, and when.
    pub used: Option<(NodeName, Timestamp)>,
}
