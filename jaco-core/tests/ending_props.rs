//! Property: whatever a container says of its stop, it gets its grace, and its end is bounded.

use std::time::Duration;

use jaco_core::node::ending::Ending;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_stop_has_its_grace_and_an_end(stop_timeout in proptest::option::of(any::<i64>())) {
        let ending = Ending::of(stop_timeout);
        let asked = stop_timeout.and_then(|seconds| u64::try_from(seconds).ok());
        let grace = asked.map_or(Duration::from_secs(10), Duration::from_secs);
        prop_assert_eq!(ending.grace, grace);
        prop_assert_eq!(ending.limit, grace + Duration::from_secs(20));
    }
}
