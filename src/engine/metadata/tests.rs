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
        peer: None,
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
    assert!(image.partitions().all(|(_, partition)| partition.leader.is_none() && partition.partition_epoch == 0));
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
fn rule_19_a_fencing_is_on_record_once() {
    let mut image = image();
    let fencing = MetadataRecord::BrokerFenced { node: NodeId(1), epoch: BrokerEpoch(5) };
    image.apply(&fencing).expect("it was counted on");
    assert_eq!(refused(&image, &fencing), ApplyError::FencedAlready { node: NodeId(1) });
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

#[test]
fn rule_10_of_one_decision_all_records_are_applied_or_none() {
    let before = image();
    let mut after = before.clone();
    let unknown = MetadataRecord::TopicDeleted { topic: topic(9) };
    let refused = after.apply_entry(&[created(2, "more"), unknown, created(3, "yet_more")]);
    assert_eq!(refused, Err(ApplyError::UnknownTopic { topic: topic(9) }));
    assert_eq!(ClusterImage { index: before.index, ..after.clone() }, before);
    assert_eq!(after.index, before.index + 3, "every node counts the same records");
    assert_eq!(after.apply_entry(&[created(2, "more"), created(3, "yet_more")]), Ok(()));
    assert_eq!(after.topics.len(), 3);
}

#[test]
fn rule_10_a_change_of_a_partition_names_replicas_once_and_lets_in_only_current_brokers() {
    let mut image = image();
    image.apply(&MetadataRecord::BrokerRegistered(registration(2, 9))).expect("new");
    image.apply(&MetadataRecord::BrokerUnfenced { node: NodeId(2), epoch: BrokerEpoch(9) }).expect("current");
    let partition = TopicPartition::new(topic(1), PartitionIndex(0));
    let state = image.partition(partition).expect("there").clone();
    let base = PartitionChange { replicas: Some(vec![NodeId(1), NodeId(2)]), ..state.to_change(partition) };
    let with = |alter: &dyn Fn(&mut PartitionChange)| {
        let mut change = base.clone();
        alter(&mut change);
        refused(&image, &MetadataRecord::PartitionChanged(change))
    };
    let not_a_replica = |node| ApplyError::NotAReplica { partition, node: NodeId(node) };
    assert_eq!(with(&|change| change.in_sync.push(NodeId(3))), not_a_replica(3));
    assert_eq!(with(&|change| change.eligible.push(NodeId(1))), not_a_replica(1), "in both sets");
    assert_eq!(with(&|change| change.in_sync.clear()), not_a_replica(1), "it leads without being in sync");
    let stale = |epoch| ApplyError::StaleBroker { node: NodeId(2), epoch: BrokerEpoch(epoch) };
    assert_eq!(with(&|change| change.in_sync.push(NodeId(2))), stale(0), "it does not say who joins");
    assert_eq!(with(&|change| change.join(NodeId(2), BrokerEpoch(8), 1)), stale(8));
    let uncleanly = with(&|change| change.elect(NodeId(2), BrokerEpoch(9), 1));
    assert_eq!(uncleanly, ApplyError::NotAMember { partition, node: NodeId(2) });
    let mut change = base.clone();
    change.join(NodeId(2), BrokerEpoch(9), 1);
    assert_eq!(image.apply(&MetadataRecord::PartitionChanged(change)), Ok(()));
    let stopping = MetadataRecord::BrokerStopping { node: NodeId(2), epoch: BrokerEpoch(9) };
    assert_eq!(image.apply(&stopping), Ok(()));
    let mut change = image.partition(partition).expect("there").to_change(partition);
    change.elect(NodeId(2), BrokerEpoch(9), 1);
    let elected = refused(&image, &MetadataRecord::PartitionChanged(change));
    assert_eq!(elected, ApplyError::NotLive { node: NodeId(2) });
    image.apply(&MetadataRecord::BrokerFenced { node: NodeId(2), epoch: BrokerEpoch(9) }).expect("current");
    let unfenced = refused(&image, &MetadataRecord::BrokerUnfenced { node: NodeId(2), epoch: BrokerEpoch(9) });
    assert_eq!(unfenced, ApplyError::NotLive { node: NodeId(2) }, "it has said that it goes");
}

#[test]
fn a_replica_that_came_later_is_not_taken_for_a_lost_one_before_it_was_opened() {
    let mut image = image();
    let opened = |partitions: Option<Vec<u32>>| MetadataRecord::TopicOpened {
        topic: topic(1),
        node: NodeId(1),
        partitions: partitions.map(|numbers| numbers.into_iter().map(PartitionIndex).collect()),
    };
    let has = |image: &ClusterImage| {
        let topic = &image.topics[&topic(1)];
        let numbers = (0..).map(PartitionIndex).take(topic.partitions.len());
        numbers.filter(|number| topic.has_opened(*number, NodeId(1))).map(|number| number.0).collect::<Vec<_>>()
    };
    assert_eq!(has(&image), [0; 0]);
    image.apply(&opened(Some(vec![0]))).expect("there");
    assert_eq!(has(&image), [0], "the broker did not know of the other");
    image.apply(&opened(None)).expect("there");
    assert_eq!(has(&image), [0, 1]);
    let (replicas, first) = (vec![vec![NodeId(1)]], PartitionIndex(2));
    let added = MetadataRecord::TopicPartitionsAdded { topic: topic(1), first, replicas };
    image.apply(&added).expect("the next one");
    assert_eq!(refused(&image, &added), ApplyError::OtherPartitions { topic: topic(1), expected: first });
    assert_eq!(has(&image), [0, 1]);
    image.apply(&opened(Some(vec![2]))).expect("there");
    assert_eq!(has(&image), [0, 1, 2]);
}

#[test]
fn records_of_feature_level_1_mean_what_they_meant() {
    /// As the release before this one wrote them.
    #[derive(Serialize)]
    enum Old {
        TopicOpened {
            topic: TopicId,
            node: NodeId,
        },
        TombstoneCleared {
            topic: TopicId,
        },
        PartitionChanged {
            partition: TopicPartition,
            leader: Option<NodeId>,
            leader_epoch: LeaderEpoch,
            in_sync: Vec<NodeId>,
            expected_partition_epoch: u32,
        },
        BrokerRegistered {
            node: NodeId,
            epoch: BrokerEpoch,
            incarnation: IncarnationId,
            directory: DirectoryId,
            host: String,
            port: u16,
            rack: Option<String>,
            software: String,
        },
    }
    let mut image = ClusterImage::empty(ClusterId(Uuid::nil()));
    let apply_old = |image: &mut ClusterImage, old: &Old| {
        let bytes = rmp_serde::to_vec_named(old).expect("encodes");
        assert_eq!(image.apply(&rmp_serde::from_slice(&bytes).expect("decodes")), Ok(()));
    };
    let registered = |epoch| Old::BrokerRegistered {
        node: NodeId(1),
        epoch: BrokerEpoch(epoch),
        incarnation: IncarnationId(Uuid::nil()),
        directory: DirectoryId(Uuid::nil()),
        host: String::new(),
        port: 1,
        rack: None,
        software: String::new(),
    };
    let partition = TopicPartition::new(topic(1), PartitionIndex(0));
    image.apply(&MetadataRecord::FeatureLevel { level: 1 }).expect("known");
    apply_old(&mut image, &registered(1));
    image.apply(&MetadataRecord::BrokerUnfenced { node: NodeId(1), epoch: BrokerEpoch(1) }).expect("current");
    image.apply(&created(1, "rides")).expect("new");
    apply_old(&mut image, &Old::TopicOpened { topic: topic(1), node: NodeId(1) });
    apply_old(&mut image, &registered(2));
    image.apply(&MetadataRecord::BrokerUnfenced { node: NodeId(1), epoch: BrokerEpoch(2) }).expect("current");
    assert_eq!(image.brokers[&NodeId(1)].unfenced_epoch, BrokerEpoch(0), "its directory may not hold it yet");
    let elected = Old::PartitionChanged {
        partition,
        leader: Some(NodeId(1)),
        leader_epoch: LeaderEpoch(1),
        in_sync: vec![NodeId(1)],
        expected_partition_epoch: 1,
    };
    apply_old(&mut image, &elected);
    assert_eq!(image.partition(partition).and_then(|state| state.leader), Some(NodeId(1)));
    image.apply(&MetadataRecord::TopicDeleted { topic: topic(1) }).expect("there");
    apply_old(&mut image, &Old::TombstoneCleared { topic: topic(1) });
    assert!(image.tombstones.is_empty());
}

#[test]
fn an_image_is_taken_on_as_a_whole_and_never_takes_back_what_was_applied() {
    let older = image();
    let mut newer = older.clone();
    newer.apply(&created(2, "fares")).expect("new");
    let mut other = newer.clone();
    other.cluster_id = ClusterId(Uuid::from_u128(9));
    let mut follower = older.clone();
    assert!(!follower.install(other), "of another cluster");
    assert!(follower.install(newer.clone()));
    assert_eq!(follower, newer);
    assert!(!follower.install(older) && !follower.install(newer.clone()));
    assert_eq!(follower, newer);
}

#[test]
fn files_of_a_deleted_topic_may_lie_where_its_replicas_were_before_a_reassignment() {
    let mut image = image();
    let opened = |node| MetadataRecord::TopicOpened { topic: topic(1), node: NodeId(node), partitions: None };
    [1, 2].into_iter().for_each(|node| image.apply(&opened(node)).expect("there"));
    image.apply(&MetadataRecord::TopicDeleted { topic: topic(1) }).expect("there");
    for node in [1, 2] {
        assert!(image.holds_tombstone(topic(1), NodeId(node)));
        image.apply(&MetadataRecord::TombstoneCleared { topic: topic(1), node: Some(NodeId(node)) }).expect("held");
    }
    assert!(image.tombstones.is_empty());
}

#[test]
fn a_replica_of_a_broker_that_was_fenced_before_its_topic_came_is_not_in_sync() {
    let mut image = image();
    image.apply(&MetadataRecord::BrokerRegistered(registration(2, 9))).expect("new");
    let both = |number: u128| MetadataRecord::TopicCreated {
        topic: topic(number),
        name: TopicName::new(&format!("t{number}")).expect("legal"),
        replicas: vec![vec![NodeId(2), NodeId(1)]],
        config: TopicConfigOverrides::default(),
    };
    let partition = |number: u128| TopicPartition::new(topic(number), PartitionIndex(0));
    image.apply(&both(2)).expect("new");
    let state = image.partition(partition(2)).expect("there");
    assert_eq!((state.leader, &state.in_sync), (Some(NodeId(1)), &vec![NodeId(1)]));
    image.apply(&MetadataRecord::BrokerFenced { node: NodeId(1), epoch: BrokerEpoch(5) }).expect("current");
    image.apply(&both(3)).expect("new");
    let state = image.partition(partition(3)).expect("there");
    assert_eq!((state.leader, state.in_sync.len()), (None, 2), "all are empty: whoever comes first may lead");
}
