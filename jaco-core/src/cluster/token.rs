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

/// What a join token carries in hex: the hash of the CA's public key, then the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinCredential {
    /// Hex SHA-256 of the CA's public key: trust comes before the secret.
    pub ca_hash: String,
    /// Hex, 32 bytes. Only its hash is stored.
    pub secret: String,
}

/// Hex characters of 32 bytes.
const HALF: usize = 64;

impl JoinCredential {
    /// Reads a token as printed; `None` for anything else.
    pub fn parse(token: &str) -> Option<Self> {
        let token = token.trim();
        let is_hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
        if token.len() != 2 * HALF || !is_hex {
            return None;
        }
        let (ca_hash, secret) = token.split_at(HALF);
        Some(Self {
            ca_hash: ca_hash.to_ascii_lowercase(),
            secret: secret.to_ascii_lowercase(),
        })
    }

    /// The token as it is printed, once.
    pub fn reveal(&self) -> String {
        format!("{}{}", self.ca_hash, self.secret)
    }
}
