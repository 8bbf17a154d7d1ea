//! Certificates: on the leader, carries out what the core plans for each domain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use jaco_core::certs::{self, Action, Expiring, PROBE_PATH, plan, wake};
use jaco_core::cluster::certs::{
    AccountKey, CertStep, Environment, Issued, Order, Stage, account_name, key_name,
};
use jaco_core::cluster::{ClusterState, Command};
use jaco_core::id::Domain;
use jaco_core::manifest::hash::{hex, unhex};
use jaco_core::ports::Measured;
use jaco_core::ports::certificate_authority::{Progress, Refusal};
use jaco_core::time::Timestamp;
use tokio::task::JoinSet;

use super::{Member, SAFETY_TICK};

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    let settings = member.config.acme.settings.clone();
    let mut busy = BTreeSet::new();
    let mut tasks: JoinSet<Domain> = JoinSet::new();
    let mut told = BTreeMap::new();
    loop {
        let state = member.state();
        let mut limit = SAFETY_TICK;
        if member.consensus.status().is_leader() {
            let now = member.clock.now();
            tell_expiring(&state, now, &mut told);
            for action in plan(&state, &settings, &busy, now) {
                start(&member, action, &mut busy, &mut tasks).await;
            }
            limit = wake(&state, now).map_or(limit, |due| due.since(now).min(limit));
        } else {
            // Who leads now does it.
            tasks.abort_all();
            tasks = JoinSet::new();
            busy.clear();
        }
        tokio::select! {
            () = member.woken(state.index, limit) => {}
            Some(done) = tasks.join_next() => match done {
                Ok(domain) => drop(busy.remove(&domain)),
                Err(error) => {
                    tracing::error!(subsystem = "acme", %error, "work on a certificate ended");
                    tasks = JoinSet::new();
                    busy.clear();
                }
            },
        }
    }
}

/// Tells of each certificate that will expire, once for each day that it has left.
fn tell_expiring(state: &ClusterState, now: Timestamp, told: &mut BTreeMap<Domain, u64>) {
    let expiring = certs::expiring(state, now);
    for Expiring {
        domain,
        days,
        reason,
    } in &expiring
    {
        if told.get(domain) != Some(days) {
            tracing::warn!(subsystem = "acme", %domain, reason, "certificate not renewed");
        }
    }
    *told = expiring.into_iter().map(|e| (e.domain, e.days)).collect();
}

async fn start(
    member: &Arc<Member>,
    action: Action,
    busy: &mut BTreeSet<Domain>,
    tasks: &mut JoinSet<Domain>,
) {
    let domain = match (action.domain(), &action) {
        (Some(domain), _) => domain.clone(),
        (None, Action::Commit(command)) => {
            member.report(command.clone()).await;
            return;
        }
        (None, _) => return,
    };
    busy.insert(domain.clone());
    let member = Arc::clone(member);
    tasks.spawn(async move {
        carry_out(&member, action).await;
        domain
    });
}

async fn carry_out(member: &Member, action: Action) {
    match action {
        Action::Register {
            domain,
            after,
            environment,
            account,
        } => {
            if let Err(refusal) = register(member, &account).await {
                fail(member, &domain, after, environment, refusal).await;
            }
        }
        Action::Order {
            domain,
            after,
            environment,
            account,
            preflight,
        } => {
            if preflight && let Err(reason) = look(member, &domain).await {
                let refusal = refused(Stage::Preflight, reason);
                return fail(member, &domain, after, environment, refusal).await;
            }
            match order(member, &domain, environment, &account).await {
                Ok(step) => report(member, &domain, after, step).await,
                Err(refusal) => {
                    forget_lost(member, &account, &refusal).await;
                    fail(member, &domain, after, environment, refusal).await;
                }
            }
        }
        Action::Complete {
            domain,
            after,
            order,
        } => match complete(member, &domain, &order).await {
            Ok(Some(step)) => {
                report(member, &domain, after, step).await;
                if order.environment == Environment::Staging {
                    tracing::info!(
                        subsystem = "acme",
                        %domain,
                        "staging self-check passed; promoting to prod"
                    );
                }
            }
            Ok(None) => tokio::time::sleep(certs::ASK_ORDER_AGAIN).await,
            Err(refusal) => {
                forget_lost(member, &order.account, &refusal).await;
                fail(member, &domain, after, order.environment, refusal).await;
            }
        },
        Action::AskRenewal {
            domain,
            after,
            issued,
        } => ask_renewal(member, &domain, after, &issued).await,
        Action::Commit(command) => member.report(command).await,
    }
}

/// Makes an account and keeps its credentials.
async fn register(member: &Member, account: &AccountKey) -> Result<(), Refusal> {
    let credentials = member.authority.register(account).await?;
    let sealed = member.sealer.seal(&account_name(account), &credentials);
    let account = account.clone();
    let credentials_sealed = hex(&sealed);
    let command = Command::AcmeAccount {
        account,
        credentials_sealed,
    };
    member.report(command).await;
    Ok(())
}

