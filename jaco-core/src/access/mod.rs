//! Who may do what (spec 10, Tokens and rights).
//!
//! [`rpc`] says what each call of the API needs, [`entry`] what each entry of the log needs. The
//! first is asked before a request is read, the second by every member when the entry is applied,
//! from the token as it is replicated.
//!
//! Invariant (`tests/access_props.rs`): nothing that a token writes changes anything outside its
//! role and its deployments.

pub mod entry;
pub mod logins;
pub mod rpc;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, Identity, NodeName};
use crate::time::Timestamp;

/// What a token is for, each role with all that the ones before it may do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks at deployments.
    Read,
    /// Changes deployments.
    #[default]
    Deploy,
    /// Runs the cluster: nodes, tokens, certificates.
    Admin,
}

impl Role {
    /// All of them, the weakest first.
    pub const ALL: [Role; 3] = [Role::Read, Role::Deploy, Role::Admin];

    /// The lower snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Deploy => "deploy",
            Role::Admin => "admin",
        }
    }

    /// Reads a role's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a token, or whoever calls, may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Absent in what versions without roles wrote: their tokens deploy.
    #[serde(default)]
    pub role: Role,
    /// The only deployments that it may touch or see; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployments: Option<BTreeSet<DeploymentName>>,
    /// May run what reaches into its host.
    #[serde(default)]
    pub allow_host: bool,
    /// May run privileged containers.
    #[serde(default)]
    pub allow_privileged: bool,
}

impl Rights {
    /// Those of the unix socket: every one.
    pub fn every() -> Self {
        Self {
            role: Role::Admin,
            deployments: None,
            allow_host: true,
            allow_privileged: true,
        }
    }

    /// Those of a role, for all deployments, without access to hosts.
    pub fn of(role: Role) -> Self {
        Self {
            role,
            ..Self::default()
        }
    }

    /// Whether a deployment is among those that it is for.
    pub fn covers(&self, deployment: &DeploymentName) -> bool {
        let listed = self.deployments.as_ref();
        listed.is_none_or(|listed| listed.contains(deployment))
    }

    /// Whether it has a role, for a deployment where one is named.
    pub fn has(&self, role: Role, deployment: Option<&DeploymentName>) -> bool {
        self.role >= role && deployment.is_none_or(|deployment| self.covers(deployment))
    }
}

/// Who proposed an entry of the log. A member that passes one on can name nobody but itself, its
/// own socket, or a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// A member, of itself.
    Member(NodeName),
    /// Whoever used a member's unix socket.
    #[allow(missing_docs)]
    Local {
        node: NodeName,
        uid: u32,
        user: String,
    },
    /// The holder of the token with this hash.
    Token(String),
}

impl Author {
    /// What audit events call it; a token is called by the name that it has in the state.
    pub fn identity(&self, state: &ClusterState) -> Identity {
        match self {
            Author::Member(_) => Identity::new("system"),
            Author::Local { .. } => Identity::new("local"),
            Author::Token(hash) => {
                let token = state.tokens.get(hash);
                token.map_or_else(|| Identity::new("token"), |token| token.identity.clone())
            }
        }
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Author::Member(node) => write!(f, "member {node}"),
            Author::Local { node, uid, .. } => write!(f, "uid {uid} on {node}"),
            Author::Token(_) => f.write_str("token [redacted]"),
        }
    }
}

/// Who calls the API.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Caller {
    pub identity: Identity,
    pub author: Author,
    pub rights: Rights,
}

impl Caller {
    /// Whoever opened the unix socket of a node; its permissions let them in.
    pub fn local(node: NodeName, uid: u32, user: String) -> Self {
        Self {
            identity: Identity::new("local"),
            author: Author::Local { node, uid, user },
            rights: Rights::every(),
        }
    }

    /// The holder of a token.
    ///
    /// # Errors
    /// `token_invalid`, `token_revoked`.
    pub fn of_token(state: &ClusterState, hash: &str, now: Timestamp) -> Result<Self, Error> {
        let token = state.authenticate(hash, now)?;
        Ok(Self {
            identity: token.identity.clone(),
            author: Author::Token(hash.to_owned()),
            rights: token.rights.clone(),
        })
    }

    /// Refuses a caller without a role, for a deployment where one is named.
    ///
    /// # Errors
    /// `permission_denied`, which says who has the right.
    pub fn require(
        &self,
        state: &ClusterState,
        role: Role,
        deployment: Option<&DeploymentName>,
    ) -> Result<(), Error> {
        if self.rights.has(role, deployment) {
            return Ok(());
        }
        Err(denied(state, &self.identity, role, deployment))
    }
}

/// The refusal of who lacks a role; names who has it.
pub(crate) fn denied(
    state: &ClusterState,
    identity: &Identity,
    role: Role,
    deployment: Option<&DeploymentName>,
) -> Error {
    let holders = state
        .tokens
        .values()
        .filter(|token| token.is_active(state.clock) && token.rights.has(role, deployment));
    let holders: BTreeSet<&str> = holders.map(|token| token.identity.as_str()).collect();
    let holders: Vec<&str> = holders.into_iter().take(10).collect();
    let place = deployment.map(|name| format!(" on deployment \"{name}\""));
    let message = format!(
        "this needs the right \"{role}\"{}, which \"{identity}\" does not have",
        place.unwrap_or_default()
    );
    let error = Error::new(ErrorCode::PermissionDenied, message).with("right", role);
    let error = match deployment {
        Some(deployment) => error.with("deployment", deployment),
        None => error,
    };
    match holders.is_empty() {
        true => error.with("holders", "the unix socket of each node"),
        false => error.with("holders", holders.join(", ")),
    }
}
