//! What the log writer is told beside appends: each becomes work in the queue. And what comes of deletions.

use actix::{Context, Handler};

use super::actor::{LogWriter, Work};
use super::messages::*;
use crate::actors::errors::storage_error;
use crate::actors::send::post_to;
use crate::storage::{LogError, RetentionOutcome};
use crate::types::Offset;

impl LogWriter {
    /// The records are gone. What lay past the durable end was synced for it.
    pub(super) fn on_deleted(&mut self, gone: RetentionOutcome) {
        if let Some(durable) = self.durable_end() {
            post_to(&self.settings.events, LogEvent::Synced(durable));
        }
        self.on_front_gone(gone);
    }

    pub(super) fn on_delete_failed(&mut self, before: Offset, error: &LogError) {
        post_to(&self.settings.events, LogEvent::DeleteFailed(before, storage_error(error)));
        // A failed sync is final for the log, whatever it was needed for.
        if matches!(error, LogError::Failed { .. } | LogError::DiskFull { .. }) {
            self.fail(error);
        }
    }
}

impl Handler<DeleteRecords> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: DeleteRecords, ctx: &mut Context<Self>) {
        self.enqueue(Work::DeleteRecords(message.before), ctx);
    }
}

impl Handler<StoreProducerSnapshot> for LogWriter {
    type Result = ();
    fn handle(&mut self, snapshot: StoreProducerSnapshot, ctx: &mut Context<Self>) {
        self.enqueue(Work::Snapshot(snapshot.at, snapshot.payload), ctx);
    }
}

impl Handler<Reconfigure> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: Reconfigure, ctx: &mut Context<Self>) {
        self.settings.flush = message.flush;
        self.enqueue(Work::Reconfigure(message.log), ctx);
    }
}

impl Handler<ApplyRetention> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: ApplyRetention, ctx: &mut Context<Self>) {
        self.enqueue(Work::Retention(message.high_watermark), ctx);
    }
}

impl Handler<SaveCheckpoint> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: SaveCheckpoint, ctx: &mut Context<Self>) {
        self.enqueue(Work::Checkpoint(message.high_watermark), ctx);
    }
}

impl Handler<Close> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: Close, ctx: &mut Context<Self>) {
        self.enqueue(Work::Close(message.how, message.done), ctx);
    }
}
