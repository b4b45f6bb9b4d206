//! Checkpoints and producer snapshots: written beside the appends, one at a time.

use actix::{AsyncContext, Context, Handler};

use super::actor::LogWriter;
use super::messages::SideEnded;
use crate::actors::send::post;
use crate::actors::threads::Lane;
use crate::storage::SideDone;
use crate::types::Offset;

/// What is to be written down, the newest of each kind: an older one says nothing that it does not.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub checkpoint: Option<Offset>,
    pub snapshot: Option<(Offset, Vec<u8>)>,
    /// A job is with a disk thread.
    pub is_under_way: bool,
    /// It has ended, and the log has not been told yet.
    finished: Option<SideDone>,
}

impl LogWriter {
    /// Tells the log what was written down, and has the next thing written.
    pub(super) fn work_beside(&mut self, ctx: &mut Context<Self>) {
        let Some(log) = self.log.as_mut() else { return };
        if let Some(done) = self.beside.finished.take() {
            self.beside.is_under_way = false;
            if let Err(error) = log.finish_side(done) {
                tracing::warn!(%error, "a checkpoint or a producer snapshot could not be written, going on");
            }
        }
        if self.beside.is_under_way {
            return;
        }
        let snapshot = self.beside.snapshot.take().and_then(|(at, payload)| log.begin_producer_snapshot(at, payload));
        let job = match snapshot {
            Some(job) => Some(job),
            None => self.beside.checkpoint.take().and_then(|high_watermark| log.begin_checkpoint(high_watermark)),
        };
        let Some(job) = job else { return };
        self.beside.is_under_way = true;
        let home = ctx.address();
        self.settings.disk.run(Lane::Background, move || post(&home, SideEnded(job.run())));
    }
}

impl Handler<SideEnded> for LogWriter {
    type Result = ();
    fn handle(&mut self, SideEnded(done): SideEnded, ctx: &mut Self::Context) {
        self.beside.finished = Some(done);
        self.pump(ctx);
    }
}
