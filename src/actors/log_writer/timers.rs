//! What a log writer does after a while: a checkpoint, a sync, an append that could not be made yet.

use std::time::Duration;

use actix::{AsyncContext, Context};

use super::actor::LogWriter;
use super::messages::LogEvent;
use crate::actors::send::post_to;
use crate::storage::LogError;

/// How long to wait for a descriptor before an append is tried again, and how many such waits one warning stands for.
const DESCRIPTOR_RETRY: Duration = Duration::from_millis(100);
const WARN_EVERY: u64 = 600;

impl LogWriter {
    pub(super) fn schedule_checkpoint(&mut self, ctx: &mut Context<Self>) {
        if self.checkpoint_scheduled {
            return;
        }
        self.checkpoint_scheduled = true;
        ctx.run_later(self.settings.checkpoint_interval, |writer, _| {
            writer.checkpoint_scheduled = false;
            post_to(&writer.settings.events, LogEvent::CheckpointDue);
        });
    }

    pub(super) fn start_interval(&mut self, ctx: &mut Context<Self>) {
        if self.interval_running || !self.queue.is_dirty() {
            return;
        }
        self.interval_running = true;
        ctx.run_later(self.settings.flush.interval, |writer, ctx| {
            writer.interval_running = false;
            writer.queue.want_sync();
            writer.pump(ctx);
        });
    }

    /// Tries again before long. Whoever waits for the append is answered then, or at its own deadline.
    pub(super) fn wait_for_descriptor(&mut self, error: &LogError, ctx: &mut Context<Self>) {
        if self.put_offs.is_multiple_of(WARN_EVERY) {
            tracing::warn!(%error, "an append waits for a free descriptor");
        }
        self.put_offs += 1;
        ctx.run_later(DESCRIPTOR_RETRY, |writer, ctx| {
            writer.queue.try_again();
            writer.pump(ctx);
        });
    }
}
