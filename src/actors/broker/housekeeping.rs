//! What a broker does beside following the metadata: deleted files, forgotten directories, the free space.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix::{Addr, AsyncContext, Context, Handler};
use tokio::sync::oneshot;

use super::actor::{Broker, TopicReplicas};
use super::messages::{DirectoryListed, DiskSpaceSeen, Replica, ReplicaDeleted};
use crate::actors::partition_leader::{PartitionLeader, SetDiskSpace, Stop, StopReason};
use crate::actors::send::post;
use crate::actors::threads::Lane;
use crate::engine::assignment::Fate;
use crate::protocol::{ApiError, ErrorCode};
use crate::replica::OpenedReplica;
use crate::storage::data_dir::partition_dir_name;
use crate::types::{PartitionIndex, TopicId, TopicName, TopicPartition};

impl Broker {
    pub(super) fn disk_full_error(&self) -> ApiError {
        let (least, root) = (self.settings.partitions.storage.min_free_bytes, self.settings.directory.root().display());
        ApiError::new(
            ErrorCode::DiskFull,
            format!(
                "less than storage.min_free_bytes ({least}) is free under {root}: delete topics, lower retention or add space"
            ),
        )
    }

    /// Closes the replicas of topics that are gone, and removes their files.
    pub(super) fn drop_deleted(&mut self, ctx: &Context<Self>) {
        let image = Arc::clone(&self.image);
        let gone: Vec<_> = self.replicas.extract_if(|id, _| !image.topics.contains_key(id)).collect();
        for (topic, TopicReplicas { name, replicas, .. }) in gone {
            for (number, replica) in (0..).zip(replicas) {
                let partition = TopicPartition::new(topic, PartitionIndex(number));
                // The files of one that is being opened go when that is over.
                if !matches!(replica, Replica::Elsewhere) && !self.opening.contains_key(&partition) {
                    self.remove_files(&name, partition, replica.address(), ctx);
                }
            }
        }
    }

    /// Removes the files of a replica whose topic is gone, once it has let go of them; what nobody knows is put aside.
    pub(super) fn remove_files(
        &mut self,
        name: &TopicName,
        partition: TopicPartition,
        replica: Option<&Addr<PartitionLeader>>,
        ctx: &Context<Self>,
    ) {
        let (done, closed) = oneshot::channel();
        if let Some(replica) = replica {
            post(replica, Stop { why: StopReason::TopicDeleted, done });
        }
        let files = partition_dir_name(name, partition);
        let Some(job) = self.removal(files, partition, ctx) else { return };
        let pool = self.settings.partitions.disk.clone();
        self.settings.partitions.disk.spawn(async move {
            // An offline replica never answers: its sender is dropped, which is an answer too.
            let _ = closed.await;
            pool.run(Lane::Background, job);
        });
    }

    /// The work of taking a directory away that no topic accounts for. `None` if that is under way.
    fn removal(
        &mut self,
        files: String,
        partition: TopicPartition,
        ctx: &Context<Self>,
    ) -> Option<impl FnOnce() + Send + use<>> {
        let fate = Fate::of(&self.image, partition);
        if fate == Fate::Keep || !self.deleting.entry(partition.topic).or_default().insert(partition.partition) {
            return None;
        }
        let (directory, home) = (Arc::clone(&self.settings.directory), ctx.address());
        let cache = Arc::clone(&self.settings.files);
        Some(move || {
            let result = if fate == Fate::Remove {
                directory.delete_partition_dir(&files)
            } else {
                tracing::warn!(directory = %files, "no topic accounts for this directory: it is moved to quarantine/, where you may look at it or remove it");
                directory.quarantine(&files).map(drop)
            };
            // An open file keeps its space: nothing is freed before its last handle is gone.
            cache.forget_dir(&directory.topics_dir().join(&files));
            post(&home, ReplicaDeleted { partition, result });
        })
    }

    /// Looks for directories that no topic accounts for: a deleted topic's are removed, all others are put aside.
    fn tidy(&mut self, found: Vec<(TopicPartition, PathBuf)>, ctx: &mut Context<Self>) {
        for (partition, path) in found {
            // Those that are open here, or about to be, are taken care of.
            let is_held = self.replicas.contains_key(&partition.topic) || self.opening.contains_key(&partition);
            let is_known = is_held && Fate::of(&self.image, partition) == Fate::Keep;
            if !is_known && let Some(job) = self.removal(name_of(&path), partition, ctx) {
                self.settings.partitions.disk.run(Lane::Background, job);
            }
        }
        self.is_tidy = true;
        self.tell_files_gone(ctx);
    }

