//! Runs the simulation over many seeds. `JACO_SIM_SEED=<n>` replays one, `JACO_SIM_SEEDS=<n>`
//! says how many.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::thread;

use jaco_testkit::sim;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_seed_keeps_the_invariants_and_converges() {
    let seeds = match variable("JACO_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("JACO_SIM_SEEDS").unwrap_or(300),
    };
    let workers = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let broken: Vec<String> = thread::scope(|scope| {
        let worker = |worker: u64| {
            let seeds = seeds.clone().filter(move |seed| seed % workers == worker);
            let broken = |seed| {
                sim::run(seed)
                    .err()
                    .map(|why| format!("JACO_SIM_SEED={seed}: {why}"))
            };
            scope.spawn(move || seeds.filter_map(broken).collect::<Vec<_>>())
        };
        let workers: Vec<_> = (0..workers).map(worker).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    assert!(
        broken.is_empty(),
        "{} seeds fail:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

#[test]
fn a_seed_replays_to_the_same_end() {
    assert_eq!(sim::run(7), sim::run(7));
}
