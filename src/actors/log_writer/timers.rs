//! What a log writer does after a while: a checkpoint, a sync, an append that could not be made yet.

use std::time::Duration;

use actix::{AsyncContext, Context};

use super::actor::{LogWriter, Work};
use super::messages::{LogEvent, Room};
use crate::actors::send::post_to;
use crate::storage::LogError;
use crate::types::Offset;
use crate::types::record_batch::RecordBatch;

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
        let clean = self.log.as_ref().is_none_or(|log| log.durable_end() == log.written_end());
        if self.interval_running || clean {
            return;
        }
        self.interval_running = true;
        ctx.run_later(self.settings.flush.interval, |writer, ctx| {
            writer.interval_running = false;
            writer.sync_wanted = true;
            writer.pump(ctx);
        });
    }

    /// Puts a group back to the front of the queue until there may be a descriptor for it. Whoever waits for it is answered
    /// then, or at its own deadline.
    pub(super) fn put_off(
        &mut self,
        error: &LogError,
        group: Vec<RecordBatch>,
        rooms: Vec<Room>,
        ctx: &mut Context<Self>,
    ) {
        if self.put_offs.is_multiple_of(WARN_EVERY) {
            tracing::warn!(%error, "an append waits for a free descriptor");
        }
        self.put_offs += 1;
        let written = self.log.as_ref().map_or(Offset::ZERO, |log| log.written_end());
        for (batch, room) in group.into_iter().zip(rooms).rev().filter(|(batch, _)| batch.header.base_offset >= written)
        {
            self.queued_bytes += batch.total_bytes();
            self.work.push_front(Work::Append(batch, room));
        }
        // A segment that was closed on the way is synced whatever the policy.
        self.sync_wanted = true;
        self.is_put_off = true;
        ctx.run_later(DESCRIPTOR_RETRY, |writer, ctx| {
            writer.is_put_off = false;
            writer.pump(ctx);
        });
    }
}
