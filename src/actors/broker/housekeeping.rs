//! What a broker does beside following the metadata: deleted files, forgotten directories, the free space.

use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use actix::{AsyncContext, Context, Handler};
use tokio::sync::oneshot;

use super::actor::Broker;
use super::messages::{DirectoryListed, DiskSpaceSeen, Replica, ReplicaDeleted};
use crate::actors::partition_leader::{SetDiskSpace, Stop, StopReason};
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

    /// Looks for directories that no topic accounts for: a deleted topic's are removed, all others are put aside.
    fn tidy(&mut self, found: Vec<(TopicPartition, PathBuf)>, ctx: &mut Context<Self>) {
        let mut tombstones: HashSet<TopicId> = self.image.tombstones.iter().copied().collect();
        for (partition, path) in found {
            let name = name_of(&path);
            let (directory, home) = (Arc::clone(&self.settings.directory), ctx.address());
            match Fate::of(&self.image, partition) {
                Fate::Keep => {}
                Fate::Remove => {
                    tombstones.remove(&partition.topic);
                    *self.deleting.entry(partition.topic).or_default() += 1;
                    self.settings.partitions.disk.run(Lane::Background, move || {
                        post(&home, ReplicaDeleted { partition, result: directory.delete_partition_dir(&name) });
                    });
                }
                Fate::PutAside => {
                    tracing::warn!(directory = %name, "no topic accounts for this directory: it is moved to quarantine/, where you may look at it or remove it");
                    self.settings.partitions.disk.run(Lane::Background, move || {
                        if let Err(error) = directory.quarantine(&name) {
                            tracing::warn!(directory = %name, %error, "the directory could not be moved to quarantine/");
                        }
                    });
                }
            }
        }
        for topic in tombstones {
            self.topic_is_gone_if_done(topic, ctx);
        }
    }

    /// Ends the replicas of a topic that was deleted, and removes their files.
    pub(super) fn delete_topic(&mut self, topic: TopicId, ctx: &mut Context<Self>) {
        let held = self.replicas.remove(&topic);
        for (number, replica) in held.iter().flat_map(|held| (0..).zip(&held.replicas)) {
            if !matches!(replica, Replica::Elsewhere) {
                let partition = TopicPartition::new(topic, PartitionIndex(number));
                self.with_engine(ctx, |engine, _, now, _| engine.on_gone(now, partition));
                self.delete_replica(held.as_ref().map(|held| &held.name), partition, replica, ctx);
            }
        }
        self.topic_is_gone_if_done(topic, ctx);
    }

    fn delete_replica(
        &mut self,
        name: Option<&TopicName>,
        partition: TopicPartition,
        replica: &Replica,
        ctx: &Context<Self>,
    ) {
        let Some(name) = name else { return };
        *self.deleting.entry(partition.topic).or_default() += 1;
        let (done, closed) = oneshot::channel();
        if let Some(address) = replica.address() {
            post(address, Stop { why: StopReason::TopicDeleted, done });
        }
        let (directory, home) = (Arc::clone(&self.settings.directory), ctx.address());
        let files = partition_dir_name(name, partition);
        let (pool, cache) = (self.settings.partitions.disk.clone(), Arc::clone(&self.settings.files));
        self.settings.partitions.disk.spawn(async move {
            // An offline replica never answers: its sender is dropped, which is an answer too.
            let _ = closed.await;
            pool.run(Lane::Background, move || {
                let result = directory.delete_partition_dir(&files);
                // An open file keeps its space: nothing is freed before its last handle is gone.
                cache.forget_dir(&directory.topics_dir().join(&files));
                post(&home, ReplicaDeleted { partition, result });
            });
        });
    }

    fn topic_is_gone_if_done(&mut self, topic: TopicId, ctx: &mut Context<Self>) {
        if self.deleting.get(&topic).is_none_or(|left| *left == 0) {
            self.deleting.remove(&topic);
            self.with_engine(ctx, |engine, _, now, _| engine.on_files_gone(now, topic));
        }
    }

    pub(super) fn list_directory(&self, ctx: &Context<Self>) {
        let (directory, home) = (Arc::clone(&self.settings.directory), ctx.address());
        self.settings
            .partitions
            .disk
            .run(Lane::Background, move || post(&home, DirectoryListed(directory.partitions())));
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
            Err(error) => tracing::warn!(%error, "the data directory could not be listed"),
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
                    *left = left.saturating_sub(1);
                }
                self.topic_is_gone_if_done(partition.topic, ctx);
            }
            // The count never reaches zero, the tombstone stays, and the next start tries again.
            Err(error) => tracing::warn!(%partition, %error, "the files of a deleted topic could not be removed"),
        }
    }
}

/// The last part of a path, as text for a person.
fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
