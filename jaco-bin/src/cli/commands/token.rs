//! `token issue`, `revoke`, `list`.

use jaco_core::id::DeploymentName;
use jaco_core::time::Timestamp;
use jaco_core::view::cluster::TokenList;
use serde_json::{Value, json};

use crate::cli::args::TokenCommand;
use crate::cli::printer::table;
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure};

pub(in crate::cli) async fn run(context: &Context, command: TokenCommand) -> Result<(), Failure> {
    let client = client(&context.global)?;
    match command {
        TokenCommand::Issue {
            name,
            role,
            deployments,
            allow_host,
            allow_privileged,
            ttl,
        } => {
            let request = messages::IssueTokenRequest {
                name,
                allow_privileged,
                role,
                deployments,
                allow_host,
                ttl_seconds: ttl,
            };
            let answer = patiently(|| client.issue_token(request.clone())).await?;
            let document = json!({"name": answer.name, "token": answer.token});
            context
                .printer
                .document(&document, |_| format!("{}\n", answer.token))?;
            context.printer.note("The token is shown this once.");
            Ok(())
        }
        TokenCommand::Revoke { name, force } => {
            let request = messages::RevokeTokenRequest {
                name: name.clone(),
                force,
            };
            let answer: Value = patiently(|| client.revoke_token(request.clone())).await?;
            context
                .printer
                .document(&answer, |_| format!("Revoked {name}\n"))
        }
        TokenCommand::List => {
            let consistent = context.global.consistent;
            let list: TokenList =
                patiently(|| client.tokens(messages::ReadRequest { consistent })).await?;
            context.printer.document(&list, render)
        }
    }
}

fn render(list: &TokenList) -> String {
    let moment = |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| at.to_string());
    let rows = list.tokens.iter().map(|token| {
        let rights = &token.rights;
        let names = rights.deployments.iter().flatten();
        let names: Vec<&str> = names.map(DeploymentName::as_str).collect();
        let extra = [
            (rights.allow_host, "host"),
            (rights.allow_privileged, "privileged"),
        ];
        let extra = extra.iter().filter(|(has, _)| *has).map(|(_, name)| *name);
        let extra: Vec<&str> = extra.collect();
        let or = |words: Vec<&str>, none: &str| match words.is_empty() {
            true => none.to_owned(),
            false => words.join(","),
        };
        vec![
            token.name.to_string(),
            rights.role.to_string(),
            or(names, "all"),
            or(extra, "-"),
            token.issued_at.to_string(),
            moment(token.expires_at),
            moment(token.revoked_at),
        ]
    });
    table(
        &[
            "NAME",
            "ROLE",
            "DEPLOYMENTS",
            "ALLOWS",
            "ISSUED",
            "EXPIRES",
            "REVOKED",
        ],
        rows,
    )
}
