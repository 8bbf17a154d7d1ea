//! Decides what is done next for certificates (spec 08, Certificates).
//!
//! Everything that counts is in the state: which order is under way, what failed and when the
//! next attempt may be. A new leader therefore goes on where the last one was.
//!
//! Invariants (`tests/certs/course.rs`): a domain is promoted from staging to production once;
//! after failures nothing is tried before its time, whoever leads; each change happens once.

mod check;
mod expiry;
mod preflight;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::certs::{
    AccountKey, CertStep, Certificate, Environment, Issued, Order, Renewal, Stage,
};
use crate::cluster::command::Command;
use crate::cluster::node::{Node, NodeCondition};
use crate::cluster::state::ClusterState;
use crate::id::{Domain, NodeName};
use crate::time::Timestamp;

pub use check::{Leaf, check};
pub use expiry::{Expiring, expiring, warning};
pub use preflight::{
    PROBE_PATH, Probed, again, nowhere, probe_answer, probe_token, prober, verdict,
};

/// Let's Encrypt, for visitors.
pub const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Let's Encrypt, for trying.
pub const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// Below this path a CA asks for the answer to a challenge (RFC 8555, 8.3).
pub const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// A CA that has not decided on an order is asked again after this.
pub const ASK_ORDER_AGAIN: Duration = Duration::from_secs(5);

/// Domains that are worked on at once.
const AT_ONCE: usize = 8;
/// For so long a live node may take to have a challenge.
const ACKNOWLEDGE: Duration = Duration::from_secs(5 * 60);
/// A CA is asked about renewal again after this when it did not answer, and within these bounds
/// when it did.
const ASK_AGAIN: Duration = Duration::from_secs(6 * 60 * 60);
const ASK_EARLIEST: Duration = Duration::from_secs(60 * 60);
const ASK_LATEST: Duration = Duration::from_secs(24 * 60 * 60);
/// For so long a CA may take over one order.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// What the leader's configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// False: no ACME traffic at all.
    pub enabled: bool,
    /// Directory whose certificates visitors get.
    pub production: String,
    /// Directory that is tried first; absent when none is.
    pub staging: Option<String>,
    /// Contact of deployments that name none.
    pub email: Option<String>,
}

impl Settings {
    /// From the configuration (spec 11): an empty `ca` is Let's Encrypt, and only that has a
    /// staging directory.
    pub fn new(enabled: bool, ca: &str, email: &str, skip_staging: bool) -> Self {
        let production = if ca.is_empty() { PRODUCTION } else { ca };
        let staged = production == PRODUCTION && !skip_staging;
        Self {
            enabled,
            production: production.to_owned(),
            staging: staged.then(|| STAGING.to_owned()),
            email: Some(email.to_owned()).filter(|email| !email.is_empty()),
        }
    }
}

/// What the leader does next. Each names the steps it was decided on.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Have an account made; orders that need it wait.
    #[allow(missing_docs)]
    Register {
        domain: Domain,
        after: u64,
        environment: Environment,
        account: AccountKey,
    },
    /// Look whether the domain leads here if `preflight`, then place an order.
    #[allow(missing_docs)]
    Order {
        domain: Domain,
        after: u64,
        environment: Environment,
        account: AccountKey,
        preflight: bool,
    },
    /// Tell the CA that the nodes are ready, and take what it issues.
    #[allow(missing_docs)]
    Complete {
        domain: Domain,
        after: u64,
        order: Order,
    },
    /// Ask the CA when to renew.
    #[allow(missing_docs)]
    AskRenewal {
        domain: Domain,
        after: u64,
        issued: Arc<Issued>,
    },
    /// Nothing but a change of the state.
    Commit(Command),
}

impl Action {
    /// Whom it is about.
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Register { domain, .. }
            | Self::Order { domain, .. }
            | Self::Complete { domain, .. }
            | Self::AskRenewal { domain, .. } => Some(domain),
            Self::Commit(_) => None,
        }
    }
}

/// What to do now; `busy` are the domains that something is being done for.
pub fn plan(
    state: &ClusterState,
    settings: &Settings,
    busy: &BTreeSet<Domain>,
    now: Timestamp,
) -> Vec<Action> {
    let mut room = AT_ONCE.saturating_sub(busy.len());
    let mut actions = Vec::new();
    let mut registering: BTreeSet<AccountKey> = busy
        .iter()
        .filter_map(|domain| state.certs.get(domain))
        .map(|certificate| account(state, settings, certificate).1)
        .collect();
    let idle = state.certs.values().filter(|c| !busy.contains(&c.domain));
    for certificate in idle {
        let Some(action) = next(state, settings, certificate, now) else {
            continue;
        };
        let Some(action) = with_account(state, action, &mut registering) else {
            continue;
        };
        let commits = matches!(action, Action::Commit(_));
        if commits || room > 0 {
            room = room.saturating_sub(usize::from(!commits));
            actions.push(action);
        }
    }
    actions
}

