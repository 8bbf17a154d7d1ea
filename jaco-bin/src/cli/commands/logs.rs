//! `logs`: the lines of a service's replicas over all nodes, as they arrive.

use std::io::IsTerminal;

use futures::StreamExt;
use jaco_core::error::{Error, ErrorCode};
use serde_json::json;

use crate::cli::args::Logs;
use crate::cli::printer::plain;
use crate::cli::wiring::{client, messages, patiently};
use crate::cli::{Context, Failure};

use super::{moment, target};

pub(in crate::cli) async fn run(context: &Context, args: &Logs) -> Result<(), Failure> {
    let (deployment, service) = target(Some(&args.target));
    if service.is_empty() {
        let message = format!("\"{}\" is not <deployment>/<service>", args.target);
        return Err(Error::new(ErrorCode::ValidationFailed, message)
            .with("field", "target")
            .into());
    }
    let request = messages::LogsRequest {
        deployment,
        service,
        follow: args.follow,
        since: moment(args.since.as_deref())?,
        tail: args.tail,
    };
    let on_terminal = std::io::stdout().is_terminal();
    let client = client(&context.global)?;
    let mut lines = Box::pin(patiently(|| client.logs(request.clone())).await?);
    while let Some(line) = lines.next().await {
        let line = line?;
        let stream = if line.stderr { "stderr" } else { "stdout" };
        let document = json!({
            "replica": line.replica, "host": line.host, "at": line.at,
            "stream": stream, "text": line.text,
        });
        context.printer.item(&document, |_| {
            let at = if args.timestamps {
                format!("{} ", line.at)
            } else {
                String::new()
            };
            let text = match on_terminal {
                true => plain(&line.text),
                false => line.text.clone(),
            };
            format!("[{}@{}] {at}{text}\n", line.replica, line.host)
        })?;
    }
    Ok(())
}
