//! Leaderships that go back.

use super::*;
use crate::engine::controller::test_support::{Cluster, P0, nodes};
use crate::engine::metadata::MetadataRecord;
use crate::types::{PartitionIndex, TopicConfigOverrides, TopicName};

const GENTLY: Gentleness =
    Gentleness { at_most: 2, settling_time: Duration::from_secs(60), retry_after: Duration::from_secs(30) };

fn at(seconds: u64) -> MonoTime {
    MonoTime(Duration::from_secs(seconds))
}

/// Three partitions that 1 should lead and 2 does, since 1 was away.
fn displaced() -> Cluster {
    let mut cluster = Cluster::of(2);
    cluster.apply(&[MetadataRecord::TopicCreated {
        topic: P0.topic,
        name: TopicName::new("rides").expect("legal"),
        replicas: vec![nodes([1, 2]); 3],
        config: TopicConfigOverrides::default(),
    }]);
    cluster.start(1);
    for number in 0..3 {
        let partition = TopicPartition { partition: PartitionIndex(number), ..P0 };
        let state = cluster.image.partition(partition).expect("there");
        assert_eq!(state.leader, Some(NodeId(2)));
        let mut change = state.to_change(partition);
        change.join(NodeId(1), cluster.epoch(1), 1);
        cluster.apply(&[MetadataRecord::PartitionChanged(change)]);
    }
    cluster
}

fn numbers(asked: &[HandOver]) -> Vec<u32> {
    assert!(asked.iter().all(|hand_over| (hand_over.leader, hand_over.to) == (NodeId(2), NodeId(1))));
    asked.iter().map(|hand_over| hand_over.partition.partition.0).collect()
}

#[test]
fn a_returning_broker_gets_its_leaderships_back_gently() {
    let mut cluster = displaced();
    let mut balance = Balance::new(GENTLY);
    assert_eq!(numbers(&balance.next(at(0), &cluster.image)), [0; 0], "it has just come");
    assert_eq!(numbers(&balance.next(at(60), &cluster.image)), [0, 1], "at most two at a time");
    assert_eq!(numbers(&balance.next(at(61), &cluster.image)), [0; 0], "they are under way");
    cluster.proposes(cluster.proposal(&[1, 2], Some(1))).expect("handed over");
    assert_eq!(numbers(&balance.next(at(62), &cluster.image)), [2], "one is done");
    assert_eq!(numbers(&balance.next(at(90), &cluster.image)), [1], "nothing came of it: asked again");
}

#[test]
fn whoever_comes_and_goes_begins_anew() {
    let mut cluster = displaced();
    let mut balance = Balance::new(GENTLY);
    balance.next(at(0), &cluster.image);
    cluster.fenced(1);
    assert_eq!(out_of_place(&cluster.image).count(), 0, "it cannot lead now");
    balance.next(at(50), &cluster.image);
    cluster.unfenced(1, &[]);
    cluster.in_sync(&[2, 1]);
    assert_eq!(numbers(&balance.next(at(100), &cluster.image)), [0; 0]);
    assert_eq!(numbers(&balance.next(at(160), &cluster.image)), [0]);
}

#[test]
fn only_replicas_that_are_in_sync_and_may_lead_are_handed_anything() {
    let mut cluster = displaced();
    assert_eq!(out_of_place(&cluster.image).count(), 3);
    cluster.in_sync(&[2]);
    assert_eq!(out_of_place(&cluster.image).count(), 2);
    cluster.stopping(1);
    assert_eq!(out_of_place(&cluster.image).count(), 0);
}

#[test]
fn the_preferred_replica_is_handed_the_leadership_when_somebody_asks() {
    let mut cluster = displaced();
    let mut balance = Balance::new(GENTLY);
    balance.next(at(0), &cluster.image);
    let hand_over = HandOver { partition: P0, leader: NodeId(2), to: NodeId(1) };
    assert_eq!(to_preferred(&cluster.image, P0), Ok((NodeId(1), Some(hand_over))));
    balance.note_asked(at(59), P0);
    assert_eq!(numbers(&balance.next(at(60), &cluster.image)), [1], "one of two is under way");
    cluster.proposes(cluster.proposal(&[1, 2], Some(1))).expect("handed over");
    assert_eq!(to_preferred(&cluster.image, P0), Ok((NodeId(1), None)), "it leads");
}

#[test]
fn a_preferred_replica_that_cannot_lead_is_told_with_its_reason() {
    let refusal = |cluster: &Cluster, partition| {
        let refused = to_preferred(&cluster.image, partition).expect_err("it cannot lead");
        (refused.code, refused.message)
    };
    let unavailable = |cluster: &Cluster, why: &str| {
        let (code, text) = refusal(cluster, P0);
        assert!(code == ErrorCode::PreferredLeaderNotAvailable && text.contains(why), "{code:?}: {text}");
    };
    let mut cluster = displaced();
    cluster.in_sync(&[2]);
    unavailable(&cluster, "broker 1, its first replica, is not in sync");
    cluster.stopping(1);
    unavailable(&cluster, "broker 1, its first replica, is down or stopping");
    cluster.start(1);
    cluster.fenced(2);
    unavailable(&cluster, "nobody leads it");
    let missing = TopicPartition { partition: PartitionIndex(3), ..P0 };
    assert_eq!(refusal(&cluster, missing).0, ErrorCode::UnknownTopicOrPartition);
}
