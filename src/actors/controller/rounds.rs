//! The rounds in which a controller decides: see [`super::deciding`].

use actix::{AsyncContext, Context, Handler};
use openraft::error::{ClientWriteError, RaftError};

use super::actor::{Controller, Office, not_controller, stopping};
use super::deciding::{Question, Sitting};
use super::messages::Written;
use crate::actors::send::post;
use crate::engine::metadata::{ClusterImage, MetadataRecord};
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::{self, Decided, cause_of};

/// Records that one round may have: the next question waits for the next round. With those of a topic of 1,000 partitions an entry
/// stays far below the limit of a frame.
const MAX_RECORDS: usize = 2_000;
/// How often a round is asked again whose records did not fit: something else came between, as a change of the members does.
const MAX_ATTEMPTS: u32 = 3;

/// What is being decided.
pub(super) struct Round {
    questions: Vec<Box<dyn Question>>,
    records: Vec<MetadataRecord>,
    producer_ids: std::ops::Range<i64>,
    attempts: u32,
}

impl Controller {
    /// Decides what waits, if nothing is being decided and this controller is in office.
    pub(super) fn begin_round(&mut self, ctx: &mut Context<Self>) {
        self.ask_all(ctx, Vec::new(), 0);
    }

    /// Asks `again`, and then what waits.
    fn ask_all(&mut self, ctx: &mut Context<Self>, again: Vec<Box<dyn Question>>, attempts: u32) {
        let is_ready = self.round.is_none() && matches!(self.office, Office::Held(_)) && self.failure.is_none();
        if !is_ready || (again.is_empty() && self.waiting.is_empty()) {
            self.waiting.splice(0..0, again);
            return;
        }
        let image = ClusterImage::clone(&self.image());
        let index = image.index;
        let (policy, producer_ids) = (&self.settings.policy, self.producer_ids.clone());
        let mut sitting = Sitting { policy, image, records: Vec::new(), producer_ids };
        let mut questions = again;
        questions.iter_mut().for_each(|question| question.decide(&mut sitting));
        let mut taken = 0;
        for question in &mut self.waiting {
            if sitting.records.len() >= MAX_RECORDS {
                break;
            }
            question.decide(&mut sitting);
            taken += 1;
        }
        let Sitting { records, producer_ids, .. } = sitting;
        questions.extend(self.waiting.drain(..taken));
        if records.is_empty() {
            self.producer_ids = producer_ids;
            questions.into_iter().for_each(|question| question.answer(Ok(index)));
            return;
        }
        let decision = raft::Decision { records: records.clone() };
        self.round = Some(Round { questions, records, producer_ids, attempts });
        let (raft, home) = (self.raft.clone(), ctx.address());
        actix_rt::spawn(async move {
            let written = raft.client_write(decision).await.map(|response| response.data);
            post(&home, Written(written));
        });
    }

    fn end_round(&mut self, ctx: &mut Context<Self>, round: Round, decided: Decided) {
        let Round { questions, records, producer_ids, attempts } = round;
        match decided.outcome {
            Ok(()) => {
                self.producer_ids = producer_ids;
                report_unclean_elections(&records);
                self.publish();
                questions.into_iter().for_each(|question| question.answer(Ok(decided.index)));
            }
            Err(error) if attempts + 1 < MAX_ATTEMPTS => {
                tracing::debug!(%error, "the metadata changed under a decision: it is made again");
                self.ask_all(ctx, questions, attempts + 1);
            }
            Err(error) => {
                tracing::error!(%error, ?records, "a decision did not fit the image");
                let cause = ApiError::new(ErrorCode::StaleMetadata, format!("{error}: try again"));
                questions.into_iter().for_each(|question| question.answer(Err(cause.clone())));
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

impl Handler<Written> for Controller {
    type Result = ();
    fn handle(&mut self, Written(written): Written, ctx: &mut Self::Context) {
        let Some(round) = self.round.take() else { return };
        match written {
            Ok(decided) => self.end_round(ctx, round, decided),
            Err(error) => {
                let cause = match error {
                    RaftError::Fatal(_) if self.office == Office::Closed => stopping(),
                    RaftError::Fatal(fatal) => {
                        self.fail(&cause_of(&fatal));
                        self.failure.clone().unwrap_or_else(not_controller)
                    }
                    // The entry may still be decided, by the successor: whoever asked looks, and asks that one.
                    RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                        self.leave_office();
                        let text = "another controller has taken over while this was being decided";
                        ApiError::new(ErrorCode::TimedOut, text)
                    }
                    RaftError::APIError(error @ ClientWriteError::ChangeMembershipError(_)) => {
                        ApiError::new(ErrorCode::Unknown, error.to_string())
                    }
                };
                round.questions.into_iter().for_each(|question| question.answer(Err(cause.clone())));
            }
        }
        // Dropped: whoever waits for rest has it.
        self.on_rest = self.on_rest.take().filter(|_| self.round.is_some());
        self.begin_round(ctx);
    }
}
