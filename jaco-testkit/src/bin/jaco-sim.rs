//! Runs the simulation over many seeds and prints one line in the form of `make soak`.

use std::process::ExitCode;
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
    let mut failures = 0;
    for seed in args.from..args.from + args.seeds {
        if let Err(why) = sim::run(seed) {
            failures += 1;
            println!("JACO_SIM_SEED={seed}: {why}");
        }
    }
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
