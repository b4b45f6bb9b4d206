//! Requests that the controller decides. Answered once the decision has been applied on this node, so that the client's
//! next request here meets it.

use actix::{Addr, MailboxError};
use tracing::Instrument;

use super::actor::Session;
use crate::actors::broker::{AwaitMetadata, Broker};
use crate::actors::codec::{Codec, Held, Reply, ReplyBody, RequestPermit};
use crate::actors::controller::{self, Committed};
use crate::actors::send::post;
use crate::actors::spans;
use crate::engine::metadata::ClusterImage;
use crate::protocol::frame::FrameHead;
use crate::protocol::messages::{self, AlterTopicsReply, ConfigEntry, CreateTopicsReply, DeleteTopicsReply, Outcome};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::topic_config::TOPIC_CONFIG_KEYS;
use crate::types::{Operation, TopicAction, TopicConfig, TopicConfigOverrides, TopicId, TopicName};

/// Every setting of a topic, with the value in force.
pub(super) fn config_entries(overrides: &TopicConfigOverrides, defaults: &TopicConfig) -> Vec<ConfigEntry> {
    let effective = overrides.resolve(defaults).unwrap_or_else(|_| defaults.clone());
    let entry = |key: &crate::types::topic_config::TopicConfigKey| ConfigEntry {
        key: key.name.to_owned(),
        value: effective.get(key.name).unwrap_or_default(),
        overridden: overrides.0.contains_key(key.name),
    };
    TOPIC_CONFIG_KEYS.iter().map(entry).collect()
}

pub(super) fn stopping(_: MailboxError) -> ApiError {
    ApiError::new(ErrorCode::ShuttingDown, "the node is stopping: try again a little later")
}

pub(super) async fn applied<T>(
    broker: &Addr<Broker>,
    committed: Result<Committed<T>, ApiError>,
) -> Result<T, ApiError> {
    let Committed { index, answer } = committed?;
    broker.send(AwaitMetadata { index }).await.map_err(stopping)?;
    Ok(answer)
}

/// Items that pass, and for each item its place among them or the error that it gets at once.
pub(super) struct Sifted<T> {
    pub(super) passed: Vec<T>,
    pub(super) places: Vec<Result<usize, ApiError>>,
}

impl<T> Sifted<T> {
    pub(super) fn new(items: Vec<T>, check: impl Fn(&T) -> Result<(), ApiError>) -> Self {
        let mut sifted = Self { passed: Vec::new(), places: Vec::new() };
        for item in items {
            sifted.places.push(check(&item).map(|()| sifted.passed.len()));
            if sifted.places.last().is_some_and(Result::is_ok) {
                sifted.passed.push(item);
            }
        }
        sifted
    }
}

/// Puts the answers of the items that passed in the places of the request.
pub(super) fn merge<T: Clone>(
    places: Vec<Result<usize, ApiError>>,
    answers: &[Result<T, ApiError>],
) -> Vec<Outcome<T>> {
    let missing = || Err(ApiError::new(ErrorCode::Unknown, "the controller left an item unanswered"));
    let pick = |at: usize| answers.get(at).cloned().unwrap_or_else(missing);
    places.into_iter().map(|place| place.and_then(pick).into()).collect()
}

impl Session {
    /// Whether the client may do `action` to the topic. An illegal name is left to the controller, which says why.
    pub(super) fn allow_topic(&self, name: &str, action: TopicAction) -> Result<(), ApiError> {
        TopicName::new(name).map_or(Ok(()), |name| self.allow(Operation::Topic(action, &name)))
    }

    /// Runs `work` beside the session and sends what comes of it.
    pub(super) fn reply_later(
        &self,
        head: FrameHead,
        permit: RequestPermit,
        work: impl Future<Output = Result<ReplyBody, ApiError>> + 'static,
    ) {
        let codec: Addr<Codec> = self.codec.clone();
        let work = async move {
            let result = work.await;
            let held = Held { permit: Some(permit), room: None };
            post(&codec, Reply { head, result, attachments: Vec::new(), held });
        };
        actix_rt::spawn(work.instrument(spans::request(self.owner, head.correlation_id)));
    }

    pub(super) fn create_topics(&mut self, head: FrameHead, request: messages::CreateTopics, permit: RequestPermit) {
        let messages::CreateTopics { topics, validate_only } = request;
        let Sifted { passed, places } = Sifted::new(topics, |topic| self.allow_topic(&topic.name, TopicAction::Create));
        let (controllers, broker) = (self.settings.controllers.clone(), self.settings.broker.clone());
        self.reply_later(head, permit, async move {
            let created = controllers.create_topics(controller::CreateTopics { topics: passed, validate_only }).await;
            let answers = applied(&broker, created).await?;
            Ok(ReplyBody::CreateTopics(CreateTopicsReply { topics: merge(places, &answers) }))
        });
    }

    pub(super) fn delete_topics(&mut self, head: FrameHead, request: messages::DeleteTopics, permit: RequestPermit) {
        let Sifted { passed, places } = Sifted::new(request.names, |name| self.allow_topic(name, TopicAction::Delete));
        let (controllers, broker) = (self.settings.controllers.clone(), self.settings.broker.clone());
        self.reply_later(head, permit, async move {
            let answers = applied(&broker, controllers.delete_topics(controller::DeleteTopics(passed)).await).await?;
            Ok(ReplyBody::DeleteTopics(DeleteTopicsReply { topics: merge(places, &answers) }))
        });
    }

    pub(super) fn alter_topics(&mut self, head: FrameHead, request: messages::AlterTopics, permit: RequestPermit) {
        let Sifted { passed, places } =
            Sifted::new(request.topics, |topic| self.allow_topic(&topic.name, TopicAction::Alter));
        let (controllers, broker) = (self.settings.controllers.clone(), self.settings.broker.clone());
        let (view, defaults) = (self.settings.view.clone(), self.settings.topic_defaults.clone());
        self.reply_later(head, permit, async move {
            let answers = applied(&broker, controllers.alter_topics(controller::AlterTopics(passed)).await).await?;
            let image = view.borrow().image.clone();
            let settings = |topic: Result<TopicId, ApiError>| topic.and_then(|id| settings_of(&image, id, &defaults));
            let answers: Vec<_> = answers.into_iter().map(settings).collect();
            Ok(ReplyBody::AlterTopics(AlterTopicsReply { topics: merge(places, &answers) }))
        });
    }

    pub(super) fn init_producer(&mut self, head: FrameHead, request: &messages::InitProducer, permit: RequestPermit) {
        if let Err(denied) = self.allow(Operation::IdempotentWrite) {
            self.send(head, Err(denied), Vec::new(), Held { permit: Some(permit), room: None });
            return;
        }
        let (controllers, current) = (self.settings.controllers.clone(), request.current);
        self.reply_later(head, permit, async move {
            let reply = controllers.init_producer(controller::InitProducer(current)).await?;
            Ok(ReplyBody::InitProducer(reply))
        });
    }
}

fn settings_of(image: &ClusterImage, topic: TopicId, defaults: &TopicConfig) -> Result<Vec<ConfigEntry>, ApiError> {
    match image.topics.get(&topic) {
        Some(topic) => Ok(config_entries(&topic.config, defaults)),
        None => Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, "the topic was deleted meanwhile")),
    }
}
