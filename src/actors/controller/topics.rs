//! What clients ask of the controller: topics, and producer ids.

use actix::{Context, Handler, ResponseFuture};

use super::actor::Controller;
use super::messages::*;
use crate::engine::controller::{ControllerPolicy, Decision};
use crate::engine::metadata::ClusterImage;
use crate::protocol::ApiError;
use crate::protocol::messages::{CreatedTopic, InitProducerReply};
use crate::types::TopicId;

/// An answer for each item, or why nothing was decided.
pub(super) type Each<T> = Result<Committed<Vec<Result<T, ApiError>>>, ApiError>;

impl Controller {
    /// Like [`Controller::ask`] for items that are decided each on its own.
    pub(super) fn ask_each<I: 'static, T: 'static>(
        &mut self,
        ctx: &mut Context<Self>,
        items: Vec<I>,
        keep: bool,
        decide: impl Fn(&ControllerPolicy, &ClusterImage, &I) -> Result<Decision<T>, ApiError> + Copy + 'static,
    ) -> ResponseFuture<Each<T>> {
        Box::pin(self.ask(ctx, move |sitting| Ok(sitting.each(&items, keep, decide))))
    }
}

impl Handler<CreateTopics> for Controller {
    type Result = ResponseFuture<Each<CreatedTopic>>;
    fn handle(&mut self, request: CreateTopics, ctx: &mut Self::Context) -> Self::Result {
        let keep = !request.validate_only;
        self.ask_each(ctx, request.topics, keep, |policy, image, wanted| {
            policy.create_topic(image, wanted, TopicId::random())
        })
    }
}

impl Handler<DeleteTopics> for Controller {
    type Result = ResponseFuture<Each<TopicId>>;
    fn handle(&mut self, DeleteTopics(names): DeleteTopics, ctx: &mut Self::Context) -> Self::Result {
        self.ask_each(ctx, names, true, |policy, image, name| policy.delete_topic(image, name))
    }
}

impl Handler<AlterTopics> for Controller {
    type Result = ResponseFuture<Each<TopicId>>;
    fn handle(&mut self, AlterTopics(changes): AlterTopics, ctx: &mut Self::Context) -> Self::Result {
        self.ask_each(ctx, changes, true, |policy, image, change| policy.alter_topic(image, change))
    }
}

impl Handler<InitProducer> for Controller {
    type Result = ResponseFuture<Result<InitProducerReply, ApiError>>;
    fn handle(&mut self, InitProducer(current): InitProducer, ctx: &mut Self::Context) -> Self::Result {
        let decided = self.ask(ctx, move |sitting| {
            let mut ids = sitting.producer_ids.clone();
            let decision = sitting.policy.init_producer(&sitting.image, &mut ids, current)?;
            let answer = sitting.take(decision)?;
            sitting.producer_ids = ids;
            Ok(answer)
        });
        Box::pin(async move { decided.await.map(|committed| committed.answer) })
    }
}
