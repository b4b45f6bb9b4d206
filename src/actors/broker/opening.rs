//! Opening the replicas that the metadata calls for, and showing sessions what there is.
//!
//! ```text
//!   start            every replica "being opened" ─ each 50 ms those that are open by then ─ all ─► whoever waits is answered
//!   a topic created                                                                        all ─►
//! ```

use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context};

use super::actor::{Broker, TopicReplicas};
use super::messages::{BrokerView, Replica, ReplicaOpened};
use crate::actors::controller::TopicOpened;
use crate::actors::send::{post, post_to};
use crate::actors::threads::Lane;
use crate::engine::assignment::Assignment;
use crate::engine::metadata::TopicImage;
use crate::protocol::{ApiError, ErrorCode};
use crate::replica::{JOBS_AT_A_TIME, OpenJob, open_all};
use crate::storage::data_dir::partition_dir_name;
use crate::storage::{LogConfig, PartitionIdentity};
use crate::types::{PartitionIndex, TopicConfig, TopicPartition};

/// How often sessions are shown which replicas have been opened during the start: a new view holds all replicas, so it is
/// not made for each.
const SHOW_INTERVAL: Duration = Duration::from_millis(50);

impl Broker {
    /// Opens the replicas of a topic that this node is to hold and does not hold yet.
    pub(super) fn open_topic(&mut self, topic: &Arc<TopicImage>, ctx: &Context<Self>) {
        let node = self.settings.node;
        let config = self.config_of(topic);
        let count = topic.partitions.len();
        let held = self.replicas.entry(topic.id).or_insert_with(|| TopicReplicas {
            name: topic.name.clone(),
            replicas: Vec::new(),
            assigned: Vec::new(),
        });
        held.replicas.resize(count, Replica::Elsewhere);
        held.assigned.resize(count, Assignment::None);
        let is_wanted = |number: &usize, held: &TopicReplicas| {
            topic.partitions[*number].replicas.contains(&node) && matches!(held.replicas[*number], Replica::Elsewhere)
        };
        let wanted: Vec<_> = (0..count).filter(|number| is_wanted(number, held)).collect();
        wanted.iter().for_each(|number| held.replicas[*number] = starting());
        let numbers = wanted.into_iter().map(|number| PartitionIndex(u32::try_from(number).unwrap_or(u32::MAX)));
        let jobs: Vec<_> = numbers.map(|number| self.open_job(topic, &config, number)).collect();
        self.opening += jobs.len();
        // Those that are there already are opened one by one: each may have much to recover.
        let at_a_time = if topic.opened.contains(&node) { 1 } else { JOBS_AT_A_TIME };
        for jobs in jobs.chunks(at_a_time) {
            let (jobs, home) = (jobs.to_vec(), ctx.address());
            self.settings.partitions.disk.run(Lane::Background, move || {
                let (partitions, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
                open_all(jobs, |at, result| post(&home, ReplicaOpened { partition: partitions[at], result }));
            });
        }
    }

    fn open_job(&self, topic: &TopicImage, config: &TopicConfig, number: PartitionIndex) -> (TopicPartition, OpenJob) {
        let partition = TopicPartition::new(topic.id, number);
        let (directory, node) = (&self.settings.directory, self.settings.node);
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

    /// Tells the controller of replicas that are open here for the first time.
    fn report_opened(&self) {
        let node = self.settings.node;
        for (topic, held) in &self.replicas {
            let Some(image) = self.image.topics.get(topic) else { continue };
            let is_news = |number: &PartitionIndex| !image.has_opened(*number, node);
            let open = (0..).zip(&held.replicas).filter(|(_, replica)| replica.has_part());
            let partitions: Vec<_> = open.map(|(number, _)| PartitionIndex(number)).collect();
            // Of a topic whose replicas are not all open the rest may never have been.
            let offline = held.replicas.iter().any(|replica| matches!(replica, Replica::Offline(_)));
            if !offline && partitions.iter().any(is_news) {
                post_to(&self.settings.topic_opened, TopicOpened { topic: *topic, node, partitions });
            }
        }
    }

    pub(super) fn publish(&mut self) {
        self.is_first_opening = false;
        self.report_opened();
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

    /// Shows before long what has been opened, during the start.
    pub(super) fn show_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.is_first_opening || self.show_scheduled {
            return;
        }
        self.show_scheduled = true;
        ctx.run_later(SHOW_INTERVAL, |broker, _| {
            if broker.is_first_opening && !broker.stopping {
                broker.show();
            }
        });
    }
}

fn starting() -> Replica {
    Replica::Offline(ApiError::new(ErrorCode::NotLeader, "the partition is being opened: try again in a moment"))
}
