//! Partitions that move.

use super::*;
use crate::engine::controller::test_support::{Cluster, P0, nodes};
use crate::types::LeaderEpoch;

fn moves<const N: usize>(cluster: &mut Cluster, targets: [u32; N]) {
    let decision = reassign(&cluster.image, P0, &nodes(targets));
    cluster.take(decision);
}

fn refused(cluster: &Cluster, targets: &[u32]) -> ErrorCode {
    let targets: Vec<_> = targets.iter().copied().map(NodeId).collect();
    reassign(&cluster.image, P0, &targets).expect_err("refused").code
}

#[test]
fn rule_12_a_reassignment_completes_in_one_swap_when_all_targets_are_in_sync() {
    let mut cluster = Cluster::with_partition(5, &nodes([1, 2, 3]), &[]);
    moves(&mut cluster, [4, 5]);
    assert_eq!(cluster.p0().replicas, nodes([1, 2, 3, 4, 5]));
    assert_eq!(cluster.sets(), (Some(1), vec![1, 2, 3], vec![]));
    cluster.in_sync(&[1, 2, 3, 4]);
    assert_eq!(cluster.p0().replicas.len(), 5, "5 is not in sync");
    cluster.in_sync(&[1, 2, 4]);
    cluster.in_sync(&[1, 2, 4, 5]);
    assert_eq!(cluster.sets(), (Some(1), vec![1, 2, 4, 5], vec![]), "the leader has a lease, and hands over first");
    let accepted = cluster.proposes(cluster.proposal(&[1, 2, 4, 5], Some(4))).expect("accepted");
    assert_eq!(accepted.leader, Some(NodeId(4)));
    assert_eq!(cluster.p0().replicas, nodes([4, 5]));
    assert_eq!(cluster.sets(), (Some(4), vec![4, 5], vec![]));
    assert_eq!((cluster.p0().leader_epoch, &cluster.p0().reassignment), (LeaderEpoch(1), &None));
}

#[test]
fn rule_12_a_leader_that_is_among_the_targets_leads_on_and_eligible_ones_that_are_not_go() {
    let mut cluster = Cluster::with_partition(4, &nodes([1, 2, 3]), &[("min_insync_replicas", "3")]);
    cluster.in_sync(&[1, 3]);
    assert_eq!(cluster.sets().2, [2]);
    moves(&mut cluster, [4, 1, 3]);
    cluster.in_sync(&[1, 3, 4]);
    assert_eq!(cluster.p0().replicas, nodes([4, 1, 3]));
    assert_eq!(cluster.sets(), (Some(1), vec![1, 3, 4], vec![]));
    assert_eq!(cluster.p0().leader_epoch, LeaderEpoch(0), "no election");
}

#[test]
fn rule_12_targets_that_are_in_sync_already_are_swapped_to_at_once() {
    let mut cluster = Cluster::with_partition(3, &nodes([1, 2, 3]), &[]);
    cluster.fenced(1);
    moves(&mut cluster, [3, 2]);
    assert_eq!((cluster.p0().replicas.clone(), cluster.sets()), (nodes([3, 2]), (Some(2), vec![2, 3], vec![])));
    assert_eq!(reassign(&cluster.image, P0, &nodes([3, 2])).expect("legal").records, [], "it is there");
}

#[test]
fn a_cancellation_returns_to_the_replicas_before_and_never_leaves_a_leader_out() {
    let mut cluster = Cluster::with_partition(4, &nodes([1, 2]), &[]);
    moves(&mut cluster, [3, 4]);
    cluster.in_sync(&[1, 2, 3]);
    cluster.fenced(1);
    cluster.proposes(cluster.proposal(&[2, 3], Some(3))).expect("handed over");
    let decision = cancel_reassignment(&cluster.image, P0);
    cluster.take(decision);
    assert_eq!(cluster.sets(), (Some(3), vec![2, 3], vec![]), "3 has a lease, and hands over first");
    cluster.proposes(cluster.proposal(&[2, 3], Some(2))).expect("handed over");
    assert_eq!(cluster.p0().replicas, nodes([1, 2]));
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![]), "3 is gone");
    assert_eq!(cancel_reassignment(&cluster.image, P0).expect("legal").records, []);
}

#[test]
fn a_cancellation_is_refused_while_only_new_replicas_can_lead() {
    let mut cluster = Cluster::with_partition(3, &nodes([1]), &[]);
    moves(&mut cluster, [2, 3]);
    cluster.in_sync(&[1, 2]);
    cluster.fenced(1);
    assert_eq!(cluster.sets(), (Some(2), vec![2], vec![]));
    let refused = cancel_reassignment(&cluster.image, P0).expect_err("1 lacks what 2 commits");
    assert_eq!(refused.code, ErrorCode::NotEnoughReplicas);
    cluster.fenced(2);
    let refused = cancel_reassignment(&cluster.image, P0).expect_err("2 has it, and is waited for");
    assert_eq!(refused.code, ErrorCode::NotEnoughReplicas);
}

#[test]
fn another_reassignment_replaces_the_targets_and_remembers_where_it_came_from() {
    let mut cluster = Cluster::with_partition(4, &nodes([1]), &[]);
    moves(&mut cluster, [2, 3]);
    cluster.in_sync(&[1, 2]);
    moves(&mut cluster, [3, 4]);
    assert_eq!((cluster.p0().replicas.clone(), cluster.sets().1), (nodes([1, 3, 4]), vec![1]));
    moves(&mut cluster, [1]);
    assert_eq!((cluster.p0().replicas.clone(), &cluster.p0().reassignment), (nodes([1]), &None), "back again");
}

#[test]
fn targets_are_distinct_known_and_enough() {
    let mut cluster = Cluster::with_partition(4, &nodes([1, 2, 3]), &[("min_insync_replicas", "2")]);
    for targets in [&[][..], &[1], &[1, 1], &[1, 9]] {
        assert_eq!(refused(&cluster, targets), ErrorCode::InvalidReplicationFactor, "{targets:?}");
    }
    cluster.fenced(4);
    moves(&mut cluster, [1, 4]);
    assert_eq!(cluster.p0().replicas, nodes([1, 2, 3, 4]), "a target that is away is waited for");
    let unknown = TopicPartition { partition: crate::types::PartitionIndex(4), ..P0 };
    let error = reassign(&cluster.image, unknown, &nodes([1, 2])).expect_err("no such partition");
    assert_eq!(error.code, ErrorCode::UnknownTopicOrPartition);
}
