//! Operator and join tokens (spec 04, Join; spec 10).

use std::time::Duration;

use crate::cluster::audit::{EventType, record};
use crate::cluster::command::{Applied, Outcome};
use crate::cluster::state::ClusterState;
use crate::cluster::token::{JoinToken, OperatorToken};
use crate::error::{Error, ErrorCode};
use crate::id::{Identity, NodeName};

pub(super) fn issue(
    state: &mut ClusterState,
    identity: &Identity,
    hash: &str,
    name: &Identity,
    allow_privileged: bool,
) -> Applied {
    if matches!(name.as_str(), "local" | "system" | "") {
        let message = format!("\"{name}\" is not a name that a token can have");
        return Err(Error::new(ErrorCode::ValidationFailed, message).with("field", "name"));
    }
    let active = |token: &OperatorToken| token.revoked_at.is_none() && token.identity == *name;
    if state.tokens.values().any(active) {
        let message = format!("an active token named \"{name}\" exists");
        return Err(Error::new(ErrorCode::ValidationFailed, message).with("field", "name"));
    }
    let token = OperatorToken {
        identity: name.clone(),
        allow_privileged,
        issued_at: state.clock,
        revoked_at: None,
    };
    state.tokens.insert(hash.to_owned(), token);
    let payload: &[(&str, &dyn std::fmt::Display)] =
        &[("name", name), ("allow_privileged", &allow_privileged)];
    record(state, identity, EventType::TokenIssue, payload);
    Ok(Outcome::Done)
}

pub(super) fn revoke(
    state: &mut ClusterState,
    identity: &Identity,
    name: &Identity,
    force: bool,
) -> Applied {
    let active = |token: &OperatorToken| token.revoked_at.is_none();
    let hash = state
        .tokens
        .iter()
        .find(|(_, token)| active(token) && token.identity == *name)
        .map(|(hash, _)| hash.clone());
    let Some(hash) = hash else {
        let message = format!("no active token is named \"{name}\"");
        return Err(Error::new(ErrorCode::TokenInvalid, message).with("name", name));
    };
    if state.tokens.values().filter(|token| active(token)).count() == 1 && !force {
        let message = format!("\"{name}\" is the last active token; use --force to revoke it");
        return Err(Error::new(ErrorCode::ValidationFailed, message).with("name", name));
    }
    let now = state.clock;
    if let Some(token) = state.tokens.get_mut(&hash) {
        token.revoked_at = Some(now);
    }
    record(state, identity, EventType::TokenRevoke, &[("name", name)]);
    Ok(Outcome::Done)
}

pub(super) fn issue_join(
    state: &mut ClusterState,
    hash: &str,
    node: Option<&NodeName>,
    sans: &[String],
    ttl: Duration,
) -> Applied {
    if let Some(node) = node.filter(|node| state.nodes.contains_key(*node)) {
        let message = format!("a node named \"{node}\" is a member already");
        return Err(Error::new(ErrorCode::NodeAlreadyMember, message).with("node", node));
    }
    let now = state.clock;
    let alive = state
        .join_tokens
        .iter()
        .filter(|(_, token)| token.expires_at > now);
    state.join_tokens = alive
        .map(|(hash, token)| (hash.clone(), token.clone()))
        .collect();
    let token = JoinToken {
        node: node.cloned(),
        sans: sans.to_vec(),
        issued_at: now,
        expires_at: now + ttl,
        used: None,
    };
    state.join_tokens.insert(hash.to_owned(), token);
    Ok(Outcome::Done)
}

/// Checks a join token for a host. The same rules hold before a certificate is signed and,
/// here, when the node is admitted.
///
/// # Errors
/// `join_token_invalid` for one that is unknown, expired, used or bound to another host.
pub fn check_join<'a>(
    state: &'a ClusterState,
    hash: &str,
    node: &NodeName,
) -> Result<&'a JoinToken, Error> {
    let refuse = |why: String| Err(Error::new(ErrorCode::JoinTokenInvalid, why));
    let Some(token) = state.join_tokens.get(hash) else {
        return refuse("this join token is not known here".to_owned());
    };
    if token.used.is_some() {
        return refuse("this join token was used already".to_owned());
    }
    if token.expires_at <= state.clock {
        return refuse(format!("this join token expired at {}", token.expires_at));
    }
    if token.node.as_ref().is_some_and(|bound| bound != node) {
        return refuse("this join token is for another host".to_owned());
    }
    Ok(token)
}

pub(super) fn use_join(state: &mut ClusterState, hash: &str, node: &NodeName) -> Result<(), Error> {
    check_join(state, hash, node)?;
    let now = state.clock;
    if let Some(token) = state.join_tokens.get_mut(hash) {
        token.used = Some((node.clone(), now));
    }
    Ok(())
}
