//! Runs the simulation over many seeds and prints one line in the form of `make soak`.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use clap::Parser;
use jaco_testkit::sim;

/// Which seeds to run.
#[derive(Parser)]
struct Args {
    /// How many.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    from: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let start = Instant::now();
    let next = AtomicU64::new(args.from);
    let failures = AtomicU64::new(0);
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from + args.seeds {
                        return;
                    }
                    if let Err(why) = sim::run(seed) {
                        failures.fetch_add(1, Ordering::Relaxed);
                        println!("JACO_SIM_SEED={seed}: {why}");
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    let (rounds, rate) = (
        args.seeds,
        args.seeds as f64 / start.elapsed().as_secs_f64(),
    );
    println!("soak simulation rounds={rounds} failures={failures} seeds_per_s={rate:.1}");
    match failures {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
