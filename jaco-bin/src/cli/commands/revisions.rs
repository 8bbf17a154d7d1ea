//! What is done with revisions besides applying: delete, roll back, list, scale, restart.

use jaco_core::view::changes::Applied;
use jaco_core::view::deployment::History;
use serde_json::Value;

use crate::cli::args::Scaling;
use crate::cli::printer::table;
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure};

pub(in crate::cli) async fn delete(context: &Context, deployment: String) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let request = messages::NameRequest {
        name: deployment.clone(),
        consistent: false,
    };
    let answer: Value = patiently(|| client.delete(request.clone())).await?;
    context
        .printer
        .document(&answer, |_| format!("Deleting {deployment}\n"))
}

pub(in crate::cli) async fn rollback(
    context: &Context,
    deployment: String,
    to: Option<u64>,
) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let request = messages::RollbackRequest { deployment, to };
    let applied: Applied = patiently(|| client.rollback(request.clone())).await?;
    context.printer.document(&applied, revision)
}

pub(in crate::cli) async fn scale(context: &Context, target: Scaling) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let request = messages::ScaleRequest {
        deployment: target.deployment,
        service: target.service,
        replicas: target.replicas,
    };
    let applied: Applied = patiently(|| client.scale(request.clone())).await?;
    context.printer.document(&applied, revision)
}

pub(in crate::cli) async fn restart(context: &Context, target: &str) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let (deployment, service) = target.split_once('/').unwrap_or((target, ""));
    let request = messages::RestartRequest {
        deployment: deployment.to_owned(),
        service: service.to_owned(),
    };
    let applied: Applied = patiently(|| client.restart(request.clone())).await?;
    context.printer.document(&applied, revision)
}

fn revision(applied: &Applied) -> String {
    format!("Applied revision: {}\n", applied.revision)
}

pub(in crate::cli) async fn history(context: &Context, deployment: String) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let consistent = context.global.consistent;
    let request = messages::NameRequest {
        name: deployment,
        consistent,
    };
    let history: History = patiently(|| client.history(request.clone())).await?;
    context.printer.document(&history, |history| {
        let rows = history.revisions.iter().map(|row| {
            let current = if row.current { "*" } else { "" };
            vec![
                format!("{}{current}", row.revision),
                row.at.to_string(),
                row.identity.to_string(),
                row.cause.clone(),
            ]
        });
        table(&["REVISION", "APPLIED", "BY", "CAUSE"], rows)
    })
}
