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

use super::actor::{Broker, TopicReplicas};
use super::housekeeping::report;
use super::messages::{BrokerView, Replica, ReplicaOpened};
use crate::actors::send::post;
use crate::actors::threads::Lane;
use crate::engine::broker::Opened;
use crate::engine::metadata::TopicImage;
use crate::protocol::{ApiError, ErrorCode};
use crate::replica::{JOBS_AT_A_TIME, OpenJob, open_all, storage_error};
use crate::storage::data_dir::partition_dir_name;
use crate::storage::{LogConfig, LogError, PartitionIdentity};
use crate::types::{PartitionIndex, TopicConfig, TopicId, TopicPartition};

/// How often sessions are shown which replicas have been opened during the start: a new view holds all replicas, so it is
/// not made for each.
const SHOW_INTERVAL: Duration = Duration::from_millis(50);

impl Broker {
    /// Opens these replicas, those of a topic together.
    pub(super) fn open(&mut self, partitions: Vec<TopicPartition>, ctx: &Context<Self>) {
        let mut by_topic: BTreeMap<TopicId, Vec<PartitionIndex>> = BTreeMap::new();
        for TopicPartition { topic, partition } in partitions {
            by_topic.entry(topic).or_default().push(partition);
        }
        for (topic, numbers) in by_topic {
            if let Some(topic) = self.image.topics.get(&topic).cloned() {
                self.open_of_topic(&topic, &numbers, ctx);
            }
        }
    }

    fn open_of_topic(&mut self, topic: &Arc<TopicImage>, numbers: &[PartitionIndex], ctx: &Context<Self>) {
        let config = self.config_of(topic);
        let held = self.replicas_of(topic);
        numbers.iter().for_each(|number| held.replicas[number.0 as usize] = starting());
        let jobs: Vec<_> = numbers.iter().map(|number| self.open_job(topic, &config, *number)).collect();
        self.opening += jobs.len();
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

    /// What is held of a topic: a place for each of its partitions.
    pub(super) fn replicas_of(&mut self, topic: &TopicImage) -> &mut TopicReplicas {
        let held = self.replicas.entry(topic.id).or_insert_with(|| TopicReplicas {
            name: topic.name.clone(),
            replicas: Vec::new(),
            assigned: Vec::new(),
        });
        held.replicas.resize(topic.partitions.len(), Replica::Elsewhere);
        held.assigned.resize(topic.partitions.len(), None);
        held
    }

    fn open_job(&self, topic: &TopicImage, config: &TopicConfig, number: PartitionIndex) -> (TopicPartition, OpenJob) {
        let partition = TopicPartition::new(topic.id, number);
        let (directory, node) = (&self.settings.directory, self.node());
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

    /// All replicas that the metadata calls for are open, or known to be offline.
    pub(super) fn publish(&mut self) {
        self.show();
        if !self.follows {
            return;
        }
        self.is_first_opening = false;
        let index = self.image.index;
        for (_, done) in self.waiting.extract_if(.., |(wanted, _)| *wanted <= index) {
            // The session that asked may be gone.
            let _ = done.send(());
        }
        self.answer_those_who_count_on_it();
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

    /// Shows before long what has been opened, during the start.
    pub(super) fn show_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.is_first_opening || self.show_scheduled {
            return;
        }
        self.show_scheduled = true;
        ctx.run_later(SHOW_INTERVAL, |broker, _| {
            if broker.is_first_opening && !broker.is_closing {
                broker.show();
            }
        });
    }
}

impl Handler<ReplicaOpened> for Broker {
    type Result = ();
    fn handle(&mut self, ReplicaOpened { partition, result }: ReplicaOpened, ctx: &mut Self::Context) {
        self.opening -= 1;
        if self.is_closing {
            // Nothing was written since it was opened: its files are as a clean stop leaves them.
            return;
        }
        match result {
            Ok(opened) => {
                report(partition, &opened);
                let found = opened.report.as_ref().map_or_else(Opened::default, |report| Opened {
                    is_doubtful: report.doubtful,
                    is_damaged: !report.damaged.is_empty(),
                });
                self.start_replica(partition, opened, ctx);
                self.with_engine(ctx, |engine, _, now, _| engine.on_opened(now, partition, found));
            }
            Err(error) => {
                tracing::error!(%partition, %error, "the replica stays offline");
                self.put(partition, Replica::Offline(storage_error(&error)));
                let is_lost = matches!(error, LogError::LostPartition { .. });
                self.with_engine(ctx, |engine, _, now, _| match is_lost {
                    true => engine.on_lost(now, partition),
                    false => engine.on_cannot_open(now, partition),
                });
            }
        }
        if self.opening == 0 {
            self.publish();
            self.work_off(ctx);
        } else {
            self.show_soon(ctx);
        }
    }
}

fn starting() -> Replica {
    Replica::Offline(ApiError::new(ErrorCode::NotLeader, "the partition is being opened: try again in a moment"))
}
