//! How a replica ends: with everything that it accepted on disk, or, when its topic is gone, at once.

use actix::{ActorContext, Context, Handler};

use super::actor::PartitionLeader;
use super::keeping::Keeping;
use super::messages::*;
use crate::actors::log_writer::{Close, CloseHow};
use crate::actors::send::post;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::FlushPolicy;

impl PartitionLeader {
    /// A stopping replica closes its log once everything that it accepted is written and, with `always`, synced. It does not wait
    /// for others: whoever is to lead after it was handed the leadership before.
    pub(super) fn finish_stop(&mut self, ctx: &mut Context<Self>) {
        let cursors = self.cursors();
        let is_synced =
            self.replica.config().flush != FlushPolicy::Always || cursors.durable_end() == cursors.next_offset();
        let settled = is_synced && cursors.written_end() == cursors.next_offset();
        if self.stopping.is_none() || !(settled || self.replica.failure().is_some()) {
            return;
        }
        let Some(done) = self.stopping.take() else { return };
        let cause =
            ApiError::new(ErrorCode::ShuttingDown, "the node is stopping: try again on another or a little later");
        self.replica.on_stop(&cause);
        self.carry_out_all(ctx);
        let how = match self.settings.keeping {
            Keeping::Log => CloseHow::Cleanly {
                high_watermark: self.cursors().high_watermark(),
                producer_snapshot: self.replica.producers_snapshot(),
            },
            Keeping::Nothing => CloseHow::Abandoned,
        };
        post(&self.writer, Close { how, done });
        ctx.stop();
    }
}

impl Handler<Stop> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, Stop { why, done }: Stop, ctx: &mut Self::Context) {
        match why {
            StopReason::NodeStops => {
                let cause = ApiError::new(ErrorCode::ShuttingDown, "the node is stopping: try again a little later");
                self.replica.on_disk_space(Some(cause));
                self.stopping = Some(done);
                self.finish_stop(ctx);
            }
            StopReason::TopicDeleted => {
                let text = format!("topic '{}' was deleted", self.topic);
                let cause = ApiError::new(ErrorCode::UnknownTopicOrPartition, text);
                self.step(ctx, |replica, _| replica.on_stop(&cause));
                post(&self.writer, Close { how: CloseHow::Abandoned, done });
                ctx.stop();
            }
        }
    }
}
