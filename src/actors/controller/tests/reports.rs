//! What brokers report of replicas, and what leaders propose.

use super::bench::{Bench, after_a_power_loss};
use super::*;
use crate::engine::broker::{Answer, Finding, ReplicaReport, Request};
use crate::engine::controller::InSyncProposal;
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};

#[actix::test]
async fn findings_are_heard_each_on_its_own_and_those_of_an_earlier_registration_are_not() {
    let bench = Bench::new().await;
    let epochs = [bench.live(1).await, bench.live(2).await];
    let partition = bench.topic(2, &[]).await;
    let unknown = TopicPartition::new(TopicId(uuid::Uuid::from_u128(1)), PartitionIndex(0));
    let leader_epoch = LeaderEpoch(0);
    bench.report(1, epochs[1], vec![Finding::Opened(partition)]).await;
    let findings = vec![
        Finding::Lost(unknown),
        Finding::Damaged { partition: unknown, leader_epoch },
        Finding::FilesGone(unknown.topic),
        Finding::Opened(partition),
        Finding::Opened(unknown),
    ];
    bench.report(2, epochs[1], findings).await;
    let image = bench.until(|image| image.topics[&partition.topic].opened.contains(&NodeId(2))).await;
    assert!(!image.topics[&partition.topic].opened.contains(&NodeId(1)));

    let index = image.index;
    bench.report(2, epochs[1], vec![Finding::Opened(partition)]).await;
    bench.report(2, epochs[1], vec![Finding::Lost(partition)]).await;
    let image = bench.until(|image| image.partition(partition).expect("there").in_sync == [NodeId(1)]).await;
    assert_eq!(image.index, index + 1, "what is known already is no entry");

    let deleted = bench.controller.send(DeleteTopics(vec!["rides".to_owned()])).await.expect("alive");
    assert!(deleted.expect("decided").answer[0].is_ok());
    for (node, epoch) in (1..).zip(epochs) {
        bench.report(node, epoch, vec![Finding::FilesGone(partition.topic)]).await;
    }
    bench.until(|image| image.tombstones.is_empty()).await;
}

#[actix::test]
async fn a_report_that_is_too_long_is_refused() {
    let bench = Bench::new().await;
    let epoch = bench.live(1).await;
    let findings = vec![Finding::FilesGone(TopicId(uuid::Uuid::from_u128(1))); ReplicaReport::MOST + 1];
    let report = ReplicaReport { node: NodeId(1), epoch, findings };
    assert_eq!(bench.ask(Request::Report(report)).await.expect_err("too long").code, ErrorCode::InvalidRequest);
}

#[actix::test]
async fn the_last_member_that_kept_most_leads_once_all_of_them_are_back() {
    let bench = Bench::new().await;
    let epochs = [bench.live(1).await, bench.live(2).await];
    let settings = [("flush", "os"), ("unclean_recovery", "last_members")];
    let partition = bench.topic(2, &settings).await;
    // Both machines lose power: neither is known to have what was acknowledged.
    let back = [
        bench.register(1, 1, after_a_power_loss(epochs[0])).await,
        bench.register(2, 1, after_a_power_loss(epochs[1])).await,
    ];
    let state = bench.partition(partition).await;
    assert_eq!((state.leader, state.in_sync.len()), (None, 0));
    let kept_most = *state.last_members.last().expect("somebody has something");
    let end = |node: NodeId| {
        let end_offset = Offset(if node == kept_most { 9 } else { 5 });
        Finding::End { partition, leader_epoch: LeaderEpoch(0), end_offset }
    };
    for (node, epoch) in (1..).zip(back) {
        bench.report(node, epoch, vec![end(NodeId(node))]).await;
        assert_eq!(bench.partition(partition).await.leader, None, "nobody of them is counted on yet");
    }
    for (node, epoch) in (1..).zip(back) {
        bench.renewed(node, epoch).await;
    }
    bench.tick().await;
    let image = bench.until(|image| image.partition(partition).expect("there").leader.is_some()).await;
    let state = image.partition(partition).expect("there");
    assert_eq!((state.leader, state.unclean_epoch), (Some(kept_most), Some(state.leader_epoch)));
}

#[actix::test]
async fn proposals_that_are_refused_are_said_and_the_others_are_in_the_metadata() {
    let bench = Bench::new().await;
    bench.live(1).await;
    bench.live(2).await;
    let partition = bench.topic(2, &[]).await;
    let leader = bench.partition(partition).await.leader.expect("it is led");
    let good = bench.proposal(partition, &[leader]).await;
    let stale = InSyncProposal { partition_epoch: good.partition_epoch + 1, ..good.clone() };
    match bench.ask(Request::Propose(vec![stale.clone(), good.clone()])).await {
        Ok(Some(Answer::ProposalsRefused(refused))) => {
            assert_eq!(refused.len(), 1, "{refused:?}");
            assert_eq!((refused[0].partition, refused[0].partition_epoch), (partition, stale.partition_epoch));
            assert!(!refused[0].why.is_empty());
        }
        answer => panic!("{answer:?}"),
    }
    assert_eq!(bench.partition(partition).await.in_sync, [leader]);
    let both = bench.proposal(partition, &[NodeId(1), NodeId(2)]).await;
    assert_eq!(bench.ask(Request::Propose(vec![both])).await, Ok(None));
    assert_eq!(bench.partition(partition).await.in_sync.len(), 2);
}
