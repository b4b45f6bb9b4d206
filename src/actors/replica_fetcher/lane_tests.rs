//! One lane: what is sent when, and who gets which answer.

use super::*;
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicId};

const MIB: usize = 1 << 20;

fn place(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(uuid::Uuid::from_u128(1)), PartitionIndex(partition))
}

fn want(lane: &mut Lane<u32>, partition: u32, number: u64) {
    want_as(lane, partition, number, 1);
}

fn want_as(lane: &mut Lane<u32>, partition: u32, number: u64, broker_epoch: u64) {
    let fetch = ReplicaFetch {
        replica: NodeId(2),
        broker_epoch: BrokerEpoch(broker_epoch),
        leader_epoch: LeaderEpoch(1),
        number,
        position: Offset(0),
        last_epoch: None,
        lacks_producers: false,
        durable_end: Offset(0),
        high_watermark: Offset(0),
        max_bytes: MIB,
        is_damaged: false,
        repair: None,
    };
    lane.want(place(partition), Wanted { fetch, may_wait: true, answer_to: partition });
}

/// The next request: (partition, number, bytes, may wait).
fn sent(lane: &mut Lane<u32>) -> Option<Vec<(u32, u64, usize, bool)>> {
    let (_, request) = lane.next_request(false)?;
    let fetch =
        |fetch: &FetchReplica| (fetch.partition.partition.0, fetch.number, fetch.max_bytes as usize, fetch.may_wait);
    Some(request.fetches.iter().map(fetch).collect())
}

fn answered(lane: &mut Lane<u32>, partition: u32, number: u64, bytes: usize) -> Option<(u64, u32)> {
    let (id, answer_to) = lane.answered(place(partition), number, Some(bytes))?;
    Some((id.number, answer_to))
}

#[test]
fn the_newest_fetch_of_each_partition_goes_and_two_requests_are_under_way_at_most() {
    let mut lane = Lane::default();
    want(&mut lane, 0, 1);
    want(&mut lane, 1, 1);
    want(&mut lane, 0, 2);
    assert_eq!(sent(&mut lane), Some(vec![(0, 2, FIRST_BYTES, true), (1, 1, FIRST_BYTES, true)]));
    assert_eq!(sent(&mut lane), None, "there is nothing new");
    want(&mut lane, 0, 3);
    assert_eq!(sent(&mut lane).map(|fetches| fetches.len()), Some(1));
    want(&mut lane, 1, 2);
    assert_eq!(sent(&mut lane), None, "two are under way");
    lane.ended();
    assert_eq!(sent(&mut lane).map(|fetches| fetches.len()), Some(1));
}

#[test]
fn an_answer_finds_its_fetch_once_and_an_overtaken_one_counts_as_long_as_it_may_come() {
    let mut lane = Lane::default();
    want(&mut lane, 0, 1);
    sent(&mut lane);
    want(&mut lane, 0, 2);
    sent(&mut lane);
    assert_eq!(answered(&mut lane, 0, 3, 0), None, "nobody sent that");
    assert_eq!(answered(&mut lane, 0, 1, 0), Some((1, 0)));
    assert_eq!(answered(&mut lane, 0, 1, 0), None, "twice");
    assert_eq!(answered(&mut lane, 0, 2, 0), Some((2, 0)));
    assert_eq!(answered(&mut lane, 0, 2, 0), None, "twice");
    // A number of another registration is another fetch.
    want_as(&mut lane, 0, 5, 1);
    lane.ended();
    sent(&mut lane);
    want_as(&mut lane, 0, 6, 2);
    lane.ended();
    sent(&mut lane);
    assert_eq!(answered(&mut lane, 0, 5, 0), None);
    want_as(&mut lane, 0, 7, 1);
    lane.ended();
    assert_eq!(sent(&mut lane), None, "a fetch of an earlier registration is not sent");
}

#[test]
fn what_failed_is_answered_unless_a_newer_fetch_is_on_its_way() {
    let mut lane = Lane::default();
    want(&mut lane, 0, 1);
    want(&mut lane, 1, 1);
    sent(&mut lane);
    want(&mut lane, 0, 2);
    sent(&mut lane);
    lane.ended();
    let failed: Vec<_> = lane.take_failed(1).into_iter().map(|(id, answer_to)| (id.number, answer_to)).collect();
    assert_eq!(failed, [(1, 1)]);
    lane.ended();
    let failed: Vec<_> = lane.take_failed(2).into_iter().map(|(id, answer_to)| (id.number, answer_to)).collect();
    assert_eq!(failed, [(2, 0)]);
    assert!(!lane.lacks_carrier(), "nothing waits at the leader");
}

#[test]
fn an_empty_request_goes_only_when_answers_would_have_none_to_come_with() {
    let mut lane = Lane::default();
    want(&mut lane, 0, 1);
    want(&mut lane, 1, 1);
    sent(&mut lane);
    assert!(lane.next_request(true).is_none(), "one is under way");
    lane.ended();
    assert!(answered(&mut lane, 0, 1, 0).is_some() && lane.lacks_carrier());
    let (_, empty) = lane.next_request(true).expect("a carrier");
    assert_eq!((empty.fetches.len(), empty.replica, empty.broker_epoch), (0, NodeId(2), BrokerEpoch(1)));
    lane.ended();
    answered(&mut lane, 1, 1, 0);
    assert!(lane.next_request(true).is_none(), "nobody waits");
}

#[test]
fn those_that_are_far_behind_take_turns_and_one_that_is_live_goes_at_once() {
    let mut lane = Lane::default();
    (0..7).for_each(|partition| want(&mut lane, partition, 1));
    sent(&mut lane);
    lane.ended();
    // All but the last are behind.
    for partition in 0..6 {
        assert!(answered(&mut lane, partition, 1, FIRST_BYTES).is_some());
    }
    answered(&mut lane, 6, 1, 10);
    (0..7).for_each(|partition| want(&mut lane, partition, 2));
    let turn = |partition| (partition, 2, MIB, false);
    assert_eq!(sent(&mut lane), Some(vec![(6, 2, MIB, true), turn(0), turn(1), turn(2), turn(3)]));
    // Whoever has its turn may say that it has synced.
    want(&mut lane, 1, 3);
    assert_eq!(sent(&mut lane), Some(vec![(1, 3, MIB, false)]));
    lane.ended();
    answered(&mut lane, 0, 2, MIB);
    answered(&mut lane, 1, 3, 10);
    want(&mut lane, 0, 3);
    want(&mut lane, 1, 4);
    assert_eq!(sent(&mut lane), Some(vec![(1, 4, MIB, true), turn(4), turn(5)]));
    assert_eq!(lane.behind, [place(0)], "it waits for its turn");
}
