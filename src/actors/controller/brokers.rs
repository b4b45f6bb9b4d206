//! What a broker of this process asks of the controller, and tells it, without a lease.

use std::sync::Arc;

use actix::{Handler, ResponseFuture};

use super::actor::Controller;
use super::messages::*;
use crate::engine::controller::{Decision, InSyncAccepted, alter_in_sync, register, report_damaged, unfence};
use crate::engine::metadata::{MetadataRecord, TopicImage};
use crate::protocol::{ApiError, ErrorCode};
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

impl Handler<AlterInSync> for Controller {
    type Result = ResponseFuture<Vec<Result<InSyncAccepted, ApiError>>>;
    fn handle(&mut self, AlterInSync(proposals): AlterInSync, ctx: &mut Self::Context) -> Self::Result {
        let count = proposals.len();
        let decided = self.ask(ctx, move |sitting| {
            let answers = sitting.take(alter_in_sync(&sitting.image, &proposals))?;
            let stale =
                |refusal| ApiError::new(ErrorCode::StaleMetadata, format!("the proposal is refused: {refusal}"));
            Ok(answers.into_iter().map(|answer| answer.map_err(stale)).collect::<Vec<_>>())
        });
        Box::pin(async move {
            match decided.await {
                Ok(committed) => committed.answer,
                Err(cause) => std::iter::repeat_with(|| Err(cause.clone())).take(count).collect(),
            }
        })
    }
}

impl Handler<ReportDamaged> for Controller {
    type Result = ();
    fn handle(&mut self, report: ReportDamaged, ctx: &mut Self::Context) {
        let ReportDamaged { partition, node, epoch, leader_epoch } = report;
        // Said again by the replica until the metadata shows it.
        drop(self.ask(ctx, move |sitting| {
            let decision = report_damaged(&sitting.image, partition, (node, epoch), leader_epoch)?;
            sitting.take(decision)
        }));
    }
}

impl Handler<TopicOpened> for Controller {
    type Result = ();
    fn handle(&mut self, message: TopicOpened, ctx: &mut Self::Context) {
        let TopicOpened { topic, node, partitions } = message;
        // A failure was logged; the broker says it again after its next start.
        drop(self.ask(ctx, move |sitting| {
            let is_new = |known: &Arc<TopicImage>| partitions.iter().any(|number| !known.has_opened(*number, node));
            let is_news = sitting.image.topics.get(&topic).is_some_and(is_new);
            let record = MetadataRecord::TopicOpened { topic, node, partitions: Some(partitions.clone()) };
            sitting.take(Decision { records: Vec::from_iter(is_news.then_some(record)), answer: () })
        }));
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
