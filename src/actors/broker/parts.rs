//! Which part each replica here has: as the metadata says, to whoever is registered.
//!
//! ```text
//!   image, registration ─► Assignment of each replica ─► differs from what it was told last ─► Assign ─► leads, follows, or retires
//! ```

use std::sync::Arc;

use actix::{Actor, AsyncContext, Context};

use super::actor::Broker;
use super::messages::Replica;
use crate::actors::partition_leader::{Assign, Outward, PartitionLeader, SetDiskSpace, SetLease};
use crate::actors::send::post;
use crate::engine::assignment::Assignment;
use crate::engine::metadata::{ClusterImage, TopicImage};
use crate::replica::OpenedReplica;
use crate::types::{PartitionIndex, TopicPartition};

impl Broker {
    /// Gives the open replicas the parts that they have now, where anything differs from `before`; all of them without it.
    pub(super) fn assign_all(&mut self, before: Option<&ClusterImage>) {
        let image = Arc::clone(&self.image);
        // Who may join, and under which registration, is part of leading.
        let all = before.is_none_or(|before| before.brokers != image.brokers);
        for (id, topic) in &image.topics {
            let known = before.and_then(|before| before.topics.get(id));
            if all || !known.is_some_and(|known| Arc::ptr_eq(known, topic)) {
                let is_set_otherwise = known.is_some_and(|known| known.config != topic.config);
                self.replicas_of(topic);
                for number in 0..topic.partitions.len() {
                    self.assign(topic, number, is_set_otherwise);
                }
            }
        }
    }

    /// Tells a replica that is open what it is to be, if that is news, or `again`.
    fn assign(&mut self, topic: &TopicImage, number: usize, again: bool) {
        let Some(epoch) = self.engine.epoch().filter(|_| self.follows && !self.engine.is_leaving()) else { return };
        let Some(held) = self.replicas.get_mut(&topic.id) else { return };
        let Some(address) = held.replicas.get(number).and_then(Replica::address).cloned() else { return };
        let partition = TopicPartition::new(topic.id, PartitionIndex(u32::try_from(number).unwrap_or(u32::MAX)));
        let assignment = Assignment::of(&self.image, self.settings.registration.node, epoch, partition);
        if !again && held.assigned[number].as_ref() == Some(&assignment) {
            return;
        }
        held.assigned[number] = Some(assignment.clone());
        held.replicas[number] = in_part(&assignment, address.clone());
        post(&address, Assign { assignment, config: self.config_of(topic) });
    }

    /// Starts the actor of a replica that was opened, and gives it its part.
    pub(super) fn start_replica(&mut self, partition: TopicPartition, opened: OpenedReplica, ctx: &Context<Self>) {
        let Some(topic) = self.image.topics.get(&partition.topic).cloned() else { return };
        let (config, settings) = (self.config_of(&topic), self.settings.partitions.clone());
        let core = &self.settings.core[self.next_core % self.settings.core.len()];
        self.next_core += 1;
        let name = topic.name.clone();
        let outward = Outward { fetches: self.settings.fetches.clone(), reports: ctx.address().recipient() };
        let address = PartitionLeader::start_in_arbiter(core, move |ctx| {
            PartitionLeader::new(ctx, (partition, name), config, (opened.log, opened.producers), settings, outward)
        });
        if self.disk_is_full {
            post(&address, SetDiskSpace(Some(self.disk_full_error())));
        }
        post(&address, SetLease(self.lease_until));
        self.put(partition, Replica::Follower(address));
        let number = partition.partition.0 as usize;
        if let Some(told) = self.replicas.get_mut(&topic.id).and_then(|held| held.assigned.get_mut(number)) {
            *told = None;
        }
        self.assign(&topic, number, false);
    }

    /// What there is of a replica.
    pub(super) fn put(&mut self, partition: TopicPartition, replica: Replica) {
        let held = self.replicas.get_mut(&partition.topic);
        if let Some(place) = held.and_then(|held| held.replicas.get_mut(partition.partition.0 as usize)) {
            *place = replica;
        }
    }
}

fn in_part(assignment: &Assignment, address: actix::Addr<PartitionLeader>) -> Replica {
    match assignment {
        Assignment::Lead(_) => Replica::Leader(address),
        Assignment::Follow(_) => Replica::Follower(address),
        Assignment::None => Replica::Retired(address),
    }
}
