//! `token issue`, `revoke`, `list`.

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
            allow_privileged,
        } => {
            let request = messages::IssueTokenRequest {
                name,
                allow_privileged,
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
    let rows = list.tokens.iter().map(|token| {
        let privileged = if token.allow_privileged { "yes" } else { "no" };
        let revoked = token
            .revoked_at
            .map(|at| at.to_string())
            .unwrap_or_default();
        vec![
            token.name.to_string(),
            privileged.to_owned(),
            token.issued_at.to_string(),
            revoked,
        ]
    });
    table(&["NAME", "PRIVILEGED", "ISSUED", "REVOKED"], rows)
}
