//! What the metadata says of this broker and of its replicas.

use super::{BrokerEngine, Command, EndReason, Held, Output};
use crate::engine::controller::without_members;
use crate::engine::metadata::{ClusterImage, PartitionImage};
use crate::types::{IncarnationId, LeaderEpoch, MonoTime, NodeId, TopicId, TopicPartition};

/// What the newest metadata that is applied here says of this broker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct View {
    pub(super) index: u64,
    /// It has this registration: what came before says nothing of it.
    pub(super) is_known: bool,
    /// It is counted on.
    pub(super) is_live: bool,
    /// It is known to be about to stop.
    pub(super) is_stopping: bool,
}

/// The part of this broker in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) is_replica: bool,
    pub(super) is_member: bool,
    pub(super) is_in_sync: bool,
    /// Nobody can lead but the last members, of which it is one.
    pub(super) is_last: bool,
    pub(super) leader_epoch: LeaderEpoch,
    /// Its directory, were it missing, would count as lost.
    pub(super) has_opened: bool,
    /// It leads, and could hand over to this one.
    pub(super) heir: Option<NodeId>,
}

impl Part {
    fn of(image: &ClusterImage, node: NodeId, partition: TopicPartition, state: &PartitionImage) -> Self {
        let may_take_over = |other: &&NodeId| **other != node && image.may_lead(**other);
        let heir = || state.in_sync.iter().find(may_take_over).copied();
        let topic = image.topics.get(&partition.topic);
        Self {
            is_replica: state.replicas.contains(&node),
            is_member: state.is_member(node),
            is_in_sync: state.in_sync.contains(&node),
            is_last: false,
            leader_epoch: state.leader_epoch,
            has_opened: topic.is_some_and(|topic| topic.has_opened(partition.partition, node)),
            heir: if state.leader == Some(node) { heir() } else { None },
        }
    }
}

impl BrokerEngine {
    /// Metadata was applied here: the replicas are to be told of it, too. An older image than before is left aside.
    pub fn on_image(&mut self, now: MonoTime, image: &ClusterImage, out: &mut Output) {
        if image.index < self.view.index {
            return;
        }
        let node = self.node();
        if image.brokers.get(&node).is_some_and(|broker| broker.earlier.contains(&self.incarnation())) {
            return self.end(EndReason::Superseded, out);
        }
        let broker = image.brokers.get(&node).filter(|broker| self.epoch() == Some(broker.registration.epoch));
        let was_live = self.view.is_live;
        self.view = View {
            index: image.index,
            is_known: broker.is_some(),
            is_live: broker.is_some_and(|broker| !broker.fenced),
            is_stopping: broker.is_some_and(|broker| broker.stopping),
        };
        if was_live && !self.view.is_live {
            // It was fenced, and knows that now: so it may be counted on again.
            self.lease.renew_by(now);
        }
        if self.follows_metadata() {
            self.take_parts(image);
            self.follow_tombstones(image);
            self.open_what_is_missing(out);
            self.followed = image.index;
            self.take_for_whole(out);
            self.report_by(now);
        }
        self.follow_while_stopping(now, out);
    }

    fn take_parts(&mut self, image: &ClusterImage) {
        let node = self.node();
        for (partition, held) in &mut self.held {
            let state = image.partition(*partition);
            held.part = state.map_or_else(Part::default, |state| Part::of(image, node, *partition, state));
            held.was_out |= held.is_open() && self.view.is_known && !held.part.is_member;
        }
        for (partition, state) in image.partitions().filter(|(_, state)| state.replicas.contains(&node)) {
            let part = Part::of(image, node, partition, state);
            self.held.entry(partition).or_insert_with(|| Held::missing(part));
        }
        for (partition, _) in without_members(image).filter(|(_, last)| last.contains(&node)) {
            if let Some(held) = self.held.get_mut(&partition) {
                held.part.is_last = true;
            }
        }
        self.held.retain(|_, held| held.part.is_replica || held.is_here());
    }

    fn follow_tombstones(&mut self, image: &ClusterImage) {
        let node = self.node();
        let on_record = |topic: &TopicId| image.holds_tombstone(*topic, node);
        self.tombstones.retain(|topic, _| on_record(topic));
        for topic in image.tombstones.iter().filter(|topic| on_record(topic)) {
            self.tombstones.entry(*topic).or_insert(false);
        }
    }

    /// Whoever is in sync by now has been taken for whole: it said that it is doubtful before it was counted on. So has a member that was
    /// in neither set before, though it was fenced again until it heard of that.
    fn take_for_whole(&mut self, out: &mut Output) {
        let is_live = self.view.is_live;
        let has_joined = |held: &Held| held.part.is_member && held.was_out;
        let is_taken = |held: &Held| is_live && held.part.is_in_sync || has_joined(held);
        for (partition, held) in self.held.iter_mut().filter(|(_, held)| is_taken(held)) {
            if std::mem::take(&mut held.is_doubtful) {
                out.0.push(Command::MarkVerified(*partition));
            }
        }
    }

    fn incarnation(&self) -> IncarnationId {
        self.registration.incarnation
    }
}
