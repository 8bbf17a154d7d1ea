//! Routes and the choice of a replica, for any table, load and failure.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use jaco_core::id::{DeploymentName, Domain, ReplicaId, ServiceName};
use jaco_core::node::balance::{
    Failure, Load, Next, RETRIES, RETRY_WINDOW, after, is_idempotent, least_connections,
    power_of_two,
};
use jaco_core::node::carrier::{Carrier, Spoken, Wish, begins_http2, carrier, is_grpc};
use jaco_core::node::ingress::{Route, RouteTable, Upstream, covers, matched_path};
use jaco_core::node::trust::TrustedPeers;
use proptest::prelude::*;

fn upstream(number: usize, local: bool) -> Upstream {
    Upstream {
        replica: ReplicaId::new(format!("web-{number}")),
        address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, number as u16),
        local,
    }
}

fn upstreams() -> impl Strategy<Value = Vec<(Upstream, Load)>> {
    let one = (any::<bool>(), 0..4_u32, any::<bool>());
    proptest::collection::vec(one, 0..8).prop_map(|all| {
        let made = all
            .into_iter()
            .enumerate()
            .map(|(number, (local, in_flight, ejected))| {
                (upstream(number, local), Load { in_flight, ejected })
            });
        made.collect()
    })
}

fn route(path: &str) -> Route {
    Route {
        path: path.to_owned(),
        strip_path: false,
        tls: false,
        deployment: DeploymentName::from("shop"),
        service: ServiceName::from("web"),
        upstreams: Arc::default(),
    }
}

/// What either rule chooses.
fn choices(all: &[(Upstream, Load)], tried: &[usize], random: u64) -> [Option<usize>; 2] {
    let (upstreams, loads): (Vec<_>, Vec<_>) = all.iter().cloned().unzip();
    let load = |upstream: &Upstream| loads[usize::from(upstream.address.port())];
    [
        power_of_two(&upstreams, tried, random, load),
        least_connections(&upstreams, tried, load),
    ]
}

