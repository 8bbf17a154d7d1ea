//! Outside bytes by the million: mutations of what is well formed, as many as `JACO_FUZZ` says
//! (`make fuzz`), a few thousand otherwise.

use std::hash::{BuildHasher, Hasher, RandomState};

/// How many without being told.
const FEW: u64 = 20_000;
/// No input is longer.
const LONGEST: usize = 2_000;

/// Calls `take` with each input. The seed that is printed when it panics, given as
/// `JACO_FUZZ_SEED`, makes the same inputs.
pub(crate) fn each(corpus: &[&[u8]], mut take: impl FnMut(&[u8])) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let count = number("JACO_FUZZ").unwrap_or(FEW);
    let seed = number("JACO_FUZZ_SEED");
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("JACO_FUZZ_SEED={seed} JACO_FUZZ={count}");
    let mut random = Random(seed | 1);
    let mut input = Vec::with_capacity(LONGEST * 2);
    for _ in 0..count {
        input.clear();
        input.extend_from_slice(random.of(corpus));
        for _ in 0..random.below(6) {
            mutate(&mut input, corpus, &mut random);
        }
        input.truncate(LONGEST);
        take(&input);
    }
    println!("fuzz inputs={count} panics=0");
}

fn mutate(input: &mut Vec<u8>, corpus: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let to = (at + random.below(16)).min(input.len());
    match random.below(6) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        1 => drop(input.drain(at..to)),
        2 => {
            const TELLING: &[u8] = b"\r\n\0 :/,;\"{}[]0xF\xff\x80";
            input.insert(at, random.of(TELLING));
        }
        3 => input.extend_from_within(at..to),
        4 => {
            let other = random.of(corpus);
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => input.truncate(at),
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}
