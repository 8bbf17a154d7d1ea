//! `jaco cluster recover`: a stopped member whose peers are lost for good goes on alone (spec 04,
//! Failure). The daemon does not run meanwhile; it is the next start that finds itself alone.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use jaco_core::cluster::recover::Recovery;
use jaco_core::error::{Error, ErrorCode};
use jaco_core::ports::Clock;
use tokio::net::TcpStream;

use super::config::{self, Config};
use super::identity::{self, Identity};
use super::wiring::{self, Survivor, SystemClock};

/// A lost member that answers within this time is not lost.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// A stopped member that could go on alone.
pub struct Stopped {
    config: Config,
    identity: Identity,
    survivor: Survivor,
    /// What that means.
    pub recovery: Recovery,
}

/// Looks at what the stopped daemon of this host has; changes nothing.
///
/// # Errors
/// `config_invalid` when the configuration, the state key or the log cannot be read,
/// `cluster_uninitialized` when this host is no member of a cluster, `validation_failed` when its
/// daemon runs, when other members still answer, or when there are none.
pub async fn examine(config: Option<&Path>) -> Result<Stopped, Error> {
    let environment = wiring::environment();
    let config = config::load(config, &environment).map_err(|report| {
        let error = report.to_error();
        error.unwrap_or_else(|| Error::internal("an empty report"))
    })?;
    if UnixStream::connect(&config.unix_socket).is_ok() {
        let message = "the daemon of this node runs: stop it first";
        return Err(refused("daemon", message).with("socket", config.unix_socket.display()));
    }
    if !identity::exists(&config) {
        let message = format!("{} holds no membership", config.data_dir.display());
        return Err(Error::new(ErrorCode::ClusterUninitialized, message));
    }
    let path = config.state_key.display();
    let key = identity::load_state_key(&config).map_err(|error| unreadable("state_key", &error))?;
    let key = key.ok_or_else(|| unreadable("state_key", &format!("{path} is missing")))?;
    let identity = identity::load(&config, &key);
    let identity = identity.map_err(|error| unreadable("data_dir", &error))?;
    let survivor = wiring::survivor(&config, &key).await;
    let survivor = survivor.map_err(|error| unreadable("data_dir", &error))?;
    let recovery = Recovery::of(survivor.state(), identity.member)?;
    let answering = answering(&recovery).await;
    if !answering.is_empty() {
        let message = format!("these members are not lost, they answer: {answering}");
        return Err(refused("members", &message));
    }
    Ok(Stopped {
        config,
        identity,
        survivor,
        recovery,
    })
}

impl Stopped {
    /// Makes this member the only one from its next start on. Gives the index up to which its
    /// state is then.
    ///
    /// # Errors
    /// `internal` when the disk fails; the member is then as it was.
    pub async fn go_on_alone(self) -> Result<u64, Error> {
        let (commands, node) = (self.recovery.commands(), &self.recovery.node);
        let (member, address) = (self.identity.member, self.config.cluster_address());
        let alone = self
            .survivor
            .go_on_alone(member, node, &address, commands, SystemClock.now());
        alone.await.map_err(Error::internal)
    }
}

/// The names of lost members whose API can be connected to all the same.
async fn answering(recovery: &Recovery) -> String {
    let tries = recovery.lost.iter().map(|(name, address)| async move {
        let dialled = tokio::time::timeout(ANSWERS_WITHIN, TcpStream::connect(address)).await;
        matches!(dialled, Ok(Ok(_))).then(|| name.to_string())
    });
    let names: Vec<String> = join_all(tries).await.into_iter().flatten().collect();
    names.join(", ")
}

fn refused(field: &str, message: &str) -> Error {
    Error::new(ErrorCode::ValidationFailed, message).with("field", field)
}

fn unreadable(field: &str, error: &impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::ConfigInvalid, error.to_string()).with("field", field)
}
