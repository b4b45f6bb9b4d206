//! Records go at the front: on request, or because retention took them.
//!
//! A request is answered when the log's start is written down at or past its offset, whoever moved it there.

use super::{Command, DeleteRecordsEvent, LeaderEngine, Output};
use crate::engine::waiters::Waiter;
use crate::protocol::messages::DeleteBefore;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{MonoTime, Mutant, Offset};

impl<R> LeaderEngine<R> {
    /// Somebody wants the first records gone. A full disk is no reason against it.
    pub fn on_delete_records(&mut self, event: DeleteRecordsEvent<R>, out: &mut Output<R>) {
        let DeleteRecordsEvent { before, deadline, owner, reply } = event;
        let (start, watermark) = (self.cursors.log_start(), self.cursors.high_watermark());
        let before = match before {
            DeleteBefore::HighWatermark => watermark,
            DeleteBefore::Offset(offset) => offset,
        };
        let refusal = self.failed.clone().or_else(|| (before > watermark).then(|| beyond(before, start, watermark)));
        match refusal {
            Some(error) => out.0.push(Command::RecordsDeleted { reply, result: Err(error) }),
            None if before <= start => out.0.push(Command::RecordsDeleted { reply, result: Ok(start) }),
            None => {
                // What the records to go say of producers must be written down before they go.
                // As of the new start: what lies after it is replayed, and may still be cut off.
                let payload = self.producers.as_of(before).to_snapshot();
                if !Mutant::DeletesWithoutASnapshot.is_on() {
                    out.0.push(Command::SnapshotProducers { at: before, payload });
                }
                out.0.push(Command::DeleteRecords { before });
                self.deletions.insert(Waiter { until: before, deadline, owner, payload: reply });
            }
        }
    }

    /// The log writer could not delete the records before `before`.
    pub fn on_delete_failed(&mut self, before: Offset, cause: &ApiError, out: &mut Output<R>) {
        self.fail_deletions(cause, |until| until == before, out);
    }

    /// Records below `to` are gone: by retention or on request.
    pub fn on_log_start(&mut self, to: Offset, out: &mut Output<R>) {
        if !self.cursors.drop_before(to) {
            return;
        }
        self.epochs.advance_start(to);
        self.damage.clip(to, self.cursors.written_end());
        for waiter in self.parked.take_where(|waiter| waiter.payload.offset < to) {
            let result = Err(self.out_of_range(waiter.payload.offset));
            out.0.push(Command::Fetched { reply: waiter.payload.reply, result });
        }
        let start = self.cursors.log_start();
        while let Some(waiter) = self.deletions.pop_reached(start) {
            out.0.push(Command::RecordsDeleted { reply: waiter.payload, result: Ok(start) });
        }
    }

    pub(super) fn fail_deletions(&mut self, cause: &ApiError, which: impl Fn(Offset) -> bool, out: &mut Output<R>) {
        for waiter in self.deletions.take_where(|waiter| which(waiter.until)) {
            out.0.push(Command::RecordsDeleted { reply: waiter.payload, result: Err(cause.clone()) });
        }
    }

    pub(super) fn expire_deletions(&mut self, now: MonoTime, out: &mut Output<R>) {
        for waiter in self.deletions.take_expired(now) {
            let text =
                "the records were not deleted within the request's timeout, and may still be: asking again is safe";
            let result = Err(ApiError::new(ErrorCode::TimedOut, text));
            out.0.push(Command::RecordsDeleted { reply: waiter.payload, result });
        }
    }
}

fn beyond(before: Offset, start: Offset, watermark: Offset) -> ApiError {
    ApiError::new(
        ErrorCode::OffsetOutOfRange,
        format!(
            "offset {before} is beyond what is committed, {start} to {watermark} (exclusive): delete before one of these, or up to {watermark}"
        ),
    )
}
