use std::time::Duration;

use bytes::Bytes;

use super::broker::{FakeBroker, Fault};
use super::{eventually, soon, start};
use crate::client::{Client, ClientError, Consumer, ConsumerConfig, Damaged, OutOfRange, StartAt};
use crate::protocol::ErrorCode;
use crate::types::record_batch::{BatchBuilder, BatchHeader, Compression, HEADER_BYTES};
use crate::types::{Offset, TimestampMs};

/// A batch with these values, one millisecond apart from `first`.
fn batch(first: i64, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for (index, value) in values.iter().enumerate() {
        builder.append(TimestampMs(first + index as i64), None, Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

async fn assigned(client: &Client, config: ConsumerConfig, start: StartAt) -> Consumer {
    let mut consumer = client.consumer(config).await.expect("starts");
    consumer.assign("rides", None, start).await.expect("assigned");
    consumer
}

async fn next(consumer: &mut Consumer) -> (u64, String) {
    let record = soon(consumer.recv()).await.expect("a record");
    (record.offset.0, String::from_utf8(record.value.unwrap().to_vec()).unwrap())
}

fn quick() -> ConsumerConfig {
    ConsumerConfig::default().max_wait(Duration::from_millis(50))
}

fn damage(broker: &FakeBroker, index: usize) {
    let mut state = broker.state();
    let batch = &mut state.topics.get_mut("rides").unwrap().1[0].batches[index];
    let mut body = batch.body.to_vec();
    *body.last_mut().unwrap() ^= 1;
    batch.body = body.into();
}

#[tokio::test]
async fn the_first_batch_may_start_before_the_offset_asked_for() {
    let (broker, client) = start(1).await;
    broker.put(0, batch(0, &["a", "b", "c"]));
    broker.put(0, batch(3, &["d"]));
    let mut consumer = assigned(&client, quick(), StartAt::Offset(Offset(1))).await;
    assert_eq!(consumer.position("rides", 0), Some(Offset(1)));
    assert_eq!(next(&mut consumer).await, (1, "b".into()));
    assert_eq!(consumer.position("rides", 0), Some(Offset(2)));
    assert_eq!(consumer.lag("rides", 0), Some(2));
    assert_eq!(next(&mut consumer).await, (2, "c".into()));
    assert_eq!(next(&mut consumer).await, (3, "d".into()));
    broker.put(0, batch(9, &["later"]));
    assert_eq!(next(&mut consumer).await, (4, "later".into()));
    assert_eq!(consumer.lag("rides", 0), Some(0));
}

#[tokio::test]
async fn reading_starts_at_the_end_at_a_time_or_where_seek_says() {
    let (broker, client) = start(1).await;
    broker.put(0, batch(1_000, &["a", "b", "c"]));
    let mut consumer = assigned(&client, quick(), StartAt::Timestamp(TimestampMs(1_001))).await;
    assert_eq!(next(&mut consumer).await, (1, "b".into()));
    soon(consumer.seek("rides", 0, StartAt::Earliest)).await.expect("found");
    assert_eq!(next(&mut consumer).await, (0, "a".into()));
    soon(consumer.seek("rides", 0, StartAt::Offset(Offset(2)))).await.expect("found");
    assert_eq!(next(&mut consumer).await, (2, "c".into()));
    soon(consumer.seek("rides", 0, StartAt::Timestamp(TimestampMs(5_000)))).await.expect("none is that new: the end");
    assert_eq!(consumer.position("rides", 0), Some(Offset(3)));
    broker.put(0, batch(2_000, &["d"]));
    assert_eq!(next(&mut consumer).await, (3, "d".into()));
    let mut latest = assigned(&client, quick(), StartAt::Latest).await;
    broker.put(0, batch(3_000, &["e"]));
    assert_eq!(next(&mut latest).await, (4, "e".into()));
    assert_eq!(latest.end_offsets("rides").await.expect("listed"), [(0, Offset(5))]);
    let error = latest.seek("rides", 7, StartAt::Earliest).await.expect_err("not assigned");
    assert_eq!(error, ClientError::NotAssigned { topic: "rides".into(), partition: 7 });
}

#[tokio::test]
async fn what_is_fetched_ahead_stays_within_the_bound() {
    let (broker, client) = start(2).await;
    let value = "v".repeat(1_000);
    for _ in 0..100 {
        broker.put(0, batch(0, &[&value]));
        broker.put(1, batch(0, &[&value]));
    }
    let mut consumer = assigned(&client, quick().prefetch_bytes(20_000), StartAt::Earliest).await;
    let fetched = || {
        let state = broker.state();
        let asked = state.fetches.iter().flat_map(|fetch| &fetch.partitions);
        asked.map(|partition| partition.offset.0).max().unwrap_or(0)
    };
    next(&mut consumer).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = fetched();
    assert!(before <= 10, "two partitions share 20000 bytes, a batch has 1069: fetched up to {before}");
    let mut counts = [0; 2];
    counts[0] = 1;
    for _ in 1..200 {
        counts[soon(consumer.recv()).await.expect("a record").partition as usize] += 1;
    }
    assert_eq!(counts.iter().sum::<i32>(), 200, "in the end all of it comes");
}

#[tokio::test]
async fn a_receive_that_is_dropped_while_it_waits_loses_nothing() {
    let (broker, client) = start(1).await;
    let mut consumer = assigned(&client, quick(), StartAt::Earliest).await;
    for number in 0..20 {
        // Dropped at any point of its waiting, with the record coming at the same moment.
        let waiting = tokio::time::timeout(Duration::from_micros(number * 300), consumer.recv_batch(10));
        let (received, ()) = tokio::join!(waiting, async {
            tokio::time::sleep(Duration::from_micros(number * 200)).await;
            broker.put(0, batch(0, &["x"]));
        });
        let mut seen: Vec<u64> = received.into_iter().flatten().flatten().map(|record| record.offset.0).collect();
        if seen.is_empty() {
            seen.push(next(&mut consumer).await.0);
        }
        assert_eq!(seen, [number]);
    }
}

#[tokio::test]
async fn a_batch_of_records_crosses_batches_but_waits_for_the_first_only() {
    let (broker, client) = start(1).await;
    broker.put(0, batch(0, &["a", "b"]));
    broker.put(0, batch(0, &["c", "d"]));
    let mut consumer = assigned(&client, quick(), StartAt::Earliest).await;
    let offsets =
        |records: Vec<crate::client::ConsumedRecord>| records.into_iter().map(|r| r.offset.0).collect::<Vec<_>>();
    assert_eq!(offsets(soon(consumer.recv_batch(3)).await.expect("records")), [0, 1, 2]);
    assert_eq!(offsets(soon(consumer.recv_batch(3)).await.expect("records")), [3]);
}

#[tokio::test]
async fn an_offset_out_of_range_goes_where_the_policy_says() {
    let (broker, client) = start(1).await;
    broker.state().topics.get_mut("rides").unwrap().1[0].start = Offset(10);
    broker.put(0, batch(0, &["a", "b"]));
    let at = StartAt::Offset(Offset(3));
    let mut earliest = assigned(&client, quick().out_of_range(OutOfRange::Earliest), at).await;
    assert_eq!(next(&mut earliest).await, (10, "a".into()));
    let mut strict = assigned(&client, quick().out_of_range(OutOfRange::Error), at).await;
    let error = soon(strict.recv()).await.expect_err("stops");
    let (log_start_offset, end_offset) = (Offset(10), Offset(12));
    let expected = ClientError::OffsetOutOfRange {
        topic: "rides".into(),
        partition: 0,
        offset: Offset(3),
        log_start_offset,
        end_offset,
    };
    assert_eq!(error, expected);
    assert_eq!(soon(strict.recv()).await, Err(expected), "it stays stopped, and never hangs");
    soon(strict.seek("rides", 0, StartAt::Offset(Offset(11)))).await.expect("found");
    assert_eq!(next(&mut strict).await, (11, "b".into()));
}

#[tokio::test]
async fn an_offset_out_of_range_goes_to_the_end_when_the_policy_says_so() {
    let (broker, client) = start(1).await;
    broker.state().topics.get_mut("rides").unwrap().1[0].start = Offset(10);
    broker.put(0, batch(0, &["a", "b"]));
    let at = StartAt::Offset(Offset(3));
    let mut latest = assigned(&client, quick().out_of_range(OutOfRange::Latest), at).await;
    eventually("it asked at the end", || broker.state().fetches.iter().any(|f| f.partitions[0].offset == Offset(12)))
        .await;
    broker.put(0, batch(0, &["c"]));
    assert_eq!(next(&mut latest).await, (12, "c".into()));
}

#[tokio::test]
async fn a_damaged_batch_is_an_error_or_skipped_and_never_handed_out() {
    let (broker, client) = start(1).await;
    for value in ["a", "b", "c"] {
        broker.put(0, batch(0, &[value]));
    }
    damage(&broker, 1);
    let mut strict = assigned(&client, quick(), StartAt::Earliest).await;
    assert_eq!(next(&mut strict).await, (0, "a".into()));
    match soon(strict.recv()).await {
        Err(ClientError::Damaged { offset, reason, .. }) => {
            assert_eq!(offset, Offset(1));
            assert!(reason.contains("checksum"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let mut skipping = assigned(&client, quick().on_damaged(Damaged::Skip), StartAt::Earliest).await;
    assert_eq!(next(&mut skipping).await, (0, "a".into()));
    assert_eq!(next(&mut skipping).await, (2, "c".into()));
}

#[tokio::test]
async fn damage_that_the_broker_knows_of_is_skipped_to_its_end() {
    let (broker, client) = start(1).await;
    for value in ["a", "b", "c"] {
        broker.put(0, batch(0, &[value]));
    }
    broker.state().damaged = Some((Offset(0), Offset(2)));
    broker.on_fetch([Fault::Refuse(ErrorCode::DamagedLog)]);
    let mut skipping = assigned(&client, quick().on_damaged(Damaged::Skip), StartAt::Earliest).await;
    assert_eq!(next(&mut skipping).await, (2, "c".into()));
}

#[tokio::test]
async fn damage_that_the_broker_knows_of_is_an_error_with_its_words() {
    let (broker, client) = start(1).await;
    broker.on_fetch([Fault::Refuse(ErrorCode::DamagedLog)]);
    let mut strict = assigned(&client, quick(), StartAt::Earliest).await;
    let error = soon(strict.recv()).await.expect_err("damaged");
    assert!(matches!(error, ClientError::Damaged { .. }) && error.to_string().contains("as scripted"), "{error}");
}

#[tokio::test]
async fn a_batch_that_inflates_beyond_the_limit_is_not_inflated() {
    let (broker, client) = start(1).await;
    let mut builder = BatchBuilder::new(Compression::Zstd, 0);
    builder.append(TimestampMs(0), None, Some(&vec![0; 1 << 20]), &[]);
    broker.put(0, builder.build().unwrap());
    broker.put(0, batch(0, &["small"]));
    let mut consumer = assigned(&client, quick().inflate_limit_bytes(10_000), StartAt::Earliest).await;
    let error = soon(consumer.recv()).await.expect_err("too large");
    assert!(error.to_string().contains("more than 10000 bytes"), "{error}");
    soon(consumer.seek("rides", 0, StartAt::Offset(Offset(1)))).await.expect("past it");
    assert_eq!(next(&mut consumer).await, (1, "small".into()));
}

#[tokio::test]
async fn control_batches_are_passed_over() {
    let (broker, client) = start(1).await;
    let plain = batch(0, &["marker"]);
    let mut header = BatchHeader::parse(&plain).unwrap();
    header.attributes.0 |= 1 << 5;
    let mut control = header.with_checksum_over(&plain[HEADER_BYTES..]).to_bytes().to_vec();
    control.extend_from_slice(&plain[HEADER_BYTES..]);
    broker.put(0, control.into());
    broker.put(0, batch(0, &["data"]));
    let mut consumer = assigned(&client, quick(), StartAt::Earliest).await;
    assert_eq!(next(&mut consumer).await, (1, "data".into()));
}

#[tokio::test]
async fn reading_goes_on_through_lost_connections_and_changing_leaders() {
    let (broker, client) = start(1).await;
    broker.on_fetch([
        Fault::Refuse(ErrorCode::NotLeader),
        Fault::HangUp,
        Fault::Refuse(ErrorCode::Overloaded),
        Fault::Refuse(ErrorCode::UnknownLeaderEpoch),
    ]);
    let mut consumer = assigned(&client, quick(), StartAt::Earliest).await;
    broker.put(0, batch(0, &["a"]));
    assert_eq!(next(&mut consumer).await, (0, "a".into()));
    broker.hang_up();
    broker.put(0, batch(0, &["b"]));
    assert_eq!(next(&mut consumer).await, (1, "b".into()));
}

#[tokio::test]
async fn a_topic_deleted_while_it_is_read_is_a_clear_error() {
    let (broker, client) = start(1).await;
    broker.put(0, batch(0, &["a"]));
    let mut consumer = assigned(&client, quick(), StartAt::Earliest).await;
    assert_eq!(next(&mut consumer).await, (0, "a".into()));
    broker.state().topics.remove("rides");
    let error = soon(consumer.recv()).await.expect_err("gone");
    assert_eq!(error.to_string(), "topic 'rides' was deleted");
    broker.create("rides", 1);
    soon(consumer.assign("rides", None, StartAt::Earliest)).await.expect("the new one");
    broker.state().topics.remove("rides");
    broker.create("rides", 1);
    let error = soon(consumer.recv()).await.expect_err("another one");
    assert_eq!(error, ClientError::TopicDeleted { topic: "rides".into(), recreated: true });
}

#[tokio::test]
async fn a_consumer_without_partitions_does_not_wait_for_ever() {
    let (_broker, client) = start(1).await;
    let mut consumer = client.consumer(ConsumerConfig::default()).await.expect("starts");
    assert_eq!(soon(consumer.recv()).await, Err(ClientError::NothingAssigned));
    consumer.assign("rides", Some(vec![0]), StartAt::Earliest).await.expect("assigned");
    assert_eq!(consumer.assignment(), [("rides".into(), 0)]);
    consumer.unassign("rides");
    assert_eq!(soon(consumer.recv()).await, Err(ClientError::NothingAssigned));
    let error = consumer.assign("rides", Some(vec![5]), StartAt::Earliest).await.expect_err("no such partition");
    assert!(matches!(error, ClientError::UnknownPartition { partition: 5, .. }), "{error}");
}
