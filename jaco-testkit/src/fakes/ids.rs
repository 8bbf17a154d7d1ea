//! Random values that are the same in every run.

use std::sync::{Mutex, PoisonError};

use jaco_core::ports::Ids;

/// A sequence (SplitMix64) that follows from its seed. For tests only: it keeps no secret.
#[derive(Debug)]
pub struct FakeIds(Mutex<u64>);

impl FakeIds {
    /// The sequence of this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Ids for FakeIds {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = *state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_sequences_without_repeats() {
        let draw = |seed| {
            let ids = FakeIds::seeded(seed);
            [ids.uuid(), ids.uuid(), ids.secret()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(draw(7)[0], draw(7)[1]);
    }
}