proptest! {
    #[test]
    fn a_replica_that_was_tried_is_never_chosen_again(
        all in upstreams(),
        tried in proptest::collection::vec(0..8_usize, 0..8),
        random in any::<u64>(),
    ) {
        let untried = (0..all.len()).any(|at| !tried.contains(&at));
        for choice in choices(&all, &tried, random) {
            prop_assert_eq!(choice.is_some(), untried);
            prop_assert!(choice.is_none_or(|at| at < all.len() && !tried.contains(&at)));
        }
    }

    #[test]
    fn an_ejected_replica_is_chosen_only_when_nothing_else_is_left(
        all in upstreams(),
        tried in proptest::collection::vec(0..8_usize, 0..3),
        random in any::<u64>(),
    ) {
        let healthy = (0..all.len()).any(|at| !all[at].1.ejected && !tried.contains(&at));
        for choice in choices(&all, &tried, random).into_iter().flatten() {
            prop_assert_eq!(all[choice].1.ejected, !healthy);
        }
    }

    #[test]
    fn the_least_busy_of_all_is_taken_and_a_local_one_when_equal(all in upstreams()) {
        let [_, least] = choices(&all, &[], 0);
        if let Some(at) = least {
            let rank = |(upstream, load): &(Upstream, Load)| {
                (load.ejected, load.in_flight, !upstream.local)
            };
            prop_assert!(all.iter().all(|other| rank(&all[at]) <= rank(other)));
        }
    }

    #[test]
    fn the_less_busy_of_the_two_that_were_drawn_is_taken(
        all in upstreams(),
        random in any::<u64>(),
    ) {
        let healthy: Vec<_> = all.into_iter().filter(|(_, load)| !load.ejected).collect();
        prop_assume!(healthy.len() > 1);
        let (upstreams, loads): (Vec<_>, Vec<_>) = healthy.iter().cloned().unzip();
        let drawn = RefCell::new(BTreeSet::new());
        let chosen = power_of_two(&upstreams, &[], random, |upstream| {
            let at = upstreams.iter().position(|other| other == upstream).unwrap();
            drawn.borrow_mut().insert(at);
            loads[at]
        });
        let rank = |at: usize| (loads[at].in_flight, !upstreams[at].local);
        let (chosen, drawn) = (chosen.unwrap(), drawn.into_inner());
        prop_assert_eq!(drawn.len(), 2);
        prop_assert!(drawn.iter().all(|&at| rank(chosen) <= rank(at)));
    }

    #[test]
    fn every_pair_can_be_drawn(count in 2..6_usize, seed in any::<u64>()) {
        let upstreams: Vec<_> = (0..count).map(|number| upstream(number, true)).collect();
        let mut pairs = BTreeSet::new();
        let mut random = seed;
        for _ in 0..2000 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let drawn = RefCell::new(BTreeSet::new());
            power_of_two(&upstreams, &[], random.swap_bytes(), |upstream| {
                drawn.borrow_mut().insert(upstream.address);
                Load::default()
            });
            pairs.insert(drawn.into_inner());
        }
        prop_assert_eq!(pairs.len(), count * (count - 1) / 2);
    }

    #[test]
    fn nothing_is_done_twice_that_could_do_harm(
        retries in 0..5_u8,
        seconds in 0..20_u64,
        idempotent in any::<bool>(),
        sent in any::<bool>(),
        replayable in any::<bool>(),
        pooled in any::<bool>(),
    ) {
        let elapsed = Duration::from_secs(seconds);
        let failure = Failure { retries, elapsed, idempotent, sent, replayable, pooled };
        let again = after(&failure) != Next::GiveUp;
        let allowed = (idempotent || !sent) && replayable;
        prop_assert_eq!(again, allowed && retries < RETRIES && elapsed < RETRY_WINDOW);
        prop_assert!(!again || (after(&failure) == Next::SameReplica) == pooled);
    }

    #[test]
    fn the_longest_path_on_a_segment_boundary_wins(
        paths in proptest::collection::btree_set("(/[ab]{1,2}){0,3}", 0..6),
        asked in "(/[ab]{1,2}){0,4}/?",
        host in "[aA]\\.[tT]est",
    ) {
        let mut routes: Vec<_> = paths.iter().map(|path| route(path)).collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        let mut table = RouteTable::default();
        table.domains.insert(Domain::from("a.test"), routes);
        let segments = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let expected = paths
            .iter()
            .filter(|path| segments(&asked).starts_with(&segments(path)))
            .max_by_key(|path| path.len());
        let found = table.find(&host, &asked).map(|route| &route.path);
        prop_assert_eq!(found, expected);
        prop_assert!(table.find("b.test", &asked).is_none());
    }

    #[test]
    fn only_a_visitor_of_http_2_is_forwarded_over_it_and_only_for_cause(
        spoken in prop_oneof![
            Just(Spoken::Unknown), Just(Spoken::Http1), Just(Spoken::H2c),
        ],
        http2 in any::<bool>(),
        grpc in any::<bool>(),
        not_understood in any::<bool>(),
    ) {
        let carrier = carrier(spoken, Wish { http2, grpc, not_understood });
        let cause = spoken == Spoken::H2c
            || spoken == Spoken::Unknown && (grpc || not_understood);
        prop_assert_eq!(carrier == Carrier::H2c, http2 && cause);
    }

    #[test]
    fn no_answer_of_http_1_looks_like_http_2(status in "HTTP/1\\.[01] [0-9]{3}") {
        let head: [u8; 9] = status.as_bytes()[..9].try_into().unwrap();
        prop_assert!(!begins_http2(head));
    }

    #[test]
    fn an_address_is_trusted_by_its_leading_bits(
        base in any::<u32>(),
        length in 0..=32_u32,
        differs in any::<u32>(),
    ) {
        let block = format!("{}/{length}", Ipv4Addr::from_bits(base));
        let trusted = TrustedPeers::read(&[block]).unwrap();
        let address = Ipv4Addr::from_bits(base ^ differs);
        let inside = length == 0 || differs >> (32 - length) == 0;
        prop_assert_eq!(trusted.contains(address.into()), inside);
        // Sockets for both families show it so.
        prop_assert_eq!(trusted.contains(address.to_ipv6_mapped().into()), inside);
    }

    #[test]
    fn a_prefix_covers_itself_and_what_is_below(
        prefix in "(/[a-z]{1,3}){1,3}",
        tail in "[a-z/]{0,5}",
    ) {
        prop_assert!(covers(&prefix, &prefix));
        let below = tail.is_empty() || tail.starts_with('/');
        prop_assert_eq!(covers(&prefix, &format!("{prefix}{tail}")), below);
    }
}

