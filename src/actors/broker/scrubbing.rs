//! The background scrub: the replicas here are looked through for damage that nobody has met, one part of one of them at a time.
//!
//! ```text
//!   ScrubRounds ─ Look ─► ScrubOn ─► the replica ─► ScrubbedOn ─► counted ─► ScrubRounds
//!        └─ Wait ─► a timer
//! ```

use std::collections::HashMap;
use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{Addr, AsyncContext, Context, WrapFuture};

use super::actor::{Broker, TopicReplicas, number_of};
use super::messages::Replica;
use crate::actors::partition_leader::{PartitionLeader, ScrubOn, ScrubbedOn};
use crate::config::StorageSection;
use crate::engine::scrub_rounds::{ScrubPace, ScrubRounds, Turn};
use crate::types::{MonoTime, PartitionIndex, TopicId, TopicPartition};

/// The rounds that the configuration asks for.
pub(super) fn rounds(now: MonoTime, storage: &StorageSection) -> Option<ScrubRounds> {
    let (bytes_per_second, interval) =
        (storage.scrub_bytes_per_second, Duration::from_millis(storage.scrub_interval_ms));
    (bytes_per_second > 0).then(|| ScrubRounds::new(now, ScrubPace { bytes_per_second, interval }))
}

/// A replica that has a part in its partition.
fn in_use(replica: &Replica) -> Option<&Addr<PartitionLeader>> {
    match replica {
        Replica::Leader(address) | Replica::Follower(address) => Some(address),
        Replica::Retired(_) | Replica::Offline(_) | Replica::Elsewhere => None,
    }
}

fn all_in_use(replicas: &HashMap<TopicId, TopicReplicas>) -> Vec<TopicPartition> {
    let numbered = replicas.iter().flat_map(|(topic, held)| (0..).zip(&held.replicas).map(move |at| (*topic, at)));
    let used = numbered.filter(|(_, (_, replica))| in_use(replica).is_some());
    used.map(|(topic, (number, _))| TopicPartition::new(topic, PartitionIndex(number))).collect()
}

impl Broker {
    /// Has the next part looked through, or waits until it is time for that.
    pub(super) fn scrub_on(&mut self, ctx: &mut Context<Self>) {
        let (now, epoch) = (self.now(), self.engine.epoch().unwrap_or_default());
        let Some(rounds) = self.scrub.as_mut().filter(|_| !self.engine.is_leaving()) else { return };
        let partition = match rounds.next(now, epoch.0, || all_in_use(&self.replicas)) {
            Turn::Look(partition) => partition,
            Turn::Wait(until) => {
                ctx.run_later(until.since(now), |broker, ctx| broker.scrub_on(ctx));
                return;
            }
        };
        let held = self.replicas.get(&partition.topic).and_then(|held| held.replicas.get(number_of(partition)));
        let asked = held.and_then(in_use).map(|replica| replica.send(ScrubOn));
        let answered = async move {
            // One that is gone has nothing to look through.
            match asked {
                Some(asked) => asked.await.ok(),
                None => None,
            }
        };
        ctx.spawn(answered.into_actor(self).map(|answer, broker, ctx| {
            broker.take_scrubbed(answer);
            broker.scrub_on(ctx);
        }));
    }

    fn take_scrubbed(&mut self, answer: Option<ScrubbedOn>) {
        let (bytes, found, is_through) =
            answer.map_or((0, 0, true), |on| (on.part.bytes, on.part.damage_found, on.is_through));
        let counted = &self.settings.partitions.metrics.scrub;
        counted.bytes.add(bytes);
        counted.damage_found.add(found);
        if self.scrub.as_mut().is_some_and(|rounds| rounds.on_part(bytes, is_through)) {
            counted.rounds.add(1);
            let wall = self.settings.partitions.clock.wall();
            counted.last_round_ended_ms.set(u64::try_from(wall.0).unwrap_or_default());
            tracing::debug!(bytes = counted.bytes.get(), "the background scrub has been through all replicas");
        }
    }
}
