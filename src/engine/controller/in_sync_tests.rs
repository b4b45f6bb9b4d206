//! What leaders propose, and what comes of it.

use super::*;
use crate::engine::controller::test_support::{Cluster, P0, nodes};
use crate::engine::metadata::MetadataRecord;
use crate::types::TopicConfigOverrides;

/// Replicas on 1, 2 and 3, led by 1.
fn cluster(minimum: &str) -> Cluster {
    Cluster::with_partition(4, &nodes([1, 2, 3]), &[("min_insync_replicas", minimum)])
}

fn refused(cluster: &mut Cluster, proposal: InSyncProposal) -> InSyncRefusal {
    let before = cluster.image.clone();
    let refusal = cluster.proposes(proposal).expect_err("refused");
    assert_eq!(cluster.image, before, "nothing changed");
    refusal
}

#[test]
fn rule_09_a_replica_joins_only_unfenced_at_the_current_broker_epoch() {
    let mut cluster = cluster("1");
    cluster.in_sync(&[1]);
    let fenced = InSyncRefusal::FencedMember { node: NodeId(2) };
    cluster.fenced(2);
    let proposal = cluster.proposal(&[1, 2], None);
    assert_eq!(refused(&mut cluster, proposal), fenced);
    cluster.start(2);
    let mut proposal = cluster.proposal(&[1, 2], None);
    proposal.members[1].epoch = BrokerEpoch(proposal.members[1].epoch.0 - 1);
    assert_eq!(refused(&mut cluster, proposal), fenced, "it fetched before it was restarted");
    cluster.stopping(3);
    let proposal = cluster.proposal(&[1, 2, 3], None);
    assert_eq!(refused(&mut cluster, proposal), InSyncRefusal::FencedMember { node: NodeId(3) });
    let proposal = cluster.proposal(&[1, 2], None);
    let accepted = cluster.proposes(proposal).expect("accepted");
    assert_eq!(cluster.sets(), (Some(1), vec![1, 2], vec![]));
    assert_eq!(accepted.partition_epoch, cluster.p0().partition_epoch);
}

#[test]
fn rule_10_apply_itself_refuses_a_member_that_was_restarted_since_the_decision() {
    let mut cluster = cluster("1");
    cluster.in_sync(&[1]);
    let joined = alter_in_sync(&cluster.image, &[cluster.proposal(&[1, 2], None)]);
    cluster.start(2);
    let before = cluster.image.clone();
    let refused = cluster.image.apply_entry(&joined.records);
    assert!(matches!(refused, Err(ApplyError::StaleBroker { node: NodeId(2), .. })), "{refused:?}");
    assert_eq!(cluster.p0(), before.partition(P0).expect("there"));
}

#[test]
fn rule_10_a_proposal_that_was_overtaken_is_refused_by_name() {
    let mut cluster = cluster("1");
    let made_up = cluster.proposal(&[1, 2], None);
    cluster.in_sync(&[1, 3]);
    let current = cluster.p0().partition_epoch;
    assert_eq!(refused(&mut cluster, made_up.clone()), InSyncRefusal::StalePartitionEpoch { current });
    cluster.start(1);
    assert_eq!(refused(&mut cluster, made_up.clone()), InSyncRefusal::NotLeader { leader: Some(NodeId(3)) });
    cluster.in_sync(&[3, 1]);
    cluster.proposes(cluster.proposal(&[3, 1], Some(1))).expect("handed over");
    assert_eq!(refused(&mut cluster, made_up.clone()), InSyncRefusal::StaleLeader { leader: NodeId(1) });
    let old_epoch = InSyncProposal { broker_epoch: cluster.epoch(1), ..made_up };
    let current = cluster.p0().leader_epoch;
    assert_eq!(refused(&mut cluster, old_epoch), InSyncRefusal::StaleLeaderEpoch { current });
    let elsewhere = TopicPartition { partition: crate::types::PartitionIndex(7), ..P0 };
    let unknown = InSyncProposal { partition: elsewhere, ..cluster.proposal(&[1], None) };
    assert_eq!(refused(&mut cluster, unknown), InSyncRefusal::UnknownPartition(elsewhere));
}

#[test]
fn rule_10_of_a_batch_each_is_decided_on_what_those_before_it_leave() {
    let mut cluster = cluster("1");
    let [first, second] = [cluster.proposal(&[1, 2], None), cluster.proposal(&[1, 3], None)];
    let third = InSyncProposal { partition_epoch: second.partition_epoch + 1, ..cluster.proposal(&[1], None) };
    let Decision { records, answer } = alter_in_sync(&cluster.image, &[first, second, third]);
    let outcomes: Vec<_> = answer.iter().map(Result::is_ok).collect();
    assert_eq!((records.len(), outcomes), (2, vec![true, false, true]));
    cluster.apply(&records);
    assert_eq!(cluster.sets().1, [1]);
}

