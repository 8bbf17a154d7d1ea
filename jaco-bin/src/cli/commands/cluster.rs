//! `cluster init`, `cluster status`, `cluster recover`.

use std::path::Path;

use jaco_core::view::cluster::{ClusterStatus, Suffrage};
use serde_json::json;

use crate::cli::args::ClusterCommand;
use crate::cli::printer::{table, upper};
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure, exit, systemd};
use crate::daemon::recover;

pub(in crate::cli) async fn run(context: &Context, command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Init {
            name,
            no_systemd_enable,
        } => {
            init(context, name).await?;
            systemd::enable(context, no_systemd_enable);
            Ok(())
        }
        ClusterCommand::Status => status(context).await,
        // The flag is the operator's word; it has no other value.
        ClusterCommand::Recover { config, .. } => recover(context, config.as_deref()).await,
    }
}

async fn init(context: &Context, name: String) -> Result<(), Failure> {
    let formed = client(&context.global)?.init(name).await?;
    let document = json!({
        "cluster_id": formed.cluster_id,
        "token": formed.token,
        "state_key": formed.state_key_path,
    });
    context.printer.document(&document, |_| {
        format!(
            "cluster:  {}\ntoken:    {}\n",
            formed.cluster_id, formed.token
        )
    })?;
    context.printer.note(&format!(
        "The token is shown this once; `jaco token issue` makes more.\n\
         Keep a copy of {} elsewhere: without it no backup can be read.",
        formed.state_key_path
    ));
    Ok(())
}

async fn status(context: &Context) -> Result<(), Failure> {
    let client = client(&context.global)?;
    let consistent = context.global.consistent;
    let status: ClusterStatus =
        patiently(|| client.cluster_status(messages::ReadRequest { consistent })).await?;
    context.printer.document(&status, render)
}

/// Shows what is given up, takes the confirmation from standard input, and goes on alone.
async fn recover(context: &Context, config: Option<&Path>) -> Result<(), Failure> {
    let stopped = recover::examine(config).await?;
    let recovery = stopped.recovery.clone();
    let lost: Vec<&str> = recovery
        .lost
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let (node, cluster) = (&recovery.node, &recovery.cluster);
    eprint!(
        "{node} has the state of cluster \"{cluster}\" up to index {}.\n\
         What the others acknowledged after that is lost. These members are given up, with the\n\
         data of their replicas, and cannot come back as they are: {}\n\
         Type the index to make {node} the only member: ",
        recovery.last_index,
        lost.join(", "),
    );
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|error| exit::file("read the confirmation", Path::new("-"), &error))?;
    recovery.confirm(&answer)?;
    let index = stopped.go_on_alone().await?;
    let document = json!({
        "cluster": cluster,
        "node": node,
        "last_index": recovery.last_index,
        "index": index,
        "lost": lost,
    });
    context.printer.document(&document, |_| {
        format!("cluster {cluster} has one member, {node}, at index {index}\n")
    })?;
    context
        .printer
        .note("Start jacod, then let new hosts join: `jaco node issue-join-token`.");
    Ok(())
}

fn render(status: &ClusterStatus) -> String {
    if !status.initialized {
        return "not initialized: run `jaco cluster init` or `jaco node join`\n".to_owned();
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let leader = status.leader.as_ref().map_or("none", |node| node.as_str());
    let id = status.cluster_id.as_ref().map_or("", |id| id.as_str());
    let head = format!(
        "cluster {} ({id})\nleader {leader}, term {}, index {}\n\n",
        text(&status.name),
        status.raft_term,
        status.raft_index
    );
    let rows = status.nodes.iter().map(|node| {
        let suffrage = match node.suffrage {
            Suffrage::Unknown => "?".to_owned(),
            known => upper(&known),
        };
        vec![
            node.hostname.to_string(),
            node.address.clone(),
            upper(&node.status),
            suffrage,
        ]
    });
    head + &table(&["NODE", "ADDRESS", "STATUS", "SUFFRAGE"], rows)
}
