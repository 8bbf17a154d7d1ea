//! `plan`: what an apply or the loss of a node would do. `why`: what holds one replica, and where.

use std::path::Path;

use jaco_core::error::Error;
use jaco_core::scheduler::forecast::Forecast;
use jaco_core::view::replica::ReplicaDetail;

use crate::cli::args::Plan;
use crate::cli::printer::upper;
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure};

use super::{apply, get};

pub(in crate::cli) async fn run(context: &Context, args: &Plan) -> Result<(), Failure> {
    let here = || args.lose.is_none().then_some(Path::new("jaco.yaml"));
    let jaco = args.jaco.as_deref().or_else(here);
    let bundle = match jaco {
        Some(jaco) => {
            let bundle = apply::resolve(
                context,
                jaco,
                args.compose.as_deref(),
                &args.profiles,
                false,
            )?;
            serde_json::to_vec(&bundle).map_err(Error::internal)?
        }
        None => Vec::new(),
    };
    let client = client(&context.global)?;
    let request = messages::PlanRequest {
        bundle,
        lose: args.lose.clone().unwrap_or_default(),
    };
    let forecast: Forecast = patiently(|| client.plan(request.clone())).await?;
    context.printer.document(&forecast, told)
}

fn told(forecast: &Forecast) -> String {
    let mut lines: Vec<String> = forecast.changes.iter().map(apply::describe).collect();
    let applied = forecast.deployment.iter().zip(forecast.revision);
    let applied = applied.map(|(name, revision)| format!("{name} at revision {revision}"));
    let lost = forecast.node.iter().map(|node| format!("{node} lost"));
    let events: Vec<String> = applied.chain(lost).collect();
    lines.push(format!("With {}:", events.join(", then ")));
    let heading = lines.len();
    let placed = forecast.placed.iter();
    lines.extend(placed.map(|new| format!("  + {} on {}", new.replica, new.node)));
    let removed = forecast.removed.iter();
    lines.extend(removed.map(|id| format!("  - {id}")));
    let node = forecast.node.as_ref();
    let waiting = forecast.waiting.iter().zip(node.into_iter().cycle());
    lines.extend(waiting.map(|(id, node)| format!("  = {id} waits for {node} with its data")));
    let short = forecast.short.iter();
    lines.extend(short.map(|s| format!("  ! {}/{}: {}", s.deployment, s.service, s.reason)));
    if lines.len() == heading {
        lines.push("  nothing would have to move".to_owned());
    }
    lines.join("\n") + "\n"
}

pub(in crate::cli) async fn why(context: &Context, replica: String) -> Result<(), Failure> {
    get::get(context, "replica", replica, false, reasons).await
}

fn reasons(detail: &ReplicaDetail) -> String {
    let row = &detail.row;
    let mut lines = vec![format!(
        "{} is {} on {}",
        row.id,
        upper(&row.state),
        row.host
    )];
    let code = row.code.map(|code| format!("{code}: ")).unwrap_or_default();
    let message = row.message.iter();
    lines.extend(message.map(|message| format!("  because: {code}{message}")));
    lines.push(format!("  restarts: {}", detail.restart_count));
    let fled = detail.fled_from.iter();
    lines
        .extend(fled.map(|node| format!("  came here because {node} alone failed the one before")));
    let gates = detail.depends_on.iter();
    lines.extend(gates.map(|gate| {
        let word = if gate.satisfied { "met" } else { "waits" };
        let (service, condition, state) = (&gate.service, &gate.condition, &gate.state);
        format!("  depends on {service} ({condition}): {word}, it is {state}")
    }));
    let nodes = detail.placement.iter();
    lines.extend(nodes.map(|node| format!("  {}: {}", node.node, node.reason)));
    lines.join("\n") + "\n"
}
