//! openraft's own suite for storages, over the virtual disk; and again with the power going off again and again.

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{Entry, LogState, OptionalSend, RaftLogReader};

use callboard::raft::{
    DiskWork, LogFiles, LogId, LogStore, RaftStorage, RaftWork, StateMachine, StorageError, TypeConfig, Vote,
};
use callboard::storage::disk::VirtualDisk;

use crate::support::place_of_small_segments as place;

type Store = LogStore<TypeConfig>;
type Machine = StateMachine<TypeConfig>;

fn build(disk: &Arc<VirtualDisk>, work: &RaftWork) -> RaftStorage<TypeConfig> {
    RaftStorage::create(&place(disk, 1), work).expect("a new storage")
}

/// A storage on a disk of its own for each story.
struct OnVirtualDisks;

impl StoreBuilder<TypeConfig, Store, Machine> for OnVirtualDisks {
    async fn build(&self) -> Result<((), Store, Machine), StorageError> {
        let storage = build(&Arc::new(VirtualDisk::new(1)), &RaftWork::threads().expect("threads"));
        Ok(((), storage.log, storage.machine))
    }
}

#[test]
fn openrafts_suite_passes() {
    Suite::test_all(OnVirtualDisks).unwrap();
}

/// The same, on a machine that loses power after every call that returned.
struct WithPowerLosses {
    seeds: AtomicU64,
    losses: Arc<AtomicU64>,
}

/// A log store whose disk loses power before each call: what the call finds is what was durable.
struct PowerlessStore {
    disk: Arc<VirtualDisk>,
    rng: fastrand::Rng,
    losses: Arc<AtomicU64>,
    store: Store,
}

impl PowerlessStore {
    fn lose_power(&mut self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
        self.disk.power_loss(&mut self.rng);
        let files = LogFiles::open(&place(&self.disk, 1)).expect("all that was synced is there");
        self.store = LogStore::new(files, DiskWork::here());
    }
}

impl RaftLogReader<TypeConfig> for PowerlessStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, StorageError> {
        self.lose_power();
        self.store.try_get_log_entries(range).await
    }
}

impl RaftLogStorage<TypeConfig> for PowerlessStore {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        self.lose_power();
        self.store.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Store {
        self.lose_power();
        self.store.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.lose_power();
        self.store.save_vote(vote).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.lose_power();
        self.store.read_vote().await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.lose_power();
        self.store.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.lose_power();
        self.store.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.lose_power();
        self.store.append(entries, callback).await
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.lose_power();
        self.store.truncate(log_id).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.lose_power();
        self.store.purge(log_id).await
    }
}

impl StoreBuilder<TypeConfig, PowerlessStore, Machine> for WithPowerLosses {
    async fn build(&self) -> Result<((), PowerlessStore, Machine), StorageError> {
        let seed = self.seeds.fetch_add(1, Ordering::Relaxed);
        let disk = Arc::new(VirtualDisk::new(seed));
        let RaftStorage { log: store, machine, .. } = build(&disk, &RaftWork::here());
        // The machine's snapshots go on over power losses by themselves: they are opened anew at each write.
        let (rng, losses) = (fastrand::Rng::with_seed(seed), Arc::clone(&self.losses));
        Ok(((), PowerlessStore { disk, rng, losses, store }, machine))
    }
}

#[test]
fn openrafts_suite_passes_on_a_machine_that_loses_power_before_every_call() {
    let losses = Arc::new(AtomicU64::new(0));
    Suite::test_all(WithPowerLosses { seeds: AtomicU64::new(1), losses: Arc::clone(&losses) }).unwrap();
    assert!(losses.load(Ordering::Relaxed) > 400, "the power failed only {losses:?} times");
}
