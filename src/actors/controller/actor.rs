//! The controller's handlers: decide, write down, apply, publish.

use std::ops::Range;
use std::sync::Arc;

use actix::{Actor, Context, Handler, MessageResult, Recipient};

use super::messages::*;
use super::metadata_log::MetadataLog;
use crate::actors::send::post_to;
use crate::engine::controller::{ControllerPolicy, Decision, register, unfence};
use crate::engine::metadata::{ClusterImage, MetadataRecord};
use crate::protocol::messages::InitProducerReply;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{BrokerEpoch, Clock, TopicId};

/// See the module page.
pub struct Controller {
    image: Arc<ClusterImage>,
    log: Option<MetadataLog>,
    policy: ControllerPolicy,
    clock: Arc<dyn Clock>,
    producer_ids: Range<i64>,
    subscribers: Vec<Recipient<MetadataCommitted>>,
    failed: Option<ApiError>,
}

impl Controller {
    /// A controller over metadata that was just opened.
    #[must_use]
    pub fn new(log: MetadataLog, image: ClusterImage, policy: ControllerPolicy, clock: Arc<dyn Clock>) -> Self {
        Self {
            image: Arc::new(image),
            log: Some(log),
            policy,
            clock,
            producer_ids: 0..0,
            subscribers: Vec::new(),
            failed: None,
        }
    }

    /// Appends `records`, applies them and tells the brokers. After a failed append nothing is decided any more: what the
    /// log holds is unknown until it is opened again.
    fn commit(&mut self, records: Vec<MetadataRecord>) -> Result<u64, ApiError> {
        if let Some(cause) = &self.failed {
            return Err(cause.clone());
        }
        let Some(log) = self.log.as_mut() else {
            return Err(ApiError::new(ErrorCode::ShuttingDown, "the controller is stopping: try again a little later"));
        };
        if records.is_empty() {
            return Ok(self.image.index);
        }
        if let Err(error) = log.append(&records, self.clock.wall()) {
            tracing::error!(%error, "the metadata log failed: no more changes of topics until this node restarts");
            let cause =
                ApiError::new(ErrorCode::StorageFailed, format!("{error}: check the disk and restart the controller"));
            self.failed = Some(cause.clone());
            return Err(cause);
        }
        if let Err(error) = Arc::make_mut(&mut self.image).apply_entry(&records) {
            tracing::error!(%error, ?records, "a decision did not fit the image");
            return Err(ApiError::new(ErrorCode::StaleMetadata, format!("{error}: try again")));
        }
        report_unclean_elections(&records);
        if let Err(error) = log.snapshot_if_due(&self.image) {
            tracing::warn!(%error, "no metadata snapshot was taken: the next start replays more");
        }
        let news = MetadataCommitted { image: Arc::clone(&self.image), records: records.into() };
        for subscriber in &self.subscribers {
            post_to(subscriber, news.clone());
        }
        Ok(self.image.index)
    }

    /// Decides each of `items` on the image that those before it leave, commits all records together, and answers each.
    fn decide_each<I, T>(
        &mut self,
        items: Vec<I>,
        keep: bool,
        decide: impl Fn(&ControllerPolicy, &ClusterImage, I) -> Result<Decision<T>, ApiError>,
    ) -> Committed<Vec<Result<T, ApiError>>> {
        let mut image = ClusterImage::clone(&self.image);
        let mut records = Vec::new();
        let mut decided = |item| {
            let Decision { records: mut new, answer } = decide(&self.policy, &image, item)?;
            for record in &new {
                image.apply(record).map_err(|e| ApiError::new(ErrorCode::Unknown, e.to_string()))?;
            }
            records.append(&mut new);
            Ok(answer)
        };
        let answers: Vec<_> = items.into_iter().map(&mut decided).collect();
        if !keep {
            return Committed { index: self.image.index, answer: answers };
        }
        match self.commit(records) {
            Ok(index) => Committed { index, answer: answers },
            Err(cause) => {
                let answer = answers.into_iter().map(|answer| answer.and(Err(cause.clone()))).collect();
                Committed { index: self.image.index, answer }
            }
        }
    }
}

