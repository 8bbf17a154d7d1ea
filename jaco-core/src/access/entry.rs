//! What an entry of the log needs, and who its author is.
//!
//! Entries of versions that named no author are taken at their word: they were judged when they
//! were written, and every member must give them the same outcome again.

use super::{Author, Rights, Role, denied};
use crate::cluster::command::{Command, Proposal};
use crate::cluster::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, Identity, NodeName};
use crate::manifest::host_access::Granted;

/// Who may write a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// The unix socket of the node that forms the cluster.
    Socket,
    /// This member, of itself.
    Own(&'a NodeName),
    /// The member that leads; other members cannot pass it on.
    Leader,
    /// Any member: the outcome of work that it began while it led.
    Member,
    /// Any member, for a host that showed it a join token.
    JoinToken,
    /// Whoever has this role, for the deployment where one is named.
    Role(Role, Option<&'a DeploymentName>),
    /// An admin, or whoever is so named.
    Named(&'a Identity),
}

/// Who may write this.
pub fn need(command: &Command) -> Need<'_> {
    let deploy = |name| Need::Role(Role::Deploy, Some(name));
    match command {
        Command::ClusterInit(_) => Need::Socket,
        Command::NodeReport { node, .. }
        | Command::NodeUsage { node, .. }
        | Command::IsolationRepaired { node, .. }
        | Command::Swept { node, .. }
        | Command::Published { node, .. }
        | Command::Observe { node, .. }
        | Command::LoginFailed { node, .. } => Need::Own(node),
        Command::NodeJoin { .. } => Need::JoinToken,
        Command::Lead { .. } | Command::NodeCondition { .. } | Command::Schedule { .. } => {
            Need::Leader
        }
        Command::Certificate { .. }
        | Command::AcmeAccount { .. }
        | Command::AcmeAccountGone { .. } => Need::Member,
        Command::JoinTokenIssue { .. }
        | Command::NodeDrain { .. }
        | Command::NodeLabel { .. }
        | Command::NodeRemove { .. }
        | Command::TokenIssue { .. }
        | Command::CertificateRenew { .. } => Need::Role(Role::Admin, None),
        Command::TokenRevoke { name, .. } => Need::Named(name),
        Command::Apply { spec, .. } => deploy(&spec.name),
        Command::Delete { deployment }
        | Command::Rollback { deployment, .. }
        | Command::Scale { deployment, .. }
        | Command::Restart { deployment, .. }
        | Command::ShowSecrets { deployment } => deploy(deployment),
    }
}

/// On whose behalf an entry is applied, and with which rights.
#[derive(Clone, Debug)]
pub(crate) struct Behalf {
    pub(crate) identity: Identity,
    pub(crate) rights: Rights,
    /// The entry names its author, so that the bounds of this version hold for it.
    pub(crate) is_named: bool,
}

impl Behalf {
    /// The scheduler, inside an entry that was judged already.
    pub(crate) fn scheduler() -> Self {
        Self {
            identity: system(),
            rights: Rights::every(),
            is_named: false,
        }
    }

    /// Somebody with these rights, who is only asking.
    pub(crate) fn with(rights: &Rights) -> Self {
        Self {
            identity: Identity::new(""),
            rights: rights.clone(),
            is_named: true,
        }
    }

    /// Whether it is the scheduler that acts.
    pub(crate) fn is_scheduler(&self) -> bool {
        self.identity == system()
    }

    /// What a revision is let in with. Entries without an author said nothing of that.
    pub(crate) fn granted(&self) -> Granted {
        match self.is_named {
            true => Granted {
                host: self.rights.allow_host,
                privileged: self.rights.allow_privileged,
            },
            false => Granted::default(),
        }
    }
}

/// Who an entry is of, once its author was found to have the right to it.
///
/// # Errors
/// `permission_denied`, `token_invalid`, `token_revoked`, `node_not_found`.
pub(crate) fn judge(state: &ClusterState, proposal: &Proposal) -> Result<Behalf, Error> {
    let command = &proposal.command;
    let Some(author) = &proposal.author else {
        let allow_privileged = match command {
            Command::Apply { privileged, .. } => *privileged,
            _ => true,
        };
        return Ok(Behalf {
            identity: proposal.identity.clone(),
            rights: Rights {
                allow_privileged,
                ..Rights::every()
            },
            is_named: false,
        });
    };
    let (identity, rights) = match author {
        Author::Token(hash) => {
            let token = state.authenticate(hash, state.clock)?;
            let (identity, rights) = (&token.identity, &token.rights);
            match need(command) {
                Need::Role(role, deployment) if !rights.has(role, deployment) => {
                    return Err(denied(state, identity, role, deployment));
                }
                Need::Named(name) if name != identity && rights.role < Role::Admin => {
                    return Err(denied(state, identity, Role::Admin, None));
                }
                Need::Role(..) | Need::Named(_) => (identity.clone(), rights.clone()),
                _ => return Err(not_yours(author)),
            }
        }
        Author::Local { node, .. } => {
            match need(command) {
                Need::Socket => {}
                Need::Role(..) | Need::Named(_) => drop(state.node(node)?),
                _ => return Err(not_yours(author)),
            }
            (Identity::new("local"), Rights::every())
        }
        Author::Member(member) => {
            state.node(member)?;
            match (need(command), command) {
                (Need::JoinToken, Command::NodeJoin { node, .. }) => {
                    (Identity::new(node.name.as_str()), Rights::of(Role::Read))
                }
                (Need::Own(node), _) if node == member => (system(), Rights::of(Role::Read)),
                (Need::Leader | Need::Member, _) => (system(), Rights::of(Role::Read)),
                _ => return Err(not_yours(author)),
            }
        }
    };
    Ok(Behalf {
        identity,
        rights,
        is_named: true,
    })
}

/// Whether a member may pass this on: it speaks for itself and its own socket only, and what a
/// leader decides is decided by the leader itself.
///
/// # Errors
/// `permission_denied`.
pub fn may_pass_on(member: &NodeName, author: &Author, command: &Command) -> Result<(), Error> {
    let is_its_own = match author {
        Author::Member(node) | Author::Local { node, .. } => node == member,
        Author::Token(_) => true,
    };
    if is_its_own && !matches!(need(command), Need::Leader | Need::Socket) {
        return Ok(());
    }
    let message = format!("member \"{member}\" may not propose this");
    Err(Error::new(ErrorCode::PermissionDenied, message).with("right", "its own reports"))
}

fn system() -> Identity {
    Identity::new("system")
}

fn not_yours(author: &Author) -> Error {
    let message = format!("{author:?} may not write this");
    Error::new(ErrorCode::PermissionDenied, message).with("right", "another author's")
}
