//! What brokers ask of the controller, and tell it.

use std::collections::BTreeMap;
use std::future::ready;

use actix::{Context, Handler, MessageResult, ResponseFuture};

use super::actor::{Controller, Office};
use super::deciding::Sitting;
use super::membership::known;
use super::messages::{AskController, FindController};
use super::renewals::Answered;
use crate::engine::broker::{Answer, Finding, RefusedProposal, ReplicaReport, Request};
use crate::engine::controller::{
    Decision, InSyncProposal, ReplicaEnd, alter_in_sync, elect_from_last_members, fence, register, report_damaged,
    report_lost, stopping,
};
use crate::engine::metadata::{BrokerRegistration, ClusterImage, MetadataRecord};
use crate::protocol::messages::peer::FindControllerReply;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{BrokerEpoch, NodeId, PartitionIndex, TopicId};

impl Controller {
    fn register(&mut self, ctx: &mut Context<Self>, registration: BrokerRegistration) -> ResponseFuture<Answered> {
        let incarnation = registration.incarnation;
        let decided = self.ask(ctx, move |sitting| {
            let decision = register(&sitting.image, registration.clone(), &sitting.policy.topic_defaults);
            // What is refused is an answer; what cannot be decided is none.
            Ok(decision.and_then(|decision| sitting.take(decision)))
        });
        Box::pin(async move {
            Ok(Some(match decided.await?.answer {
                Ok(epoch) => Answer::Registered { incarnation, epoch },
                Err(cause) => Answer::NotRegistered { incarnation, cause },
            }))
        })
    }

    fn propose(&mut self, ctx: &mut Context<Self>, proposals: Vec<InSyncProposal>) -> ResponseFuture<Answered> {
        let decided = self.ask(ctx, move |sitting| {
            let answers = sitting.take(alter_in_sync(&sitting.image, &proposals))?;
            let refused = proposals.iter().zip(answers).filter_map(|(proposal, answer)| {
                let (partition, partition_epoch) = (proposal.partition, proposal.partition_epoch);
                let why = answer.err()?.to_string();
                tracing::debug!(%partition, partition_epoch, %why, "a proposal is refused");
                Some(RefusedProposal { partition, partition_epoch, why })
            });
            Ok(refused.collect::<Vec<_>>())
        });
        Box::pin(async move {
            let refused = decided.await?.answer;
            Ok((!refused.is_empty()).then_some(Answer::ProposalsRefused(refused)))
        })
    }

    /// Something that a broker says of itself. If it was overtaken by another registration, nobody needs to know.
    fn hear_of_itself(
        &mut self,
        ctx: &mut Context<Self>,
        decide: impl Fn(&ClusterImage) -> Result<Decision<()>, ApiError> + 'static,
    ) -> ResponseFuture<Answered> {
        let decided = self
            .ask(ctx, move |sitting| Ok(decide(&sitting.image).and_then(|decision| sitting.take(decision)).is_ok()));
        Box::pin(async move { decided.await.map(|_| None) })
    }

    /// What became of replicas. Answered at once: brokers say it again until the metadata shows it.
    fn hear(&mut self, ctx: &mut Context<Self>, report: ReplicaReport) -> ResponseFuture<Answered> {
        let ReplicaReport { node, epoch, findings } = report;
        if findings.len() > ReplicaReport::MOST {
            let text = format!("a report has at most {} findings: send the others apart", ReplicaReport::MOST);
            return Box::pin(ready(Err(ApiError::new(ErrorCode::InvalidRequest, text))));
        }
        if let Some(cause) = self.refusal() {
            return Box::pin(ready(Err(cause)));
        }
        let end = |finding: &Finding| match *finding {
            Finding::End { partition, leader_epoch, end_offset } => {
                Some(ReplicaEnd { partition, node, broker_epoch: epoch, leader_epoch, end_offset })
            }
            _ => None,
        };
        let ends: Vec<_> = findings.iter().filter_map(end).collect();
        drop(self.ask(ctx, move |sitting| {
            judge(sitting, (node, epoch), &findings);
            Ok(())
        }));
        if !ends.is_empty() {
            self.hear_ends(ctx, (node, epoch), ends);
        }
        Box::pin(ready(Ok(None)))
    }