/// The next moment after `now` at which the plan may differ although nothing happens.
pub fn wake(state: &ClusterState, now: Timestamp) -> Option<Timestamp> {
    let times = state.certs.values().flat_map(|certificate| {
        let order = certificate.order.as_ref();
        let served = certificate.served.as_ref();
        [
            certificate.failure.as_ref().map(|f| f.next_attempt_at),
            order.map(|order| order.at + ACKNOWLEDGE),
            order.map(|order| order.at + PATIENCE),
            served.map(|served| renew_at(served, &certificate.renewal)),
            served.map(|served| served.not_after),
            expiry::overdue_at(certificate),
            certificate.renewal.ask_at,
        ]
    });
    times.flatten().filter(|at| *at > now).min()
}

fn next(
    state: &ClusterState,
    settings: &Settings,
    certificate: &Certificate,
    now: Timestamp,
) -> Option<Action> {
    let served = certificate.served.as_ref();
    if served.is_some_and(|served| served.not_after <= now) {
        return Some(commit(certificate, CertStep::Expired));
    }
    let action = match &certificate.order {
        _ if !settings.enabled => None,
        Some(order) => go_on(state, certificate, order, now),
        None if is_due(certificate, now) => Some(order(state, settings, certificate)),
        None => ask_renewal(certificate, now),
    };
    action.filter(|_| is_routed(state, certificate))
}

/// True when a new certificate is to be ordered.
fn is_due(certificate: &Certificate, now: Timestamp) -> bool {
    let held = certificate.failure.as_ref();
    let held = held.is_some_and(|failure| failure.next_attempt_at > now);
    let renewal = &certificate.renewal;
    let served = certificate.served.as_ref();
    let wanted = served.is_none_or(|served| renew_at(served, renewal) <= now);
    certificate.wanted_now || wanted && !held
}

fn ask_renewal(certificate: &Certificate, now: Timestamp) -> Option<Action> {
    let asked = certificate.renewal.ask_at.is_some_and(|at| at > now);
    let served = certificate.served.as_ref().filter(|_| !asked)?;
    Some(Action::AskRenewal {
        domain: certificate.domain.clone(),
        after: certificate.steps,
        issued: Arc::clone(served),
    })
}

/// What an order that the CA has waits for.
fn go_on(
    state: &ClusterState,
    certificate: &Certificate,
    order: &Order,
    now: Timestamp,
) -> Option<Action> {
    if now >= order.at + PATIENCE {
        let reason = format!(
            "the CA did not finish the order in {} min",
            minutes(PATIENCE)
        );
        return Some(commit(certificate, failed(Stage::Issue, order, reason)));
    }
    let missing = order
        .challenge
        .as_ref()
        .map(|_| unacknowledged(state, order));
    let missing = missing.unwrap_or_default();
    if missing.is_empty() {
        return Some(Action::Complete {
            domain: certificate.domain.clone(),
            after: certificate.steps,
            order: order.clone(),
        });
    }
    (now >= order.at + ACKNOWLEDGE).then(|| {
        let missing: Vec<&str> = missing.into_iter().map(NodeName::as_str).collect();
        let reason = format!("the challenge did not reach {}", missing.join(", "));
        commit(certificate, failed(Stage::Challenge, order, reason))
    })
}

fn order(state: &ClusterState, settings: &Settings, certificate: &Certificate) -> Action {
    let (environment, account) = account(state, settings, certificate);
    Action::Order {
        domain: certificate.domain.clone(),
        after: certificate.steps,
        environment,
        account,
        preflight: is_new(certificate),
    }
}

/// True before a CA has issued anything.
fn is_new(certificate: &Certificate) -> bool {
    certificate.served.is_none() && !certificate.staged
}

