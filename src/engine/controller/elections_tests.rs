//! Who leads after what.

use super::*;
use crate::engine::controller::test_support::{Cluster, P0, Return, nodes};
use crate::engine::metadata::LastStop;
use crate::types::TopicConfigOverrides;
use std::collections::BTreeMap;

const MACHINE: Return = Return::After(LastStop::Machine);
const KILLED: Return = Return::After(LastStop::Process);

/// Three brokers with a topic that is not synced; all lose power, one after the other.
fn after_a_power_loss_everywhere(settings: &[(&str, &str)]) -> Cluster {
    let settings = [&[("flush", "os"), ("min_insync_replicas", "2")], settings].concat();
    let mut cluster = Cluster::with_partition(3, &nodes([1, 2, 3]), &settings);
    for node in [1, 2, 3] {
        cluster.fenced(node);
    }
    assert_eq!(cluster.sets(), (None, vec![], vec![2, 3]), "nothing was committed since 2 was gone");
    cluster
}

fn recover(cluster: &mut Cluster, reports: &[ReplicaEnd]) -> Recovery {
    let decision = elect_from_last_members(&cluster.image, &cluster.defaults, reports);
    let mut answers = cluster.take(decision);
    assert_eq!((answers.len(), answers[0].0), (1, P0));
    answers.remove(0).1
}

#[test]
fn rule_05_every_election_raises_the_leader_epoch_of_the_same_broker_too() {
    let mut cluster = Cluster::with_partition(1, &nodes([1]), &[]);
    assert_eq!((cluster.sets().0, cluster.p0().leader_epoch), (Some(1), LeaderEpoch(0)));
    cluster.returns(1, KILLED);
    assert_eq!((cluster.sets().0, cluster.p0().leader_epoch), (Some(1), LeaderEpoch(1)));
    cluster.fenced(1);
    cluster.unfenced(1, &[]);
    assert_eq!((cluster.sets().0, cluster.p0().leader_epoch), (Some(1), LeaderEpoch(2)));
    assert_eq!(cluster.p0().unclean_epoch, None, "it never lost anything");
}

#[test]
fn rule_11_a_replica_outside_both_sets_is_never_elected() {
    let mut cluster = Cluster::with_partition(3, &nodes([1, 2, 3]), &[]);
    cluster.in_sync(&[1]);
    cluster.fenced(1);
    assert_eq!(cluster.sets(), (None, vec![], vec![1]), "2 and 3 are there, and may lack what 1 committed alone");
    cluster.start(1);
    assert_eq!(cluster.sets(), (Some(1), vec![1], vec![]));
}

#[test]
fn rule_11_the_eligible_are_elected_when_nobody_in_sync_is_left() {
    let mut cluster = Cluster::with_partition(3, &nodes([1, 2, 3]), &[("min_insync_replicas", "2")]);
    cluster.in_sync(&[1]);
    assert_eq!(cluster.sets(), (Some(1), vec![1], vec![2, 3]));
    cluster.fenced(1);
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![3, 1]));
    assert_eq!(cluster.p0().unclean_epoch, None);
}

#[test]
fn the_replicas_are_tried_in_their_order_and_those_in_sync_first() {
    let mut cluster = Cluster::with_partition(3, &nodes([3, 1, 2]), &[("min_insync_replicas", "3")]);
    cluster.in_sync(&[3, 2]);
    assert_eq!(cluster.sets(), (Some(3), vec![3, 2], vec![1]));
    cluster.fenced(3);
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![1, 3]), "1 comes first, but is only eligible");
}

#[test]
fn a_leader_that_is_stopping_leads_on_until_it_is_fenced_and_is_not_elected() {
    let mut cluster = Cluster::with_partition(3, &nodes([1, 2, 3]), &[]);
    cluster.stopping(1);
    cluster.fenced(3);
    assert_eq!(cluster.sets(), (Some(1), vec![1, 2], vec![]));
    cluster.stopping(2);
    cluster.fenced(1);
    assert_eq!(cluster.sets(), (None, vec![2], vec![]), "nobody is left but one who is about to go");
}

#[test]
fn rule_15_when_all_lost_power_at_once_the_partition_stays_offline_by_default() {
    let mut cluster = after_a_power_loss_everywhere(&[]);
    for node in [1, 2, 3] {
        cluster.returns(node, MACHINE);
    }
    assert_eq!(cluster.sets(), (None, vec![], vec![]));
    let reports = [cluster.end(2, 1, 10), cluster.end(3, 1, 20)];
    assert_eq!(recover(&mut cluster, &reports), Recovery::Forbidden);
    assert_eq!(cluster.sets().0, None);
}

#[test]
fn rule_15_another_flush_policy_afterwards_does_not_let_it_elect() {
    let mut cluster = after_a_power_loss_everywhere(&[]);
    for node in [1, 2, 3] {
        cluster.returns(node, MACHINE);
    }
    let always = BTreeMap::from([("flush".to_owned(), "always".to_owned())]);
    cluster.apply(&[MetadataRecord::TopicConfigChanged { topic: P0.topic, config: TopicConfigOverrides(always) }]);
    let reports = [cluster.end(2, 1, 10), cluster.end(3, 1, 20)];
    assert_eq!(recover(&mut cluster, &reports), Recovery::Forbidden, "what was lost was lost before");
}

