//! Wrong join tokens: a burst, then one every so often, for each address on its own.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::net::{IpAddr, Ipv4Addr};

use jaco_core::cluster::attempts::{Attempts, BURST, REFILL};
use jaco_core::error::ErrorCode;
use jaco_core::time::Timestamp;
use proptest::prelude::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn millis() -> u64 {
    u64::try_from(REFILL.as_millis()).unwrap()
}

#[test]
fn wrong_join_tokens_are_limited_for_each_address() {
    let mut attempts = Attempts::default();
    let start = Timestamp(1_000_000);
    for _ in 0..BURST {
        attempts.begin(HERE, start).unwrap();
    }
    let refused = attempts.begin(HERE, start).unwrap_err();
    assert_eq!(refused.code, ErrorCode::JoinTokenInvalid);
    assert_eq!(refused.details["next_try_at"], (start + REFILL).to_string());
    attempts.begin(THERE, start).unwrap();
    attempts.begin(HERE, start + REFILL).unwrap();
    assert!(attempts.begin(HERE, start + REFILL).is_err());
}

#[test]
fn right_tokens_use_nothing_up() {
    let mut attempts = Attempts::default();
    for _ in 0..100 {
        attempts.begin(HERE, Timestamp(5)).unwrap();
        attempts.forgive(HERE);
    }
    assert_eq!(attempts.remembered(), 0);
}

#[test]
fn addresses_of_one_ipv6_network_share_their_tries() {
    let mut attempts = Attempts::default();
    let address = |last: u32| format!("2001:db8:1:2::{last:x}").parse().unwrap();
    for last in 0..BURST {
        attempts.begin(address(last), Timestamp(5)).unwrap();
    }
    assert!(attempts.begin(address(99), Timestamp(5)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_address_gets_more_than_its_burst_and_its_refills(
        waits in prop::collection::vec(0..30_000u64, 1..200),
    ) {
        let mut attempts = Attempts::default();
        let (mut now, mut passed) = (1_000_000, 0);
        for wait in waits {
            now += wait;
            passed += u64::from(attempts.begin(HERE, Timestamp(now)).is_ok());
            let most = u64::from(BURST) + (now - 1_000_000) / millis();
            prop_assert!(passed <= most, "{passed} of {most}");
        }
    }


    #[test]
    fn what_is_remembered_is_bounded(
        addresses in prop::collection::vec(any::<u32>(), 1_000..1_200),
    ) {
        let mut attempts = Attempts::default();
        for address in addresses {
            attempts.begin(Ipv4Addr::from(address).into(), Timestamp(7)).unwrap();
        }
        prop_assert!(attempts.remembered() <= 1_024);
    }
}
