//! Which part each replica here has: as the metadata says, to whoever is registered.
//!
//! ```text
//!   image, registration ─► Assignment of each replica ─► differs from what it was told last ─► Assign ─► leads, follows, or retires
//!   its reports ─► engine ─► controllers
//! ```

use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, Handler};

use super::actor::{Broker, number_of};
use super::messages::Replica;
use crate::actors::partition_leader::{
    Assign, Outward, PartitionLeader, ReplicaReport, Reported, SetDiskSpace, SetLease,
};
use crate::actors::send::post;
use crate::engine::assignment::Assignment;
use crate::engine::metadata::TopicImage;
use crate::replica::OpenedReplica;
use crate::types::{PartitionIndex, TopicPartition};

impl Broker {
    /// Tells the open replicas of a topic what they are to be, where that is news; with `again` all of them.
    pub(super) fn give_parts(&mut self, topic: &TopicImage, again: bool) {
        for number in 0..topic.partitions.len() {
            let number = PartitionIndex(u32::try_from(number).unwrap_or(u32::MAX));
            self.give_part(topic, TopicPartition::new(topic.id, number), again);
        }
    }

    /// Tells a replica what it is to be, if it is open and that is news, or `again`.
    fn give_part(&mut self, topic: &TopicImage, partition: TopicPartition, again: bool) {
        // Before the metadata knows this registration nothing of it leads or follows.
        let Some(epoch) = self.engine.epoch().filter(|_| self.engine.follows_metadata()) else { return };
        let (image, node) = (Arc::clone(&self.image), self.node());
        let Some(address) = self.replica(partition).cloned() else { return };
        let assignment = Assignment::of(&image, node, epoch, partition);
        let Some(held) = self.replicas.get_mut(&partition.topic) else { return };
        let number = number_of(partition);
        let Some((told, replica)) = held.assigned.get_mut(number).zip(held.replicas.get_mut(number)) else { return };
        if again || told.as_ref() != Some(&assignment) {
            *told = Some(assignment.clone());
            *replica = in_part(&assignment, address.clone());
            post(&address, Assign { assignment, config: self.config_of(topic) });
        }
    }

    /// Starts the actor of a replica that was opened, and gives it its part.
    pub(super) fn start_replica(
        &mut self,
        topic: &TopicImage,
        partition: TopicPartition,
        opened: OpenedReplica,
        ctx: &Context<Self>,
    ) {
        let (set, settings) = (self.config_of(topic), self.settings.partitions.clone());
        let core = &self.settings.core[self.next_core % self.settings.core.len()];
        self.next_core += 1;
        let name = topic.name.clone();
        let outward = Outward { fetches: self.settings.fetches.clone(), reports: ctx.address().recipient() };
        let address = PartitionLeader::start_in_arbiter(core, move |ctx| {
            PartitionLeader::new(ctx, (partition, name), set, (opened.log, opened.producers), settings, outward)
        });
        if self.disk_is_full {
            post(&address, SetDiskSpace(Some(self.disk_full_error())));
        }
        post(&address, SetLease(self.lease_until));
        if let Some(held) = self.replicas.get_mut(&partition.topic) {
            held.assigned[number_of(partition)] = None;
            held.replicas[number_of(partition)] = Replica::Follower(address);
        }
        self.give_part(topic, partition, false);
    }
}

fn in_part(assignment: &Assignment, address: Addr<PartitionLeader>) -> Replica {
    match assignment {
        Assignment::Lead(_) => Replica::Leader(address),
        Assignment::Follow(_) => Replica::Follower(address),
        Assignment::None => Replica::Retired(address),
    }
}

impl Handler<ReplicaReport> for Broker {
    type Result = ();
    fn handle(&mut self, ReplicaReport { partition, what }: ReplicaReport, ctx: &mut Self::Context) {
        self.step(ctx, |engine, now, _| match what {
            Reported::Proposal(proposal) => engine.on_proposal(now, partition, proposal),
            Reported::Health { is_damaged } => engine.on_damage(partition, is_damaged),
            Reported::Damaged(leader_epoch) => engine.on_damage_to_report(now, partition, leader_epoch),
            Reported::Offline(_) => engine.on_offline(now, partition),
        });
    }
}
