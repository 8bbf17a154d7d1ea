//! Operator tokens and join tokens (spec 10). Only hashes of secrets are kept.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::access::{Rights, Role};
use crate::id::{DeploymentName, Identity, NodeName};
use crate::time::Timestamp;

/// A bearer token of one person or program. Kept after revocation, so that its holder is told
/// `token_revoked` and not `token_invalid`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredToken")]
#[allow(missing_docs)]
pub struct OperatorToken {
    pub identity: Identity,
    #[serde(flatten)]
    pub rights: Rights,
    pub issued_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl OperatorToken {
    /// Whether it counts at a moment.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// When it ceased to count, if it has.
    pub fn ended_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.revoked_at
            .or(self.expires_at.filter(|end| *end <= now))
    }
}

/// A token as written by this version, or by one that knew no roles.
#[derive(Deserialize)]
struct StoredToken {
    identity: Identity,
    role: Option<Role>,
    deployments: Option<BTreeSet<DeploymentName>>,
    #[serde(default)]
    allow_host: bool,
    allow_privileged: bool,
    issued_at: Timestamp,
    revoked_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

impl From<StoredToken> for OperatorToken {
    fn from(stored: StoredToken) -> Self {
        // Without a role the first token ran the cluster, and every other one deployed.
        let is_first = stored.identity.as_str() == BOOTSTRAP;
        let former = if is_first { Role::Admin } else { Role::Deploy };
        Self {
            identity: stored.identity,
            rights: Rights {
                role: stored.role.unwrap_or(former),
                deployments: stored.deployments,
                allow_host: stored.allow_host,
                allow_privileged: stored.allow_privileged,
            },
            issued_at: stored.issued_at,
            revoked_at: stored.revoked_at,
            expires_at: stored.expires_at,
        }
    }
}

/// Whose the token is that `cluster init` makes.
pub const BOOTSTRAP: &str = "bootstrap";

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
