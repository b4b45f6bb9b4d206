//! Brokers follow the metadata: each asks for what came after the index that it has, and waits until there is something.
//!
//! ```text
//!   FollowMetadata ─► parked ──┬─ the image moved ────────────► the entries since then, or only the image
//!                              ├─ a leadership is to move ────► whose, and to whom
//!                              ├─ patience is over ───────────► the image as it is
//!                              ├─ the same broker asks again ─► the same
//!                              └─ the office is left ─────────► NotController
//! ```
//!
//! A broker asks one controller at a time, and from its own index on: what is lost on the way is asked for again, and nothing is
//! kept for a broker that does not ask. Only a controller in office answers, since its image has all that was decided before.

use std::collections::BTreeMap;
use std::future::ready;
use std::time::Duration;

use actix::{Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::actor::{Controller, not_controller, stopping};
use super::messages::{FollowMetadata, MetadataNews};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{BrokerEpoch, MonoTime, NodeId, TopicPartition};

/// Nobody waits longer than this, whatever it asks for: whoever is gone without a word is forgotten then.
const MAX_PATIENCE: Duration = Duration::from_secs(10);
/// Nodes that may wait. Far more than a cluster has: what fills this is no cluster.
const MAX_PARKED: usize = 10_000;

type News = Result<MetadataNews, ApiError>;

struct Parked {
    epoch: Option<BrokerEpoch>,
    index: u64,
    deadline: MonoTime,
    reply: oneshot::Sender<News>,
}

/// Who waits for news: one request of each node.
#[derive(Default)]
pub(super) struct Followers(BTreeMap<NodeId, Parked>);

impl Followers {
    /// Answers all with an error.
    pub fn turn_away(&mut self, cause: &ApiError) {
        for parked in std::mem::take(&mut self.0).into_values() {
            // Whoever asked may be gone.
            let _ = parked.reply.send(Err(cause.clone()));
        }
    }
}

impl Controller {
    /// The metadata as it is now, and how to get there from `index`.
    fn news(&self, index: u64, hand_overs: Vec<(TopicPartition, NodeId)>) -> MetadataNews {
        // The image first: what is applied meanwhile is in the ring already, and is left for the next time.
        let image = self.image();
        let entries = self.entries.between(index, image.index);
        MetadataNews { image, entries, hand_overs }
    }

    /// Answers everybody who has not to wait any longer.
    pub(super) fn answer_followers(&mut self) {
        if self.followers.0.is_empty() {
            return;
        }
        let (now, image) = (self.settings.clock.now(), self.image());
        for (node, parked) in std::mem::take(&mut self.followers.0) {
            let is_late = now >= parked.deadline;
            let Some(tenure) = &mut self.tenure else {
                // It is about to take office, or not.
                if is_late {
                    let _ = parked.reply.send(Err(not_controller()));
                } else {
                    self.followers.0.insert(node, parked);
                }
                continue;
            };
            let is_current = parked.epoch.is_some() && parked.epoch == image.epoch_of(node);
            let hand_overs = if is_current { tenure.take_wishes(&image, node) } else { Vec::new() };
            if image.index > parked.index || !hand_overs.is_empty() || is_late {
                // Whoever asked may be gone. Hand-overs that are lost with it are asked for again.
                let _ = parked.reply.send(Ok(self.news(parked.index, hand_overs)));
            } else {
                self.followers.0.insert(node, parked);
            }
        }
    }
}

impl Handler<FollowMetadata> for Controller {
    type Result = ResponseFuture<News>;
    fn handle(&mut self, request: FollowMetadata, _: &mut Self::Context) -> Self::Result {
        let FollowMetadata { node, epoch, index, patience } = request;
        if let Some(cause) = self.absence() {
            return Box::pin(ready(Err(cause)));
        }
        let is_known = self.followers.0.contains_key(&node);
        if self.followers.0.len() >= MAX_PARKED && !is_known {
            let text = format!("{MAX_PARKED} nodes wait for news of the metadata already: try again a little later");
            return Box::pin(ready(Err(ApiError::new(ErrorCode::Overloaded, text))));
        }
        let (reply, answered) = oneshot::channel();
        let deadline = self.settings.clock.now().plus(patience.min(MAX_PATIENCE));
        let earlier = self.followers.0.insert(node, Parked { epoch, index, deadline, reply });
        if let Some(Parked { index, reply, .. }) = earlier {
            let news = || self.news(index, Vec::new());
            let _ = reply.send(self.tenure.as_ref().map(|_| news()).ok_or_else(not_controller));
        }
        self.answer_followers();
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(stopping())) })
    }
}