#[test]
fn grpc_is_known_by_its_content_type() {
    for kind in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc;x=y",
    ] {
        assert!(is_grpc(kind.as_bytes()), "{kind}");
    }
    for kind in [
        "application/grpc-web",
        "application/json",
        "",
        "text/application/grpc",
    ] {
        assert!(!is_grpc(kind.as_bytes()), "{kind}");
    }
}

#[test]
fn trusted_peers_are_addresses_or_blocks_and_what_is_neither_is_named() {
    let read = |list: &[&str]| {
        let list: Vec<_> = list.iter().map(|text| (*text).to_owned()).collect();
        TrustedPeers::read(&list)
    };
    let trusted = read(&["192.0.2.1", "10.0.0.0/8", "2001:db8::/32"]).unwrap();
    let contains = |address: &str| trusted.contains(address.parse::<IpAddr>().unwrap());
    for address in [
        "192.0.2.1",
        "10.255.0.1",
        "2001:db8:1::1",
        "::ffff:10.1.2.3",
    ] {
        assert!(contains(address), "{address}");
    }
    for address in ["192.0.2.2", "11.0.0.0", "2001:db9::1", "::1"] {
        assert!(!contains(address), "{address}");
    }
    for wrong in [
        "10.0.0.0/33",
        "lb.example.com",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "2001::/129",
    ] {
        let error = read(&["10.0.0.1", wrong]).unwrap_err();
        assert_eq!(error.details["field"], "ingress.trusted_proxies[1]");
        assert!(error.message.contains(wrong), "{}", error.message);
    }
}

#[test]
fn the_idempotent_methods_are_those_of_the_standard() {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        assert!(is_idempotent(method));
    }
    for method in ["POST", "PATCH", "CONNECT", "get", "PURGE", ""] {
        assert!(!is_idempotent(method));
    }
}

#[test]
fn a_path_is_matched_where_its_dots_lead() {
    let resolved = |path: &str| matched_path(path).map(|path| path.into_owned());
    for (path, expected) in [
        ("/", "/"),
        ("/api", "/api"),
        ("/api/x.y/..z/...", "/api/x.y/..z/..."),
        ("/api/../admin", "/admin"),
        ("/api/%2e%2e/admin", "/admin"),
        ("/api/%2E./admin", "/admin"),
        ("/./api/.", "/api/"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("//a/../b", "//b"),
        ("/%2ea", "/%2ea"),
    ] {
        assert_eq!(resolved(path).as_deref(), Some(expected), "{path}");
    }
    for path in ["/..", "/../x", "/a/../../x", "/%2e%2e", "/./.."] {
        assert_eq!(resolved(path), None, "{path}");
    }
}

proptest! {
    /// What a prefix covers is really below it, whatever the path looks like.
    #[test]
    fn no_path_gets_out_of_a_prefix(
        segments in proptest::collection::vec("(a|\\.|\\.\\.|%2e|%2E%2e|)", 0..8),
    ) {
        let path = format!("/{}", segments.join("/"));
        if let Some(found) = matched_path(&path) {
            let plain = |it: &str| it.to_ascii_lowercase().replace("%2e", ".");
            let dotted = |it: &str| matches!(plain(it).as_str(), "." | "..");
            prop_assert!(!found.split('/').any(dotted), "{} {}", path, found);
        }
    }
}
