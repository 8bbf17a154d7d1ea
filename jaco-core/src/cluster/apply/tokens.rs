//! Operator and join tokens (spec 04, Join; spec 10).

use std::time::Duration;

use crate::access::entry::Behalf;
use crate::access::{Rights, Role};
use crate::cluster::audit::{EventType, record};
use crate::cluster::command::{Applied, Outcome};
use crate::cluster::state::ClusterState;
use crate::cluster::token::{JoinToken, OperatorToken};
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, Identity, NodeName};

/// How long a token that counts no more is kept, so that its holder is told why.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Characters of a token's name.
const MAX_NAME: usize = 63;
/// Tokens at once, those that count no more included.
const MAX_TOKENS: usize = 10_000;
/// Deployments that one token can be bound to.
const MAX_DEPLOYMENTS: usize = 1_000;

pub(super) fn issue(
    state: &mut ClusterState,
    behalf: &Behalf,
    hash: &str,
    name: &Identity,
    rights: &Rights,
    ttl: Option<Duration>,
) -> Applied {
    let invalid = |field: &str, message: String| {
        Err(Error::new(ErrorCode::ValidationFailed, message).with("field", field))
    };
    if matches!(name.as_str(), "local" | "system" | "") {
        let message = format!("\"{name}\" is not a name that a token can have");
        return invalid("name", message);
    }
    if behalf.is_named {
        if !is_name(name.as_str()) {
            let message = format!(
                "a token's name has at most {MAX_NAME} letters, digits and \"._@-\" and begins \
                 with a letter or digit"
            );
            return invalid("name", message);
        }
        let bound = rights.deployments.as_ref();
        if bound.is_some_and(|bound| bound.is_empty() || bound.len() > MAX_DEPLOYMENTS) {
            let message = format!("a token is bound to 1 to {MAX_DEPLOYMENTS} deployments");
            return invalid("deployment", message);
        }
        let is_deployment = |name: &&DeploymentName| !crate::id::is_dns_label(name.as_str(), 40);
        if let Some(wrong) = bound.and_then(|bound| bound.iter().find(is_deployment)) {
            return invalid("deployment", format!("\"{wrong}\" is no deployment's name"));
        }
        if rights.role == Role::Admin && bound.is_some() {
            let message = "an admin token cannot be bound to deployments".to_owned();
            return invalid("deployment", message);
        }
        forget_ended(state);
        if state.tokens.len() >= MAX_TOKENS {
            return invalid("name", format!("there are {MAX_TOKENS} tokens already"));
        }
    }
    let now = state.clock;
    let active = |token: &OperatorToken| token.is_active(now) && token.identity == *name;
    if state.tokens.values().any(active) {
        let message = format!("an active token named \"{name}\" exists");
        return Err(Error::new(ErrorCode::ValidationFailed, message).with("field", "name"));
    }
    let token = OperatorToken {
        identity: name.clone(),
        rights: rights.clone(),
        issued_at: now,
        revoked_at: None,
        expires_at: ttl.map(|ttl| now + ttl),
    };
    state.tokens.insert(hash.to_owned(), token);
    let allow_privileged = rights.allow_privileged;
    let mut payload: Vec<(&str, &dyn std::fmt::Display)> =
        vec![("name", name), ("allow_privileged", &allow_privileged)];
    let names = rights.deployments.iter().flatten();
    let names: Vec<&str> = names.map(DeploymentName::as_str).collect();
    let names = names.join(", ");
    if behalf.is_named {
        payload.push(("role", &rights.role));
        payload.push(("allow_host", &rights.allow_host));
        payload.push(("deployments", &names));
    }
    record(state, &behalf.identity, EventType::TokenIssue, &payload);
    Ok(Outcome::Done)
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(allowed)
}

/// Lets go of tokens that have not counted for long (spec 10).
fn forget_ended(state: &mut ClusterState) {
    let now = state.clock;
    let is_kept = |token: &OperatorToken| {
        let ended = token.ended_at(now);
        ended.is_none_or(|ended| now < ended + KEPT)
    };
    let kept = state.tokens.iter().filter(|(_, token)| is_kept(token));
    state.tokens = kept
        .map(|(hash, token)| (hash.clone(), token.clone()))
        .collect();
}

pub(super) fn revoke(
    state: &mut ClusterState,
    behalf: &Behalf,
    name: &Identity,
    force: bool,
) -> Applied {
    let now = state.clock;
    let active = |token: &OperatorToken| token.is_active(now);
    let hash = state
        .tokens
        .iter()
        .find(|(_, token)| active(token) && token.identity == *name)
        .map(|(hash, _)| hash.clone());
    let Some(hash) = hash else {
        let message = format!("no active token is named \"{name}\"");
        return Err(Error::new(ErrorCode::TokenInvalid, message).with("name", name));
    };
    if !force && is_last(state, behalf, &hash) {
        let message = format!("\"{name}\" is the last admin token; use --force to revoke it");
        return Err(Error::new(ErrorCode::ValidationFailed, message).with("name", name));
    }
    if let Some(token) = state.tokens.get_mut(&hash) {
        token.revoked_at = Some(now);
    }
    let payload: &[(&str, &dyn std::fmt::Display)] = &[("name", name)];
    record(state, &behalf.identity, EventType::TokenRevoke, payload);
    Ok(Outcome::Done)
}

/// Whether nobody but the unix sockets would run the cluster without this token.
fn is_last(state: &ClusterState, behalf: &Behalf, hash: &str) -> bool {
    let counts = |token: &OperatorToken| {
        // Before there were roles it was the last token of all that counted.
        let runs_the_cluster = token.rights.role == Role::Admin || !behalf.is_named;
        token.is_active(state.clock) && runs_the_cluster
    };
    let mut others = state.tokens.iter().filter(|(other, _)| *other != hash);
    state.tokens.get(hash).is_some_and(counts) && !others.any(|(_, token)| counts(token))
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
