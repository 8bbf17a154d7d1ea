//! `node drain`, `undrain`: asking for it, and waiting until the node is empty.

use std::time::Duration;

use jaco_core::cluster::node::NodeStatus;
use jaco_core::error::{Error, ErrorCode};
use jaco_core::view::cluster::{NodeList, NodeRow};
use serde_json::Value;

use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure};

/// How often the node is looked at while it empties.
const LOOK: Duration = Duration::from_millis(300);

pub(super) async fn run(context: &Context, hostname: String, waits: bool) -> Result<(), Failure> {
    let answer = set(context, &hostname, true).await?;
    if waits {
        wait(context, &hostname).await?;
    }
    let words = match waits {
        true => format!("{hostname} is drained\n"),
        false => format!("{hostname} is being drained\n"),
    };
    context.printer.document(&answer, |_| words)
}

/// Wants the node drained, or not.
pub(super) async fn set(context: &Context, hostname: &str, drain: bool) -> Result<Value, Failure> {
    let client = client(&context.global)?;
    let request = messages::DrainNodeRequest {
        hostname: hostname.to_owned(),
        drain,
    };
    patiently(|| client.drain_node(request.clone())).await
}

/// The node as the cluster sees it, if it is a member.
async fn look(context: &Context, hostname: &str) -> Result<Option<NodeRow>, Failure> {
    let client = client(&context.global)?;
    let request = messages::ReadRequest { consistent: true };
    let list: NodeList = patiently(|| client.nodes(request)).await?;
    let mut nodes = list.nodes.into_iter();
    Ok(nodes.find(|node| node.hostname.as_str() == hostname))
}

/// True when the node can empty itself.
pub(super) async fn is_ready(context: &Context, hostname: &str) -> Result<bool, Failure> {
    let node = look(context, hostname).await?;
    Ok(node.is_some_and(|node| node.status == NodeStatus::Ready))
}

/// Waits until what can move has left.
pub(super) async fn wait(context: &Context, hostname: &str) -> Result<(), Failure> {
    let mut shown = None;
    loop {
        let Some(node) = look(context, hostname).await? else {
            return Ok(());
        };
        let Some(drain) = node.drain else {
            // Somebody took the wish back.
            return Ok(());
        };
        if drain.remaining.is_empty() {
            for replica in drain.staying {
                let note = format!("{replica} stays with its data");
                context.printer.note(&note);
            }
            return Ok(());
        }
        if node.status == NodeStatus::DrainTimeout {
            let names: Vec<String> = drain.remaining.iter().map(ToString::to_string).collect();
            let message = format!("\"{hostname}\" did not empty itself in time");
            let error = Error::new(ErrorCode::DrainTimeout, message);
            return Err(Failure::Error(error.with("replicas", names.join(", "))));
        }
        if shown != Some(drain.remaining.len()) {
            shown = Some(drain.remaining.len());
            let note = format!("{} to leave {hostname}", drain.remaining.len());
            context.printer.note(&note);
        }
        tokio::time::sleep(LOOK).await;
    }
}
