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
    want_of(lane, 1, partition, fetch, false);
}

/// As [`want`], of a replica of `topic` that is throttled and not in sync.
fn want_slowly(lane: &mut Lane<u32>, topic: u128, partition: u32, number: u64) {
    let mut other = Lane::default();
    want(&mut other, partition, number);
    let fetch = other.wanted[&place(partition)].fetch;
    want_of(lane, topic, partition, fetch, true);
}

fn want_of(lane: &mut Lane<u32>, topic: u128, partition: u32, fetch: ReplicaFetch, is_throttled: bool) {
    let place = TopicPartition::new(TopicId(uuid::Uuid::from_u128(topic)), PartitionIndex(partition));
    lane.want(place, Wanted { fetch, may_wait: true, answer_to: partition }, |_| is_throttled);
}

/// Nobody is throttled.
fn nobody(_: TopicId, _: usize) -> Option<usize> {
    panic!("of a topic that is not throttled nothing is taken")
}

/// The next request: (partition, number, bytes, may wait).
fn sent(lane: &mut Lane<u32>) -> Option<Vec<(u32, u64, usize, bool)>> {
    sent_with(lane, nobody)
}

fn sent_with(
    lane: &mut Lane<u32>,
    take: impl FnMut(TopicId, usize) -> Option<usize>,
) -> Option<Vec<(u32, u64, usize, bool)>> {
    let (_, request) = lane.next_request(false, take)?;
    let fetch =
        |fetch: &FetchReplica| (fetch.partition.partition.0, fetch.number, fetch.max_bytes as usize, fetch.may_wait);
    Some(request.fetches.iter().map(fetch).collect())
}

fn answered(lane: &mut Lane<u32>, partition: u32, number: u64, bytes: usize) -> Option<(u64, u32)> {
    let Ended { id, taken, answer_to } = lane.answered(place(partition), number, Some(bytes))?;
    assert_eq!(taken, 0, "nobody is throttled");
    Some((id.number, answer_to))
}

fn failed(lane: &mut Lane<u32>, request: u64) -> Vec<(u64, u32)> {
    lane.take_failed(request).into_iter().map(|(_, ended)| (ended.id.number, ended.answer_to)).collect()
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
    assert_eq!(failed(&mut lane, 1), [(1, 1)]);
    lane.ended();
    assert_eq!(failed(&mut lane, 2), [(2, 0)]);
    assert!(!lane.lacks_carrier(), "nothing waits at the leader");
}

#[test]
fn an_empty_request_goes_only_when_answers_would_have_none_to_come_with() {
    let mut lane = Lane::default();
    want(&mut lane, 0, 1);
    want(&mut lane, 1, 1);
    sent(&mut lane);
    assert!(lane.next_request(true, nobody).is_none(), "one is under way");
    lane.ended();
    assert!(answered(&mut lane, 0, 1, 0).is_some() && lane.lacks_carrier());
    let (_, empty) = lane.next_request(true, nobody).expect("a carrier");
    assert_eq!((empty.fetches.len(), empty.replica, empty.broker_epoch), (0, NodeId(2), BrokerEpoch(1)));
    lane.ended();
    answered(&mut lane, 1, 1, 0);
    assert!(lane.next_request(true, nobody).is_none(), "nobody waits");
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
    let waiting: Vec<_> = lane.behind.values().flatten().map(|(_, partition)| *partition).collect();
    assert_eq!(waiting, [place(0)], "it waits for its turn");
}

/// A budget: what may still be taken. Each fetch gets so many bytes at most.
fn from(left: &mut usize, share: usize) -> impl FnMut(TopicId, usize) -> Option<usize> + '_ {
    move |_, wanted| {
        let taken = wanted.min(share);
        *left = left.checked_sub(taken)?;
        Some(taken)
    }
}

