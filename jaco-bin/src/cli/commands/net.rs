//! `net check`.

use jaco_core::view::check::NetworkCheck;

use crate::cli::args::NetCommand;
use crate::cli::printer::{table, upper};
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure};

/// A check that failed, told in the table.
const FAILED: u8 = 1;

pub(in crate::cli) async fn run(context: &Context, command: NetCommand) -> Result<(), Failure> {
    match command {
        NetCommand::Check => check(context).await,
    }
}

async fn check(context: &Context) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let checked: NetworkCheck = patiently(|| client.check_network(messages::Empty {})).await?;
    context.printer.document(&checked, render)?;
    match checked.ok {
        true => Ok(()),
        false => Err(Failure::Silent(FAILED)),
    }
}

fn render(checked: &NetworkCheck) -> String {
    let rows = checked.checks.iter().map(|row| {
        vec![
            row.node.to_string(),
            upper(&row.check),
            row.target.clone(),
            if row.ok { "OK" } else { "FAILED" }.to_owned(),
            row.detail.clone(),
        ]
    });
    table(&["NODE", "CHECK", "TARGET", "RESULT", "DETAIL"], rows)
}
