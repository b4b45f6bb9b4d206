//! What a broker of this process asks of the controller, and tells it, without a lease.

use actix::{Handler, ResponseFuture};

use super::actor::Controller;
use super::messages::*;
use crate::engine::controller::{Decision, register, unfence};
use crate::engine::metadata::MetadataRecord;
use crate::protocol::ApiError;
use crate::types::BrokerEpoch;

impl Handler<RegisterBroker> for Controller {
    type Result = ResponseFuture<Result<Committed<BrokerEpoch>, ApiError>>;
    fn handle(&mut self, RegisterBroker(registration): RegisterBroker, ctx: &mut Self::Context) -> Self::Result {
        Box::pin(self.ask(ctx, move |sitting| {
            let decision = register(&sitting.image, registration.clone(), &sitting.policy.topic_defaults)?;
            sitting.take(decision)
        }))
    }
}

impl Handler<UnfenceBroker> for Controller {
    type Result = ResponseFuture<Result<Committed<()>, ApiError>>;
    fn handle(&mut self, UnfenceBroker { node, epoch }: UnfenceBroker, ctx: &mut Self::Context) -> Self::Result {
        self.unleased.insert((node, epoch));
        Box::pin(self.ask(ctx, move |sitting| {
            let decision = unfence(&sitting.image, node, epoch, &[])?;
            sitting.take(decision)
        }))
    }
}

impl Handler<TopicFilesGone> for Controller {
    type Result = ();
    fn handle(&mut self, TopicFilesGone { topic, node }: TopicFilesGone, ctx: &mut Self::Context) {
        // A failure was logged; the tombstone stays and the next start tries again.
        drop(self.ask(ctx, move |sitting| {
            let is_news = sitting.image.holds_tombstone(topic, node);
            let record = MetadataRecord::TombstoneCleared { topic, node: Some(node) };
            sitting.take(Decision { records: Vec::from_iter(is_news.then_some(record)), answer: () })
        }));
    }
}
