//! Properties of pulls: never against the policy, never before a failed one is due again.

use jaco_core::manifest::spec::PullPolicy;
use jaco_core::node::pulls::{Fetch, Need, PullBook};
use jaco_core::time::Timestamp;
use proptest::prelude::*;

proptest! {
    #[test]
    fn an_image_is_pulled_when_its_policy_and_its_failures_allow(
        policy in prop::sample::select(vec![
            PullPolicy::Always,
            PullPolicy::Missing,
            PullPolicy::Never,
        ]),
        is_here in any::<bool>(),
        revision in 1..5u64,
        pulled_for in 0..5u64,
        failed_for in 0..5u64,
        failures in 0..4u32,
        now in 0..10_000u64,
    ) {
        let mut book = PullBook::default();
        for _ in 0..failures {
            book.failed("web:1", failed_for, "no route", Timestamp(0));
        }
        let due = match failures {
            0 => 0,
            some => 1_000 << (some - 1),
        };
        let waits = failed_for >= revision && now < due;
        let need = Need { image: "web:1", policy, revision, pulled_for, is_here };
        let expected = match policy {
            PullPolicy::Always if is_here && pulled_for >= revision => Fetch::Nothing,
            PullPolicy::Missing | PullPolicy::Never if is_here => Fetch::Nothing,
            PullPolicy::Never => Fetch::Refuse,
            _ if waits => Fetch::Wait("no route".to_owned()),
            _ => Fetch::Pull,
        };
        prop_assert_eq!(book.fetch(need, Timestamp(now)), expected);
        let other = Need { image: "web:2", ..need };
        prop_assert!(!matches!(book.fetch(other, Timestamp(now)), Fetch::Wait(_)));
    }
}
