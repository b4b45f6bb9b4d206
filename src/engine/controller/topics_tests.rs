//! Decisions about topics, and the image after them.

use uuid::Uuid;

use super::*;
use crate::engine::controller::test_support::{Cluster, policy};

fn apply(image: &mut ClusterImage, records: &[MetadataRecord]) {
    for record in records {
        assert_eq!(image.apply(record), Ok(()), "{record:?}");
    }
}

fn cluster(brokers: u32) -> ClusterImage {
    Cluster::of(brokers).image
}

fn wanted(name: &str, partitions: Option<u32>) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor: None, config: BTreeMap::new() }
}

fn id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

fn create(image: &mut ClusterImage, name: &str, number: u128) -> CreatedTopic {
    let decision = policy().create_topic(image, &wanted(name, None), id(number)).expect("creatable");
    apply(image, &decision.records);
    decision.answer
}

fn setting(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

#[test]
fn defaults_follow_the_number_of_brokers() {
    let one = create(&mut cluster(1), "rides", 1);
    assert_eq!((one.partitions, one.replication_factor), (2, 1));
    let mut image = cluster(4);
    assert_eq!(create(&mut image, "rides", 1).replication_factor, 3);
    assert_eq!(image.topics[&id(1)].config.0, setting("min_insync_replicas", "2"));
}

#[test]
fn what_cannot_be_created_is_refused_by_name() {
    let mut image = cluster(1);
    create(&mut image, "rides", 1);
    let refused = |wanted: NewTopic| policy().create_topic(&image, &wanted, id(2)).expect_err("refused").code;
    assert_eq!(refused(wanted("rides", None)), ErrorCode::TopicExists);
    assert_eq!(refused(wanted("../rides", None)), ErrorCode::InvalidTopicName);
    assert_eq!(refused(wanted("__mine", None)), ErrorCode::InvalidTopicName);
    assert_eq!(refused(wanted("a", Some(0))), ErrorCode::InvalidPartitions);
    assert_eq!(refused(wanted("a", Some(9))), ErrorCode::InvalidPartitions);
    assert_eq!(
        refused(NewTopic { replication_factor: Some(2), ..wanted("a", None) }),
        ErrorCode::InvalidReplicationFactor
    );
    assert_eq!(refused(NewTopic { config: setting("retention", "1"), ..wanted("a", None) }), ErrorCode::InvalidConfig);
    assert_eq!(
        refused(NewTopic { config: setting("min_insync_replicas", "2"), ..wanted("a", None) }),
        ErrorCode::InvalidConfig
    );
    let nobody = policy().create_topic(&cluster(0), &wanted("a", None), id(2)).expect_err("refused");
    assert_eq!(nobody.code, ErrorCode::NoLiveBroker);
}

#[test]
fn limits_name_themselves() {
    let mut image = cluster(1);
    create(&mut image, "a", 1);
    create(&mut image, "b", 2);
    let many = policy().create_topic(&image, &wanted("c", Some(7)), id(3)).expect_err("refused");
    assert!(many.message.contains("limits.max_partitions"), "{many}");
    create(&mut image, "c", 3);
    let full = policy().create_topic(&image, &wanted("d", None), id(4)).expect_err("refused");
    assert!(full.message.contains("limits.max_topics"), "{full}");
}

#[test]
fn altering_lays_changes_over_what_is_set_and_checks_the_whole() {
    let mut image = cluster(1);
    create(&mut image, "rides", 1);
    let change = |set, reset: &[&str]| AlterTopic {
        name: "rides".into(),
        set,
        reset: reset.iter().map(|key| (*key).to_owned()).collect(),
    };
    let set = policy().alter_topic(&image, &change(setting("retention_ms", "5"), &[])).expect("legal");
    apply(&mut image, &set.records);
    assert_eq!(image.topics[&id(1)].config.0, setting("retention_ms", "5"));
    let same = policy().alter_topic(&image, &change(setting("retention_ms", "5"), &[])).expect("legal");
    assert_eq!(same.records, [], "no change, no record");
    let reset = policy().alter_topic(&image, &change(BTreeMap::new(), &["retention_ms"])).expect("legal");
    apply(&mut image, &reset.records);
    assert_eq!(image.topics[&id(1)].config.0, BTreeMap::new());
    for change in [
        change(setting("retention_ms", "soon"), &[]),
        change(BTreeMap::new(), &["retention"]),
        change(setting("min_insync_replicas", "2"), &[]),
    ] {
        assert_eq!(policy().alter_topic(&image, &change).expect_err("refused").code, ErrorCode::InvalidConfig);
    }
}

#[test]
fn producer_ids_come_from_reserved_blocks_and_are_never_handed_out_twice() {
    let mut image = cluster(1);
    let mut block = 0..0;
    let first = policy().init_producer(&image, &mut block, None).expect("an id");
    assert_eq!(first.records, [MetadataRecord::ProducerIdsReserved { next: ProducerId(PRODUCER_ID_BLOCK) }]);
    apply(&mut image, &first.records);
    let second = policy().init_producer(&image, &mut block, None).expect("an id");
    assert_eq!((second.records, second.answer.producer_id), (vec![], ProducerId(1)));
    // A restart forgets the rest of the block: the next id lies beyond it.
    let after_restart = policy().init_producer(&image, &mut (0..0), None).expect("an id");
    assert_eq!(after_restart.answer.producer_id, ProducerId(PRODUCER_ID_BLOCK));
    let bump = policy().init_producer(&image, &mut block, Some((ProducerId(1), ProducerEpoch(4)))).expect("an epoch");
    assert_eq!(bump.answer, InitProducerReply { producer_id: ProducerId(1), producer_epoch: ProducerEpoch(5) });
    let last =
        policy().init_producer(&image, &mut block, Some((ProducerId(1), ProducerEpoch(i16::MAX)))).expect("an id");
    assert_eq!(last.answer, InitProducerReply { producer_id: ProducerId(2), producer_epoch: ProducerEpoch(0) });
    assert!(policy().init_producer(&image, &mut block, Some((ProducerId(9_999), ProducerEpoch(0)))).is_err());
}

#[test]
fn the_effective_minimum_becomes_the_topics_own_when_it_is_created_and_when_it_is_reset() {
    let mut image = cluster(3);
    create(&mut image, "rides", 1);
    let minimum = |image: &ClusterImage| image.topics[&id(1)].config.0.get("min_insync_replicas").cloned();
    assert_eq!((minimum(&image), image.topics[&id(1)].min_in_sync()), (Some("2".into()), 2), "of three replicas");
    let alter = |image: &mut ClusterImage, set, reset: &[&str]| {
        let reset = reset.iter().map(|key| (*key).to_owned()).collect();
        let decision = policy().alter_topic(image, &AlterTopic { name: "rides".into(), set, reset }).expect("legal");
        apply(image, &decision.records);
    };
    alter(&mut image, setting("min_insync_replicas", "3"), &[]);
    alter(&mut image, BTreeMap::new(), &["min_insync_replicas"]);
    assert_eq!(minimum(&image), Some("2".into()), "the default is written down: it does not change with a node's file");

    let mut defaults = policy();
    defaults.topic_defaults.min_insync_replicas = 2;
    let wanted = NewTopic { replication_factor: Some(2), ..wanted("pairs", None) };
    let decision = defaults.create_topic(&image, &wanted, id(2)).expect("legal");
    apply(&mut image, &decision.records);
    assert_eq!(image.topics[&id(2)].min_in_sync(), 2, "of this node's configuration");
    let too_few =
        defaults.create_topic(&image, &NewTopic { name: "one".into(), replication_factor: Some(1), ..wanted }, id(3));
    assert_eq!(too_few.expect_err("2 of 1").code, ErrorCode::InvalidConfig);
}

#[test]
fn partitions_are_added_after_those_there_are_and_spread_on() {
    let mut image = cluster(2);
    create(&mut image, "rides", 1);
    let more = |image: &ClusterImage, total| policy().add_partitions(image, "rides", total);
    let decision = more(&image, 4).expect("legal");
    apply(&mut image, &decision.records);
    let topic = &image.topics[&id(1)];
    let leaders: Vec<_> = topic.partitions.iter().filter_map(|state| state.leader).map(|node| node.0).collect();
    assert_eq!(leaders, [1, 2, 1, 2]);
    assert!(topic.partitions.iter().all(|state| state.replicas.len() == 2));
    assert!(image.apply(&decision.records[0]).is_err(), "not twice");
    for (total, code) in
        [(4, ErrorCode::InvalidPartitions), (3, ErrorCode::InvalidPartitions), (9, ErrorCode::InvalidPartitions)]
    {
        assert_eq!(more(&image, total).expect_err("refused").code, code, "{total}");
    }
    create(&mut image, "more", 2);
    create(&mut image, "yet_more", 3);
    assert_eq!(more(&image, 7).expect_err("11 in all").code, ErrorCode::LimitExceeded);
    let nobody = policy().add_partitions(&image, "none", 2).expect_err("no such topic");
    assert_eq!(nobody.code, ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn rule_17_a_deleted_topic_is_held_by_its_brokers_until_each_has_cleared_its_files() {
    let mut image = cluster(2);
    create(&mut image, "rides", 1);
    let decision = policy().delete_topic(&image, "rides").expect("there");
    apply(&mut image, &decision.records);
    let clear = |image: &mut ClusterImage, node| {
        apply(image, &[MetadataRecord::TombstoneCleared { topic: id(1), node: Some(NodeId(node)) }]);
    };
    assert!(image.holds_tombstone(id(1), NodeId(1)) && image.holds_tombstone(id(1), NodeId(2)));
    clear(&mut image, 1);
    assert!(!image.holds_tombstone(id(1), NodeId(1)) && image.holds_tombstone(id(1), NodeId(2)));
    clear(&mut image, 1);
    assert!(image.tombstones.contains(&id(1)), "once more by the same: 2 still has files");
    clear(&mut image, 2);
    assert!(image.tombstones.is_empty() && image.tombstone_holders.is_empty());
}

#[test]
fn rule_19_a_topic_goes_to_brokers_that_may_lead_or_is_refused() {
    let mut cluster = Cluster::of(3);
    cluster.fenced(1);
    cluster.stopping(2);
    let created = policy().create_topic(&cluster.image, &wanted("rides", None), id(1)).expect("3 is there");
    assert_eq!(created.answer.replication_factor, 1);
    apply(&mut cluster.image, &created.records);
    assert!(cluster.image.partitions().all(|(_, state)| state.replicas == [NodeId(3)]));
    cluster.fenced(3);
    let nobody = policy().create_topic(&cluster.image, &wanted("more", None), id(2)).expect_err("nobody is there");
    assert_eq!(nobody.code, ErrorCode::NoLiveBroker);
}
