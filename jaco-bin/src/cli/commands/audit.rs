//! `audit`: who changed what, once or as it happens.

use std::time::Duration;

use futures::StreamExt;
use jaco_core::cluster::audit::Event;
use jaco_core::view::cluster::AuditLog;

use crate::cli::args::Audit;
use crate::cli::printer::table;
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure};

use super::moment;

pub(in crate::cli) async fn run(context: &Context, args: &Audit) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let mut request = messages::AuditRequest {
        since: moment(args.since.as_deref())?,
        types: args.types.clone(),
        consistent: context.global.consistent,
    };
    if !args.follow {
        let log: AuditLog = patiently(|| client.audit(request.clone())).await?;
        return context.printer.document(&log, render);
    }
    loop {
        let mut events =
            Box::pin(patiently(|| client.follow_audit::<Event>(request.clone())).await?);
        while let Some(event) = events.next().await {
            let event = event?;
            context.printer.item(&event, line)?;
            request.since = (event.at + Duration::from_millis(1)).to_string();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn payload(event: &Event) -> String {
    let pairs: Vec<String> = event
        .payload
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(" ")
}

fn line(event: &Event) -> String {
    let kind = event.kind.as_str();
    format!(
        "{} {} {kind} {} {}\n",
        event.index,
        event.at,
        event.identity,
        payload(event)
    )
}

fn render(log: &AuditLog) -> String {
    let rows = log.events.iter().map(|event| {
        vec![
            event.index.to_string(),
            event.at.to_string(),
            event.kind.as_str().to_owned(),
            event.identity.to_string(),
            payload(event),
        ]
    });
    table(&["INDEX", "AT", "TYPE", "BY", "WHAT"], rows)
}