    fn hear_ends(&mut self, ctx: &mut Context<Self>, (node, epoch): (NodeId, BrokerEpoch), ends: Vec<ReplicaEnd>) {
        let image = self.image();
        let Some(tenure) = self.tenure.as_mut().filter(|_| image.is_registered(node, epoch)) else { return };
        tenure.remember_ends(&image, ends);
        let ends = tenure.ends();
        drop(self.ask(ctx, move |sitting| {
            let Decision { records, .. } =
                elect_from_last_members(&sitting.image, &sitting.policy.topic_defaults, &ends)?;
            sitting.take(Decision { records, answer: () })
        }));
    }
}

/// Decides each finding on its own, so that one that was overtaken takes no other with it. Those of a topic that say that its
/// replicas are there are one record.
fn judge(sitting: &mut Sitting<'_>, (node, epoch): (NodeId, BrokerEpoch), findings: &[Finding]) {
    if !sitting.image.is_registered(node, epoch) {
        return;
    }
    let mut opened: BTreeMap<TopicId, Vec<PartitionIndex>> = BTreeMap::new();
    for finding in findings {
        let image = &sitting.image;
        let decision = match *finding {
            Finding::Lost(partition) => report_lost(image, partition, node, epoch),
            Finding::Damaged { partition, leader_epoch } => {
                report_damaged(image, partition, (node, epoch), leader_epoch)
                    .map(|Decision { records, .. }| Decision { records, answer: () })
            }
            Finding::FilesGone(topic) if image.holds_tombstone(topic, node) => {
                Ok(only(MetadataRecord::TombstoneCleared { topic, node: Some(node) }))
            }
            Finding::Opened(partition) => {
                let known = image.topics.get(&partition.topic);
                if known.is_some_and(|topic| !topic.has_opened(partition.partition, node)) {
                    opened.entry(partition.topic).or_default().push(partition.partition);
                }
                continue;
            }
            Finding::FilesGone(_) | Finding::End { .. } => continue,
        };
        if let Err(refusal) = decision.and_then(|decision| sitting.take(decision)) {
            tracing::debug!(%node, ?finding, %refusal, "a finding changes nothing");
        }
    }
    for (topic, partitions) in opened {
        let record = MetadataRecord::TopicOpened { topic, node, partitions: Some(partitions) };
        if let Err(refusal) = sitting.take(only(record)) {
            tracing::debug!(%node, %topic, %refusal, "replicas that are there change nothing");
        }
    }
}

fn only(record: MetadataRecord) -> Decision<()> {
    Decision { records: vec![record], answer: () }
}

impl Handler<AskController> for Controller {
    type Result = ResponseFuture<Answered>;
    fn handle(&mut self, AskController(request): AskController, ctx: &mut Self::Context) -> Self::Result {
        if let Some(cause) = self.absence() {
            return Box::pin(ready(Err(cause)));
        }
        match request {
            Request::Register(registration) => self.register(ctx, registration),
            Request::Renew(renewal) => self.take_renewal(ctx, renewal),
            Request::Report(report) => self.hear(ctx, report),
            Request::Propose(proposals) => self.propose(ctx, proposals),
            Request::Stopping { node, epoch } => self.hear_of_itself(ctx, move |image| stopping(image, node, epoch)),
            Request::Stopped { node, epoch } => self.hear_of_itself(ctx, move |image| fence(image, node, epoch)),
        }
    }
}

impl Handler<FindController> for Controller {
    type Result = MessageResult<FindController>;
    fn handle(&mut self, _: FindController, _: &mut Self::Context) -> Self::Result {
        let cluster = Some(self.image().cluster_id);
        let decides = matches!(self.office, Office::Held(_)) && self.tenure.is_some();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let node_of = |leader| metrics.membership_config.membership().get_node(&leader).map(|member| member.node);
        let leader = metrics.current_leader.and_then(node_of);
        let controllers = known(&self.raft);
        MessageResult(FindControllerReply { cluster, decides, term: metrics.current_term, leader, controllers })
    }
}
