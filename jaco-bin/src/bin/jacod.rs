//! `jacod`, the daemon on every host.

use std::process::ExitCode;

use clap::Parser;
use jaco_bin::daemon::lifecycle::{Args, Failure, run};
use jaco_core::error::ErrorCode;

/// ADR 0013.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(report)) => {
            for violation in &report.violations {
                let place = violation
                    .span
                    .map(|span| format!(":{}:{}", span.line, span.column));
                let (code, file) = (violation.code, &violation.file);
                let place = place.unwrap_or_default();
                eprintln!("Error: {code}: {file}{place}: {}", violation.message);
            }
            eprintln!("hint: {}", ErrorCode::ConfigInvalid.hint());
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