#[test]
fn a_set_without_a_replica_or_with_one_twice_is_refused_and_the_same_set_ends_older_proposals() {
    let mut cluster = cluster("1");
    let proposal = cluster.proposal(&[1, 4], None);
    assert_eq!(refused(&mut cluster, proposal), InSyncRefusal::NotAReplica { node: NodeId(4) });
    let proposal = cluster.proposal(&[1, 2, 2], None);
    assert_eq!(refused(&mut cluster, proposal), InSyncRefusal::NotAReplica { node: NodeId(2) });
    let same = alter_in_sync(&cluster.image, &[cluster.proposal(&[3, 2, 1], None)]);
    let before = cluster.p0().partition_epoch;
    assert_eq!(same.answer[0].as_ref().map(|accepted| accepted.partition_epoch), Ok(before + 1));
}

#[test]
fn rule_08_a_leader_leaves_only_by_handing_over_to_a_member_that_may_lead() {
    let mut cluster = cluster("1");
    let proposal = cluster.proposal(&[2, 3], None);
    assert_eq!(refused(&mut cluster, proposal), InSyncRefusal::LeaderLeaves);
    let handed = cluster.proposal(&[2, 3], Some(3));
    let accepted = cluster.proposes(handed).expect("handed over");
    assert_eq!((accepted.leader, accepted.leader_epoch), (Some(NodeId(3)), LeaderEpoch(1)));
    assert_eq!(cluster.sets(), (Some(3), vec![2, 3], vec![]));
    for to in [1, 3, 4] {
        let proposal = cluster.proposal(&[2, 3], Some(to));
        assert_eq!(refused(&mut cluster, proposal), InSyncRefusal::CannotTakeOver { node: NodeId(to) });
    }
    let proposal = cluster.proposal(&[1, 2, 3], Some(1));
    let too_early = refused(&mut cluster, proposal);
    assert_eq!(too_early, InSyncRefusal::CannotTakeOver { node: NodeId(1) }, "it would join and lead at once");
    cluster.stopping(2);
    let proposal = cluster.proposal(&[2, 3], Some(2));
    assert_eq!(refused(&mut cluster, proposal), InSyncRefusal::CannotTakeOver { node: NodeId(2) });
}

#[test]
fn rule_08_a_broker_that_is_stopping_hands_over_and_leaves_the_set() {
    let mut cluster = cluster("3");
    cluster.stopping(1);
    let proposal = cluster.proposal(&[2, 3], Some(2));
    cluster.proposes(proposal).expect("handed over");
    assert_eq!(cluster.sets(), (Some(2), vec![2, 3], vec![1]), "nothing is committed without it: it stays eligible");
}

#[test]
fn rule_11_whoever_leaves_stays_eligible_while_fewer_than_the_minimum_are_in_sync() {
    let mut cluster = cluster("2");
    cluster.in_sync(&[1, 2]);
    assert_eq!(cluster.sets(), (Some(1), vec![1, 2], vec![]), "two commit without 3");
    cluster.in_sync(&[1]);
    assert_eq!(cluster.sets(), (Some(1), vec![1], vec![2]), "one does not commit without 2");
    cluster.in_sync(&[1, 3]);
    assert_eq!(cluster.sets(), (Some(1), vec![1, 3], vec![]), "two commit again, without 2");
}

#[test]
fn rule_11_a_swap_below_the_minimum_keeps_all_who_left_eligible() {
    let mut cluster = cluster("3");
    cluster.in_sync(&[1, 2]);
    cluster.in_sync(&[1]);
    assert_eq!(cluster.sets(), (Some(1), vec![1], vec![3, 2]));
    cluster.in_sync(&[1, 2]);
    cluster.in_sync(&[1, 3]);
    assert_eq!(cluster.sets(), (Some(1), vec![1, 3], vec![2]), "1, 2 and 3 were never counted together");
}

#[test]
fn rule_11_another_minimum_clears_the_eligible_set_in_the_same_record() {
    let configured = |cluster: &mut Cluster, minimum: &str| {
        let config = [("min_insync_replicas".to_owned(), minimum.to_owned())].into();
        let (topic, config) = (P0.topic, TopicConfigOverrides(config));
        cluster.apply(&[MetadataRecord::TopicConfigChanged { topic, config }]);
    };
    let mut cluster = cluster("2");
    cluster.in_sync(&[1]);
    let made_up = cluster.proposal(&[1, 2], None);
    configured(&mut cluster, "1");
    assert_eq!(cluster.sets(), (Some(1), vec![1], vec![]), "1 may commit alone from here on");
    let current = cluster.p0().partition_epoch;
    assert_eq!(refused(&mut cluster, made_up), InSyncRefusal::StalePartitionEpoch { current });

    let mut nobody = self::cluster("2");
    nobody.in_sync(&[1]);
    [1, 2, 3].into_iter().for_each(|node| nobody.fenced(node));
    let members = nobody.sets();
    assert!(members.1.is_empty() && !members.2.is_empty());
    configured(&mut nobody, "1");
    assert_eq!(nobody.sets(), members, "nothing is committed while nobody leads: all are as good as before");
}
