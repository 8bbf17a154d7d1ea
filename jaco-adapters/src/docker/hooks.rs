//! Commands run in a container after its start and before its stop.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures::StreamExt;
use jaco_core::manifest::spec::Hook;
use jaco_core::ports::RuntimeError;

use super::convert::environment;
use super::engine::{Engine, SHORT};
use super::error::Failure;

/// How much of a hook's output an error quotes.
const QUOTED: usize = 400;

/// Runs one hook to its end; a status other than zero is an error with what the hook wrote.
pub(super) async fn run(
    engine: &Engine,
    container: &str,
    hook: &Hook,
    deadline: Duration,
) -> Result<(), RuntimeError> {
    let docker = engine.client().await?.docker;
    let exec = engine
        .within(SHORT, docker.create_exec(container, config(hook)))
        .await?;
    let options = StartExecOptions::default();
    let output = tokio::time::timeout(deadline, async {
        match docker.start_exec(&exec.id, Some(options)).await? {
            StartExecResults::Attached { output, .. } => tail(output).await,
            StartExecResults::Detached => Ok(String::new()),
        }
    })
    .await
    .map_err(|_| {
        let seconds = deadline.as_secs();
        RuntimeError::Refused(format!("{} did not end within {seconds} s", name(hook)))
    })?
    .map_err(Failure::from)?;
    let ended = engine.within(SHORT, docker.inspect_exec(&exec.id)).await?;
    match ended.exit_code {
        None | Some(0) => Ok(()),
        Some(status) => Err(RuntimeError::Refused(format!(
            "{} ended with status {status}: {}",
            name(hook),
            output.trim()
        ))),
    }
}

fn config(hook: &Hook) -> ExecConfig {
    ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(hook.command.clone()),
        user: hook.user.clone(),
        privileged: Some(hook.privileged),
        working_dir: hook.working_dir.clone(),
        env: Some(environment(&hook.environment)),
        ..Default::default()
    }
}

/// Reads to the end and keeps the last part.
async fn tail(
    mut output: impl futures::Stream<Item = Result<LogOutput, Error>> + Unpin,
) -> Result<String, Error> {
    let mut kept = Vec::new();
    while let Some(chunk) = output.next().await {
        kept.extend_from_slice(&chunk?.into_bytes());
        let excess = kept.len().saturating_sub(QUOTED);
        kept.drain(..excess);
    }
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

fn name(hook: &Hook) -> String {
    let command = hook.command.first().map_or("", String::as_str);
    format!("hook {command:?}")
}
