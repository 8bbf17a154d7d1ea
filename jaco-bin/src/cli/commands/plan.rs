//! `plan --lose`: what the loss of a node would do. `why`: what holds one replica, and where.

use jaco_core::scheduler::forecast::Loss;
use jaco_core::view::replica::ReplicaDetail;

use crate::cli::printer::upper;
use crate::cli::{Context, Failure};

use super::get;

pub(in crate::cli) async fn lose(context: &Context, node: String) -> Result<(), Failure> {
    get::get(context, "loss", node, false, loss).await
}

fn loss(loss: &Loss) -> String {
    let mut lines = vec![format!("If {} were lost now:", loss.node)];
    let placed = loss.placed.iter();
    lines.extend(placed.map(|new| format!("  + {} on {}", new.replica, new.node)));
    let waiting = loss.waiting.iter();
    lines.extend(waiting.map(|id| format!("  = {id} waits for {} with its data", loss.node)));
    let short = loss.short.iter();
    lines.extend(short.map(|s| format!("  ! {}/{}: {}", s.deployment, s.service, s.reason)));
    if lines.len() == 1 {
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
