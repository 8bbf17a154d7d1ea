//! `status`: deployments, replicas, routes, certificates, once or as they change.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use futures::StreamExt;
use jaco_core::view::replica::ReplicaRow;
use jaco_core::view::route::RouteRow;
use jaco_core::view::status::{DeploymentRow, Status as StatusView};

use crate::cli::args::Status;
use crate::cli::printer::{out, table, upper};
use crate::cli::wiring::{client, messages, now, patiently};
use crate::cli::{Context, Failure};

use super::{cert, target};

pub(in crate::cli) async fn run(context: &Context, args: &Status) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let (deployment, service) = target(args.target.as_deref());
    let consistent = context.global.consistent;
    let request = messages::StatusRequest {
        deployment,
        service,
        consistent,
    };
    if !args.watch {
        let status: StatusView = patiently(|| client.status(request.clone())).await?;
        return context.printer.document(&status, render);
    }
    let in_place = std::io::stdout().is_terminal() && context.printer.is_table();
    loop {
        let mut stream =
            Box::pin(patiently(|| client.watch_status::<StatusView>(request.clone())).await?);
        while let Some(status) = stream.next().await {
            let Ok(status) = status else { break };
            if in_place {
                out("\x1b[H\x1b[2J")?;
            }
            context.printer.item(&status, render)?;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

pub(super) fn render(status: &StatusView) -> String {
    if status.deployments.is_empty() {
        return "no deployments: `jaco apply <jaco.yaml>` makes one\n".to_owned();
    }
    let mut parts = vec![deployments(&status.deployments)];
    if !status.replicas.is_empty() {
        parts.push(replicas(&status.replicas));
    }
    if !status.routes.is_empty() {
        parts.push(routes(&status.routes));
    }
    if !status.certs.is_empty() {
        parts.push(cert::render(&status.certs));
    }
    parts.join("\n")
}

pub(super) fn deployments(rows: &[DeploymentRow]) -> String {
    let rows = rows.iter().map(|row| {
        let why = row
            .status_details
            .iter()
            .map(|(service, why)| format!("{service}: {why}"));
        vec![
            row.name.to_string(),
            row.applied_revision.to_string(),
            upper(&row.status),
            why.collect::<Vec<_>>().join("; "),
        ]
    });
    table(&["DEPLOYMENT", "REVISION", "STATUS", "WHY"], rows)
}

pub(super) fn replicas(rows: &[ReplicaRow]) -> String {
    let now = now();
    let rows = rows.iter().map(|row| {
        let up = row
            .started_at
            .map(|started| age(now.since(started)))
            .unwrap_or_default();
        let code = row.code.map(|code| format!("{code}: ")).unwrap_or_default();
        let message = row
            .message
            .clone()
            .map(|m| format!("{code}{m}"))
            .unwrap_or_default();
        vec![
            row.id.to_string(),
            upper(&row.state),
            row.host.to_string(),
            row.address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            up,
            message,
        ]
    });
    table(&["REPLICA", "STATE", "NODE", "ADDRESS", "UP", "WHY"], rows)
}

pub(super) fn routes(rows: &[RouteRow]) -> String {
    let rows = rows.iter().map(|row| {
        vec![
            format!("{}{}", row.domain, row.path),
            format!("{}/{}:{}", row.deployment, row.service, row.port),
            if row.tls {
                "auto".to_owned()
            } else {
                "off".to_owned()
            },
        ]
    });
    table(&["ROUTE", "TO", "TLS"], rows)
}

/// `5s`, `12m`, `3h`, `8d`.
fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// One line per service: how many of its replicas are in which state.
pub(super) fn progress_lines(status: &StatusView) -> Vec<String> {
    let mut services: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for row in &status.replicas {
        let states = services.entry(row.service.as_str()).or_default();
        *states.entry(row.state.as_str().to_owned()).or_default() += 1;
    }
    let line = |(service, states): (&str, BTreeMap<String, usize>)| {
        let states: Vec<String> = states
            .into_iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        format!("  {service}: {}", states.join(", "))
    };
    services.into_iter().map(line).collect()
}