/// Looks whether the domain leads here, before a CA does.
async fn look(member: &Member, domain: &Domain) -> Result<(), String> {
    let found = member.lookup.addresses(domain.as_str()).await;
    let found = found.map_err(|error| format!("{domain} cannot be looked up: {error}"))?;
    if found.is_empty() {
        return Err(certs::nowhere(domain));
    }
    let state = member.state();
    let prober = certs::prober(&state, &member.name);
    let via = prober.map(|node| node.cluster_address.as_str());
    for address in found {
        let begun = Instant::now();
        loop {
            let probed = member.web.fetch(via, address, domain, PROBE_PATH).await;
            let Err(reason) = certs::verdict(&state, domain, address, &probed) else {
                break;
            };
            match certs::again(begun.elapsed()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(reason),
            }
        }
    }
    Ok(())
}

async fn order(
    member: &Member,
    domain: &Domain,
    environment: Environment,
    account: &AccountKey,
) -> Result<CertStep, Refusal> {
    let credentials = credentials(member, account)?;
    let key = member.authority.new_key()?;
    let placed = member.authority.order(&credentials, domain).await?;
    tracing::info!(subsystem = "acme", %domain, %environment, url = placed.url, "order placed");
    Ok(CertStep::Ordered {
        environment,
        account: account.clone(),
        url: placed.url,
        key_sealed: hex(&member.sealer.seal(&key_name(domain), key.as_bytes())),
        challenge: placed.challenge,
    })
}

/// Takes what the CA issues; nothing while it is not done.
async fn complete(
    member: &Member,
    domain: &Domain,
    order: &Order,
) -> Result<Option<CertStep>, Refusal> {
    let credentials = credentials(member, &order.account)?;
    let key = open(member, &key_name(domain), &order.key_sealed)?;
    let key = String::from_utf8_lossy(&key);
    let done = member
        .authority
        .complete(&credentials, &order.url, domain, &key);
    let Progress::Issued { chain, leaf } = done.await? else {
        return Ok(None);
    };
    certs::check(&leaf, domain, member.clock.now())
        .map_err(|reason| refused(Stage::Check, reason))?;
    let environment = order.environment;
    member.meter.record(Measured::CertificateIssued);
    tracing::info!(
        subsystem = "acme",
        %domain,
        %environment,
        serial = leaf.serial,
        not_after = %leaf.not_after,
        "certificate issued"
    );
    Ok(Some(CertStep::Issued {
        chain,
        serial: leaf.serial,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    }))
}

async fn ask_renewal(member: &Member, domain: &Domain, after: u64, issued: &Issued) {
    let answer = match credentials(member, &issued.account) {
        Ok(credentials) => member.authority.renewal(&credentials, &issued.chain).await,
        Err(refusal) => Err(refusal),
    };
    let answer = answer.inspect_err(|refusal| {
        tracing::debug!(subsystem = "acme", %domain, %refusal, "no word about renewal");
    });
    let state = member.state();
    let known = state
        .certs
        .get(domain)
        .map(|certificate| certificate.renewal);
    let renewal = certs::renewal(&known.unwrap_or_default(), answer.ok(), member.clock.now());
    report(member, domain, after, CertStep::Renewal(renewal)).await;
}

/// The credentials of an account of the state.
fn credentials(member: &Member, account: &AccountKey) -> Result<Vec<u8>, Refusal> {
    let state = member.state();
    let known = state.acme_accounts.get(&account.to_string());
    let known = known.ok_or_else(|| refused(Stage::Order, "the account is gone"))?;
    open(member, &account_name(account), &known.credentials_sealed)
}

fn open(member: &Member, name: &str, sealed: &str) -> Result<Vec<u8>, Refusal> {
    let opened = member.sealer.open(name, &unhex(sealed).unwrap_or_default());
    opened.map_err(|error| refused(Stage::Order, error.to_string()))
}

/// Drops credentials that the CA does not know any more.
async fn forget_lost(member: &Member, account: &AccountKey, refusal: &Refusal) {
    let state = member.state();
    let known = state.acme_accounts.get(&account.to_string());
    if let Some(known) = known.filter(|_| refusal.unknown_account) {
        let command = Command::AcmeAccountGone {
            account: account.clone(),
            credentials_sealed: known.credentials_sealed.clone(),
        };
        member.report(command).await;
    }
}

fn refused(stage: Stage, reason: impl Into<String>) -> Refusal {
    Refusal {
        stage,
        reason: reason.into(),
        rate_limited: false,
        retry_at: None,
        unknown_account: false,
    }
}

async fn fail(
    member: &Member,
    domain: &Domain,
    after: u64,
    environment: Environment,
    refusal: Refusal,
) {
    let Refusal { stage, reason, .. } = &refusal;
    tracing::warn!(subsystem = "acme", %domain, %environment, %stage, reason, "no certificate");
    let step = CertStep::Failed {
        stage: refusal.stage,
        environment,
        reason: refusal.reason,
        rate_limited: refusal.rate_limited,
        retry_at: refusal.retry_at,
    };
    report(member, domain, after, step).await;
}

async fn report(member: &Member, domain: &Domain, after: u64, step: CertStep) {
    let domain = domain.clone();
    member
        .report(Command::Certificate {
            domain,
            after,
            step,
        })
        .await;
}
