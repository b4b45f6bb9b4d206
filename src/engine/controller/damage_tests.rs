//! Replicas that were lost or are damaged.

use super::*;
use crate::engine::controller::test_support::{Cluster, P0, nodes};

fn damaged(cluster: &mut Cluster, node: u32) -> DamageOutcome {
    let (who, epoch) = ((NodeId(node), cluster.epoch(node)), cluster.p0().leader_epoch);
    let decision = report_damaged(&cluster.image, P0, who, epoch);
    cluster.take(decision)
}

#[test]
fn rule_16_a_damaged_leader_leaves_both_sets_and_another_member_leads() {
    let mut cluster = Cluster::with_partition(3, &nodes([1, 2, 3]), &[("min_insync_replicas", "3")]);
    assert_eq!(damaged(&mut cluster, 1), DamageOutcome::Left);
    assert_eq!(cluster.sets(), (Some(2), vec![2, 3], vec![]), "it is not even eligible");
    assert_eq!(damaged(&mut cluster, 1), DamageOutcome::Left, "said again, it changes nothing");
    cluster.in_sync(&[2, 3, 1]);
    assert_eq!(cluster.sets().1, [2, 3, 1], "verified whole, it is in sync again");
}

#[test]
fn rule_16_the_last_one_leads_on_until_another_is_in_sync() {
    let mut cluster = Cluster::with_partition(2, &nodes([1, 2]), &[("min_insync_replicas", "2")]);
    cluster.fenced(2);
    assert_eq!(damaged(&mut cluster, 1), DamageOutcome::StaysAsTheLast);
    assert_eq!(cluster.sets(), (Some(1), vec![1], vec![2]));
    cluster.start(2);
    assert_eq!(damaged(&mut cluster, 1), DamageOutcome::Left);
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![]));
}

#[test]
fn rule_16_a_damaged_follower_leaves_also_when_its_leader_is_about_to_stop() {
    let mut cluster = Cluster::with_partition(2, &nodes([1, 2]), &[]);
    cluster.stopping(1);
    assert_eq!(damaged(&mut cluster, 2), DamageOutcome::Left);
    assert_eq!(cluster.sets(), (Some(1), vec![1], vec![]), "1 is whole: the partition waits for it");
}

#[test]
fn rule_10_a_report_of_another_time_is_refused() {
    let mut cluster = Cluster::with_partition(2, &nodes([1, 2]), &[]);
    let (who, epoch) = ((NodeId(2), cluster.epoch(2)), cluster.p0().leader_epoch);
    let code = |refused: Result<_, ApiError>| refused.map(|_: Decision<DamageOutcome>| ()).expect_err("refused").code;
    let next = report_damaged(&cluster.image, P0, who, epoch.next());
    assert_eq!(code(next), ErrorCode::StaleMetadata);
    cluster.start(2);
    assert_eq!(code(report_damaged(&cluster.image, P0, who, epoch)), ErrorCode::StaleMetadata);
    let lost = report_lost(&cluster.image, P0, who.0, who.1).expect_err("of the time before");
    assert_eq!(lost.code, ErrorCode::StaleMetadata);
}

#[test]
fn a_lost_replica_leaves_both_sets_also_as_the_last() {
    let mut cluster = Cluster::with_partition(3, &nodes([1, 2]), &[("min_insync_replicas", "2")]);
    let lose = |cluster: &mut Cluster, node| {
        let decision = report_lost(&cluster.image, P0, NodeId(node), cluster.epoch(node));
        cluster.take(decision);
    };
    lose(&mut cluster, 1);
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![]));
    lose(&mut cluster, 2);
    assert_eq!(cluster.sets(), (None, vec![], vec![]), "an empty log is not led as if it were the whole");
    assert!(cluster.p0().last_members.is_empty());
    let elsewhere = report_lost(&cluster.image, P0, NodeId(3), cluster.epoch(3)).expect_err("no replica there");
    assert_eq!(elsewhere.code, ErrorCode::UnknownTopicOrPartition);
}
