//! The course of one certificate: stage first, one promotion, waits that outlive leaders.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jaco_core::certs::{Action, owed, plan, wake};
use jaco_core::cluster::Command;
use jaco_core::cluster::audit::EventType;
use jaco_core::cluster::certs::{CertState, Environment, Stage, backoff};
use jaco_core::cluster::node::NodeCondition;
use jaco_core::id::{Domain, NodeName};
use jaco_core::node::ingress;
use proptest::prelude::*;

use super::support::{
    MINUTE, acknowledge, answer, certificate, domain, events, failed, issue, issued, planned,
    settings, shop, state, step,
};

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

proptest! {
    /// Whatever the CA answers and whoever leads: nothing is tried before its time, a promotion
    /// happens once, and after a failure the wait is that of the failures in a row.
    #[test]
    fn any_course_keeps_to_its_times(
        answers in proptest::collection::vec((0..4_u8, 1..40_u64), 1..60),
    ) {
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
