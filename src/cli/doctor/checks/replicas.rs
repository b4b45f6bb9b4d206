//! Partitions of a running node that are offline or damaged.

use crate::cli::doctor::code::Code;
use crate::cli::doctor::finding::Finding;
use crate::cli::output::counted;
use crate::protocol::messages::{LogDescription, ReplicasDescription};
use crate::types::{NodeId, Offset};

/// Partitions that take no appends, each with its cause; those beyond the node's list as one finding.
#[must_use]
pub fn offline(node: NodeId, replicas: &ReplicasDescription) -> Vec<Finding> {
    let each = replicas.offline.iter().map(|partition| {
        let about = partition_name(partition.topic.as_str(), partition.partition.0);
        let seen = format!("it is offline on node {node}: {}", partition.cause.code.name());
        Finding::new(Code::PartitionOffline, about, seen).because(partition.cause.message.clone())
    });
    let mut findings: Vec<Finding> = each.collect();
    let unlisted = (replicas.offline_count as usize).saturating_sub(replicas.offline.len());
    if unlisted > 0 {
        let seen = format!("{} more are offline", counted(unlisted as u64, "partition"));
        findings.push(Finding::new(Code::PartitionOffline, format!("node {node}"), seen));
    }
    findings
}

/// What becomes of damaged records where there are other replicas.
pub const MENDED_FROM_OTHERS: &str = "what is damaged is fetched again from another replica, when a read or the background \
    scrub meets it and one that is whole is in sync; look at the disk. With none left: restore the partition's directory from a backup, or go on without: consumers with \
    on_damaged skip read past it";

/// Ranges of a partition that are not served. `has_copies` says whether other brokers have it, too.
#[must_use]
pub fn damaged(topic: &str, partition: u32, has_copies: bool, log: &LogDescription) -> Option<Finding> {
    (!log.damaged.is_empty()).then(|| {
        let seen = format!("{} damaged and not served: {}", ranges_are(log.damaged.len()), ranges(&log.damaged));
        let finding = Finding::new(Code::RecordsDamaged, partition_name(topic, partition), seen);
        if has_copies { finding.fixed_by(MENDED_FROM_OTHERS) } else { finding }
    })
}

/// "partition 0 of topic rides".
#[must_use]
pub fn partition_name(topic: &str, partition: u32) -> String {
    format!("partition {partition} of topic {topic}")
}

fn ranges_are(count: usize) -> String {
    if count == 1 { "1 range is".to_owned() } else { format!("{count} ranges are") }
}

/// The first few ranges.
#[must_use]
pub fn ranges(damaged: &[(Offset, Offset)]) -> String {
    const SHOWN: usize = 5;
    let mut shown: Vec<String> =
        damaged.iter().take(SHOWN).map(|(from, end)| format!("offsets {from} up to but not {end}")).collect();
    if damaged.len() > SHOWN {
        shown.push(format!("and {} more", damaged.len() - SHOWN));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::OfflinePartition;
    use crate::protocol::{ApiError, ErrorCode};
    use crate::types::{LeaderEpoch, PartitionIndex, TopicId, TopicName};

    #[test]
    fn offline_partitions_are_named_with_the_cause_that_the_node_gives() {
        let partition = OfflinePartition {
            topic_id: TopicId(uuid::Uuid::nil()),
            topic: TopicName::new("rides").expect("legal"),
            partition: PartitionIndex(2),
            cause: ApiError::new(ErrorCode::StorageFailed, "the disk is gone"),
        };
        let replicas = ReplicasDescription { offline: vec![partition], offline_count: 41, ..Default::default() };
        let [first, rest] = &offline(NodeId(1), &replicas)[..] else { panic!("two findings") };
        assert_eq!((first.about.as_str(), &*first.cause), ("partition 2 of topic rides", "the disk is gone"));
        assert_eq!((first.code, rest.code), (Code::PartitionOffline, Code::PartitionOffline));
        assert_eq!(rest.seen, "40 partitions more are offline");
        assert!(first.fix.contains("restart"));
    }

    #[test]
    fn damaged_ranges_are_named_by_their_offsets() {
        let mut log = LogDescription {
            log_start_offset: Offset(0),
            high_watermark: Offset(9),
            durable_end_offset: Offset(9),
            log_end_offset: Offset(9),
            size_bytes: 9,
            segments: 1,
            leader_epoch: LeaderEpoch(0),
            damaged: Vec::new(),
            followers: Vec::new(),
        };
        assert_eq!(damaged("rides", 0, false, &log), None);
        log.damaged = (0..7).map(|n| (Offset(n), Offset(n + 1))).collect();
        let finding = damaged("rides", 0, false, &log).expect("a finding");
        assert_eq!(finding.code, Code::RecordsDamaged);
        assert!(finding.seen.contains("offsets 4 up to but not 5, and 2 more") && finding.fix.contains("on_damaged"));
        assert!(finding.fix.starts_with("restore"), "nobody else has it: {finding:?}");
        let finding = damaged("rides", 0, true, &log).expect("a finding");
        assert!(finding.fix.starts_with("what is damaged is fetched again"), "{finding:?}");
    }
}
