//! `jaco`, the command line.

use std::process::ExitCode;

use clap::Parser;
use jaco_bin::cli::{Cli, run};

fn main() -> ExitCode {
    ExitCode::from(run(Cli::parse()))
}
