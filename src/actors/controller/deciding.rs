//! A round of decisions: everything that waits is decided on one draft of the image, in the order in which it came, and goes into
//! the log as one entry.
//!
//! ```text
//!   waiting: [q1 q2 q3] ─► Sitting: q1 on the image, q2 on what q1 leaves, … ─► one entry ─► applied ─► each is answered
//! ```
//!
//! One round at a time: what arrives meanwhile is the next one. That is a group commit, and no decision ever stands on an image
//! that another one, not yet applied, is about to change.

use std::ops::Range;

use tokio::sync::oneshot;

use super::messages::Committed;
use crate::engine::controller::{ControllerPolicy, Decision};
use crate::engine::metadata::{ClusterImage, MetadataRecord};
use crate::protocol::{ApiError, ErrorCode};

/// What a round is drafted on.
#[derive(Clone)]
pub(super) struct Sitting<'a> {
    pub policy: &'a ControllerPolicy,
    pub image: ClusterImage,
    pub records: Vec<MetadataRecord>,
    /// Producer ids that were reserved and not handed out yet.
    pub producer_ids: Range<i64>,
}

impl Sitting<'_> {
    /// Takes a decision into the round.
    pub fn take<T>(&mut self, decision: Decision<T>) -> Result<T, ApiError> {
        let Decision { records, answer } = decision;
        if records.is_empty() {
            return Ok(answer);
        }
        let mut image = self.image.clone();
        for record in &records {
            image.apply(record).map_err(|e| ApiError::new(ErrorCode::Unknown, e.to_string()))?;
        }
        self.image = image;
        self.records.extend(records);
        Ok(answer)
    }

    /// Decides each item on what those before it leave. With `keep` unset nothing of it stays.
    pub fn each<I, T>(
        &mut self,
        items: &[I],
        keep: bool,
        decide: impl Fn(&ControllerPolicy, &ClusterImage, &I) -> Result<Decision<T>, ApiError>,
    ) -> Vec<Result<T, ApiError>> {
        let mut trial = self.clone();
        let answers =
            items.iter().map(|item| decide(trial.policy, &trial.image, item).and_then(|made| trial.take(made)));
        let answers = answers.collect();
        if keep {
            *self = trial;
        }
        answers
    }
}

/// Something to be decided, and whom to answer.
pub(super) trait Question {
    /// Decides, and keeps the answer. Asked again when the round did not come through.
    fn decide(&mut self, sitting: &mut Sitting<'_>);
    /// Answers: with the index that the answer stands on, or why nothing was decided.
    fn answer(self: Box<Self>, index: Result<u64, ApiError>);
}

struct Asked<F, T> {
    decide: F,
    decided: Option<Result<T, ApiError>>,
    reply: oneshot::Sender<Result<Committed<T>, ApiError>>,
}

impl<T, F: FnMut(&mut Sitting<'_>) -> Result<T, ApiError>> Question for Asked<F, T> {
    fn decide(&mut self, sitting: &mut Sitting<'_>) {
        self.decided = Some((self.decide)(sitting));
    }

    fn answer(self: Box<Self>, index: Result<u64, ApiError>) {
        let Self { decided, reply, .. } = *self;
        let answer = index.and_then(|index| {
            let undecided = || Err(ApiError::new(ErrorCode::Unknown, "the controller left a request undecided"));
            decided.unwrap_or_else(undecided).map(|answer| Committed { index, answer })
        });
        // Whoever asked may be gone.
        let _ = reply.send(answer);
    }
}

/// What [`question`] hands back beside the question: where its answer comes.
pub(super) type Answered<T> = oneshot::Receiver<Result<Committed<T>, ApiError>>;

/// A question that `decide` decides.
pub(super) fn question<T: 'static>(
    decide: impl FnMut(&mut Sitting<'_>) -> Result<T, ApiError> + 'static,
) -> (Box<dyn Question>, Answered<T>) {
    let (reply, answered) = oneshot::channel();
    (Box::new(Asked { decide, decided: None, reply }), answered)
}
