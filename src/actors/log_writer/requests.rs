//! What the log writer is told beside appends and the end: each becomes work in the queue.

use actix::{Context, Handler};

use super::actor::LogWriter;
use super::messages::*;
use crate::storage::queue::LogWork;

impl Handler<DeleteRecords> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: DeleteRecords, ctx: &mut Context<Self>) {
        self.enqueue(LogWork::DeleteRecords(message.before), ctx);
    }
}

impl Handler<StoreProducerSnapshot> for LogWriter {
    type Result = ();
    fn handle(&mut self, snapshot: StoreProducerSnapshot, ctx: &mut Context<Self>) {
        self.enqueue(LogWork::Snapshot(snapshot.at, snapshot.payload), ctx);
    }
}

impl Handler<Reconfigure> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: Reconfigure, ctx: &mut Context<Self>) {
        self.settings.flush = message.flush;
        self.enqueue(LogWork::Reconfigure(message.log, message.flush.policy), ctx);
    }
}

impl Handler<ApplyRetention> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: ApplyRetention, ctx: &mut Context<Self>) {
        self.enqueue(LogWork::Retention(message.high_watermark), ctx);
    }
}

impl Handler<SaveCheckpoint> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: SaveCheckpoint, ctx: &mut Context<Self>) {
        self.enqueue(LogWork::Checkpoint(message.high_watermark), ctx);
    }
}
