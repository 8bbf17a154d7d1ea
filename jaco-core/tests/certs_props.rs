//! The certificate machine: stage first, one promotion, backoff that outlives leaders (spec 08).
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jaco_core::certs::{Action, Leaf, Settings, check, owed, plan, probe_answer, verdict, wake};
use jaco_core::certs::{Offer, PRODUCTION, Probed, STAGING, renewal};
use jaco_core::cluster::Command;
use jaco_core::cluster::audit::EventType;
use jaco_core::cluster::certs::{
    AccountKey, CertState, CertStep, Certificate, Challenge, Environment, Renewal, Stage, backoff,
};
use jaco_core::cluster::node::NodeCondition;
use jaco_core::error::ErrorCode;
use jaco_core::id::{DeploymentName, Domain, NodeName, ServiceName};
use jaco_core::manifest::spec::{DeploymentSpec, RouteSpec};
use jaco_core::node::ingress;
use jaco_core::time::Timestamp;
use jaco_testkit::builders::{Cluster, deployment, service};
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn settings() -> Settings {
    Settings::new(true, "", "ops@example.com", false)
}

fn spec(name: &str, domains: &[&str]) -> DeploymentSpec {
    let mut spec = deployment(name, [("web", service(1, "h1"))]);
    let route = |domain: &&str| RouteSpec {
        domain: Domain::new(domain),
        path: String::new(),
        service: ServiceName::new("web"),
        port: 80,
        tls: true,
        strip_path: false,
    };
    spec.routes = domains.iter().map(route).collect();
    spec
}

/// Three nodes, a shop with one domain, and the accounts that it needs.
fn shop() -> Cluster {
    let mut cluster = Cluster::of(3);
    cluster.deploy(spec("shop", &["shop.test"])).unwrap();
    for directory in [PRODUCTION, STAGING, "https://ca.test/dir"] {
        for contact in [None, Some("ops@example.com")] {
            register(&mut cluster, directory, contact);
        }
    }
    cluster
}

fn register(cluster: &mut Cluster, directory: &str, contact: Option<&str>) {
    cluster.must(Command::AcmeAccount {
        account: AccountKey {
            directory: directory.to_owned(),
            contact: contact.map(str::to_owned),
        },
        credentials_sealed: "sealed".to_owned(),
    });
}

fn domain() -> Domain {
    Domain::new("shop.test")
}

fn certificate(cluster: &Cluster) -> &Arc<Certificate> {
    &cluster.state.certs[&domain()]
}

fn state(cluster: &Cluster) -> CertState {
    certificate(cluster).state()
}

/// The plan of a leader that does nothing else.
fn planned(cluster: &Cluster, settings: &Settings) -> Vec<Action> {
    plan(&cluster.state, settings, &BTreeSet::new(), cluster.now)
}

fn step(cluster: &mut Cluster, after: u64, step: CertStep) {
    let domain = domain();
    cluster.must(Command::Certificate {
        domain,
        after,
        step,
    });
}

fn acknowledge(cluster: &mut Cluster) {
    let index = cluster.state.index;
    let nodes: Vec<NodeName> = cluster.state.nodes.keys().cloned().collect();
    for node in nodes {
        cluster.must(Command::Published { node, index });
    }
}

fn issued(now: Timestamp, serial: &str) -> CertStep {
    CertStep::Issued {
        chain: format!("chain {serial}"),
        serial: serial.to_owned(),
        not_before: now,
        not_after: now + DAY * 90,
    }
}

fn failed(environment: Environment, retry_at: Option<Timestamp>) -> CertStep {
    CertStep::Failed {
        stage: Stage::Order,
        environment,
        reason: "no".to_owned(),
        rate_limited: retry_at.is_some(),
        retry_at,
    }
}