/// What an unclean election may have cost is said once, where it is decided.
fn report_unclean_elections(records: &[MetadataRecord]) {
    for record in records {
        if let MetadataRecord::PartitionChanged(change) = record
            && change.is_unclean
        {
            let (partition, leader) = (change.partition, change.leader.unwrap_or_default());
            tracing::warn!(%partition, %leader, epoch = %change.leader_epoch, "a replica leads that may have lost acknowledged records: nobody has more");
        }
    }
}

impl Actor for Controller {
    type Context = Context<Self>;
}

impl Handler<CreateTopics> for Controller {
    type Result = MessageResult<CreateTopics>;
    fn handle(&mut self, request: CreateTopics, _: &mut Self::Context) -> Self::Result {
        let keep = !request.validate_only;
        MessageResult(self.decide_each(request.topics, keep, |policy, image, wanted| {
            policy.create_topic(image, &wanted, TopicId::random())
        }))
    }
}

impl Handler<DeleteTopics> for Controller {
    type Result = MessageResult<DeleteTopics>;
    fn handle(&mut self, DeleteTopics(names): DeleteTopics, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.decide_each(names, true, |policy, image, name| policy.delete_topic(image, &name)))
    }
}

impl Handler<AlterTopics> for Controller {
    type Result = MessageResult<AlterTopics>;
    fn handle(&mut self, AlterTopics(changes): AlterTopics, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.decide_each(changes, true, |policy, image, change| policy.alter_topic(image, &change)))
    }
}

impl Handler<InitProducer> for Controller {
    type Result = Result<InitProducerReply, ApiError>;
    fn handle(&mut self, InitProducer(current): InitProducer, _: &mut Self::Context) -> Self::Result {
        let mut ids = self.producer_ids.clone();
        let decision = self.policy.init_producer(&self.image, &mut ids, current)?;
        self.commit(decision.records)?;
        self.producer_ids = ids;
        Ok(decision.answer)
    }
}

impl Handler<RegisterBroker> for Controller {
    type Result = Result<Committed<BrokerEpoch>, ApiError>;
    fn handle(&mut self, RegisterBroker(registration): RegisterBroker, _: &mut Self::Context) -> Self::Result {
        let Decision { records, answer } = register(&self.image, registration, &self.policy.topic_defaults)?;
        let index = self.commit(records)?;
        Ok(Committed { index, answer })
    }
}

impl Handler<UnfenceBroker> for Controller {
    type Result = Result<Committed<()>, ApiError>;
    fn handle(&mut self, UnfenceBroker { node, epoch }: UnfenceBroker, _: &mut Self::Context) -> Self::Result {
        let Decision { records, answer } = unfence(&self.image, node, epoch, &[])?;
        let index = self.commit(records)?;
        Ok(Committed { index, answer })
    }
}

impl Handler<TopicOpened> for Controller {
    type Result = ();
    fn handle(&mut self, TopicOpened { topic, node }: TopicOpened, _: &mut Self::Context) {
        if self.image.topics.get(&topic).is_some_and(|image| !image.opened.contains(&node)) {
            // A failure was logged by `commit`; the broker says it again after its next start.
            let _ = self.commit(vec![MetadataRecord::TopicOpened { topic, node, partitions: None }]);
        }
    }
}

impl Handler<TopicFilesGone> for Controller {
    type Result = ();
    fn handle(&mut self, TopicFilesGone { topic, node }: TopicFilesGone, _: &mut Self::Context) {
        if self.image.holds_tombstone(topic, node) {
            // A failure was logged by `commit`; the tombstone stays and the next start tries again.
            let _ = self.commit(vec![MetadataRecord::TombstoneCleared { topic, node: Some(node) }]);
        }
    }
}

impl Handler<Subscribe> for Controller {
    type Result = ();
    fn handle(&mut self, Subscribe(broker): Subscribe, _: &mut Self::Context) {
        post_to(&broker, MetadataCommitted { image: Arc::clone(&self.image), records: Arc::new([]) });
        self.subscribers.push(broker);
    }
}

impl Handler<CloseController> for Controller {
    type Result = Result<(), String>;
    fn handle(&mut self, _: CloseController, _: &mut Self::Context) -> Self::Result {
        self.subscribers.clear();
        match self.log.take() {
            Some(log) if self.failed.is_none() => log.close(&self.image).map_err(|error| error.to_string()),
            _ => Ok(()),
        }
    }
}