#[test]
fn rule_15_the_policy_waits_for_all_last_members_and_takes_the_highest_epoch_and_end() {
    let mut cluster = after_a_power_loss_everywhere(&[("unclean_recovery", "last_members")]);
    cluster.returns(1, MACHINE);
    cluster.returns(2, MACHINE);
    let second = cluster.end(2, 1, 90);
    assert_eq!(recover(&mut cluster, &[second]), Recovery::NotCalledFor, "3 may be whole: it is eligible");
    cluster.registers(3, MACHINE);
    let third = cluster.end(3, 2, 50);
    assert_eq!(without_members(&cluster.image).collect::<Vec<_>>(), [(P0, &nodes([2, 3])[..])]);
    assert_eq!(recover(&mut cluster, &[second, third]), Recovery::Waits { missing: nodes([3]) }, "still fenced");
    cluster.unfenced(3, &[]);
    assert_eq!(recover(&mut cluster, &[second]), Recovery::Waits { missing: nodes([3]) });
    let old = ReplicaEnd { broker_epoch: BrokerEpoch(1), ..third };
    assert_eq!(recover(&mut cluster, &[second, old]), Recovery::Waits { missing: nodes([3]) }, "of the time before");
    let stranger = cluster.end(1, 9, 900);
    let before = cluster.p0().leader_epoch;
    let elected = recover(&mut cluster, &[stranger, second, third]);
    assert_eq!(elected, Recovery::Elected { leader: NodeId(3), leader_epoch: before.next() });
    assert_eq!(cluster.sets(), (Some(3), vec![3], vec![]));
    assert_eq!(cluster.p0().unclean_epoch, Some(before.next()), "replicas may truncate below their watermark for it");
    assert_eq!(recover(&mut cluster, &[second, third]), Recovery::NotCalledFor, "once");
}

#[test]
fn rule_15_of_equal_last_members_the_longer_log_wins_then_the_order_of_the_replicas() {
    for (ends, leader) in [((10, 11), 3), ((11, 10), 2), ((10, 10), 2)] {
        let mut cluster = after_a_power_loss_everywhere(&[("unclean_recovery", "last_members")]);
        cluster.returns(2, MACHINE);
        cluster.returns(3, MACHINE);
        let reports = [cluster.end(2, 1, ends.0), cluster.end(3, 1, ends.1)];
        let leader_epoch = cluster.p0().leader_epoch.next();
        assert_eq!(recover(&mut cluster, &reports), Recovery::Elected { leader: NodeId(leader), leader_epoch });
    }
}

#[test]
fn rule_15_a_member_that_returns_whole_ends_the_wait_without_an_unclean_election() {
    let mut cluster = after_a_power_loss_everywhere(&[("unclean_recovery", "last_members")]);
    cluster.returns(2, MACHINE);
    cluster.returns(3, KILLED);
    assert_eq!(cluster.sets(), (Some(3), vec![3], vec![]));
    assert_eq!((cluster.p0().unclean_epoch, &cluster.p0().last_members), (None, &vec![]));
}

#[test]
fn rule_15_whoever_left_while_another_led_is_not_asked() {
    let mut cluster = Cluster::with_partition(2, &nodes([1, 2]), &[("flush", "os"), ("min_insync_replicas", "2")]);
    cluster.returns(2, MACHINE);
    assert_eq!((cluster.sets(), &cluster.p0().last_members), ((Some(1), vec![1], vec![]), &vec![]));
    cluster.returns(1, MACHINE);
    assert_eq!((cluster.sets(), &cluster.p0().last_members), ((None, vec![], vec![]), &nodes([1])));
}

#[test]
fn rule_10_a_fencing_decided_before_another_election_undoes_nothing_of_it() {
    let mut cluster = Cluster::with_partition(3, &nodes([3, 2]), &[("min_insync_replicas", "2")]);
    let overtaken = super::super::fence(&cluster.image, NodeId(3), cluster.epoch(3)).expect("live");
    let lost = super::super::report_lost(&cluster.image, P0, NodeId(3), cluster.epoch(3));
    cluster.take(lost);
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![]));
    let refused = cluster.image.apply_entry(&overtaken.records);
    assert!(matches!(refused, Err(ApplyError::StalePartition { .. })), "{refused:?}");
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![]), "3 has lost its records: it is not eligible again");
}

#[test]
fn rule_15_a_single_replica_comes_back_by_itself_and_the_loss_is_on_record() {
    let mut cluster = Cluster::with_partition(1, &nodes([1]), &[("flush", "os")]);
    cluster.returns(1, KILLED);
    assert_eq!((cluster.sets().0, cluster.p0().unclean_epoch), (Some(1), None), "the page cache survived");
    cluster.returns(1, MACHINE);
    assert_eq!((cluster.sets().0, cluster.p0().unclean_epoch), (Some(1), Some(LeaderEpoch(2))));
    let mut cluster = Cluster::with_partition(1, &nodes([1]), &[]);
    cluster.returns(1, MACHINE);
    assert_eq!((cluster.sets().0, cluster.p0().unclean_epoch), (Some(1), None), "all that counted was synced");
}

#[test]
fn settling_everything_elects_where_a_fencing_was_overtaken_and_nothing_where_all_is_well() {
    let mut cluster = Cluster::with_partition(2, &nodes([1, 2]), &[]);
    let nothing = settle_all(&cluster.image).expect("decides");
    assert_eq!(nothing.records, []);
    let (node, epoch) = (NodeId(1), cluster.epoch(1));
    cluster.apply(&[MetadataRecord::BrokerFenced { node, epoch }]);
    assert_eq!(cluster.sets(), (None, vec![1, 2], vec![]));
    let decision = settle_all(&cluster.image);
    cluster.take(decision);
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![]));
}