/// A CA that never fails: what it makes of an action, as the driver would report it.
fn answer(cluster: &Cluster, action: &Action) -> Option<Command> {
    let (domain, after, step) = match action {
        Action::Register { account, .. } => {
            return Some(Command::AcmeAccount {
                account: account.clone(),
                credentials_sealed: "sealed".to_owned(),
            });
        }
        Action::Order {
            domain,
            after,
            environment,
            account,
            ..
        } => {
            let challenge = Challenge {
                token: format!("token-{after}"),
                answer: "answer".to_owned(),
            };
            let step = CertStep::Ordered {
                environment: *environment,
                account: account.clone(),
                url: format!("https://ca/{after}"),
                key_sealed: format!("key-{after}"),
                challenge: Some(challenge),
            };
            (domain, after, step)
        }
        Action::Complete { domain, after, .. } => {
            (domain, after, issued(cluster.now, &format!("{after}")))
        }
        Action::AskRenewal { domain, after, .. } => {
            let none = renewal(&Renewal::default(), Some(Offer::None), cluster.now);
            (domain, after, CertStep::Renewal(none))
        }
        Action::Commit(command) => return Some(command.clone()),
    };
    Some(Command::Certificate {
        domain: domain.clone(),
        after: *after,
        step,
    })
}

/// Carries everything out until nothing is planned.
fn issue(cluster: &mut Cluster, settings: &Settings) {
    for _ in 0..20 {
        for action in planned(cluster, settings) {
            let command = answer(cluster, &action).unwrap();
            cluster.must(command);
        }
        acknowledge(cluster);
    }
}

fn events(cluster: &Cluster, kind: EventType) -> Vec<String> {
    let events = cluster.state.audit.iter().filter(|e| e.kind == kind);
    events.map(|e| e.payload["env"].clone()).collect()
}

#[test]
fn a_domain_passes_staging_once_and_is_issued() {
    let mut cluster = shop();
    assert_eq!(state(&cluster), CertState::Pending);
    issue(&mut cluster, &settings());
    assert_eq!(state(&cluster), CertState::Issued);
    assert_eq!(
        events(&cluster, EventType::CertificateIssued),
        ["staging", "prod"]
    );
    assert!(planned(&cluster, &settings()).is_empty());
}

#[test]
fn regression_endless_promoting_is_one_promotion_in_a_thousand_ticks_of_a_slow_ca() {
    let mut cluster = shop();
    let settings = settings();
    let (mut promotions, mut changes) = (0, vec![state(&cluster)]);
    // Every answer of the CA takes forty ticks of ten seconds.
    let mut pending: Option<(usize, Action)> = None;
    for tick in 0..1_000 {
        cluster.now = cluster.now + Duration::from_secs(10);
        let busy: BTreeSet<Domain> = pending.iter().map(|_| domain()).collect();
        for action in plan(&cluster.state, &settings, &busy, cluster.now) {
            if let Action::Order {
                environment: Environment::Prod,
                ..
            } = action
            {
                promotions += 1;
            }
            pending = Some((tick + 40, action));
        }
        if let Some((_, action)) = pending.take_if(|(due, _)| *due <= tick) {
            let command = answer(&cluster, &action).unwrap();
            cluster.must(command);
        }
        acknowledge(&mut cluster);
        if changes.last() != Some(&state(&cluster)) {
            changes.push(state(&cluster));
        }
    }
    assert_eq!(promotions, 1);
    use CertState::{Issued, Pending, PendingProd, Staging};
    assert_eq!(changes, [Pending, Staging, PendingProd, Issued]);
}