#[test]
fn who_is_throttled_waits_for_the_budget_and_asks_for_no_more_than_it_gets_and_at_once() {
    let mut lane = Lane::default();
    let mut left = 0;
    want_slowly(&mut lane, 1, 0, 1);
    assert_eq!(sent_with(&mut lane, from(&mut left, 1_000)), None);
    assert!(lane.waits_for_budget());
    want_slowly(&mut lane, 1, 0, 2);
    left = 1_500;
    // Only records are news, so the answer comes at once and tells what was not needed.
    assert_eq!(sent_with(&mut lane, from(&mut left, 1_000)), Some(vec![(0, 2, 1_000, false)]), "the newest");
    assert_eq!((left, lane.waits_for_budget()), (500, false));
    // An acknowledgement while it is under way goes with what was taken for it.
    want_slowly(&mut lane, 1, 0, 3);
    assert_eq!(sent_with(&mut lane, from(&mut left, 1_000)), Some(vec![(0, 3, 1_000, false)]));
    let overtaken = lane.answered(place(0), 2, Some(800)).expect("asked for");
    assert_eq!(overtaken.taken, 0, "the newer fetch has it");
    let newest = lane.answered(place(0), 3, Some(800)).expect("asked for");
    assert_eq!(newest.taken, 1_000);
    lane.ended();
    lane.ended();
    want_slowly(&mut lane, 1, 0, 4);
    assert_eq!(sent_with(&mut lane, from(&mut left, 1_000)), None, "it is behind, and the budget is spent");
    left = 1_000;
    assert_eq!(sent_with(&mut lane, from(&mut left, 1_000)), Some(vec![(0, 4, 1_000, false)]));
    assert_eq!(lane.answered(place(0), 4, Some(10)).map(|ended| ended.taken), Some(1_000));
    // It has come to the end, and is told what is new as anybody.
    want_slowly(&mut lane, 1, 0, 5);
    assert_eq!(sent(&mut lane), Some(vec![(0, 5, MIB, true)]));
}

#[test]
fn an_acknowledgement_that_comes_too_late_to_go_with_what_was_taken_waits_for_a_budget_of_its_own() {
    for is_answered in [true, false] {
        let mut lane = Lane::default();
        let mut left = 1_000;
        want_slowly(&mut lane, 1, 0, 1);
        assert_eq!(sent_with(&mut lane, from(&mut left, 1_000)), Some(vec![(0, 1, 1_000, false)]));
        want_slowly(&mut lane, 1, 0, 2);
        if is_answered {
            assert_eq!(lane.answered(place(0), 1, Some(1_000)).map(|ended| ended.taken), Some(1_000));
        } else {
            assert_eq!(failed(&mut lane, 1), [(1, 0)]);
        }
        lane.ended();
        assert_eq!(sent_with(&mut lane, from(&mut left, 1_000)), None, "nothing is left");
        left = 1_000;
        assert_eq!(sent_with(&mut lane, from(&mut left, 1_000)), Some(vec![(0, 2, 1_000, false)]));
    }
}

#[test]
fn those_without_a_budget_take_no_turns_and_the_others_go_in_the_order_in_which_they_came() {
    let mut lane = Lane::default();
    (0..6).for_each(|partition| want_slowly(&mut lane, 7, partition, 1));
    (0..3).for_each(|partition| want(&mut lane, partition, 1));
    assert_eq!(sent_with(&mut lane, |_, _| None).map(|fetches| fetches.len()), Some(3), "they are not throttled");
    for partition in 0..3 {
        assert!(answered(&mut lane, partition, 1, FIRST_BYTES).is_some());
        want(&mut lane, partition, 2);
    }
    lane.ended();
    let rich = TopicId(uuid::Uuid::from_u128(8));
    (10..13).for_each(|partition| want_slowly(&mut lane, 8, partition, 1));
    let take = |topic: TopicId, _: usize| (topic == rich).then_some(500);
    let request = sent_with(&mut lane, take).expect("turns are free");
    let turn = |partition| (partition, 2, MIB, false);
    assert_eq!(request, [turn(0), turn(1), turn(2), (10, 1, 500, false)]);
    assert!(lane.waits_for_budget());
}

