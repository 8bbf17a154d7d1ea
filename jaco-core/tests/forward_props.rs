//! The forwarder's policy: whom to ask, in which order, and what an answer means.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::net::IpAddr;
use std::time::Duration;

use jaco_core::cluster::addresses::Pool;
use jaco_core::error::ErrorCode;
use jaco_core::node::forward::{
    HELD_BACK, LONGEST_TTL, Next, Outcome, after, is_dead, kept_for, order, upstreams,
};
use proptest::prelude::*;

fn pool() -> Pool {
    Pool::parse("10.244.0.0/16").unwrap()
}

fn from_file(text: &str) -> (Vec<String>, Vec<String>) {
    let upstreams = upstreams(&[], text, pool()).unwrap();
    let addresses = upstreams.addresses.iter().map(IpAddr::to_string);
    (addresses.collect(), upstreams.warnings)
}

fn refused(forwarders: &[&str]) -> String {
    let forwarders: Vec<_> = forwarders.iter().map(|text| (*text).to_owned()).collect();
    let error = upstreams(&forwarders, "nameserver 9.9.9.9", pool()).unwrap_err();
    assert_eq!(error.code, ErrorCode::ConfigInvalid);
    error.message
}

#[test]
fn regression_docker_resolver_or_a_gateway_as_forwarder() {
    assert_eq!(
        refused(&["127.0.0.11"]),
        "dns.forwarders[0]: 127.0.0.11 is docker's embedded resolver; configuring it as an \
         upstream would create a forwarding loop"
    );
    assert_eq!(
        refused(&["9.9.9.9", "10.244.7.1"]),
        "dns.forwarders[1]: 10.244.7.1 is a gateway of the pool; configuring it as an upstream \
         would create a forwarding loop"
    );
    for disguised in ["::ffff:127.0.0.11", "::ffff:10.244.0.1"] {
        assert!(refused(&[disguised]).contains("forwarding loop"));
    }
    assert_eq!(
        refused(&["dns.example.com"]),
        "dns.forwarders[0]: \"dns.example.com\" is not an IP address"
    );
}

#[test]
fn configured_forwarders_are_taken_instead_of_the_hosts() {
    let forwarders = ["10.244.7.2".to_owned(), "::1".to_owned()];
    let upstreams = upstreams(&forwarders, "nameserver 9.9.9.9", pool()).unwrap();
    let expected: [IpAddr; 2] = ["10.244.7.2".parse().unwrap(), "::1".parse().unwrap()];
    assert_eq!(upstreams.addresses, expected);
    assert!(upstreams.warnings.is_empty());
}

#[test]
fn every_usable_nameserver_of_the_host_is_taken_in_order() {
    let text = "# resolv\nsearch example.com\nnameserver 192.0.2.7\n\tnameserver ::1 # note\n\
                nameserver 192.0.2.7\noptions ndots:2\nnameserver\nnameserver 127.0.0.53\n";
    let (addresses, warnings) = from_file(text);
    assert_eq!(addresses, ["192.0.2.7", "::1", "127.0.0.53"]);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn loop_sources_of_the_host_are_left_out_with_a_warning() {
    let (addresses, warnings) = from_file(
        "nameserver 127.0.0.11\nnameserver 10.244.3.1\nnameserver fe80::1%eth0\n\
                   nameserver 192.0.2.7\n",
    );
    assert_eq!(addresses, ["192.0.2.7"]);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for (warning, word) in warnings
        .iter()
        .zip(["127.0.0.11", "10.244.3.1", "fe80::1%eth0"])
    {
        assert!(warning.contains(word), "{warning}");
    }
}

#[test]
fn regression_no_upstream_resolvers_is_one_warning() {
    for text in ["", "search example.com\n", "# nameserver 192.0.2.7"] {
        let (addresses, warnings) = from_file(text);
        assert!(addresses.is_empty());
        assert_eq!(warnings, ["dns: no upstream resolvers configured"]);
    }
}

#[test]
fn only_a_final_answer_ends_the_search() {
    for code in 0..24 {
        let expected = match code {
            0 | 3 => Next::Final,
            _ => Next::NextUpstream,
        };
        assert_eq!(after(Outcome::Answered(code)), expected, "{code}");
        assert!(!is_dead(Outcome::Answered(code)));
    }
    assert_eq!(after(Outcome::Failed), Next::NextUpstream);
    assert_eq!(after(Outcome::Truncated), Next::OverTcp);
    assert!(is_dead(Outcome::Failed));
}

proptest! {
    #[test]
    fn those_that_failed_lately_are_asked_last_and_all_are_asked_once(
        failed in prop::collection::vec(prop::option::of(0..10_000_u64), 0..6),
    ) {
        let failed: Vec<_> = failed.iter().map(|ago| ago.map(Duration::from_millis)).collect();
        let order = order(&failed);
        let late = |at: usize| failed[at].is_some_and(|ago| ago < HELD_BACK);
        let (first, last): (Vec<_>, Vec<_>) = (0..failed.len()).partition(|&at| !late(at));
        prop_assert_eq!(order, [first, last].concat());
    }

    #[test]
    fn an_answer_is_kept_for_its_shortest_ttl_but_not_for_long(
        answers in prop::collection::vec(0..1_000_u32, 0..5),
        denial in prop::option::of(0..1_000_u32),
    ) {
        let kept = kept_for(answers.iter().copied(), denial);
        prop_assert!(kept <= LONGEST_TTL);
        prop_assert!(answers.iter().chain(&denial).all(|ttl| kept <= *ttl));
        let shortest = answers.iter().chain(&denial).min();
        prop_assert_eq!(kept, shortest.map_or(0, |ttl| *ttl.min(&LONGEST_TTL)));
    }

    #[test]
    fn no_file_makes_it_panic(text in "(nameserver|search|[0-9.:%a-f \n#]){0,30}") {
        let found = upstreams(&[], &text, pool()).unwrap();
        prop_assert!(!found.addresses.is_empty() || !found.warnings.is_empty());
    }
}
