//! openraft's state machine: the metadata image.
//!
//! ```text
//!   committed entries ──► apply_entry ──► ClusterImage ──► published: what brokers follow, with the newest entries
//!                                          │ ▲
//!              build: encode, save, synced ▼ │ install: decode, save, synced, then swapped
//!                                       snapshot file
//! ```
//!
//! The image lives in memory. After a start it is that of the snapshot, and openraft applies what was committed after it anew.

use std::io::Cursor;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::RaftStateMachine;
use openraft::{Entry, EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder, Snapshot};
use tokio::sync::watch;

use super::disk_work::DiskWork;
use super::error::RaftStorageError;
use super::log_store::storage_error;
use super::recent_entries::RecentEntries;
use super::snapshot_files::{SnapshotFiles, decode_image, encode_image};
use super::types::{Decided, LogId, MetadataRaft, SnapshotMeta, StorageError, StoredMembership};
use crate::engine::metadata::{ApplyError, ClusterImage};

/// The image, and the entry up to which it was brought.
#[derive(Clone, Debug)]
pub struct AppliedImage {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The members at that entry.
    pub membership: StoredMembership,
    /// The metadata.
    pub image: Arc<ClusterImage>,
}

#[derive(Clone, Debug)]
struct Snapshots {
    files: Arc<Mutex<SnapshotFiles>>,
    work: DiskWork,
}

/// The image that committed entries change.
#[derive(Debug)]
pub struct StateMachine<C> {
    state: AppliedImage,
    published: watch::Sender<AppliedImage>,
    recent: RecentEntries,
    snapshots: Snapshots,
    config: PhantomData<C>,
}

/// Takes a snapshot of the image as it was when it was asked for.
#[derive(Debug)]
pub struct SnapshotBuilder<C> {
    state: AppliedImage,
    snapshots: Snapshots,
    config: PhantomData<C>,
}

fn lock(files: &Mutex<SnapshotFiles>) -> MutexGuard<'_, SnapshotFiles> {
    // The value is replaced as a whole, so that a panic elsewhere leaves nothing half done.
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Snapshots {
    async fn run<T: Send + 'static>(
        &self,
        verb: ErrorVerb,
        work: impl FnOnce(&mut SnapshotFiles) -> Result<T, RaftStorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let files = Arc::clone(&self.files);
        let done = self.work.run(move || work(&mut lock(&files))).await.and_then(|done| done);
        done.map_err(|error| storage_error(ErrorSubject::Snapshot(None), verb, &error))
    }
}

impl<C: MetadataRaft> StateMachine<C> {
    /// A state machine that begins with what the snapshot held, and the receiver of each image after it.
    #[must_use]
    pub fn new(
        files: SnapshotFiles,
        snapshot: Option<(SnapshotMeta, ClusterImage)>,
        work: DiskWork,
    ) -> (Self, watch::Receiver<AppliedImage>) {
        let state = match snapshot {
            Some((meta, image)) => {
                let SnapshotMeta { last_log_id, last_membership, .. } = meta;
                AppliedImage { applied: last_log_id, membership: last_membership, image: Arc::new(image) }
            }
            None => AppliedImage {
                applied: None,
                membership: StoredMembership::default(),
                image: Arc::new(ClusterImage::empty(files.cluster())),
            },
        };
        let (published, images) = watch::channel(state.clone());
        let snapshots = Snapshots { files: Arc::new(Mutex::new(files)), work };
        (Self { state, published, recent: RecentEntries::default(), snapshots, config: PhantomData }, images)
    }

    /// The newest entries that were applied.
    #[must_use]
    pub fn recent_entries(&self) -> RecentEntries {
        self.recent.clone()
    }

    fn apply_one(&mut self, id: LogId, entry: Entry<C>) -> Result<Decided, RaftStorageError> {
        let index = id.index + 1;
        // Whoever follows the image may hold this one: then it is copied, else changed in place.
        let image = Arc::make_mut(&mut self.state.image);
        let records = match entry.payload {
            EntryPayload::Normal(decision) => decision.records,
            EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
        };
        let outcome = image.apply_entry(&records);
        image.index = index;
        if let Err(error @ ApplyError::FeatureLevel { .. }) = outcome {
            // Newer software applies this one: going on without it would make another image of the same entries.
            return Err(RaftStorageError::Newer(error));
        }
        self.state.applied = Some(id);
        self.recent.push(id.index, if outcome.is_ok() { &records } else { &[] });
        Ok(Decided { index, outcome })
    }
}

impl<C: MetadataRaft> RaftStateMachine<C> for StateMachine<C> {
    type SnapshotBuilder = SnapshotBuilder<C>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.state.applied, self.state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Decided>, StorageError>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut decided = Vec::new();
        for entry in entries {
            let id = entry.log_id;
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.state.membership = StoredMembership::new(Some(id), membership.clone());
            }
            let applied = self.apply_one(id, entry);
            decided.push(applied.map_err(|error| storage_error(ErrorSubject::Apply(id), ErrorVerb::Write, &error))?);
        }
        self.published.send_replace(self.state.clone());
        Ok(decided)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<C> {
        SnapshotBuilder { state: self.state.clone(), snapshots: self.snapshots.clone(), config: PhantomData }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        if meta.last_log_id <= self.state.applied {
            // What was applied and shown must not go back.
            tracing::warn!(?meta.last_log_id, applied = ?self.state.applied, "a snapshot that is not newer was not installed");
            return Ok(());
        }
        let (data, saved) = (snapshot.into_inner(), meta.clone());
        let install = move |files: &mut SnapshotFiles| {
            let image = decode_image(&data, files.cluster())?;
            files.save(&saved, data)?;
            Ok(image)
        };
        let image = self.snapshots.run(ErrorVerb::Write, install).await?;
        self.state = AppliedImage {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            image: Arc::new(image),
        };
        self.recent.start_over(self.state.image.index);
        self.published.send_replace(self.state.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<C>>, StorageError> {
        let saved = self.snapshots.run(ErrorVerb::Read, |files| files.load()).await?;
        Ok(saved.map(|saved| Snapshot { meta: saved.meta, snapshot: Box::new(Cursor::new(saved.data)) }))
    }
}

impl<C: MetadataRaft> RaftSnapshotBuilder<C> for SnapshotBuilder<C> {
    async fn build_snapshot(&mut self) -> Result<Snapshot<C>, StorageError> {
        let state = self.state.clone();
        let meta = SnapshotMeta {
            last_log_id: state.applied,
            last_membership: state.membership,
            snapshot_id: state.applied.map_or_else(|| "empty".to_owned(), |last| last.to_string()),
        };
        let saved = meta.clone();
        let build = move |files: &mut SnapshotFiles| {
            let data = encode_image(&state.image)?;
            files.save(&saved, data.clone())?;
            Ok(data)
        };
        let data = self.snapshots.run(ErrorVerb::Write, build).await?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(data)) })
    }
}
