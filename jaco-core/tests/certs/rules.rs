//! What is wanted, by whom it is ordered, when it is renewed and when it goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use jaco_core::certs::{
    Action, Leaf, Probed, STAGING, Settings, again, check, expiring, plan, probe_answer, verdict,
    wake,
};
use jaco_core::cluster::Command;
use jaco_core::cluster::audit::EventType;
use jaco_core::cluster::certs::{AccountKey, CertStep, Environment, Renewal};
use jaco_core::error::ErrorCode;
use jaco_core::id::{DeploymentName, Domain, NodeName, ServiceName};
use jaco_core::node::ingress;
use jaco_core::time::Timestamp;
use jaco_core::view::cert;
use jaco_testkit::builders::Cluster;

use super::support::{
    DAY, MINUTE, answer, certificate, domain, events, failed, issue, planned, settings, shop, spec,
    step,
};

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
fn what_nothing_renews_is_told_days_before_it_expires() {
    let mut cluster = shop();
    issue(&mut cluster, &settings());
    let served = certificate(&cluster).served.clone().unwrap();
    let told = |cluster: &Cluster| expiring(&cluster.state, cluster.now);
    let overdue = served.not_before + DAY * 70;
    // Ten days beside the point when it should have been renewed.
    cluster.now = overdue - MINUTE;
    assert_eq!(told(&cluster), []);
    assert_eq!(wake(&cluster.state, cluster.now), Some(overdue));
    for (day, left) in [(70, 20), (80, 10), (89, 1)] {
        cluster.now = served.not_before + DAY * day;
        let expiring = told(&cluster).remove(0);
        assert_eq!((expiring.domain, expiring.days), (domain(), left));
        let start = format!("expires in {left} days, at {}; ", served.not_after);
        assert!(expiring.reason.starts_with(&start), "{}", expiring.reason);
        assert!(expiring.reason.contains("nothing has renewed it since"));
    }
    // What stands in the way is told, and the same by `jaco status`.
    let after = certificate(&cluster).steps;
    step(&mut cluster, after, failed(Environment::Prod, None));
    assert!(told(&cluster).remove(0).reason.ends_with("; order: no"));
    let row = cert::list(&cluster.state).certs.remove(0);
    assert!(row.warning.unwrap().starts_with("expires in "));
    cluster.now = cluster.now + MINUTE * 60;
    issue(&mut cluster, &settings());
    assert_eq!(told(&cluster), []);
    assert_eq!(cert::list(&cluster.state).certs.remove(0).warning, None);
}

#[test]
fn an_address_of_a_domain_is_tried_for_a_while() {
    let seconds = std::time::Duration::from_secs;
    assert!(again(seconds(0)).is_some() && again(seconds(9)).is_some());
    assert_eq!(again(seconds(10)), None);
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
