//! A leader that dies in the middle of a rollout (spec 05, Rolling updates).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use jaco_testkit::soak::leader::{Case, Moment, Order, Rollouts, prepare};

use support::bed;

/// Each moment once, in the order of the update in which it is harder to get right; `make
/// soak-leader-kills` goes on with the others.
#[test]
fn a_rollout_ends_alike_when_its_leader_dies_in_the_middle_of_a_step() {
    let bed = bed("leader", 3);
    prepare(&bed).unwrap();
    let mut rollouts = Rollouts::new(&bed).unwrap();
    for (order, moment, replica) in [
        (Order::StartFirst, Moment::Placed, 0),
        (Order::StartFirst, Moment::Barrier, 1),
        (Order::StartFirst, Moment::Monitor, 2),
        (Order::StopFirst, Moment::Stopping, 0),
        (Order::StopFirst, Moment::Started, 1),
        (Order::StopFirst, Moment::RollingBack, 0),
    ] {
        let case = Case {
            order,
            moment,
            replica,
        };
        if let Err(error) = rollouts.disturb(case) {
            panic!("{case}: {error:#}");
        }
    }
}
