//! `jacod`, the daemon on every host.

use std::process::ExitCode;

use clap::Parser;
use jaco_bin::daemon::lifecycle::{Args, Failure, run};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(error)) => {
            eprintln!("Error: {error}\nhint: {}", error.code.hint());
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