/// Where the next certificate is ordered, and by whom.
fn account(
    state: &ClusterState,
    settings: &Settings,
    certificate: &Certificate,
) -> (Environment, AccountKey) {
    let staging = settings.staging.as_ref().filter(|_| is_new(certificate));
    let environment = staging.map_or(Environment::Prod, |_| Environment::Staging);
    let deployment = state.deployments.get(&certificate.deployment);
    let contact = deployment.and_then(|deployment| deployment.spec().acme_email.clone());
    let account = AccountKey {
        directory: staging.unwrap_or(&settings.production).clone(),
        contact: contact.or_else(|| settings.email.clone()),
    };
    (environment, account)
}

/// Puts the making of an account before the first order that needs it; the others wait.
fn with_account(
    state: &ClusterState,
    action: Action,
    registering: &mut BTreeSet<AccountKey>,
) -> Option<Action> {
    match action {
        Action::Order {
            domain,
            after,
            environment,
            account,
            ..
        } if !state.acme_accounts.contains_key(&account.to_string()) => registering
            .insert(account.clone())
            .then_some(Action::Register {
                domain,
                after,
                environment,
                account,
            }),
        action => Some(action),
    }
}

/// When a certificate is renewed: at a moment of the CA's window that differs from domain to
/// domain, else when two thirds of its life are over.
pub fn renew_at(issued: &Issued, renewal: &Renewal) -> Timestamp {
    match renewal.window {
        Some((start, end)) => {
            let length = u64::try_from(end.since(start).as_millis()).unwrap_or(u64::MAX);
            let somewhere = spread(&issued.serial) % length.max(1);
            start + Duration::from_millis(somewhere)
        }
        None => issued.not_before + issued.not_after.since(issued.not_before) * 2 / 3,
    }
}

/// What is kept of a CA's answer about renewal: its window, and when it is asked again. An
/// answer that did not come leaves what was known.
pub fn renewal(before: &Renewal, answer: Option<Offer>, now: Timestamp) -> Renewal {
    let (window, again) = match answer {
        Some(Offer::Window { start, end, again }) => (Some((start, end)), again),
        Some(Offer::None) => (None, ASK_LATEST),
        None => (before.window, ASK_AGAIN),
    };
    Renewal {
        window,
        ask_at: Some(now + again.clamp(ASK_EARLIEST, ASK_LATEST)),
    }
}

/// A CA's word on renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It wants it within this window, and to be asked again after a while.
    #[allow(missing_docs)]
    Window {
        start: Timestamp,
        end: Timestamp,
        again: Duration,
    },
    /// It has no word on it.
    None,
}

/// A number that is always the same for a text and looks like no other's.
fn spread(text: &str) -> u64 {
    let digits = crate::manifest::hash::sha256_hex(text.as_bytes());
    u64::from_str_radix(&digits[..16], 16).unwrap_or_default()
}

/// True while a route of the certificate's deployment wants TLS for the domain.
pub fn is_routed(state: &ClusterState, certificate: &Certificate) -> bool {
    let deployment = state.deployments.get(&certificate.deployment);
    deployment
        .filter(|deployment| !deployment.deleting)
        .is_some_and(|deployment| {
            let mut routes = deployment.spec().routes.iter();
            routes.any(|route| route.tls && route.domain == certificate.domain)
        })
}

/// The live nodes that have not yet said that they answer an order's challenge.
fn unacknowledged<'a>(state: &'a ClusterState, order: &Order) -> Vec<&'a NodeName> {
    let lacks = |node: &&Node| is_live(node) && node.published < order.index;
    let nodes = state.nodes.values().map(AsRef::as_ref);
    nodes.filter(lacks).map(|node| &node.name).collect()
}

fn is_live(node: &Node) -> bool {
    node.condition == NodeCondition::Reachable && node.report.is_some()
}

/// The index that a node has yet to tell the cluster it has published, because a CA is to be
/// told that every node answers.
pub fn owed(state: &ClusterState, node: &NodeName) -> Option<u64> {
    let published = state.nodes.get(node)?.published;
    let orders = state.certs.values().filter_map(|c| c.order.as_ref());
    let waiting = orders.filter(|order| order.challenge.is_some() && order.index > published);
    waiting.map(|order| order.index).max()
}

fn failed(stage: Stage, order: &Order, reason: String) -> CertStep {
    CertStep::Failed {
        stage,
        environment: order.environment,
        reason,
        rate_limited: false,
        retry_at: None,
    }
}

fn commit(certificate: &Certificate, step: CertStep) -> Action {
    Action::Commit(Command::Certificate {
        domain: certificate.domain.clone(),
        after: certificate.steps,
        step,
    })
}

fn minutes(time: Duration) -> u64 {
    time.as_secs() / 60
}
