//! The order of nodes for the next replica, and the ring that breaks ties.

use sha2::{Digest, Sha256};

use super::usage::Slot;
use crate::manifest::spec::Placement;

/// Smaller is better. Ties are broken on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score([u64; 3]);

/// Scores one node for one more replica of a service that has `here` on it.
pub(super) fn score(placement: &Placement, slot: &Slot, here: u32) -> Score {
    let fullness = fullness(slot);
    match placement {
        Placement::Pack => Score([u64::MAX - fullness, 0, 0]),
        _ => Score([u64::from(here), u64::from(slot.deployment_count), fullness]),
    }
}

/// Reserved share of the node's scarcer resource, in millionths.
fn fullness(slot: &Slot) -> u64 {
    let Some(engine) = slot.node.engine() else {
        return 0;
    };
    let share = |used: u64, of: u64| used.saturating_mul(1_000_000).checked_div(of).unwrap_or(0);
    share(slot.reserved.cpu_millis, engine.capacity.cpu_millis).max(share(
        slot.reserved.memory_bytes,
        engine.capacity.memory_bytes,
    ))
}

/// A stable place on a ring of 2^64. Among equally good nodes the one that follows the
/// replica's place wins: stable like a hash over (deployment, service, index, node), and found
/// in logarithmic time.
pub(super) fn ring_position(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}
