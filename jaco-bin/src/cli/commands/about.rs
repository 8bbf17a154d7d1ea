//! `explain`, `completion`, `version`: what needs no daemon.

use clap::CommandFactory;
use clap_complete::Shell;
use jaco_core::error::{Error, ErrorCode};
use serde_json::json;

use crate::cli::{Cli, Context, Failure};

pub(in crate::cli) fn explain(context: &Context, code: &str) -> Result<(), Failure> {
    let Some(code) = ErrorCode::parse(code) else {
        let known: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        let message = format!("\"{code}\" is not an error code");
        let error = Error::new(ErrorCode::ValidationFailed, message);
        return Err(error.with("codes", known.join(", ")).into());
    };
    let document = json!({"code": code, "hint": code.hint(), "page": code.page()});
    context
        .printer
        .document(&document, |_| code.page().to_owned())
}

pub(in crate::cli) fn completion(context: &Context, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "jaco", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let document = json!({"shell": shell.to_string(), "script": script});
    context.printer.document(&document, |_| script.clone())
}

pub(in crate::cli) fn version(context: &Context) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let document = json!({"version": version});
    context
        .printer
        .document(&document, |_| format!("jaco {version}\n"))
}
