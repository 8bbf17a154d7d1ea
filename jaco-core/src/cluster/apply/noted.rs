//! Events of commands that change little but must not go unseen (spec 10, Audit).

use std::fmt::Display;

use crate::cluster::audit::{EventType, record};
use crate::cluster::command::Command;
use crate::cluster::state::ClusterState;
use crate::id::Identity;

/// Appends the event of a command that was carried out. Entries without an author have none:
/// the version that wrote them recorded nothing, and all members must agree on the past.
pub(super) fn note(state: &mut ClusterState, identity: &Identity, command: &Command) {
    let mut event = |kind, payload: &[(&str, &dyn Display)]| record(state, identity, kind, payload);
    match command {
        Command::JoinTokenIssue {
            node, sans, ttl, ..
        } => {
            let node = node.as_ref().map_or("any", |node| node.as_str());
            let (sans, seconds) = (sans.join(", "), ttl.as_secs());
            event(
                EventType::JoinTokenIssue,
                &[("node", &node), ("sans", &sans), ("ttl_seconds", &seconds)],
            );
        }
        Command::NodeDrain { node, drain } => {
            event(EventType::NodeDrain, &[("node", node), ("drain", drain)]);
        }
        Command::CertificateRenew { domain } => {
            event(EventType::CertRenewRequested, &[("domain", domain)]);
        }
        Command::ShowSecrets { deployment } => {
            event(EventType::SecretsShown, &[("deployment", deployment)]);
        }
        Command::LoginFailed {
            node,
            address,
            count,
        } => {
            let many = || "many".to_owned();
            let address = address.map_or_else(many, |address| address.to_string());
            event(
                EventType::LoginFailed,
                &[("node", node), ("address", &address), ("count", count)],
            );
        }
        _ => {}
    }
}
