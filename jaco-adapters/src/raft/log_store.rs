//! The log and the vote on disk, in one redb file.
//!
//! Durable before acknowledged: a vote is synced before `save_vote` returns, entries before
//! their callback runs. redb keeps its last synced commit through a crash at any moment, a torn
//! write included (`tests/raft_store.rs`).

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use jaco_core::ports::Sealer;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::types::Types;
use super::types::alias::{Entry, LogId, Vote};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// A handle to the log; clones share the file.
#[derive(Clone)]
pub struct LogStore {
    db: Arc<Database>,
    sealer: Arc<dyn Sealer>,
}

impl LogStore {
    /// Takes over an open database, making its tables when they are missing.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn new(db: Database, sealer: Arc<dyn Sealer>) -> io::Result<Self> {
        let write = db.begin_write().map_err(io::Error::other)?;
        write.open_table(LOG).map_err(io::Error::other)?;
        write.open_table(META).map_err(io::Error::other)?;
        write.commit().map_err(io::Error::other)?;
        Ok(Self {
            db: Arc::new(db),
            sealer,
        })
    }

    /// Runs a change of the file off the async threads.
    async fn change<F>(&self, durability: Durability, change: F) -> io::Result<()>
    where
        F: FnOnce(&Self, &redb::WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    {
        let store = self.clone();
        let work = move || {
            let mut write = store.db.begin_write().map_err(redb::Error::from)?;
            write
                .set_durability(durability)
                .map_err(redb::Error::from)?;
            change(&store, &write)?;
            write.commit().map_err(redb::Error::from)
        };
        let done = tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)?;
        done.map_err(|error: redb::Error| io::Error::other(error))
    }

    async fn put<T: Serialize>(
        &self,
        durability: Durability,
        key: &'static str,
        value: &T,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
        self.change(durability, move |_, write| {
            write.open_table(META)?.insert(key, bytes.as_slice())?;
            Ok(())
        })
        .await
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> io::Result<Option<T>> {
        let read = self.db.begin_read().map_err(io::Error::other)?;
        let table = read.open_table(META).map_err(io::Error::other)?;
        let Some(bytes) = table.get(key).map_err(io::Error::other)? else {
            return Ok(None);
        };
        serde_json::from_slice(bytes.value())
            .map(Some)
            .map_err(io::Error::other)
    }

    fn seal(&self, entry: &Entry) -> io::Result<(u64, Vec<u8>)> {
        let index = entry.log_id.index();
        let plain = serde_json::to_vec(entry).map_err(io::Error::other)?;
        Ok((index, self.sealer.seal(&record_name(index), &plain)))
    }

    fn open(&self, index: u64, sealed: &[u8]) -> io::Result<Entry> {
        let plain = self
            .sealer
            .open(&record_name(index), sealed)
            .map_err(io::Error::other)?;
        serde_json::from_slice(&plain).map_err(io::Error::other)
    }

    fn last(&self) -> io::Result<Option<LogId>> {
        let read = self.db.begin_read().map_err(io::Error::other)?;
        let table = read.open_table(LOG).map_err(io::Error::other)?;
        let Some((index, sealed)) = table.last().map_err(io::Error::other)? else {
            return Ok(None);
        };
        self.open(index.value(), sealed.value())
            .map(|entry| Some(entry.log_id))
    }
}

/// Bytes of the entries that are sent to a follower at once; a single one may have more.
const MAX_BATCH: usize = 8 << 20;

fn record_name(index: u64) -> String {
    format!("log/{index}")
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let bounds: (Bound<u64>, Bound<u64>) =
            (range.start_bound().cloned(), range.end_bound().cloned());
        let read = self.db.begin_read().map_err(io::Error::other)?;
        let table = read.open_table(LOG).map_err(io::Error::other)?;
        let records = table.range(bounds).map_err(io::Error::other)?;
        records
            .map(|record| {
                let (index, sealed) = record.map_err(io::Error::other)?;
                self.open(index.value(), sealed.value())
            })
            .collect()
    }

    /// As many as fit in one message; never none of those that are there.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let read = self.db.begin_read().map_err(io::Error::other)?;
        let table = read.open_table(LOG).map_err(io::Error::other)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for record in table.range(start..end).map_err(io::Error::other)? {
            let (index, sealed) = record.map_err(io::Error::other)?;
            bytes += sealed.value().len();
            if bytes > MAX_BATCH && !entries.is_empty() {
                break;
            }
            entries.push(self.open(index.value(), sealed.value())?);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.get(VOTE)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let last_purged_log_id: Option<LogId> = self.get(PURGED)?;
        let last_log_id = self.last()?.or(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.put(Durability::Immediate, VOTE, vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Losing it only delays the state after a restart until the leader tells it again.
        self.put(Durability::None, COMMITTED, &committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.get::<Option<LogId>>(COMMITTED)?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = <Types as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<(u64, Vec<u8>)> = entries
            .into_iter()
            .map(|entry| self.seal(&entry))
            .collect::<io::Result<_>>()?;
        self.change(Durability::Immediate, move |_, write| {
            let mut table = write.open_table(LOG)?;
            for (index, sealed) in &records {
                table.insert(index, sealed.as_slice())?;
            }
            Ok(())
        })
        .await?;
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let first = last_log_id.map_or(0, |last| last.index() + 1);
        self.change(Durability::Immediate, move |_, write| {
            write.open_table(LOG)?.retain_in(first.., |_, _| false)?;
            Ok(())
        })
        .await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let purged = serde_json::to_vec(&log_id).map_err(io::Error::other)?;
        self.change(Durability::Immediate, move |_, write| {
            write.open_table(META)?.insert(PURGED, purged.as_slice())?;
            write
                .open_table(LOG)?
                .retain_in(..=log_id.index(), |_, _| false)?;
            Ok(())
        })
        .await
    }
}