#[test]
fn whoever_need_not_wait_any_more_goes_the_way_of_the_others() {
    let mut lane = Lane::default();
    (0..2).for_each(|partition| want_slowly(&mut lane, 1, partition, 1));
    assert_eq!(sent_with(&mut lane, |_, _| None), None);
    lane.queue_anew(|partition| partition == place(1));
    assert_eq!(sent_with(&mut lane, |_, _| None), Some(vec![(0, 1, FIRST_BYTES, true)]));
    assert!(lane.waits_for_budget());
    lane.queue_anew(|_| false);
    assert!(!lane.waits_for_budget());
    assert_eq!(sent(&mut lane), Some(vec![(1, 1, FIRST_BYTES, true)]));
}

#[test]
fn what_was_taken_for_fetches_that_failed_comes_back_and_nothing_is_taken_for_an_earlier_registration() {
    let mut lane = Lane::default();
    let mut left = 300;
    (0..3).for_each(|partition| want_slowly(&mut lane, 1, partition, 1));
    assert_eq!(sent_with(&mut lane, from(&mut left, 100)).map(|fetches| fetches.len()), Some(3));
    lane.ended();
    let back: Vec<_> = lane.take_failed(1).into_iter().map(|(_, ended)| ended.taken).collect();
    assert_eq!(back, [100; 3]);
    want_slowly(&mut lane, 1, 0, 2);
    want_as(&mut lane, 9, 1, 2);
    let request = sent(&mut lane).expect("of the new registration");
    assert_eq!(request.iter().map(|fetch| fetch.0).collect::<Vec<_>>(), [9]);
    assert!(!lane.waits_for_budget(), "the other is forgotten");
}

/// The lane and the budget together, in virtual time: two topics on one lane, one of them throttled, each answer full and at once.
#[test]
fn a_throttled_topic_keeps_its_pace_and_another_one_its_own() {
    use crate::engine::catch_up_budget::CatchUpBudget;
    use crate::types::MonoTime;

    const RATE: u64 = 1_000_000;
    let at = |millis| MonoTime(std::time::Duration::from_millis(millis));
    let mut lane = Lane::default();
    let mut budget = CatchUpBudget::new(at(0));
    let (mut slow, mut fast, mut numbers) = (0, 0, [1_u64; 20]);
    (0..10).for_each(|partition| want_slowly(&mut lane, 2, partition, 1));
    (10..20).for_each(|partition| want(&mut lane, partition, 1));
    for millis in 0..10_000 {
        let take = |_: TopicId, wanted: usize| budget.take(at(millis), RATE, wanted).ok();
        let Some(fetches) = sent_with(&mut lane, take) else { continue };
        for (partition, number, bytes, _) in fetches {
            let is_slow = partition < 10;
            let topic = TopicId(uuid::Uuid::from_u128(if is_slow { 2 } else { 1 }));
            let place = TopicPartition::new(topic, PartitionIndex(partition));
            let ended = lane.answered(place, number, Some(bytes)).expect("asked for");
            let next = numbers[partition as usize] + 1;
            numbers[partition as usize] = next;
            if is_slow {
                budget.settle(ended.taken, bytes);
                slow += bytes;
                want_slowly(&mut lane, 2, partition, next);
            } else {
                fast += bytes;
                want(&mut lane, partition, next);
            }
        }
        lane.ended();
    }
    assert!((9_700_000..=10_000_000).contains(&slow), "{slow} bytes in 10 s");
    assert!(fast > 10_000 * 3 * MIB, "{fast} bytes in 10 s: three turns or four in each of 10,000 requests");
    let turns = &numbers[..10];
    assert!(turns.iter().max().unwrap() - turns.iter().min().unwrap() <= 1, "{turns:?}");
}
