//! Which part each replica here has: as the metadata says, to whoever is registered.
//!
//! ```text
//!   image, registration ─► Assignment of each replica ─► differs from what it was told last ─► Assign ─► leads, follows, or retires
//!   its reports ─► under this registration ─► controller
//! ```

use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler};

use super::actor::Broker;
use super::messages::{LeaseRenewed, Registered, Replica};
use crate::actors::controller::{AlterInSync, ReportDamaged};
use crate::actors::partition_leader::{
    Assign, Outward, PartitionLeader, ProposalRefused, ReplicaReport, Reported, SetDiskSpace, SetLease,
};
use crate::actors::send::{post, post_to};
use crate::engine::assignment::Assignment;
use crate::engine::controller::{InSyncProposal, Member};
use crate::engine::leader::Proposal;
use crate::engine::metadata::{ClusterImage, TopicImage};
use crate::replica::OpenedReplica;
use crate::types::{BrokerEpoch, PartitionIndex, TopicPartition};

impl Broker {
    /// Opens the replicas that are new since `before`, and gives those that are open the parts that they have now.
    pub(super) fn follow_topics(&mut self, before: &ClusterImage, ctx: &Context<Self>) {
        let image = Arc::clone(&self.image);
        // Who may join, and under which registration, is part of leading.
        let all = before.brokers != image.brokers;
        for (id, topic) in &image.topics {
            let known = before.topics.get(id);
            if !known.is_some_and(|known| Arc::ptr_eq(known, topic)) {
                self.open_topic(topic, ctx);
            } else if !all {
                continue;
            }
            let is_set_otherwise = known.is_some_and(|known| known.config != topic.config);
            self.assign_topic(topic, is_set_otherwise);
        }
    }

    /// Tells the open replicas of a topic what they are to be, where that is news; with `again` all of them.
    fn assign_topic(&mut self, topic: &TopicImage, again: bool) {
        let Some(epoch) = self.epoch else { return };
        let config = self.config_of(topic);
        let (image, node) = (Arc::clone(&self.image), self.settings.node);
        let Some(held) = self.replicas.get_mut(&topic.id) else { return };
        for (number, (replica, told)) in (0..).zip(held.replicas.iter_mut().zip(&mut held.assigned)) {
            let Some(address) = replica.address().cloned() else { continue };
            let partition = TopicPartition::new(topic.id, PartitionIndex(number));
            let assignment = Assignment::of(&image, node, epoch, partition);
            if again || assignment != *told {
                told.clone_from(&assignment);
                *replica = in_part(&assignment, address.clone());
                post(&address, Assign { assignment, config: config.clone() });
            }
        }
    }

    /// Starts the actor of a replica that was opened, and gives it its part.
    pub(super) fn start_replica(
        &mut self,
        partition: TopicPartition,
        opened: OpenedReplica,
        ctx: &Context<Self>,
    ) -> Replica {
        let Some(topic) = self.image.topics.get(&partition.topic).cloned() else { return Replica::Elsewhere };
        let (config, settings) = (self.config_of(&topic), self.settings.partitions.clone());
        let core = &self.settings.core[self.next_core % self.settings.core.len()];
        self.next_core += 1;
        let (name, set) = (topic.name.clone(), config.clone());
        let outward = Outward { fetches: self.settings.fetches.clone(), reports: ctx.address().recipient() };
        let address = PartitionLeader::start_in_arbiter(core, move |ctx| {
            PartitionLeader::new(ctx, (partition, name), set, (opened.log, opened.producers), settings, outward)
        });
        if self.disk_is_full {
            post(&address, SetDiskSpace(Some(self.disk_full_error())));
        }
        post(&address, SetLease(self.lease_until));
        let Some(epoch) = self.epoch else { return Replica::Follower(address) };
        let assignment = Assignment::of(&self.image, self.settings.node, epoch, partition);
        if let Some(told) =
            self.replicas.get_mut(&topic.id).and_then(|held| held.assigned.get_mut(number_of(partition)))
        {
            told.clone_from(&assignment);
        }
        let replica = in_part(&assignment, address.clone());
        post(&address, Assign { assignment, config });
        replica
    }
}

fn number_of(partition: TopicPartition) -> usize {
    partition.partition.0 as usize
}

fn in_part(assignment: &Assignment, address: actix::Addr<PartitionLeader>) -> Replica {
    match assignment {
        Assignment::Lead(_) => Replica::Leader(address),
        Assignment::Follow(_) => Replica::Follower(address),
        Assignment::None => Replica::Retired(address),
    }
}

impl Handler<Registered> for Broker {
    type Result = ();
    fn handle(&mut self, Registered { epoch }: Registered, _: &mut Self::Context) {
        self.epoch = Some(epoch);
        let image = Arc::clone(&self.image);
        image.topics.values().for_each(|topic| self.assign_topic(topic, false));
    }
}

impl Handler<LeaseRenewed> for Broker {
    type Result = ();
    fn handle(&mut self, LeaseRenewed { until }: LeaseRenewed, _: &mut Self::Context) {
        self.lease_until = self.lease_until.max(until);
        self.open_replicas().for_each(|replica| post(replica, SetLease(self.lease_until)));
    }
}

impl Handler<ReplicaReport> for Broker {
    type Result = ();
    fn handle(&mut self, ReplicaReport { partition, what }: ReplicaReport, _: &mut Self::Context) {
        let Some(epoch) = self.epoch else { return };
        let node = self.settings.node;
        let shared = self.image.partition(partition).filter(|state| state.replicas.len() > 1);
        let damaged_in = match what {
            Reported::Proposal(proposal) => {
                let proposal = self.proposal_of(partition, epoch, proposal);
                return self.propose(partition, proposal);
            }
            Reported::Damaged(leader_epoch) => Some(leader_epoch),
            // It takes no more: another replica, where there is one, is to count in its place.
            Reported::Offline(_) => shared.map(|state| state.leader_epoch),
        };
        if let Some(leader_epoch) = damaged_in {
            post_to(&self.settings.damaged, ReportDamaged { partition, node, epoch, leader_epoch });
        }
    }
}

impl Broker {
    /// Asks for another set. What is decided comes with the metadata; a refusal does not, so the leader is told of it.
    fn propose(&self, partition: TopicPartition, proposal: InSyncProposal) {
        let held = self.replicas.get(&partition.topic).and_then(|held| held.replicas.get(number_of(partition)));
        let Some(leader) = held.and_then(Replica::address).cloned() else { return };
        let asked = self.settings.in_sync.send(AlterInSync(vec![proposal]));
        actix_rt::spawn(async move {
            // One that gets no answer is made again by the leader.
            let Ok(answers) = asked.await else { return };
            for refusal in answers.into_iter().filter_map(Result::err) {
                tracing::debug!(%partition, %refusal, "a proposal for the in-sync set was refused");
                post(&leader, ProposalRefused);
            }
        });
    }

    fn proposal_of(&self, partition: TopicPartition, broker_epoch: BrokerEpoch, proposal: Proposal) -> InSyncProposal {
        let Proposal { leader_epoch, partition_epoch, members, new_leader } = proposal;
        let members = members.into_iter().map(|(node, epoch)| Member { node, epoch }).collect();
        let leader = self.settings.node;
        InSyncProposal { partition, leader, broker_epoch, leader_epoch, partition_epoch, members, new_leader }
    }
}
