//! Certificates: which are wanted, and the steps of each.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use crate::cluster::audit::{EventType, record};
use crate::cluster::certs::{
    Account, AccountKey, CertFailure, CertStep, Certificate, Environment, Issued, Order, Renewal,
    backoff,
};
use crate::cluster::command::{Applied, Outcome};
use crate::cluster::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, Domain, Identity};

/// Makes the records of a deployment's certificates equal to its routes. What is valid stays
/// until it expires although its route is gone, so that a rollback orders nothing; with the
/// deployment everything goes.
pub(super) fn sync(state: &mut ClusterState, name: &DeploymentName) {
    let deployment = state.deployments.get(name).filter(|d| !d.deleting);
    let routes = deployment.map(|deployment| Arc::clone(deployment.spec()));
    let routes = routes.iter().flat_map(|spec| spec.routes.iter());
    let routed: BTreeSet<Domain> = routes
        .filter(|route| route.tls)
        .map(|route| route.domain.clone())
        .collect();
    let exists = state.deployments.get(name).is_some_and(|d| !d.deleting);
    let now = state.clock;
    let keeps = |certificate: &Certificate| {
        let valid = |served: &Arc<Issued>| served.not_after > now;
        certificate.deployment != *name
            || routed.contains(&certificate.domain)
            || exists && certificate.served.as_ref().is_some_and(valid)
    };
    let dropped: Vec<Domain> = state
        .certs
        .values()
        .filter(|certificate| !keeps(certificate))
        .map(|certificate| certificate.domain.clone())
        .collect();
    for domain in dropped {
        state.certs.remove(&domain);
    }
    for domain in routed {
        match state.certs.get_mut(&domain) {
            Some(known) if known.deployment == *name => {}
            Some(known) => Arc::make_mut(known).deployment = name.clone(),
            None => {
                let wanted = Certificate::wanted(domain.clone(), name.clone());
                state.certs.insert(domain, Arc::new(wanted));
            }
        }
    }
}

/// Takes a step that was decided when `after` steps had been taken; later it means nothing.
pub(super) fn step(
    state: &mut ClusterState,
    domain: &Domain,
    after: u64,
    step: &CertStep,
) -> Applied {
    let Some(certificate) = state.certs.get(domain).filter(|c| c.steps == after) else {
        return Ok(Outcome::Done);
    };
    let mut certificate = Arc::clone(certificate);
    let changed = Arc::make_mut(&mut certificate);
    changed.steps += 1;
    match step {
        CertStep::Ordered {
            environment,
            account,
            url,
            key_sealed,
            challenge,
        } => {
            changed.order = Some(Order {
                environment: *environment,
                account: account.clone(),
                url: url.clone(),
                key_sealed: key_sealed.clone(),
                challenge: challenge.clone(),
                index: state.index,
                at: state.clock,
            });
        }
        CertStep::Issued { .. } => issued(state, changed, step),
        CertStep::Failed { .. } => failed(state, changed, step),
        CertStep::Renewal(renewal) => changed.renewal = *renewal,
        CertStep::Expired => {
            changed.served = None;
            let payload: &[(&str, &dyn Display)] =
                &[("domain", domain), ("reason", &"the certificate expired")];
            audit(state, EventType::CertificateFailed, payload);
        }
    }
    state.certs.insert(domain.clone(), certificate);
    Ok(Outcome::Done)
}

fn issued(state: &mut ClusterState, certificate: &mut Certificate, step: &CertStep) {
    let CertStep::Issued {
        chain,
        serial,
        not_before,
        not_after,
    } = step
    else {
        return;
    };
    let Some(order) = certificate.order.take() else {
        return;
    };
    certificate.failure = None;
    let environment = order.environment;
    let mut event = EventType::CertificateIssued;
    if environment == Environment::Staging {
        certificate.staged = true;
    } else {
        certificate.wanted_now = false;
        certificate.renewal = Renewal::default();
        let issued = Issued {
            chain: chain.clone(),
            key_sealed: order.key_sealed,
            serial: serial.clone(),
            not_before: *not_before,
            not_after: *not_after,
            account: order.account,
        };
        if certificate.served.replace(Arc::new(issued)).is_some() {
            certificate.renewed_at = Some(state.clock);
            event = EventType::CertificateRenewed;
        }
    }
    let payload: &[(&str, &dyn Display)] = &[
        ("domain", &certificate.domain),
        ("env", &environment),
        ("serial", serial),
        ("not_after", not_after),
    ];
    audit(state, event, payload);
}

fn failed(state: &mut ClusterState, certificate: &mut Certificate, step: &CertStep) {
    let CertStep::Failed {
        stage,
        environment,
        reason,
        rate_limited,
        retry_at,
    } = step
    else {
        return;
    };
    certificate.order = None;
    certificate.wanted_now = false;
    let before = certificate.failure.take();
    let attempts = before.map_or(0, |failure| failure.attempts) + 1;
    let now = state.clock;
    let next_attempt_at = (now + backoff(attempts)).max(retry_at.unwrap_or_default());
    let payload: &[(&str, &dyn Display)] = &[
        ("domain", &certificate.domain),
        ("env", environment),
        ("stage", stage),
        ("attempt", &attempts),
        ("rate_limited", rate_limited),
        ("next_attempt_at", &next_attempt_at),
        ("reason", reason),
    ];
    audit(state, EventType::CertificateFailed, payload);
    certificate.failure = Some(CertFailure {
        stage: *stage,
        environment: *environment,
        reason: reason.clone(),
        rate_limited: *rate_limited,
        attempts,
        at: now,
        next_attempt_at,
    });
}

/// Has a certificate ordered at once, whatever it waits for.
pub(super) fn renew(state: &mut ClusterState, domain: &Domain) -> Applied {
    let Some(certificate) = state.certs.get_mut(domain) else {
        let message = format!("no deployment routes the domain \"{domain}\" over TLS");
        return Err(Error::new(ErrorCode::RouteNotFound, message).with("domain", domain));
    };
    Arc::make_mut(certificate).wanted_now = true;
    Ok(Outcome::Done)
}

pub(super) fn account(
    state: &mut ClusterState,
    account: &AccountKey,
    credentials_sealed: &str,
) -> Applied {
    let made = Account {
        credentials_sealed: credentials_sealed.to_owned(),
        created_at: state.clock,
    };
    state.acme_accounts.insert(account.to_string(), made);
    Ok(Outcome::Done)
}

pub(super) fn account_gone(
    state: &mut ClusterState,
    account: &AccountKey,
    credentials_sealed: &str,
) -> Applied {
    let key = account.to_string();
    let known = state.acme_accounts.get(&key);
    if known.is_some_and(|known| known.credentials_sealed == credentials_sealed) {
        state.acme_accounts.remove(&key);
    }
    Ok(Outcome::Done)
}

fn audit(state: &mut ClusterState, event: EventType, payload: &[(&str, &dyn Display)]) {
    record(state, &Identity::new("system"), event, payload);
}
