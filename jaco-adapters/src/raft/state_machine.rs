//! The replicated state in memory, published to readers, and its snapshots on disk.
//!
//! The state itself is not written on every entry: after a restart it is the newest snapshot
//! plus the committed log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use jaco_core::cluster::state::STATE_FORMAT;
use jaco_core::cluster::{ClusterState, Entry as CoreEntry, apply};
use jaco_core::ports::{Measured, Meter, Sealer};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::types::alias::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership};
use super::types::{Answer, Types};

const FILE: &str = "snapshot";
const PARTIAL: &str = "snapshot.partial";

/// The state machine that the consensus library drives.
pub struct StateMachine {
    state: Arc<ClusterState>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    published: watch::Sender<Arc<ClusterState>>,
    disk: SnapshotDisk,
    meter: Option<Arc<dyn Meter>>,
}

/// Where the newest snapshot stands.
#[derive(Clone)]
struct SnapshotDisk {
    dir: PathBuf,
    sealer: Arc<dyn Sealer>,
}

#[derive(Serialize, Deserialize)]
struct StoredSnapshot {
    meta: SnapshotMeta,
    /// JSON of the state.
    data: String,
}

impl StateMachine {
    /// Starts from the newest snapshot in `dir`, or from nothing.
    ///
    /// # Errors
    /// When a snapshot is there and cannot be opened, or is of a format that this version does
    /// not know.
    pub fn open(dir: &Path, sealer: Arc<dyn Sealer>) -> io::Result<Self> {
        let disk = SnapshotDisk {
            dir: dir.to_owned(),
            sealer,
        };
        let mut machine = Self {
            state: Arc::new(ClusterState::default()),
            last_applied: None,
            membership: StoredMembership::default(),
            published: watch::Sender::new(Arc::new(ClusterState::default())),
            disk,
            meter: None,
        };
        if let Some(stored) = machine.disk.load()? {
            machine.adopt(&stored.meta, stored.data.as_bytes())?;
        }
        Ok(machine)
    }

    /// Has the time that applying takes measured.
    #[must_use]
    pub fn metered(mut self, meter: Arc<dyn Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Readers' end: the newest applied state.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.published.subscribe()
    }

    /// The last entry that is in the state.
    pub(super) fn last_applied(&self) -> Option<LogId> {
        self.last_applied
    }

    /// The state as it is.
    pub(super) fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Applies one entry; nobody is shown the state yet.
    pub(super) fn take(&mut self, entry: Entry) -> Answer {
        self.last_applied = Some(entry.log_id);
        let index = entry.log_id.index();
        let state = Arc::make_mut(&mut self.state);
        let answer = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(record) => {
                let proposal = record.0;
                Some(apply(state, &CoreEntry { index, proposal }))
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                None
            }
        };
        state.index = index;
        Answer(answer)
    }

    /// Makes another state the newest snapshot.
    ///
    /// # Errors
    /// When it cannot be written; the old one is then still there.
    pub(super) async fn replace(
        self,
        state: ClusterState,
        last: LogId,
        membership: StoredMembership,
    ) -> io::Result<()> {
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: membership,
        };
        let data = serde_json::to_vec(&state).map_err(io::Error::other)?;
        self.disk.save(meta, data).await
    }

    fn adopt(&mut self, meta: &SnapshotMeta, data: &[u8]) -> io::Result<()> {
        self.state = Arc::new(read_state(data)?);
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        self.published.send_replace(Arc::clone(&self.state));
    }
}

/// Reads what a snapshot holds.
pub(super) fn read_state(data: &[u8]) -> io::Result<ClusterState> {
    let state: ClusterState = serde_json::from_slice(data).map_err(io::Error::other)?;
    if state.format != STATE_FORMAT {
        let message = format!(
            "the state has format {}, this version knows {STATE_FORMAT}",
            state.format
        );
        return Err(io::Error::other(message));
    }
    Ok(state)
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm:
            futures::Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let begun = Instant::now();
            let answer = self.take(entry);
            // Publish before answering: who is told that a write is done must find it.
            self.publish();
            if let Some(meter) = &self.meter {
                meter.record(Measured::Apply(begun.elapsed()));
            }
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: Arc::clone(&self.state),
            meta: SnapshotMeta {
                last_log_id: self.last_applied,
                last_membership: self.membership.clone(),
            },
            disk: self.disk.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Vec<u8>,
    ) -> Result<(), io::Error> {
        self.adopt(meta, &snapshot)?;
        self.disk.save(meta.clone(), snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let stored = self.disk.load()?;
        Ok(stored.map(|stored| Snapshot {
            meta: stored.meta,
            snapshot: stored.data.into_bytes(),
        }))
    }
}

/// Writes one snapshot of the state as it was when asked for; the state moves on meanwhile.
pub struct Builder {
    state: Arc<ClusterState>,
    meta: SnapshotMeta,
    disk: SnapshotDisk,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = Arc::clone(&self.state);
        let encode = tokio::task::spawn_blocking(move || serde_json::to_vec(&*state));
        let data = encode
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        self.disk.save(self.meta.clone(), data.clone()).await?;
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: data,
        })
    }
}

impl SnapshotDisk {
    /// Written beside the old one, synced, then renamed over it.
    async fn save(&self, meta: SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
        let disk = self.clone();
        let save = move || {
            let data = String::from_utf8(data).map_err(io::Error::other)?;
            let stored = StoredSnapshot { meta, data };
            let plain = serde_json::to_vec(&stored).map_err(io::Error::other)?;
            let partial = disk.dir.join(PARTIAL);
            std::fs::write(&partial, disk.sealer.seal(FILE, &plain))?;
            std::fs::File::open(&partial)?.sync_all()?;
            std::fs::rename(&partial, disk.dir.join(FILE))?;
            std::fs::File::open(&disk.dir)?.sync_all()
        };
        tokio::task::spawn_blocking(save)
            .await
            .map_err(io::Error::other)?
    }

    fn load(&self) -> io::Result<Option<StoredSnapshot>> {
        let sealed = match std::fs::read(self.dir.join(FILE)) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let plain = self.sealer.open(FILE, &sealed).map_err(io::Error::other)?;
        serde_json::from_slice(&plain)
            .map(Some)
            .map_err(io::Error::other)
    }
}