#[test]
fn regression_an_outage_of_production_is_met_with_backoff_across_leaders() {
    let mut cluster = shop();
    let settings = settings();
    // Staging passes.
    for _ in 0..2 {
        let action = planned(&cluster, &settings).remove(0);
        let command = answer(&cluster, &action).unwrap();
        cluster.must(command);
        acknowledge(&mut cluster);
    }
    assert_eq!(state(&cluster), CertState::PendingProd);
    let begin = cluster.now;
    let mut attempts = Vec::new();
    while cluster.now < begin + MINUTE * 360 {
        for action in planned(&cluster, &settings) {
            let Action::Order {
                after,
                environment: Environment::Prod,
                ..
            } = action
            else {
                panic!("{action:?}");
            };
            attempts.push(cluster.now.since(begin).as_secs() / 60);
            step(&mut cluster, after, failed(Environment::Prod, None));
        }
        if [100, 200].contains(&(cluster.now.since(begin).as_secs() / 60)) {
            // A leader change: what the next one knows went through the log.
            let text = serde_json::to_string(&cluster.state).unwrap();
            cluster.state = serde_json::from_str(&text).unwrap();
        }
        cluster.now = cluster.now + MINUTE;
    }
    assert_eq!(attempts, [0, 15, 45, 105, 165, 225, 285, 345]);
    let failures = events(&cluster, EventType::CertificateFailed);
    assert_eq!(failures.len(), attempts.len());
    assert_eq!(state(&cluster), CertState::Failed);
    // Plain HTTP goes on meanwhile.
    let table = ingress::table(&cluster.state, &NodeName::new("n1"));
    assert!(table.needs_http() && !table.needs_https());
}

#[test]
fn regression_a_rate_limit_is_obeyed_when_it_is_later() {
    for (retry, expected) in [(5, 15), (90, 90)] {
        let mut cluster = shop();
        let retry_at = cluster.now + MINUTE * retry;
        step(&mut cluster, 0, failed(Environment::Prod, Some(retry_at)));
        let failure = certificate(&cluster).failure.clone().unwrap();
        assert!(failure.rate_limited);
        assert_eq!(failure.next_attempt_at, cluster.now + MINUTE * expected);
        assert_eq!(
            wake(&cluster.state, cluster.now),
            Some(failure.next_attempt_at)
        );
    }
}

#[test]
fn regression_a_ca_is_told_only_once_every_live_node_has_the_challenge() {
    let mut cluster = shop();
    let action = planned(&cluster, &settings()).remove(0);
    let command = answer(&cluster, &action).unwrap();
    cluster.must(command);
    let index = cluster.state.index;
    for node in ["n1", "n2", "n3"].map(NodeName::new) {
        assert_eq!(planned(&cluster, &settings()), []);
        assert_eq!(owed(&cluster.state, &node), Some(index));
        let table = ingress::table(&cluster.state, &node);
        assert_eq!(table.challenges["token-0"], "answer");
        cluster.must(Command::Published {
            node: node.clone(),
            index,
        });
        assert_eq!(owed(&cluster.state, &node), None);
    }
    let planned = planned(&cluster, &settings());
    assert!(
        matches!(planned[..], [Action::Complete { .. }]),
        "{planned:?}"
    );
}

#[test]
fn a_node_that_is_not_heard_of_is_not_waited_for_and_one_that_is_only_for_a_while() {
    let mut cluster = shop();
    let action = planned(&cluster, &settings()).remove(0);
    let command = answer(&cluster, &action).unwrap();
    cluster.must(command);
    let index = cluster.state.index;
    for node in ["n1", "n2"].map(NodeName::new) {
        cluster.must(Command::Published { node, index });
    }
    assert_eq!(planned(&cluster, &settings()), []);
    let mut late = cluster.clone();
    late.now = late.now + MINUTE * 5;
    let Action::Commit(command) = planned(&late, &settings()).remove(0) else {
        panic!("the order is given up");
    };
    late.must(command);
    let failure = certificate(&late).failure.clone().unwrap();
    assert_eq!(failure.stage, Stage::Challenge);
    assert!(failure.reason.contains("n3"), "{}", failure.reason);
    cluster.must(Command::NodeCondition {
        node: NodeName::new("n3"),
        condition: NodeCondition::Unreachable,
    });
    assert_eq!(planned(&cluster, &settings()).len(), 1);
}

