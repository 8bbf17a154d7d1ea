//! `apply`: the deterministic step of the state machine.
//!
//! Invariants (`tests/cluster_props.rs`): a refused command changes nothing but index and
//! clock; equal logs give byte-identical states; nothing here reads a clock or draws a number.

mod certs;
mod deploy;
mod membership;
mod noted;
mod rollouts;
mod schedule;
mod tokens;
mod usage;

pub use deploy::{admits, service_not_found};
pub use tokens::check_join;

use std::sync::Arc;

use super::command::{Applied, Command, Entry, Observed, Outcome};
use super::deployment::Observation;
use super::state::ClusterState;
use crate::access::Author;
use crate::access::entry::{Behalf, judge};
use crate::error::{Error, ErrorCode};
use crate::id::NodeName;

/// Applies one committed entry. A refusal leaves everything but `index` and `clock` as it was.
pub fn apply(state: &mut ClusterState, entry: &Entry) -> Applied {
    state.index = entry.index;
    state.clock = state.clock.max(entry.proposal.at);
    // Cloning shares structure, so that trying a command on a copy costs next to nothing.
    let mut next = state.clone();
    if next.cluster.is_none() && !matches!(entry.proposal.command, Command::ClusterInit(_)) {
        let message = "this node is not part of a cluster yet";
        return Err(Error::new(ErrorCode::ClusterUninitialized, message));
    }
    let behalf = judge(&next, &entry.proposal)?;
    let outcome = run(&mut next, &behalf, &entry.proposal.command)?;
    if behalf.is_named {
        noted::note(&mut next, &behalf.identity, &entry.proposal.command);
    }
    if let Some(Author::Local { uid, user, .. }) = &entry.proposal.author {
        name_user(&mut next, *uid, user);
    }
    if entry.proposal.command.moves_ground() {
        next.ground = entry.index;
    }
    *state = next;
    Ok(outcome)
}

/// Says in the entry's events which user of the host it was.
fn name_user(state: &mut ClusterState, uid: u32, user: &str) {
    let index = state.index;
    let events = state.audit.iter_mut().rev();
    for event in events.take_while(|event| event.index == index) {
        if event.identity.as_str() == "local" {
            event.payload.insert("uid".to_owned(), uid.to_string());
            event.payload.insert("user".to_owned(), user.to_owned());
        }
    }
}

fn run(state: &mut ClusterState, behalf: &Behalf, command: &Command) -> Applied {
    let identity = &behalf.identity;
    match command {
        Command::ClusterInit(init) => membership::init(state, identity, init),
        Command::Lead {
            node,
            term,
            ipam_pool,
            mesh_pool,
            audit_retention,
        } => {
            state.audit_retention = *audit_retention;
            membership::lead(state, node, *term, *ipam_pool, *mesh_pool)
        }
        Command::JoinTokenIssue {
            hash,
            node,
            sans,
            ttl,
        } => tokens::issue_join(state, hash, node.as_ref(), sans, *ttl),
        Command::NodeJoin { token_hash, node } => {
            membership::join(state, identity, token_hash, node)
        }
        Command::NodeReport { node, report } => membership::report(state, node, report),
        Command::NodeUsage {
            node,
            used,
            interval,
            replicas,
        } => usage::report(state, node, *used, *interval, replicas),
        Command::IsolationRepaired { node, diff } => membership::repaired(state, node, diff),
        Command::NodeCondition { node, condition } => {
            membership::condition(state, node, *condition)
        }
        Command::Swept { node, index } => membership::update(state, node, |node| {
            node.returned = node.returned.filter(|returned| returned > index);
        }),
        Command::NodeDrain { node, drain } => membership::drain(state, node, *drain),
        Command::NodeLabel { node, set, remove } => {
            membership::label(state, identity, node, set, remove)
        }
        Command::NodeRemove { node, force } => membership::remove(state, identity, node, *force),
        Command::TokenIssue {
            hash,
            name,
            rights,
            ttl,
        } => tokens::issue(state, behalf, hash, name, rights, *ttl),
        Command::TokenRevoke { name, force } => tokens::revoke(state, behalf, name, *force),
        Command::Apply { bundle, spec, .. } => deploy::apply(state, behalf, bundle, spec),
        Command::ShowSecrets { deployment } => {
            state.deployment(deployment)?;
            Ok(Outcome::Done)
        }
        Command::LoginFailed { .. } => Ok(Outcome::Done),
        Command::Delete { deployment } => deploy::delete(state, identity, deployment),
        Command::Rollback { deployment, to } => deploy::rollback(state, behalf, deployment, *to),
        Command::Scale {
            deployment,
            service,
            replicas,
        } => deploy::scale(state, behalf, deployment, service, *replicas),
        Command::Restart {
            deployment,
            service,
        } => deploy::restart(state, behalf, deployment, service.as_ref()),
        Command::Schedule { after, steps } => schedule::carry_out(state, *after, steps),
        Command::Published { node, index } => membership::update(state, node, |node| {
            node.published = node.published.max(*index);
        }),
        Command::Certificate {
            domain,
            after,
            step,
        } => certs::step(state, domain, *after, step),
        Command::CertificateRenew { domain } => certs::renew(state, domain),
        Command::AcmeAccount {
            account,
            credentials_sealed,
        } => certs::account(state, account, credentials_sealed),
        Command::AcmeAccountGone {
            account,
            credentials_sealed,
        } => certs::account_gone(state, account, credentials_sealed),
        Command::Observe { node, observations } => observe(state, node, observations),
    }
}

/// True when a replica is not what it was, as opposed to more being known of it.
fn is_news(before: &Observation, after: &Observation) -> bool {
    let what = |seen: &Observation| (seen.state, seen.generation, seen.container_id.clone());
    what(before) != what(after)
}

/// Takes in what a node saw. A node speaks only of its own replicas.
fn observe(state: &mut ClusterState, node: &NodeName, observations: &[Observed]) -> Applied {
    for seen in observations {
        let Some(deployment) = state.deployments.get(&seen.deployment) else {
            continue;
        };
        let Some(replica) = deployment.replicas.get(&seen.replica) else {
            continue;
        };
        if replica.node != *node || replica.observed == seen.observation {
            continue;
        }
        let mut replica = Arc::clone(replica);
        let changed = Arc::make_mut(&mut replica);
        if is_news(&changed.observed, &seen.observation) {
            changed.seen_at = state.clock;
        }
        changed.observed = seen.observation.clone();
        let mut deployment = Arc::clone(deployment);
        let changed = Arc::make_mut(&mut deployment);
        changed.replicas.insert(seen.replica.clone(), replica);
        changed.ground = state.index;
        state
            .deployments
            .insert(seen.deployment.clone(), deployment);
    }
    Ok(Outcome::Done)
}
