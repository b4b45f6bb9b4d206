//! Opening the replicas that the metadata calls for, and showing sessions what there is.
//!
//! ```text
//!   start            every replica "being opened" ─ each 50 ms those that are open by then ─ all ─► whoever waits is answered
//!   a topic created                                                                        all ─►
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};

use super::actor::Broker;
use super::housekeeping::report;
use super::messages::{BrokerView, Replica, ReplicaOpened};
use crate::actors::send::post;
use crate::actors::threads::Lane;
use crate::engine::broker::Opened;
use crate::engine::damage::Damage;
use crate::engine::metadata::TopicImage;
use crate::protocol::{ApiError, ErrorCode};
use crate::replica::{JOBS_AT_A_TIME, OpenJob, OpenedReplica, open_all, storage_error};
use crate::storage::data_dir::partition_dir_name;
use crate::storage::{LogConfig, LogError, PartitionIdentity};
use crate::types::{TopicConfig, TopicId, TopicPartition};

/// How often sessions are shown which replicas have been opened during the start: a new view holds all replicas, so it is
/// not made for each.
const SHOW_INTERVAL: Duration = Duration::from_millis(50);

impl Broker {
    /// Opens replicas, those of a topic together.
    pub(super) fn open(&mut self, partitions: Vec<TopicPartition>, ctx: &Context<Self>) {
        let mut by_topic: BTreeMap<TopicId, Vec<TopicPartition>> = BTreeMap::new();
        for partition in partitions {
            by_topic.entry(partition.topic).or_default().push(partition);
        }
        let (image, now) = (Arc::clone(&self.image), self.now());
        for (id, partitions) in by_topic {
            match image.topics.get(&id) {
                Some(topic) => self.open_in_topic(topic, partitions, ctx),
                None => partitions.into_iter().for_each(|partition| self.engine.on_gone(now, partition)),
            }
        }
    }

    fn open_in_topic(&mut self, topic: &TopicImage, partitions: Vec<TopicPartition>, ctx: &Context<Self>) {
        let config = self.config_of(topic);
        for partition in &partitions {
            self.opening.insert(*partition, topic.name.clone());
            self.slot(*partition).into_iter().for_each(|slot| *slot = starting());
        }
        let jobs: Vec<_> = partitions.into_iter().map(|partition| self.open_job(topic, &config, partition)).collect();
        // Those that are there already are opened one by one: each may have much to recover.
        let at_a_time = if topic.opened.contains(&self.node()) { 1 } else { JOBS_AT_A_TIME };
        for jobs in jobs.chunks(at_a_time) {
            let (jobs, home) = (jobs.to_vec(), ctx.address());
            self.settings.partitions.disk.run(Lane::Background, move || {
                let (partitions, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
                open_all(jobs, |at, result| post(&home, ReplicaOpened { partition: partitions[at], result }));
            });
        }
    }

    fn open_job(
        &self,
        topic: &TopicImage,
        config: &TopicConfig,
        partition: TopicPartition,
    ) -> (TopicPartition, OpenJob) {
        let (directory, node, number) = (&self.settings.directory, self.node(), partition.partition);
        let state = topic.partitions.get(number.0 as usize);
        let job = OpenJob {
            disk: Arc::clone(directory.disk()),
            files: Arc::clone(&self.settings.files),
            dir: directory.topics_dir().join(partition_dir_name(&topic.name, partition)),
            identity: PartitionIdentity {
                cluster_id: self.image.cluster_id,
                topic: topic.name.clone(),
                topic_id: topic.id,
                partition: number,
            },
            config: LogConfig::from(config),
            // A directory that is missing was lost; once the replica counts no more, it begins anew.
            may_be_new: !topic.has_opened(number, node) || !state.is_some_and(|state| state.is_member(node)),
        };
        (partition, job)
    }

    /// Takes a replica whose log was opened, or could not be.
    fn take_opened(
        &mut self,
        topic: &TopicImage,
        partition: TopicPartition,
        result: Result<OpenedReplica, LogError>,
        ctx: &mut Context<Self>,
    ) {
        let error = match result {
            Ok(opened) => {
                report(partition, &opened);
                let found = found_by(&opened);
                self.start_replica(topic, partition, opened, ctx);
                return self.step(ctx, |engine, now, _| engine.on_opened(now, partition, found));
            }
            Err(error) => error,
        };
        tracing::error!(%partition, %error, "the replica stays offline");
        self.slot(partition).into_iter().for_each(|slot| *slot = Replica::Offline(storage_error(&error)));
        // Where there is no other replica, nobody could take the place of this one: it stays what it is, and its directory may be put back.
        let has_others = self.image.partition(partition).is_some_and(|state| state.replicas.len() > 1);
        self.step(ctx, |engine, now, _| match error {
            LogError::LostPartition { .. } if has_others => engine.on_lost(now, partition),
            _ => engine.on_cannot_open(now, partition),
        });
    }

    pub(super) fn publish(&mut self) {
        if !self.has_parts || self.engine.is_leaving() {
            return;
        }
        self.is_first_opening = false;
        self.show();
        let index = self.image.index;
        for (_, done) in self.waiting.extract_if(.., |(wanted, _)| *wanted <= index) {
            // The session that asked may be gone.
            let _ = done.send(());
        }
    }

    /// Shows the sessions what there is. During the start that is done before all replicas are open, so that those which
    /// are serve already, and the others say that they are being opened.
    pub(super) fn show(&mut self) {
        self.show_scheduled = false;
        let replicas = self.replicas.iter().map(|(id, topic)| (*id, topic.replicas.clone().into())).collect();
        self.settings.view.send_replace(Arc::new(BrokerView {
            image: Arc::clone(&self.image),
            partitions: self.image.partition_count(),
            replicas,
        }));
    }

    /// Shows before long what has been opened, during the start, and whenever replicas take long to open.
    pub(super) fn show_soon(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.show_scheduled, true) {
            return;
        }
        if self.is_first_opening && self.settings.view.borrow().image.index < self.image.index {
            return self.show();
        }
        ctx.run_later(SHOW_INTERVAL, |broker, _| {
            if broker.show_scheduled && !broker.engine.is_leaving() {
                broker.show();
            }
        });
    }
}

/// What the engine is to know of a log.
fn found_by(opened: &OpenedReplica) -> Opened {
    let log = &opened.log;
    let damage = Damage::found(&log.reader().damaged_ranges(), log.log_start(), log.written_end());
    let is_doubtful = opened.report.as_ref().is_some_and(|report| report.doubtful);
    Opened { is_doubtful, is_damaged: !damage.is_whole() }
}

fn starting() -> Replica {
    Replica::Offline(ApiError::new(ErrorCode::NotLeader, "the partition is being opened: try again in a moment"))
}

impl Handler<ReplicaOpened> for Broker {
    type Result = ();
    fn handle(&mut self, ReplicaOpened { partition, result }: ReplicaOpened, ctx: &mut Self::Context) {
        let name = self.opening.remove(&partition);
        if self.engine.is_leaving() {
            // Nothing was written since it was opened: its files are as a clean stop leaves them.
            return;
        }
        match (self.image.topics.get(&partition.topic).cloned(), name) {
            (Some(topic), _) => self.take_opened(&topic, partition, result, ctx),
            (None, name) => {
                drop(result);
                name.into_iter().for_each(|name| self.remove_files(&name, partition, None, ctx));
            }
        }
        if self.opening.is_empty() {
            self.publish();
            self.work_off(ctx);
        } else if self.is_first_opening {
            self.show_soon(ctx);
        }
    }
}
