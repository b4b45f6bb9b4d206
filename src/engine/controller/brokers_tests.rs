//! Brokers that come and go, and what becomes of their replicas.

use super::*;
use crate::engine::controller::test_support::{Cluster, P0, Return, nodes, registration};
use crate::types::{LeaderEpoch, PartitionIndex, TopicConfigOverrides};

const MACHINE: Return = Return::After(LastStop::Machine);
const KILLED: Return = Return::After(LastStop::Process);
const CLEAN: Return = Return::After(LastStop::Clean);

/// Three replicas of which all must be in sync: whoever leaves stays eligible.
fn strict() -> Cluster {
    Cluster::with_partition(3, &nodes([1, 2, 3]), &[("min_insync_replicas", "3")])
}

#[test]
fn every_registration_raises_the_broker_epoch_above_all_that_were_ever_given() {
    let mut cluster = Cluster::of(1);
    let before = cluster.epoch(1);
    assert!(cluster.registers(1, CLEAN) > before);
    let mut ahead = registration(1);
    ahead.before.epoch = BrokerEpoch(900);
    let decision = register(&cluster.image, ahead, &cluster.defaults);
    assert_eq!(cluster.take(decision), BrokerEpoch(901), "above what the data directory holds");
    assert!(!cluster.image.is_live(NodeId(1)), "fenced until it has written the epoch down");
}

#[test]
fn a_process_registers_once_however_often_it_asks() {
    let mut cluster = strict();
    let registration = cluster.returning(1, CLEAN);
    let first = register(&cluster.image, registration.clone(), &cluster.defaults);
    let epoch = cluster.take(first);
    cluster.unfenced(1, &[]);
    let sets = cluster.sets();
    let again = register(&cluster.image, registration.clone(), &cluster.defaults).expect("decided");
    assert_eq!((again.answer, again.records), (epoch, vec![]));
    assert_eq!(cluster.sets(), sets);
    cluster.registers(1, CLEAN);
    let late = register(&cluster.image, registration, &cluster.defaults).expect_err("its successor has registered");
    assert_eq!(late.code, ErrorCode::BrokerSuperseded);
}

#[test]
fn rule_14_an_older_copy_of_the_directory_is_refused_while_the_broker_is_counted_on() {
    let mut cluster = strict();
    let before = cluster.returning(1, Return::RolledBack);
    let refused =
        register(&cluster.image, before.clone(), &cluster.defaults).expect_err("it would take its records away");
    assert!(refused.message.contains("newer copy"), "{refused}");
    cluster.fenced(1);
    let accepted = register(&cluster.image, before, &cluster.defaults);
    cluster.take(accepted);
    assert!(!cluster.p0().is_member(NodeId(1)));
}

#[test]
fn rule_05_a_new_incarnation_ends_the_leaderships_of_the_old_one() {
    let mut cluster = Cluster::with_partition(2, &nodes([1, 2]), &[]);
    cluster.registers(1, KILLED);
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![]));
    assert_eq!(cluster.p0().leader_epoch, LeaderEpoch(1));
}

#[test]
fn rule_10_a_registration_holds_only_for_the_metadata_that_it_was_decided_on() {
    let mut cluster = Cluster::of(2);
    let registration = cluster.returning(1, Return::After(LastStop::Clean));
    let late = register(&cluster.image, registration, &cluster.defaults).expect("decided");
    let mut after = Cluster::with_partition(2, &nodes([1, 2]), &[]);
    let before = after.image.clone();
    let refused = after.image.apply_entry(&late.records);
    assert!(matches!(refused, Err(ApplyError::DecidedElsewhere { .. })), "{refused:?}");
    assert_eq!(ClusterImage { index: before.index, ..after.image }, before);
}

#[test]
fn rule_14_another_directory_is_refused_while_the_first_is_counted_on() {
    let mut cluster = strict();
    let other = cluster.returning(1, Return::Wiped);
    let refused = register(&cluster.image, other.clone(), &cluster.defaults).expect_err("two brokers with one id");
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert!(refused.message.contains("another data directory"), "{refused}");
    cluster.fenced(1);
    let accepted = register(&cluster.image, other, &cluster.defaults);
    cluster.take(accepted);
}