#[test]
fn regression_nothing_of_staging_is_served_and_production_is_at_once() {
    let mut cluster = shop();
    let settings = settings();
    for served in [None, None, None, None, Some("chain 3")] {
        let table = ingress::table(&cluster.state, &NodeName::new("n2"));
        let chain = table.certificates.get(&domain());
        assert_eq!(chain.map(|chain| chain.chain.as_str()), served);
        for action in planned(&cluster, &settings) {
            let command = answer(&cluster, &action).unwrap();
            cluster.must(command);
        }
        acknowledge(&mut cluster);
    }
}

#[test]
fn a_stale_step_does_nothing() {
    let mut cluster = shop();
    issue(&mut cluster, &settings());
    let before = Arc::clone(certificate(&cluster));
    for after in 0..before.steps {
        step(&mut cluster, after, failed(Environment::Prod, None));
        let now = cluster.now;
        step(&mut cluster, after, issued(now, "stale"));
    }
    assert_eq!(*certificate(&cluster), before);
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life_or_in_the_cas_window() {
    let mut cluster = shop();
    issue(&mut cluster, &settings());
    let served = certificate(&cluster).served.clone().unwrap();
    let due = served.not_before + DAY * 60;
    cluster.now = due - MINUTE;
    assert!(renews(&cluster).is_none());
    cluster.now = due;
    assert_eq!(renews(&cluster), Some(Environment::Prod));
    // A window wins over the rule.
    let window = (served.not_before + DAY * 20, served.not_before + DAY * 21);
    let after = certificate(&cluster).steps;
    let renewal = Renewal {
        window: Some(window),
        ask_at: Some(served.not_after),
    };
    step(&mut cluster, after, CertStep::Renewal(renewal));
    cluster.now = window.0 - MINUTE;
    assert!(renews(&cluster).is_none());
    cluster.now = window.1;
    assert_eq!(renews(&cluster), Some(Environment::Prod));
    issue(&mut cluster, &settings());
    assert_eq!(events(&cluster, EventType::CertificateRenewed), ["prod"]);
    assert!(certificate(&cluster).renewed_at.is_some());
}

fn renews(cluster: &Cluster) -> Option<Environment> {
    let mut planned = planned(cluster, &settings()).into_iter();
    planned.find_map(|action| match action {
        Action::Order { environment, .. } => Some(environment),
        _ => None,
    })
}

#[test]
fn what_expired_is_served_no_more() {
    let mut cluster = shop();
    issue(&mut cluster, &settings());
    cluster.now = certificate(&cluster).served.clone().unwrap().not_after;
    let off = Settings {
        enabled: false,
        ..settings()
    };
    let Action::Commit(command) = planned(&cluster, &off).remove(0) else {
        panic!("it expires");
    };
    cluster.must(command);
    assert_eq!(certificate(&cluster).served, None);
    assert_eq!(planned(&cluster, &off), []);
}

#[test]
fn nothing_is_asked_when_acme_is_switched_off() {
    let off = Settings::new(false, "", "", false);
    assert_eq!(planned(&shop(), &off), []);
}

#[test]
fn routes_without_tls_want_no_certificate() {
    let mut cluster = Cluster::of(1);
    let mut plain = spec("shop", &["shop.test"]);
    plain.routes[0].tls = false;
    cluster.deploy(plain).unwrap();
    assert!(cluster.state.certs.is_empty());
    let table = ingress::table(&cluster.state, &NodeName::new("n1"));
    assert!(table.challenges.is_empty());
}

#[test]
fn only_lets_encrypt_is_staged_and_not_when_it_is_skipped() {
    for (ca, skip, staged) in [
        ("", false, true),
        ("", true, false),
        ("https://ca.test/dir", false, false),
    ] {
        let settings = Settings::new(true, ca, "", skip);
        assert_eq!(settings.staging.is_some(), staged, "{ca} {skip}");
        let Action::Order {
            environment,
            account,
            preflight,
            ..
        } = planned(&shop(), &settings).remove(0)
        else {
            panic!("an order");
        };
        assert!(preflight);
        assert_eq!(environment == Environment::Staging, staged);
        assert_eq!(account.contact, None);
    }
}

#[test]
fn each_contact_of_each_directory_has_one_account_of_its_own() {
    let mut cluster = Cluster::of(1);
    cluster.deploy(spec("a", &["a.test", "a2.test"])).unwrap();
    let mut own = spec("b", &["b.test"]);
    own.acme_email = Some("b@example.com".to_owned());
    cluster.deploy(own).unwrap();
    let first = planned(&cluster, &settings());
    let contacts = first.iter().map(|action| {
        let Action::Register { account, .. } = action else {
            panic!("an account");
        };
        account.contact.clone().unwrap()
    });
    let contacts: Vec<String> = contacts.collect();
    assert_eq!(contacts, ["ops@example.com", "b@example.com"]);
    // While one is being made nobody else asks for it.
    let busy: BTreeSet<Domain> = first.iter().filter_map(Action::domain).cloned().collect();
    assert_eq!(plan(&cluster.state, &settings(), &busy, cluster.now), []);
    for action in first {
        let command = answer(&cluster, &action).unwrap();
        cluster.must(command);
    }
    let second = planned(&cluster, &settings());
    let orders = second.iter().filter(|a| matches!(a, Action::Order { .. }));
    assert_eq!(orders.count(), 3);
}

#[test]
fn an_account_that_the_ca_lost_is_made_anew() {
    let mut cluster = shop();
    let account = AccountKey {
        directory: STAGING.to_owned(),
        contact: Some("ops@example.com".to_owned()),
    };
    for (credentials, gone) in [("other", false), ("sealed", true)] {
        cluster.must(Command::AcmeAccountGone {
            account: account.clone(),
            credentials_sealed: credentials.to_owned(),
        });
        let first = planned(&cluster, &settings()).remove(0);
        assert_eq!(matches!(first, Action::Register { .. }), gone);
    }
}

#[test]
fn certificates_go_with_their_deployment_and_survive_scaling_and_rollbacks() {
    let mut cluster = shop();
    issue(&mut cluster, &settings());
    let first = Arc::clone(certificate(&cluster));
    cluster.must(Command::Scale {
        deployment: DeploymentName::new("shop"),
        service: ServiceName::new("web"),
        replicas: 3,
    });
    assert_eq!(*certificate(&cluster), first);
    assert_eq!(planned(&cluster, &settings()), []);
    // A route that goes and comes back finds its certificate.
    cluster.deploy(spec("shop", &[])).unwrap();
    let table = ingress::table(&cluster.state, &NodeName::new("n1"));
    assert!(table.certificates.is_empty());
    assert_eq!(planned(&cluster, &settings()), []);
    cluster.deploy(spec("shop", &["shop.test"])).unwrap();
    assert_eq!(*certificate(&cluster), first);
    assert_eq!(planned(&cluster, &settings()), []);
    cluster.must(Command::Delete {
        deployment: DeploymentName::new("shop"),
    });
    assert!(cluster.state.certs.is_empty());
}

#[test]
fn an_operator_has_a_certificate_ordered_at_once() {
    let mut cluster = shop();
    step(&mut cluster, 0, failed(Environment::Staging, None));
    assert_eq!(planned(&cluster, &settings()), []);
    cluster.must(Command::CertificateRenew { domain: domain() });
    assert_eq!(planned(&cluster, &settings()).len(), 1);
    let unknown = Command::CertificateRenew {
        domain: Domain::new("other.test"),
    };
    let refused = cluster.apply(unknown).unwrap_err();
    assert_eq!(refused.code, ErrorCode::RouteNotFound);
}

#[test]
fn only_so_many_domains_are_worked_on_at_once() {
    let mut cluster = shop();
    let names: Vec<String> = (0..30).map(|n| format!("d{n}.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.deploy(spec("many", &names)).unwrap();
    let first = planned(&cluster, &settings());
    assert_eq!(first.len(), 8);
    let busy: BTreeSet<Domain> = first.iter().filter_map(Action::domain).cloned().collect();
    assert_eq!(plan(&cluster.state, &settings(), &busy, cluster.now), []);
}

#[test]
fn a_leaf_must_be_valid_and_for_the_domain() {
    let now = Timestamp(1_000_000);
    let leaf = |names: &[&str], not_after| Leaf {
        serial: "01".to_owned(),
        not_before: Timestamp(0),
        not_after,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let later = now + DAY;
    assert_eq!(check(&leaf(&["shop.test"], later), &domain(), now), Ok(()));
    assert!(check(&leaf(&["other.test"], later), &domain(), now).is_err());
    assert!(check(&leaf(&[], later), &domain(), now).is_err());
    assert!(check(&leaf(&["shop.test"], now), &domain(), now).is_err());
}

#[test]
fn a_preflight_tells_this_cluster_from_everything_else() {
    let cluster = shop();
    let ours = probe_answer(cluster.state.cluster.as_ref().unwrap());
    let answered = |status, body: &str| Probed::Answered {
        status,
        body: body.to_owned(),
    };
    let address = "192.0.2.1".parse().unwrap();
    let verdict = |probed| verdict(&cluster.state, &domain(), address, &probed);
    assert_eq!(verdict(answered(200, &ours)), Ok(()));
    for other in [
        answered(200, "hello"),
        answered(404, &ours),
        Probed::Silent("connection refused".to_owned()),
    ] {
        let reason = verdict(other).unwrap_err();
        assert!(reason.contains("192.0.2.1"), "{reason}");
    }
}

proptest! {
    /// Whatever the CA answers and whoever leads: nothing is tried before its time, a promotion
    /// happens once, and after a failure the wait is that of the failures in a row.
    #[test]
    fn any_course_keeps_to_its_times(answers in proptest::collection::vec((0..4_u8, 1..40_u64), 1..60)) {
        let mut cluster = shop();
        let settings = settings();
        let (mut in_a_row, mut not_before, mut promoted) = (0, cluster.now, 0);
        for (kind, minutes) in answers {
            cluster.now = cluster.now + MINUTE * u32::try_from(minutes).unwrap();
            acknowledge(&mut cluster);
            for action in planned(&cluster, &settings) {
                let environment = match &action {
                    Action::Order { environment, .. } => {
                        prop_assert!(cluster.now >= not_before);
                        *environment
                    }
                    Action::Complete { order, .. } => order.environment,
                    _ => Environment::Prod,
                };
                let after = certificate(&cluster).steps;
                let renews = matches!(action, Action::AskRenewal { .. } | Action::Commit(_));
                match kind {
                    0 | 1 if !renews => {
                        in_a_row += 1;
                        let retry = (kind == 1).then(|| cluster.now + MINUTE * 50);
                        not_before = cluster.now + backoff(in_a_row);
                        not_before = not_before.max(retry.unwrap_or_default());
                        step(&mut cluster, after, failed(environment, retry));
                    }
                    _ => {
                        let completes = matches!(action, Action::Complete { .. });
                        let command = answer(&cluster, &action).unwrap();
                        cluster.must(command);
                        if completes {
                            in_a_row = 0;
                            not_before = cluster.now;
                            promoted += u32::from(environment == Environment::Staging);
                        }
                    }
                }
            }
            let changed = certificate(&cluster);
            prop_assert_eq!(changed.failure.as_ref().map_or(0, |f| f.attempts), in_a_row);
        }
        prop_assert!(promoted <= 1);
        let staged = events(&cluster, EventType::CertificateIssued);
        prop_assert_eq!(staged.iter().filter(|e| *e == "staging").count() as u32, promoted);
    }
}
