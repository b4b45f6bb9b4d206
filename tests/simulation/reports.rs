//! What controllers make of what brokers report of their replicas.

use std::collections::BTreeMap;

use callboard::engine::broker::{Finding, ReplicaReport};
use callboard::engine::controller::{DamageOutcome, ReplicaEnd, elect_from_last_members, report_damaged, report_lost};
use callboard::engine::metadata::{ClusterImage, MetadataRecord};
use callboard::types::{PartitionIndex, TopicId};

use crate::world::{Then, World};

impl World {
    /// Each finding is a decision of its own, so that one that was overtaken takes no other with it.
    pub fn hear(&mut self, number: usize, report: ReplicaReport, image: &ClusterImage) {
        let ReplicaReport { node, epoch, findings } = report;
        if !image.is_registered(node, epoch) {
            self.coverage.count("a report of an earlier registration comes");
            return;
        }
        let (mut opened, mut ends): (BTreeMap<TopicId, Vec<PartitionIndex>>, _) = (BTreeMap::new(), Vec::new());
        for finding in findings {
            match finding {
                Finding::Lost(partition) => {
                    if let Ok(decision) = report_lost(image, partition, node, epoch) {
                        self.propose(number, decision.records, Then::Nothing);
                    }
                }
                Finding::Damaged { partition, leader_epoch } => {
                    if let Ok(decision) = report_damaged(image, partition, (node, epoch), leader_epoch) {
                        self.check_damage(image, partition, node, &decision);
                        if decision.answer == DamageOutcome::StaysAsTheLast {
                            self.coverage.count("a damaged replica stays as the last");
                        }
                        self.propose(number, decision.records, Then::Nothing);
                    }
                }
                Finding::Opened(partition) => {
                    let known = image.topics.get(&partition.topic);
                    if known.is_some_and(|topic| !topic.has_opened(partition.partition, node)) {
                        opened.entry(partition.topic).or_default().push(partition.partition);
                    }
                }
                Finding::End { partition, leader_epoch, end_offset } => {
                    ends.push(ReplicaEnd { partition, node, broker_epoch: epoch, leader_epoch, end_offset });
                }
                Finding::FilesGone(topic) if image.holds_tombstone(topic, node) => {
                    let record = MetadataRecord::TombstoneCleared { topic, node: Some(node) };
                    self.propose(number, vec![record], Then::Nothing);
                }
                Finding::FilesGone(_) => {}
            }
        }
        for (topic, partitions) in opened {
            let record = MetadataRecord::TopicOpened { topic, node, partitions: Some(partitions) };
            self.propose(number, vec![record], Then::Nothing);
        }
        if !ends.is_empty() {
            self.hear_ends(number, ends, image);
        }
    }

    fn hear_ends(&mut self, number: usize, ends: Vec<ReplicaEnd>, image: &ClusterImage) {
        let Some(office) = self.controllers[number].office.as_mut() else { return };
        office.ends.extend(ends.into_iter().map(|end| ((end.partition, end.node), end)));
        let ends: Vec<_> = office.ends.values().copied().collect();
        if let Ok(decision) = elect_from_last_members(image, &self.defaults, &ends) {
            self.propose(number, decision.records, Then::Nothing);
        }
    }
}
