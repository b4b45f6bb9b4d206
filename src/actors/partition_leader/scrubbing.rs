//! The background scrub of this replica: a part of its log each time that the broker says so.
//!
//! ```text
//!   Broker ─ ScrubOn ─► here ─ LogScrub ─► a background thread ─► back here ─ damage ─► as if a read had met it
//!      ▲                                                              │
//!      └──────────── ScrubbedOn: how much, and whether that was all ──┘
//! ```

use actix::{AsyncContext, Context, Handler, ResponseActFuture, WrapFuture, fut::ActorFutureExt};
use tokio::sync::oneshot;

use super::actor::PartitionLeader;
use super::messages::*;
use crate::actors::threads::Lane;
use crate::storage::{LogError, LogScrub, ScrubbedPart};

/// Read at once. The thread has other work: this keeps that waiting for 10 ms where the disk reads 400 MB a second. Of a smaller part
/// more would be read twice, since a batch that reaches beyond one begins the next.
const PART_BYTES: u64 = 4 << 20;

impl PartitionLeader {
    /// A part was read. One whose thread has stopped was the last.
    fn take_part(
        &mut self,
        read: Option<(LogScrub, Result<ScrubbedPart, LogError>)>,
        ctx: &mut Context<Self>,
    ) -> ScrubbedOn {
        let Some((scrub, part)) = read else { return ScrubbedOn { part: ScrubbedPart::default(), is_through: true } };
        let part = part.unwrap_or_else(|error| {
            let partition = self.partition.partition;
            tracing::warn!(topic = %self.topic, %partition, %error, "the background scrub leaves out a segment that it cannot read");
            ScrubbedPart::default()
        });
        if part.damage_found > 0 {
            ctx.notify(DamageMet);
        }
        let is_through = scrub.is_over();
        self.scrub = (!is_through).then_some(scrub);
        ScrubbedOn { part, is_through }
    }
}

impl Handler<ScrubOn> for PartitionLeader {
    type Result = ResponseActFuture<Self, ScrubbedOn>;
    fn handle(&mut self, _: ScrubOn, _: &mut Self::Context) -> Self::Result {
        let mut scrub = self.scrub.take().unwrap_or_else(|| LogScrub::new(self.reader.clone()));
        let (done, read) = oneshot::channel();
        self.settings.disk.run(Lane::Background, move || {
            let part = scrub.go_on(PART_BYTES);
            // The replica may have ended meanwhile.
            let _ = done.send((scrub, part));
        });
        Box::pin(read.into_actor(self).map(|read, leader, ctx| leader.take_part(read.ok(), ctx)))
    }
}
