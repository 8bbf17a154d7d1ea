//! `apply`: resolve, show what changes, commit, and wait until it runs.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use jaco_core::error::Error;
use jaco_core::manifest::Bundle;
use jaco_core::view::changes::{Action, Applied, Change};
use jaco_core::view::status::{Status, Verdict, verdict};

use crate::cli::args::Apply;
use crate::cli::printer::Printer;
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure, diagnostics, files};

use super::status::progress_lines;

pub(in crate::cli) async fn run(context: &Context, args: &Apply) -> Result<(), Failure> {
    let bundle = resolve(
        context,
        &args.jaco,
        args.compose.as_deref(),
        &args.profiles,
        args.strict,
    )?;
    let client = client(&context.global)?;
    let bytes = serde_json::to_vec(&bundle).map_err(Error::internal)?;
    let request = |dry_run| messages::ApplyRequest {
        bundle: bytes.clone(),
        dry_run,
    };
    let planned: Applied = patiently(|| client.apply(request(true))).await?;
    for change in &planned.changes {
        context.printer.note(&describe(change));
    }
    if args.dry_run {
        return context
            .printer
            .document(&planned, |planned| match planned.changed {
                true => format!("Would apply revision: {}\n", planned.revision),
                false => format!("Nothing would change: revision {}\n", planned.revision),
            });
    }
    let mut applied: Applied = patiently(|| client.apply(request(false))).await?;
    let on_terminal = std::io::stdout().is_terminal() && context.printer.is_table();
    let wait = args.wait || (on_terminal && !args.no_wait);
    if context.printer.is_table() {
        context.printer.document(&applied, revision_line)?;
    }
    let converged = match wait {
        true => Some(converge(context, &applied, args.timeout).await?),
        false => None,
    };
    if !context.printer.is_table() {
        applied.converged = converged.as_ref().map(Result::is_ok);
        context.printer.document(&applied, |_| String::new())?;
    }
    match converged {
        Some(Err(reason)) => Err(Failure::NotConverged(reason)),
        _ => Ok(()),
    }
}

fn revision_line(applied: &Applied) -> String {
    match applied.changed {
        true => format!("Applied revision: {}\n", applied.revision),
        false => format!("Applied revision: {} (unchanged)\n", applied.revision),
    }
}

/// The manifests as they are sent; tells what is wrong with them.
pub(super) fn resolve(
    context: &Context,
    jaco: &Path,
    compose: Option<&Path>,
    profiles: &[String],
    strict: bool,
) -> Result<Bundle, Failure> {
    let manifests = files::read(jaco, compose)?;
    let resolved = manifests.resolve(profiles, strict);
    for notice in &resolved.notices {
        context
            .printer
            .note(&format!("notice: {}: {}", notice.path, notice.message));
    }
    match resolved.bundle {
        Some(bundle) if resolved.report.is_empty() => Ok(bundle),
        _ => {
            let color = context.printer.color();
            eprintln!(
                "{}",
                diagnostics::render(&resolved.report, &manifests, color)
            );
            if !context.printer.is_table()
                && let Some(error) = resolved.report.to_error()
            {
                return Err(Failure::Error(error));
            }
            Err(Failure::Manifests(resolved.report))
        }
    }
}

/// A change in a line.
pub(super) fn describe(change: &Change) -> String {
    let sign = match change.action {
        Action::Added => '+',
        Action::Changed => '~',
        Action::Removed => '-',
    };
    let keys = if change.keys.is_empty() {
        String::new()
    } else {
        format!(" ({})", change.keys.join(", "))
    };
    format!("{sign} {} {}{keys}", change.kind, change.name)
}

/// Follows the deployment until it is steady, stuck, or the time is over. The inner error is
/// the reason why it did not converge.
async fn converge(
    context: &Context,
    applied: &Applied,
    timeout: u64,
) -> Result<Result<(), String>, Failure> {
    let follow = follow(context, applied);
    match tokio::time::timeout(Duration::from_secs(timeout), follow).await {
        Ok(outcome) => outcome,
        Err(_) => Ok(Err(format!("still moving after {timeout} s"))),
    }
}

async fn follow(context: &Context, applied: &Applied) -> Result<Result<(), String>, Failure> {
    let client = client(&context.global)?;
    let request = messages::StatusRequest {
        deployment: applied.deployment.to_string(),
        service: String::new(),
        consistent: false,
    };
    let mut shown = Progress::new(context.printer);
    loop {
        let mut stream =
            Box::pin(patiently(|| client.watch_status::<Status>(request.clone())).await?);
        while let Some(Ok(status)) = stream.next().await {
            let seen = status.deployments.first().map(|row| row.applied_revision);
            if seen < Some(applied.revision) {
                // This node has not applied the new revision yet.
                continue;
            }
            shown.update(&status);
            if seen > Some(applied.revision) {
                return Ok(Err(overtaken(&status)));
            }
            match verdict(&status) {
                Verdict::Steady => {
                    tell_notices(context.printer, &status);
                    return Ok(Ok(()));
                }
                Verdict::Stuck(reason) => return Ok(Err(reason)),
                Verdict::Moving => {}
            }
        }
        // The daemon went away or lost its stream; ask again.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What runs, and has something to say all the same.
fn tell_notices(printer: Printer, status: &Status) {
    for row in &status.replicas {
        if let Some((code, message)) = row.code.as_ref().zip(row.message.as_ref()) {
            printer.note(&format!("notice: {}: {code}: {message}", row.id));
        }
    }
}

/// Why another revision came in the place of the one that is waited for.
fn overtaken(status: &Status) -> String {
    let details = status
        .deployments
        .iter()
        .flat_map(|row| &row.status_details);
    let words = details
        .map(|(service, why)| format!("{service}: {why}"))
        .next();
    words.unwrap_or_else(|| "another revision was applied meanwhile".to_owned())
}

/// A line per service: redrawn in place on a terminal, appended when it changes elsewhere.
struct Progress {
    printer: Printer,
    in_place: bool,
    lines: Vec<String>,
}

impl Progress {
    fn new(printer: Printer) -> Self {
        Self {
            printer,
            in_place: std::io::stderr().is_terminal(),
            lines: Vec::new(),
        }
    }

    fn update(&mut self, status: &Status) {
        let lines = progress_lines(status);
        if lines == self.lines {
            return;
        }
        if self.in_place {
            let up = self.lines.len();
            let back = if up > 0 {
                format!("\x1b[{up}A\x1b[J")
            } else {
                String::new()
            };
            self.printer.note(&format!("{back}{}", lines.join("\n")));
        } else {
            for line in lines.iter().filter(|line| !self.lines.contains(line)) {
                self.printer.note(line);
            }
        }
        self.lines = lines;
    }
}