    /// Has the data directory listed, once: by an image that knows this registration.
    pub(super) fn list_directory(&mut self, ctx: &Context<Self>) {
        if std::mem::replace(&mut self.is_listed, true) {
            return;
        }
        let (directory, home) = (Arc::clone(&self.settings.directory), ctx.address());
        self.settings
            .partitions
            .disk
            .run(Lane::Background, move || post(&home, DirectoryListed(directory.partitions())));
    }

    /// Tells the engine of deleted topics of which nothing is left here.
    pub(super) fn tell_files_gone(&mut self, ctx: &mut Context<Self>) {
        if !self.is_tidy {
            return;
        }
        let (image, node) = (Arc::clone(&self.image), self.node());
        let is_here = |topic: &TopicId| {
            self.deleting.contains_key(topic)
                || self.replicas.contains_key(topic)
                || self.opening.keys().any(|partition| partition.topic == *topic)
        };
        let held = image.tombstones.iter().filter(|topic| image.holds_tombstone(**topic, node));
        let gone: Vec<_> = held.filter(|topic| !is_here(topic)).copied().collect();
        if !gone.is_empty() {
            self.step(ctx, |engine, now, _| gone.into_iter().for_each(|topic| engine.on_files_gone(now, topic)));
        }
    }
}

/// Says what recovery found, where there is anything to say.
pub(super) fn report(partition: TopicPartition, opened: &OpenedReplica) {
    let Some(report) = &opened.report else { return };
    if let Some(cut) = &report.cut {
        tracing::warn!(%partition, ?cut, "a torn tail was cut off after an unclean stop");
    }
    if !report.damaged.is_empty() {
        tracing::error!(%partition, damaged = ?report.damaged, "records are damaged on this disk and will not be served");
    }
    tracing::debug!(%partition, clean = report.clean, scanned_bytes = report.scanned_bytes, "opened");
}

impl Handler<DirectoryListed> for Broker {
    type Result = ();
    fn handle(&mut self, DirectoryListed(listed): DirectoryListed, ctx: &mut Self::Context) {
        match listed {
            Ok(found) => self.tidy(found, ctx),
            Err(error) => {
                tracing::warn!(%error, "the data directory could not be listed; trying again with the next metadata");
                self.is_listed = false;
            }
        }
    }
}

impl Handler<DiskSpaceSeen> for Broker {
    type Result = ();
    fn handle(&mut self, DiskSpaceSeen(free): DiskSpaceSeen, _: &mut Self::Context) {
        let Ok(free) = free.inspect_err(|error| tracing::warn!(%error, "the free space could not be read")) else {
            return;
        };
        self.settings.partitions.metrics.disk.free_bytes.set(free);
        let full = free < self.settings.partitions.storage.min_free_bytes;
        if full == self.disk_is_full {
            return;
        }
        self.disk_is_full = full;
        let refusing = full.then(|| self.disk_full_error());
        match &refusing {
            Some(cause) => tracing::error!(free_bytes = free, %cause, "appends are refused until there is space"),
            None => tracing::info!(free_bytes = free, "there is space again: appends are accepted"),
        }
        self.settings.partitions.metrics.disk.refuse(refusing.as_ref().map(|cause| cause.message.clone()));
        self.open_replicas().for_each(|replica| post(replica, SetDiskSpace(refusing.clone())));
    }
}

impl Handler<ReplicaDeleted> for Broker {
    type Result = ();
    fn handle(&mut self, ReplicaDeleted { partition, result }: ReplicaDeleted, ctx: &mut Self::Context) {
        match result {
            Ok(()) => {
                if let Some(left) = self.deleting.get_mut(&partition.topic) {
                    left.remove(&partition.partition);
                }
                self.deleting.retain(|_, left| !left.is_empty());
            }
            // It stays among those to be removed, the tombstone stays, and the next start tries again.
            Err(error) => tracing::warn!(%partition, %error, "the files of a deleted topic could not be removed"),
        }
        self.step(ctx, |engine, now, _| engine.on_gone(now, partition));
        self.tell_files_gone(ctx);
    }
}

/// The last part of a path, as text for a person.
fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
