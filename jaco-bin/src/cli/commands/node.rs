//! `node issue-join-token`, `join`, `list`, `drain`, `undrain`, `label`, `remove`.

mod drain;

use std::time::{Duration, Instant};

use jaco_core::view::cluster::{ClusterStatus, NodeList, NodeRow, Usage};
use serde_json::{Value, json};

use crate::cli::args::{Labelling, NodeCommand};
use crate::cli::printer::{table, upper};
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure, systemd};

/// How long a new member's first view of the cluster is waited for.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);

pub(in crate::cli) async fn run(context: &Context, command: NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::IssueJoinToken {
            node_name,
            sans,
            ttl,
        } => {
            let request = messages::IssueJoinTokenRequest {
                node_name: node_name.unwrap_or_default(),
                sans,
                ttl_seconds: ttl,
            };
            issue(context, request).await
        }
        NodeCommand::Join {
            peer,
            token,
            no_systemd_enable,
        } => {
            join(context, peer, token).await?;
            systemd::enable(context, no_systemd_enable);
            Ok(())
        }
        NodeCommand::List => list(context).await,
        NodeCommand::Drain { hostname, no_wait } => drain::run(context, hostname, !no_wait).await,
        NodeCommand::Undrain { hostname } => {
            let answer = drain::set(context, &hostname, false).await?;
            let words = |_: &Value| format!("{hostname} takes replicas again\n");
            context.printer.document(&answer, words)
        }
        NodeCommand::Label { hostname, labels } => label(context, hostname, labels).await,
        NodeCommand::Remove { hostname, force } => remove(context, hostname, force).await,
    }
}

async fn issue(context: &Context, request: messages::IssueJoinTokenRequest) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let answer = patiently(|| client.issue_join_token(request.clone())).await?;
    let line = format!(
        "jaco node join --peer {} --token {}",
        answer.peer, answer.token
    );
    let document = json!({
        "command": line, "peer": answer.peer, "token": answer.token,
        "expires_at": answer.expires_at,
    });
    context
        .printer
        .document(&document, |_| format!("{line}\n"))?;
    context.printer.note(&format!(
        "Run it once on the new host before {}.",
        answer.expires_at
    ));
    Ok(())
}

async fn join(context: &Context, peer: String, token: String) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let ca_cert = match &context.global.ca_cert {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| crate::cli::exit::file("read CA certificate", path, &error))?,
        None => String::new(),
    };
    let answer: Value = client
        .join(messages::JoinRequest {
            peer,
            token,
            ca_cert,
        })
        .await?;
    let hostname = answer["hostname"].as_str().unwrap_or_default().to_owned();
    let begin = Instant::now();
    loop {
        let request = messages::ReadRequest { consistent: false };
        let status: Result<ClusterStatus, _> = client.cluster_status(request).await;
        let known = |status: &ClusterStatus| {
            status
                .nodes
                .iter()
                .any(|node| node.hostname.as_str() == hostname)
        };
        if status.as_ref().is_ok_and(known) {
            break;
        }
        if begin.elapsed() > JOIN_PATIENCE {
            context
                .printer
                .note("joined; the log of the cluster has not arrived here yet");
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    context
        .printer
        .document(&answer, |_| format!("{hostname} joined\n"))
}

async fn list(context: &Context) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let consistent = context.global.consistent;
    let list: NodeList = patiently(|| client.nodes(messages::ReadRequest { consistent })).await?;
    context.printer.document(&list, |list| {
        let rows = list.nodes.iter().map(|node| {
            let labels = node
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            vec![
                node.hostname.to_string(),
                node.address.clone(),
                upper(&node.status),
                upper(&node.mesh),
                upper(&node.isolation),
                node.engine.clone(),
                cores(node.cpu),
                gibibytes(node.memory),
                load(node),
                labels.collect::<Vec<_>>().join(","),
            ]
        });
        table(
            &[
                "NODE",
                "ADDRESS",
                "STATUS",
                "MESH",
                "ISOLATION",
                "ENGINE",
                "CPU",
                "MEMORY",
                "LOAD",
                "LABELS",
            ],
            rows,
        )
    })
}

/// The larger share of CPU and memory that is in use.
fn load(node: &NodeRow) -> String {
    let share = |usage: Usage| (usage.used? * 100).checked_div(usage.capacity);
    let share = share(node.cpu).max(share(node.memory));
    share.map_or_else(|| "-".to_owned(), |share| format!("{share}%"))
}

#[allow(clippy::cast_precision_loss)] // shown with one decimal
fn cores(usage: Usage) -> String {
    format!(
        "{:.1}/{:.1}",
        usage.reserved as f64 / 1e3,
        usage.capacity as f64 / 1e3
    )
}

#[allow(clippy::cast_precision_loss)] // shown with one decimal
fn gibibytes(usage: Usage) -> String {
    let gibi = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    format!(
        "{:.1}/{:.1} GiB",
        gibi(usage.reserved),
        gibi(usage.capacity)
    )
}

async fn label(context: &Context, hostname: String, labels: Vec<Labelling>) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let mut request = messages::LabelNodeRequest {
        hostname: hostname.clone(),
        ..Default::default()
    };
    for Labelling { key, value } in labels {
        match value {
            Some(value) => drop(request.set.insert(key, value)),
            None => request.remove.push(key),
        }
    }
    let answer: Value = patiently(|| client.label_node(request.clone())).await?;
    context.printer.document(&answer, |answer| {
        let labels = answer["labels"].as_object().into_iter().flatten();
        let words = labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
        format!("{hostname}: {}\n", words.collect::<Vec<_>>().join(","))
    })
}

async fn remove(context: &Context, hostname: String, force: bool) -> Result<(), Failure> {
    let drained = !force && drain::is_ready(context, &hostname).await?;
    if drained {
        drain::set(context, &hostname, true).await?;
        drain::wait(context, &hostname).await?;
    }
    let client = client(&context.global)?;
    let request = messages::RemoveNodeRequest {
        hostname: hostname.clone(),
        force,
    };
    let removed: Result<Value, Failure> = patiently(|| client.remove_node(request.clone())).await;
    if removed.is_err() && drained {
        // A refusal leaves the node as it was.
        drain::set(context, &hostname, false).await?;
    }
    let answer = removed?;
    context
        .printer
        .document(&answer, |_| format!("{hostname} removed\n"))
}
