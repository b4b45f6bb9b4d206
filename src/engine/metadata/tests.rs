//! `apply`: what changes the image, and what is refused without a trace.

use super::*;
use crate::types::{DirectoryId, IncarnationId};
use uuid::Uuid;

pub fn registration(node: u32, epoch: u64) -> BrokerRegistration {
    BrokerRegistration {
        node: NodeId(node),
        epoch: BrokerEpoch(epoch),
        incarnation: IncarnationId(Uuid::from_u128(u128::from(epoch))),
        directory: DirectoryId(Uuid::from_u128(u128::from(node))),
        host: "127.0.0.1".into(),
        port: 9_644,
        rack: None,
        software: "0.1.0".into(),
        before: DirectoryHistory::default(),
        decided_at: None,
    }
}

fn topic(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

fn created(number: u128, name: &str) -> MetadataRecord {
    MetadataRecord::TopicCreated {
        topic: topic(number),
        name: TopicName::new(name).expect("legal"),
        replicas: vec![vec![NodeId(1)], vec![NodeId(1)]],
        config: TopicConfigOverrides::default(),
    }
}

fn image() -> ClusterImage {
    let mut image = ClusterImage::empty(ClusterId(Uuid::nil()));
    for record in [
        MetadataRecord::FeatureLevel { level: FEATURE_LEVEL },
        MetadataRecord::BrokerRegistered(registration(1, 5)),
        MetadataRecord::BrokerUnfenced { node: NodeId(1), epoch: BrokerEpoch(5) },
        created(1, "rides"),
    ] {
        assert_eq!(image.apply(&record), Ok(()));
    }
    image
}

fn refused(image: &ClusterImage, record: &MetadataRecord) -> ApplyError {
    let mut after = image.clone();
    let error = after.apply(record).expect_err("a precondition does not hold");
    assert_eq!(ClusterImage { index: image.index, ..after }, *image, "nothing but the index changed");
    error
}

#[test]
fn a_topic_lives_from_its_creation_to_its_tombstone() {
    let mut image = image();
    let rides = TopicName::new("rides").expect("legal");
    assert_eq!(image.topic_by_name(&rides).map(|t| t.partitions.len()), Some(2));
    assert_eq!(image.apply(&MetadataRecord::TopicDeleted { topic: topic(1) }), Ok(()));
    assert_eq!(image.topic_by_name(&rides), None);
    assert!(image.tombstones.contains(&topic(1)));
    assert!(matches!(refused(&image, &created(1, "rides")), ApplyError::TopicExists { .. }), "an id is never reused");
    assert_eq!(image.apply(&created(2, "rides")), Ok(()));
    assert_eq!(image.apply(&MetadataRecord::TombstoneCleared { topic: topic(1), node: None }), Ok(()));
    assert_eq!(image.topics.len(), 1);
}

#[test]
fn a_new_incarnation_ends_the_leaderships_of_the_old_one() {
    let mut image = image();
    assert_eq!(image.apply(&MetadataRecord::BrokerRegistered(registration(1, 6))), Ok(()));
    assert!(!image.is_live(NodeId(1)));
    assert!(image.partitions().all(|(_, partition)| partition.leader.is_none() && partition.partition_epoch == 1));
}

#[test]
fn an_election_needs_a_higher_leader_epoch_and_the_partition_as_it_was() {
    let mut image = image();
    let partition = TopicPartition::new(topic(1), PartitionIndex(0));
    let before = image.partition(partition).expect("created").to_change(partition);
    let change = |leader: Option<u32>, epoch, expected| {
        MetadataRecord::PartitionChanged(PartitionChange {
            leader: leader.map(NodeId),
            leader_epoch: LeaderEpoch(epoch),
            expected_partition_epoch: expected,
            ..before.clone()
        })
    };
    assert_eq!(image.apply(&change(None, 0, 0)), Ok(()));
    assert!(matches!(refused(&image, &change(Some(1), 0, 1)), ApplyError::StalePartition { .. }), "same epoch");
    assert!(matches!(refused(&image, &change(Some(1), 1, 0)), ApplyError::StalePartition { .. }), "old state");
    assert_eq!(image.apply(&change(Some(1), 1, 1)), Ok(()));
    assert_eq!(image.partition(partition).map(|p| (p.leader_epoch, p.partition_epoch)), Some((LeaderEpoch(1), 2)));
}

#[test]
fn stale_brokers_unknown_topics_and_newer_levels_are_refused() {
    let image = image();
    let (stale, unknown) = (registration(1, 5), topic(9));
    assert!(matches!(refused(&image, &MetadataRecord::BrokerRegistered(stale)), ApplyError::StaleBroker { .. }));
    let wrong_epoch = MetadataRecord::BrokerUnfenced { node: NodeId(1), epoch: BrokerEpoch(4) };
    assert!(matches!(refused(&image, &wrong_epoch), ApplyError::StaleBroker { .. }));
    assert!(matches!(
        refused(&image, &MetadataRecord::TopicDeleted { topic: unknown }),
        ApplyError::UnknownTopic { .. }
    ));
    assert!(matches!(
        refused(&image, &MetadataRecord::FeatureLevel { level: 9 }),
        ApplyError::FeatureLevel { found: 9 }
    ));
    let back = MetadataRecord::ProducerIdsReserved { next: ProducerId(0) };
    assert!(matches!(refused(&image, &back), ApplyError::ProducerIdsGoBack { .. }));
}

#[test]
fn records_and_images_survive_their_encoding() {
    let image = image();
    let bytes = rmp_serde::to_vec_named(&image).expect("encodes");
    assert_eq!(rmp_serde::from_slice::<ClusterImage>(&bytes).expect("decodes"), image);
    let bytes = rmp_serde::to_vec_named(&created(1, "rides")).expect("encodes");
    assert_eq!(rmp_serde::from_slice::<MetadataRecord>(&bytes).expect("decodes"), created(1, "rides"));
}
