//! `cluster init`, `cluster status`.

use jaco_core::view::cluster::{ClusterStatus, Suffrage};
use serde_json::json;

use crate::cli::args::ClusterCommand;
use crate::cli::printer::{table, upper};
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure, systemd};

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
