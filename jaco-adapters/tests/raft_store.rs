//! The log and state on disk: the consensus library's own suite, and loss of power.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::sync::{Arc, Mutex};

use jaco_adapters::raft::{LogStore, Record, StateMachine, Types};
use jaco_adapters::seal::AesSealer;
use jaco_core::cluster::{Command, Proposal};
use jaco_core::id::Identity;
use jaco_core::ports::Sealer;
use jaco_core::time::Timestamp;
use openraft::StorageError;
use openraft::alias::{EntryOf, LeaderIdOf, LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::vote::RaftLeaderId;
use proptest::prelude::*;
use redb::{Database, StorageBackend};
use tempfile::TempDir;

fn sealer() -> Arc<dyn Sealer> {
    Arc::new(AesSealer::new(&[7; 32]))
}

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let dir = TempDir::new().unwrap();
        let db = Database::create(dir.path().join("log.redb")).unwrap();
        let store = LogStore::new(db, sealer()).unwrap();
        let machine = StateMachine::open(dir.path(), sealer()).unwrap();
        Ok((dir, store, machine))
    }
}

/// The suite starts a runtime of its own for each of its tests.
#[test]
fn the_store_passes_the_suite_of_the_consensus_library() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let suite = Suite::<Types, LogStore, StateMachine, Builder, TempDir>::test_all(Builder);
    runtime.block_on(suite).unwrap();
}

/// A disk that, at a loss of power, keeps only what was synced, plus any part of what was not.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platters>>);

#[derive(Debug, Default)]
struct Platters {
    seen: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    /// What is left after power is lost: of each write that was not synced, the given share of
    /// its first bytes, or nothing.
    fn after_power_loss(&self, shares: &[u8]) -> Disk {
        let platters = self.0.lock().unwrap();
        let mut left = platters.synced.clone();
        for (i, (offset, data)) in platters.unsynced.iter().enumerate() {
            let share = usize::from(shares[i % shares.len()]);
            let kept = data.len() * share / 255;
            let end = offset + kept;
            if left.len() < end {
                left.resize(end, 0);
            }
            left[*offset..end].copy_from_slice(&data[..kept]);
        }
        Disk(Arc::new(Mutex::new(Platters {
            seen: left.clone(),
            synced: left,
            unsynced: Vec::new(),
        })))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap().seen[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        let len = usize::try_from(len).unwrap();
        let mut platters = self.0.lock().unwrap();
        platters.seen.resize(len, 0);
        platters.synced.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.synced = platters.seen.clone();
        platters.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let mut platters = self.0.lock().unwrap();
        platters.seen[offset..offset + data.len()].copy_from_slice(data);
        platters.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}

fn open(disk: &Disk) -> LogStore {
    let db = Database::builder()
        .create_with_backend(disk.clone())
        .unwrap();
    LogStore::new(db, sealer()).unwrap()
}

fn entry(index: u64) -> EntryOf<Types> {
    let leader = LeaderIdOf::<Types>::new(1, 1);
    let command = Command::TokenRevoke {
        name: Identity::new(format!("n{index}")),
        force: true,
    };
    let identity = Identity::new("local");
    let proposal = Proposal {
        at: Timestamp(index),
        identity,
        author: None,
        command,
    };
    EntryOf::<Types>::new_normal(LogIdOf::<Types>::new(leader, index), Record(proposal))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Writes `acknowledged` entries, then more that power is lost in the middle of.
    #[test]
    fn what_was_acknowledged_survives_a_loss_of_power(
        acknowledged in 1u64..20,
        shares in prop::collection::vec(any::<u8>(), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let disk = Disk::default();
            let mut store = open(&disk);
            let vote = VoteOf::<Types>::new_committed(1, 1);
            store.save_vote(&vote).await.unwrap();
            for index in 0..acknowledged {
                store.append([entry(index)], IOFlushed::noop()).await.unwrap();
            }
            // Not synced: a value that may be lost, and a file that is cut off while open.
            let committed = Some(entry(acknowledged - 1).log_id);
            store.save_committed(committed).await.unwrap();
            let mut again = open(&disk.after_power_loss(&shares));
            assert_eq!(again.read_vote().await.unwrap(), Some(vote));
            let entries = again.try_get_log_entries(0..acknowledged).await.unwrap();
            assert_eq!(entries.len() as u64, acknowledged);
            for (index, read) in entries.iter().enumerate() {
                let expected = serde_json::to_value(entry(index as u64)).unwrap();
                assert_eq!(serde_json::to_value(read).unwrap(), expected);
            }
        });
    }
}

#[tokio::test]
async fn a_log_of_another_state_key_is_refused() {
    let disk = Disk::default();
    open(&disk)
        .append([entry(0)], IOFlushed::noop())
        .await
        .unwrap();
    let db = Database::builder()
        .create_with_backend(disk.after_power_loss(&[255]))
        .unwrap();
    let other: Arc<dyn Sealer> = Arc::new(AesSealer::new(&[8; 32]));
    let mut store = LogStore::new(db, other).unwrap();
    let error = store.get_log_state().await.unwrap_err().to_string();
    assert!(error.contains("wrong state key"), "{error}");
}

#[tokio::test]
async fn a_follower_is_sent_no_more_at_once_than_fits_one_message() {
    let dir = TempDir::new().unwrap();
    let db = Database::create(dir.path().join("log.redb")).unwrap();
    let mut store = LogStore::new(db, sealer()).unwrap();
    let large = |index: u64| {
        let leader = LeaderIdOf::<Types>::new(1, 1);
        let command = Command::TokenRevoke {
            name: Identity::new("n".repeat(3 << 20)),
            force: true,
        };
        let proposal = Proposal {
            at: Timestamp(index),
            identity: Identity::new("local"),
            author: None,
            command,
        };
        EntryOf::<Types>::new_normal(LogIdOf::<Types>::new(leader, index), Record(proposal))
    };
    store
        .append((1..=6).map(large), IOFlushed::noop())
        .await
        .unwrap();
    let batch = store.limited_get_log_entries(1, 7).await.unwrap();
    assert!((1..=2).contains(&batch.len()), "{} entries", batch.len());
    assert_eq!(store.try_get_log_entries(1..7).await.unwrap().len(), 6);
}