#[test]
fn rule_14_the_same_directory_takes_over_from_its_old_process() {
    let mut cluster = strict();
    let old = cluster.epoch(1);
    cluster.registers(1, KILLED);
    assert_eq!(cluster.sets(), (Some(2), vec![2, 3], vec![1]), "it is still a member");
    for refused in [
        unfence(&cluster.image, NodeId(1), old, &[]),
        fence(&cluster.image, NodeId(1), old),
        stopping(&cluster.image, NodeId(1), old),
    ] {
        assert_eq!(refused.expect_err("the old process has no say").code, ErrorCode::StaleMetadata);
    }
}

#[test]
fn rule_14_the_replicas_of_a_wiped_or_rolled_back_directory_leave_both_sets() {
    for (how, eligible) in [
        (CLEAN, vec![1]),
        (KILLED, vec![1]),
        (Return::Wiped, vec![]),
        (Return::Exchanged, vec![]),
        (Return::RolledBack, vec![]),
    ] {
        let mut cluster = strict();
        cluster.fenced(1);
        assert_eq!(cluster.sets(), (Some(2), vec![2, 3], vec![1]));
        cluster.registers(1, how);
        assert_eq!(cluster.sets(), (Some(2), vec![2, 3], eligible), "{how:?}");
        assert!(cluster.p0().last_members.is_empty());
    }
}

#[test]
fn rule_14_a_wiped_last_member_is_not_elected_and_neither_is_anybody_else() {
    let mut cluster = Cluster::with_partition(2, &nodes([1, 2]), &[]);
    cluster.in_sync(&[1]);
    cluster.fenced(1);
    cluster.returns(1, Return::Wiped);
    assert_eq!(cluster.sets(), (None, vec![], vec![]));
    assert!(cluster.p0().last_members.is_empty(), "it has nothing: there is nobody to recover from");
}

#[test]
fn rule_14_a_broker_that_died_before_it_wrote_its_epoch_is_not_taken_for_a_rolled_back_one() {
    let mut cluster = strict();
    cluster.registers(1, KILLED);
    // Its directory holds the epoch before: it was never counted on under the one that it did not write down.
    cluster.registers(1, KILLED);
    assert_eq!(cluster.sets().2, [1]);
}

#[test]
fn rule_14_directories_that_are_missing_in_a_new_data_directory_are_not_lost_ones() {
    let mut cluster = strict();
    let opened = MetadataRecord::TopicOpened { topic: P0.topic, node: NodeId(1), partitions: None };
    cluster.apply(&[opened]);
    let has_opened = |cluster: &Cluster| cluster.image.topics[&P0.topic].has_opened(PartitionIndex(0), NodeId(1));
    cluster.returns(1, CLEAN);
    assert!(has_opened(&cluster));
    cluster.fenced(1);
    cluster.returns(1, Return::Wiped);
    assert!(!has_opened(&cluster));
}

#[test]
fn rule_15_after_a_power_loss_replicas_that_were_not_synced_leave_both_sets() {
    for (flush, how, eligible) in [
        ("always", MACHINE, vec![1]),
        ("os", MACHINE, vec![]),
        ("interval", MACHINE, vec![]),
        ("os", KILLED, vec![1]),
        ("os", CLEAN, vec![1]),
    ] {
        let settings = [("min_insync_replicas", "3"), ("flush", flush)];
        let mut cluster = Cluster::with_partition(3, &nodes([1, 2, 3]), &settings);
        cluster.registers(1, how);
        assert_eq!(cluster.sets(), (Some(2), vec![2, 3], eligible), "{flush}, {how:?}");
    }
}

