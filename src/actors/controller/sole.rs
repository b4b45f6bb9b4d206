//! What the broker beside a sole controller asks of it: all that it says is taken at once, and its lease never ends on this side.

use std::sync::Arc;
use std::time::Duration;

use actix::{Context, Handler, MessageResult, ResponseFuture};
use tokio::time::timeout;

use super::actor::{Controller, Office};
use super::deciding::Sitting;
use super::messages::*;
use crate::engine::broker::{Answer, Finding, RefusedProposal, Renewal, ReplicaReport, Request};
use crate::engine::controller::{self, Decision, alter_in_sync, register, report_damaged, report_lost, unfence};
use crate::engine::metadata::{BrokerRegistration, ClusterImage, MetadataRecord};
use crate::protocol::ApiError;
use crate::protocol::messages::peer::FindControllerReply;

/// A broker that is not heard of for so long answers nothing as a leader. Nobody else could lead.
const LEASE: Duration = Duration::from_secs(9);

type Asked = ResponseFuture<Result<Option<Answer>, ApiError>>;

impl Controller {
    fn register(&mut self, ctx: &mut Context<Self>, registration: BrokerRegistration) -> Asked {
        let incarnation = registration.incarnation;
        let decided = self.ask(ctx, move |sitting| {
            let decision = register(&sitting.image, registration.clone(), &sitting.policy.topic_defaults)?;
            sitting.take(decision)
        });
        Box::pin(async move {
            Ok(Some(match decided.await {
                Ok(committed) => Answer::Registered { incarnation, epoch: committed.answer },
                Err(cause) => Answer::NotRegistered { incarnation, cause },
            }))
        })
    }

    fn renew(&mut self, ctx: &mut Context<Self>, renewal: Renewal) -> Asked {
        let Renewal { node, epoch, applied, sent, doubtful } = renewal;
        let image = self.image();
        let current = image.epoch_of(node);
        if current != Some(epoch) {
            return Box::pin(async move { Ok(Some(Answer::StaleEpoch { epoch, current })) });
        }
        let renewed = Answer::Renewed { epoch, sent, duration: LEASE };
        if image.is_live(node) || applied == 0 {
            return Box::pin(async move { Ok(Some(renewed)) });
        }
        let decided = self.ask(ctx, move |sitting| {
            let decision = unfence(&sitting.image, node, epoch, &doubtful)?;
            sitting.take(decision)
        });
        Box::pin(async move { decided.await.map(|_| Some(renewed)) })
    }

    fn report(&mut self, ctx: &mut Context<Self>, report: ReplicaReport) -> Asked {
        let decided = self.ask(ctx, move |sitting| {
            for finding in &report.findings {
                // One that is refused says nothing new.
                if let Err(error) = take_finding(sitting, &report, *finding) {
                    tracing::debug!(?finding, %error, "a report was refused");
                }
            }
            Ok(())
        });
        Box::pin(async move { decided.await.map(|_| None) })
    }

    fn propose(&mut self, ctx: &mut Context<Self>, proposals: Vec<controller::InSyncProposal>) -> Asked {
        let decided = self.ask(ctx, move |sitting| {
            let answers = sitting.take(alter_in_sync(&sitting.image, &proposals))?;
            let refused = proposals.iter().zip(answers).filter_map(|(proposal, answer)| {
                let (partition, partition_epoch) = (proposal.partition, proposal.partition_epoch);
                Some(RefusedProposal { partition, partition_epoch, why: answer.err()?.to_string() })
            });
            Ok(Answer::ProposalsRefused(refused.collect()))
        });
        Box::pin(async move { decided.await.map(|committed| Some(committed.answer)) })
    }

    fn decide_of_broker(
        &mut self,
        ctx: &mut Context<Self>,
        decide: impl Fn(&ClusterImage) -> Result<Decision<()>, ApiError> + 'static,
    ) -> Asked {
        let decided = self.ask(ctx, move |sitting| {
            let decision = decide(&sitting.image)?;
            sitting.take(decision)
        });
        Box::pin(async move { decided.await.map(|_| None) })
    }
}

fn take_finding(sitting: &mut Sitting<'_>, report: &ReplicaReport, finding: Finding) -> Result<(), ApiError> {
    let (node, epoch) = (report.node, report.epoch);
    let image = &sitting.image;
    let decision = match finding {
        Finding::Lost(partition) => report_lost(image, partition, node, epoch)?,
        Finding::Damaged { partition, leader_epoch } => {
            let Decision { records, .. } = report_damaged(image, partition, (node, epoch), leader_epoch)?;
            Decision { records, answer: () }
        }
        Finding::Opened(partition) => {
            let topic = partition.topic;
            let is_news = image.topics.get(&topic).is_some_and(|known| !known.has_opened(partition.partition, node));
            let record = MetadataRecord::TopicOpened { topic, node, partitions: Some(vec![partition.partition]) };
            Decision { records: Vec::from_iter(is_news.then_some(record)), answer: () }
        }
        // Nobody else could lead.
        Finding::End { .. } => return Ok(()),
        Finding::FilesGone(topic) => {
            let record = MetadataRecord::TombstoneCleared { topic, node: Some(node) };
            Decision { records: Vec::from_iter(image.holds_tombstone(topic, node).then_some(record)), answer: () }
        }
    };
    sitting.take(decision)
}

impl Handler<AskController> for Controller {
    type Result = Asked;
    fn handle(&mut self, AskController(request): AskController, ctx: &mut Self::Context) -> Self::Result {
        match request {
            Request::Register(registration) => self.register(ctx, registration),
            Request::Renew(renewal) => self.renew(ctx, renewal),
            Request::Report(report) => self.report(ctx, report),
            Request::Propose(proposals) => self.propose(ctx, proposals),
            Request::Stopping { node, epoch } => {
                self.decide_of_broker(ctx, move |image| controller::stopping(image, node, epoch))
            }
            Request::Stopped { node, epoch } => {
                self.decide_of_broker(ctx, move |image| controller::fence(image, node, epoch))
            }
        }
    }
}

impl Handler<FollowMetadata> for Controller {
    type Result = ResponseFuture<Result<MetadataNews, ApiError>>;
    fn handle(&mut self, request: FollowMetadata, _: &mut Self::Context) -> Self::Result {
        let mut images = self.images.clone();
        Box::pin(async move {
            let waited = images.wait_for(|applied| applied.image.index > request.index);
            // Nothing new is an answer, too.
            let _ = timeout(request.patience, waited).await;
            let image = Arc::clone(&images.borrow().image);
            let entries = (image.index == request.index).then(Vec::new);
            Ok(MetadataNews { image, entries, hand_overs: Vec::new() })
        })
    }
}

impl Handler<FindController> for Controller {
    type Result = MessageResult<FindController>;
    fn handle(&mut self, _: FindController, _: &mut Self::Context) -> Self::Result {
        let (term, cluster) = (self.raft.metrics().borrow().current_term, self.image().cluster_id);
        let decides = matches!(self.office, Office::Held(_));
        MessageResult(FindControllerReply { cluster: Some(cluster), decides, term, leader: None })
    }
}
