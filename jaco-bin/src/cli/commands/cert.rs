//! `cert list`, `renew`.

use jaco_core::view::cert::{CertList, CertRow};
use serde_json::Value;

use crate::cli::args::CertCommand;
use crate::cli::printer::{table, upper};
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure};

pub(in crate::cli) async fn run(context: &Context, command: CertCommand) -> Result<(), Failure> {
    let client = client(&context.global)?;
    match command {
        CertCommand::List => {
            let request = messages::GetRequest {
                kind: "certs".to_owned(),
                consistent: context.global.consistent,
                ..Default::default()
            };
            let list: CertList = patiently(|| client.get(request.clone())).await?;
            context
                .printer
                .document(&list, |list| match list.certs[..] {
                    [] => "no certificates: no route has `tls: auto`\n".to_owned(),
                    _ => render(&list.certs),
                })
        }
        CertCommand::Renew { domain } => {
            let request = messages::RenewCertificateRequest {
                domain: domain.clone(),
            };
            let answer: Value = patiently(|| client.renew_certificate(request.clone())).await?;
            context.printer.document(&answer, |_| {
                format!("Ordering a certificate for {domain}\n")
            })
        }
    }
}

pub(super) fn render(rows: &[CertRow]) -> String {
    let time = |at: Option<jaco_core::time::Timestamp>| at.map(|at| at.to_string());
    let rows = rows.iter().map(|row| {
        vec![
            row.domain.to_string(),
            row.environment.map(|e| e.to_string()).unwrap_or_default(),
            upper(&row.state),
            time(row.not_after).unwrap_or_default(),
            time(row.last_renewal_at).unwrap_or_default(),
            time(row.next_attempt_at).unwrap_or_default(),
            row.warning
                .clone()
                .or(row.last_error.clone())
                .unwrap_or_default(),
        ]
    });
    let head = [
        "CERTIFICATE",
        "FROM",
        "STATE",
        "NOT AFTER",
        "RENEWED",
        "NEXT ATTEMPT",
        "LAST ERROR",
    ];
    table(&head, rows)
}