#[test]
fn rule_15_what_was_written_before_the_topic_was_synced_may_be_gone_after_a_power_loss() {
    let settings = |flush: &str| {
        let settings = [("min_insync_replicas", "3"), ("flush", flush)];
        TopicConfigOverrides(settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
    };
    let changed = MetadataRecord::TopicConfigChanged { topic: P0.topic, config: settings("always") };
    let mut cluster = Cluster::with_partition(3, &nodes([1, 2, 3]), &[("min_insync_replicas", "3"), ("flush", "os")]);
    cluster.apply(std::slice::from_ref(&changed));
    let mut early = cluster.clone();
    early.registers(2, MACHINE);
    assert_eq!(early.sets(), (Some(1), vec![1, 3], vec![]), "it was registered before the change");
    cluster.returns(2, KILLED);
    let mut unaware = cluster.clone();
    unaware.registers(2, MACHINE);
    assert_eq!(unaware.sets(), (Some(1), vec![1, 3], vec![]), "its leader may not have known of the change");
    cluster.registers(1, KILLED);
    assert_eq!(cluster.sets(), (Some(3), vec![3], vec![2, 1]), "3 was elected after it");
    cluster.unfenced(1, &[]);
    cluster.registers(2, MACHINE);
    assert_eq!(cluster.sets(), (Some(3), vec![3], vec![2, 1]), "it came after the change, and so did the leader");
}

#[test]
fn rule_15_a_registration_that_was_never_counted_on_has_synced_nothing() {
    let settings =
        [("min_insync_replicas", "3"), ("flush", "os")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut always = TopicConfigOverrides(settings.into());
    let mut cluster = Cluster::with_partition(3, &nodes([1, 2, 3]), &[("min_insync_replicas", "3"), ("flush", "os")]);
    always.0.insert("flush".into(), "always".into());
    cluster.apply(&[MetadataRecord::TopicConfigChanged { topic: P0.topic, config: always }]);
    cluster.returns(1, KILLED);
    assert_eq!(cluster.sets(), (Some(2), vec![2, 3], vec![1]), "2 was elected after the change");
    let mut opened = cluster.clone();
    opened.registers(3, KILLED);
    opened.unfenced(3, &[]);
    cluster.registers(3, KILLED);
    for (cluster, sets) in [(&mut opened, vec![1, 3]), (&mut cluster, vec![1])] {
        cluster.registers(3, MACHINE);
        assert_eq!(cluster.sets(), (Some(2), vec![2], sets));
    }
}

#[test]
fn rule_16_a_doubtful_replica_is_elected_only_when_no_intact_member_exists() {
    let mut cluster = Cluster::with_partition(3, &nodes([1, 2, 3]), &[("min_insync_replicas", "2")]);
    [1, 2, 3].into_iter().for_each(|node| cluster.fenced(node));
    assert_eq!(cluster.sets(), (None, vec![], vec![2, 3]));
    cluster.registers(2, MACHINE);
    cluster.unfenced(2, &[P0]);
    assert_eq!(cluster.sets(), (None, vec![], vec![3]), "3 may be intact: it is waited for");
    assert_eq!(cluster.p0().last_members, nodes([2]));

    let mut intact = cluster.clone();
    intact.returns(3, MACHINE);
    assert_eq!(intact.sets(), (Some(3), vec![3], vec![]));

    cluster.registers(3, MACHINE);
    cluster.unfenced(3, &[P0]);
    assert_eq!(cluster.sets(), (None, vec![], vec![]), "both are doubtful: the one that kept more is to lead");
    let reports = [cluster.end(2, 0, 40), cluster.end(3, 0, 30)];
    let recovery = crate::engine::controller::elect_from_last_members(&cluster.image, &cluster.defaults, &reports);
    cluster.take(recovery);
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![]), "by itself: the topic is synced, no policy forbids it");
}

#[test]
fn rule_16_a_doubtful_replica_that_nobody_can_better_leads() {
    let mut cluster = Cluster::with_partition(1, &nodes([1]), &[]);
    cluster.registers(1, MACHINE);
    cluster.unfenced(1, &[P0]);
    assert_eq!(cluster.sets(), (Some(1), vec![1], vec![]));
}

#[test]
fn rule_19_each_fencing_is_recorded_once() {
    let mut cluster = strict();
    let first = fence(&cluster.image, NodeId(1), cluster.epoch(1)).expect("live");
    assert!(matches!(first.records[0], MetadataRecord::BrokerFenced { node: NodeId(1), .. }));
    cluster.apply(&first.records);
    let again = fence(&cluster.image, NodeId(1), cluster.epoch(1)).expect("known");
    assert_eq!(again.records, []);
    assert_eq!(unfence(&cluster.image, NodeId(2), cluster.epoch(2), &[]).expect("live").records, []);
}

#[test]
fn a_broker_that_is_stopping_is_noted_once_and_not_counted_on_again_before_it_registers() {
    let mut cluster = strict();
    cluster.stopping(1);
    assert_eq!(stopping(&cluster.image, NodeId(1), cluster.epoch(1)).expect("known").records, []);
    cluster.fenced(1);
    assert_eq!(unfence(&cluster.image, NodeId(1), cluster.epoch(1), &[]).expect("known").records, []);
    cluster.start(1);
    assert!(cluster.image.may_lead(NodeId(1)));
}
