//! The only file of the command line that names adapters: how a daemon is reached.

use std::time::{Duration, Instant};

use jaco_adapters::api::Client;
use jaco_adapters::api::client::CallError;
use jaco_core::error::{Error, ErrorCode};
use jaco_core::ports::Clock;
use jaco_core::time::Timestamp;

use super::args::Global;
use super::exit::{self, Failure};

pub(super) use jaco_adapters::api::client::messages;

/// How long an election is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The daemon that the flags name.
pub(super) fn client(global: &Global) -> Result<Client, Failure> {
    let Some(server) = &global.server else {
        return Ok(Client::local(global.socket.clone()));
    };
    let needed = |flag: &str| {
        Error::new(
            ErrorCode::ValidationFailed,
            format!("--server needs {flag}"),
        )
        .with("field", flag)
    };
    let path = global.ca_cert.as_ref().ok_or_else(|| needed("--ca-cert"))?;
    let ca = std::fs::read_to_string(path)
        .map_err(|error| exit::file("read CA certificate", path, &error))?;
    let token = global.token.as_ref().ok_or_else(|| needed("--token"))?;
    Ok(Client::remote(server, &ca, token)?)
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(error) => Failure::Error(error),
            unreachable @ CallError::Unreachable { .. } => {
                Failure::Unreachable(unreachable.to_string())
            }
        }
    }
}

/// Calls until there is a leader, for [`PATIENCE`]; other failures are final at once.
pub(super) async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, CallError>>,
{
    let begin = Instant::now();
    let mut pause = Duration::from_millis(50);
    let mut told = false;
    loop {
        match call().await {
            Err(CallError::Refused(error))
                if error.code == ErrorCode::NoLeader && begin.elapsed() < PATIENCE =>
            {
                if !told {
                    eprintln!("no leader, retrying");
                    told = true;
                }
                tokio::time::sleep(pause).await;
                // An election takes a second or so: a longer pause would only add to it.
                pause = (pause * 2).min(Duration::from_millis(200));
            }
            done => return done.map_err(Failure::from),
        }
    }
}

/// Now, by this host.
pub(super) fn now() -> Timestamp {
    jaco_adapters::system::SystemClock.now()
}
