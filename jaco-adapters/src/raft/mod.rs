//! Replication of the cluster state: openraft over redb, mutual TLS between members (spec 04).

mod consensus;
mod gate;
mod log_store;
mod network;
mod recover;
mod server;
mod state_machine;
mod types;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jaco_core::id::MemberId;
use jaco_core::ports::{Clock, Meter, Sealer};
use openraft::{Config, SnapshotPolicy};
use redb::Database;
use rustls::ClientConfig;

pub use consensus::RaftConsensus;
pub use gate::MemberGate;
pub use log_store::LogStore;
pub use network::Peers;
pub use recover::Survivor;
pub use server::Handler;
pub use state_machine::StateMachine;
pub use types::{Peer, Record, Types};

use crate::transport::proto::internal::raft_server::RaftServer;
use consensus::Shared;

const HEARTBEAT: Duration = Duration::from_millis(100);
const ELECTION_MIN: Duration = Duration::from_millis(300);
const ELECTION_MAX: Duration = Duration::from_millis(600);
/// The log's file in a member's directory.
const LOG_FILE: &str = "log.redb";
/// Entries between two snapshots, and how many of them stay in the log for slow followers.
const SNAPSHOT_EVERY: u64 = 5_000;
const KEPT_ENTRIES: u64 = 1_000;

/// Why the replicated log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OpenError {
    #[error("open the raft log in {dir}: {reason}")]
    Log { dir: String, reason: String },
    #[error("start consensus: {0}")]
    Start(String),
}

/// Opens this member's log and state and starts taking part.
///
/// # Errors
/// When the directory does not hold an intact log and snapshot of this cluster's state key.
pub async fn open(
    dir: &Path,
    member: MemberId,
    sealer: Arc<dyn Sealer>,
    clock: Arc<dyn Clock>,
    meter: Arc<dyn Meter>,
    tls: Arc<ClientConfig>,
) -> Result<RaftConsensus, OpenError> {
    let log = |error: String| OpenError::Log {
        dir: dir.display().to_string(),
        reason: error,
    };
    std::fs::create_dir_all(dir).map_err(|error| log(error.to_string()))?;
    let db = Database::create(dir.join(LOG_FILE)).map_err(|error| log(error.to_string()))?;
    let store = LogStore::new(db, Arc::clone(&sealer)).map_err(|error| log(error.to_string()))?;
    let machine = StateMachine::open(dir, sealer).map_err(|error| log(error.to_string()))?;
    let machine = machine.metered(Arc::clone(&meter));
    let state = machine.subscribe();
    let peers = Peers::new(tls);
    let config = Arc::new(config().map_err(|error| OpenError::Start(error.to_string()))?);
    let raft = openraft::Raft::new(member, config, peers.clone(), store, machine)
        .await
        .map_err(|error| OpenError::Start(error.to_string()))?;
    let shared = Arc::new(Shared {
        me: member,
        raft,
        clock,
        meter,
        peers,
        state,
        leader_seen: std::sync::Mutex::new(Instant::now()),
        term_began: std::sync::Mutex::new((0, Instant::now())),
    });
    tokio::spawn(Arc::clone(&shared).follow_leader());
    Ok(RaftConsensus { shared })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("timeouts are short")
}

fn config() -> Result<Config, openraft::ConfigError> {
    Config {
        cluster_name: "jaco".to_owned(),
        heartbeat_interval: millis(HEARTBEAT),
        election_timeout_min: millis(ELECTION_MIN),
        election_timeout_max: millis(ELECTION_MAX),
        enable_pre_vote: Some(true),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        ..Config::default()
    }
    .validate()
}

impl RaftConsensus {
    /// The gRPC service that the other members talk to.
    pub fn service(&self) -> RaftServer<Handler> {
        server::service(Arc::clone(&self.shared))
    }

    /// What stands before every service that the other members talk to.
    pub fn gate(&self) -> MemberGate {
        MemberGate {
            shared: Arc::clone(&self.shared),
            newer: Arc::default(),
        }
    }

    /// Whether this member leads or has heard of the one that does lately.
    pub fn hears_leader(&self) -> bool {
        self.shared.hears_leader()
    }

    /// Channels to the other members, for what else they ask of each other.
    pub fn peers(&self) -> Peers {
        self.shared.peers.clone()
    }
}
