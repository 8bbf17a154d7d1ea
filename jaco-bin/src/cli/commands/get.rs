//! `get`: stored things, as lists or in detail.

use jaco_core::view::deployment::DeploymentDetail;
use jaco_core::view::network::NetworkDetail;
use jaco_core::view::replica::ReplicaDetail;
use jaco_core::view::route::DomainDetail;
use jaco_core::view::status::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::args::GetCommand;
use crate::cli::printer::{table, upper};
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure};

use super::status;

pub(in crate::cli) async fn run(context: &Context, command: GetCommand) -> Result<(), Failure> {
    match command {
        GetCommand::Deployments => {
            list(context, "deployments", |s| {
                status::deployments(&s.deployments)
            })
            .await
        }
        GetCommand::Replicas => list(context, "replicas", |s| status::replicas(&s.replicas)).await,
        GetCommand::Routes => list(context, "routes", |s| status::routes(&s.routes)).await,
        GetCommand::Deployment { name, show_secrets } => {
            get(context, "deployment", name, show_secrets, deployment).await
        }
        GetCommand::Replica { id } => get(context, "replica", id, false, replica).await,
        GetCommand::Route { domain } => get(context, "route", domain, false, route).await,
        GetCommand::Network { name } => get(context, "network", name, false, network).await,
    }
}

async fn fetch<T: DeserializeOwned>(
    context: &Context,
    kind: &str,
    name: String,
    show_secrets: bool,
) -> Result<T, Failure> {
    let client = client(&context.global)?;
    let request = messages::GetRequest {
        kind: kind.to_owned(),
        name,
        show_secrets,
        consistent: context.global.consistent,
    };
    patiently(|| client.get(request.clone())).await
}

pub(super) async fn get<T: DeserializeOwned + Serialize>(
    context: &Context,
    kind: &str,
    name: String,
    show_secrets: bool,
    render: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let value: T = fetch(context, kind, name, show_secrets).await?;
    context.printer.document(&value, render)
}

/// A list is a part of a status document, and is printed like it.
async fn list(
    context: &Context,
    kind: &str,
    render: impl FnOnce(&Status) -> String,
) -> Result<(), Failure> {
    let answer: Value = fetch(context, kind, String::new(), false).await?;
    context.printer.document(&answer, |answer| {
        let mut whole = serde_json::to_value(Status::default()).unwrap_or_default();
        whole[kind] = answer[kind].clone();
        render(&serde_json::from_value(whole).unwrap_or_default())
    })
}

fn deployment(detail: &DeploymentDetail) -> String {
    let rows = detail.services.iter().map(|service| {
        vec![
            service.service.to_string(),
            format!("{}/{}", service.ready, service.wanted),
            service.leaving.to_string(),
            service.failed.to_string(),
        ]
    });
    let compose = serde_saphyr::to_string(&detail.compose).unwrap_or_default();
    format!(
        "{}\n{}\n# jaco.yaml\n{}\n# compose, resolved\n{compose}",
        status::deployments(std::slice::from_ref(&detail.row)),
        table(&["SERVICE", "READY", "LEAVING", "FAILED"], rows),
        detail.jaco
    )
}

fn replica(detail: &ReplicaDetail) -> String {
    let row = &detail.row;
    let mut lines = vec![
        format!("replica:   {}", row.id),
        format!("state:     {}", upper(&row.state)),
        format!("node:      {}", row.host),
        format!("image:     {}", detail.image),
        format!("revision:  {}", detail.revision),
        format!("restarts:  {}", detail.restart_count),
    ];
    if let Some(address) = row.address {
        lines.push(format!("address:   {address}"));
    }
    if let Some(id) = &row.container_id {
        lines.push(format!("container: {id}"));
    }
    if let Some(message) = &row.message {
        lines.push(format!("why:       {message}"));
    }
    let gates = detail.depends_on.iter().map(|gate| {
        let open = if gate.satisfied { "yes" } else { "no" };
        vec![
            gate.service.to_string(),
            gate.condition.clone(),
            gate.state.clone(),
            open.to_owned(),
        ]
    });
    let placement = detail.placement.iter().map(|row| {
        let chosen = if row.chosen { "*" } else { "" };
        vec![row.node.to_string(), chosen.to_owned(), row.reason.clone()]
    });
    let mut text = lines.join("\n") + "\n\n";
    if !detail.depends_on.is_empty() {
        text += &table(&["DEPENDS ON", "CONDITION", "STATE", "SATISFIED"], gates);
        text.push('\n');
    }
    text + &table(&["NODE", "CHOSEN", "REASON"], placement)
}

fn route(detail: &DomainDetail) -> String {
    let rows = detail.routes.iter().map(|route| {
        let path = if route.catch_all {
            "(any)".to_owned()
        } else {
            route.path.clone()
        };
        vec![
            path,
            format!("{}/{}:{}", route.deployment, route.service, route.port),
            if route.strip_path {
                "strip".to_owned()
            } else {
                String::new()
            },
            format!("{}/{}", route.ready_replicas, route.total_replicas),
            route.note.clone().unwrap_or_default(),
        ]
    });
    table(&["PATH", "TO", "STRIP", "READY", "NOTE"], rows)
}

fn network(detail: &NetworkDetail) -> String {
    let nodes: Vec<String> = detail.nodes.iter().map(ToString::to_string).collect();
    let rows = detail.addresses.iter().map(|row| {
        vec![
            row.address.to_string(),
            row.replica.to_string(),
            row.service.to_string(),
            row.host.to_string(),
        ]
    });
    format!(
        "network:   {}/{}\nsubnet:    {}\ngateway:   {}\ninternal:  {}\nnodes:     {}\n\n{}",
        detail.deployment,
        detail.network,
        detail.subnet,
        detail.gateway,
        if detail.internal { "yes" } else { "no" },
        nodes.join(", "),
        table(&["ADDRESS", "REPLICA", "SERVICE", "NODE"], rows)
    )
}
