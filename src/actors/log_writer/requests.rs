//! What the log writer is told beside the end: each becomes work in the queue.

use actix::{Context, Handler};

use super::actor::LogWriter;
use super::messages::*;
use crate::storage::queue::LogWork;

impl Handler<Write> for LogWriter {
    type Result = ();
    fn handle(&mut self, Write(work): Write, ctx: &mut Context<Self>) {
        let is_append = matches!(work, LogWork::Append(..));
        self.enqueue(work, ctx);
        if is_append {
            self.settings.metrics.queued(self.queue.queued_bytes());
        }
    }
}

impl Handler<Reconfigure> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: Reconfigure, ctx: &mut Context<Self>) {
        self.settings.flush = message.flush;
        self.enqueue(LogWork::Reconfigure(message.log, message.flush.policy), ctx);
    }
}
