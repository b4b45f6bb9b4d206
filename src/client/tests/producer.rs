use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::broker::{FakeBroker, Fault};
use super::{eventually, soon, start};
use crate::client::{Acks, Client, ClientError, Compression, Delivery, OutgoingRecord, Producer, ProducerConfig};
use crate::protocol::ErrorCode;
use crate::types::{LeaderEpoch, Offset, ProducerId, TimestampMs};

const HOUR: Duration = Duration::from_secs(3_600);

async fn producer(client: &Client, config: ProducerConfig) -> Producer {
    client.producer(config).await.expect("starts")
}

async fn send(producer: &Producer, value: &'static str) -> Delivery {
    soon(producer.send(OutgoingRecord::to("rides").partition(0).value(value))).await.expect("taken")
}

/// One batch a record, so that tests can tell what happened to each.
async fn send_alone(producer: &Producer, value: &'static str) -> Delivery {
    let delivery = send(producer, value).await;
    let flushing = producer.clone();
    // Closes the batch; whether it is delivered is the test's affair.
    tokio::spawn(async move { flushing.flush().await });
    tokio::task::yield_now().await;
    delivery
}

async fn offset(delivery: Delivery) -> Option<u64> {
    soon(delivery).await.expect("delivered").offset.map(|offset| offset.0)
}

fn texts(values: &[Bytes]) -> Vec<&str> {
    values.iter().map(|value| std::str::from_utf8(value).unwrap()).collect()
}

fn sequences(broker: &FakeBroker) -> Vec<(i64, i32)> {
    broker.state().seen.iter().map(|(id, _, sequence)| (id.0, *sequence)).collect()
}

#[tokio::test]
async fn records_wait_for_company_until_the_batch_is_full_or_flushed() {
    let (broker, client) = start(1).await;
    let producer =
        producer(&client, ProducerConfig::default().linger(HOUR).delivery_timeout(2 * HOUR).batch_bytes(150)).await;
    // 35 bytes each by the producer's bound; batches are closed by what they really hold.
    let deliveries = join_all((0..9).map(|_| send(&producer, "fourteen-bytes"))).await;
    eventually("one full batch went out alone", || broker.state().seen.len() == 1).await;
    assert!(!deliveries.last().unwrap().is_done(), "the last batch is not full and lingers");
    soon(producer.flush()).await.expect("flushed");
    assert_eq!(broker.values(0).len(), 9);
    assert!(broker.state().seen.len() == 2, "two batches");
    for (index, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(offset(delivery).await, Some(index as u64));
    }
}

#[tokio::test]
async fn a_lingering_batch_goes_out_when_its_time_is_over() {
    let (broker, client) = start(1).await;
    let producer = producer(&client, ProducerConfig::default().linger(Duration::from_millis(30))).await;
    let started = tokio::time::Instant::now();
    let first = send(&producer, "a").await;
    let second = send(&producer, "b").await;
    assert_eq!((offset(first).await, offset(second).await), (Some(0), Some(1)));
    assert!(started.elapsed() >= Duration::from_millis(30));
    assert_eq!(broker.state().seen.len(), 1, "both in one batch");
}

#[tokio::test]
async fn behind_a_batch_on_its_way_records_fill_the_next_one() {
    let (broker, client) = start(1).await;
    broker.on_produce([Fault::HoldAnswer]);
    let producer = producer(&client, ProducerConfig::default()).await;
    let first = send(&producer, "first").await;
    eventually("it is on its way", || broker.state().produce_requests == 1).await;
    let others = join_all((0..50).map(|_| send(&producer, "other"))).await;
    broker.release();
    assert_eq!(offset(first).await, Some(0));
    for delivery in others {
        offset(delivery).await;
    }
    assert!(broker.state().seen.len() <= 3, "51 records in {} batches", broker.state().seen.len());
}

#[tokio::test]
async fn batches_of_several_partitions_share_a_request() {
    let (broker, client) = start(4).await;
    let producer = producer(&client, ProducerConfig::default().linger(HOUR).delivery_timeout(2 * HOUR)).await;
    for partition in 0..4 {
        let record = OutgoingRecord::to("rides").partition(partition).value("x");
        drop(producer.send(record).await.expect("taken"));
    }
    soon(producer.flush()).await.expect("flushed");
    let state = broker.state();
    assert_eq!((state.produce_requests, state.seen.len()), (1, 4));
}

#[tokio::test]
async fn keys_choose_partitions_as_kafka_does_and_the_rest_stays_together_until_its_batch_is_closed() {
    let (broker, client) = start(8).await;
    let producer = producer(&client, ProducerConfig::default().linger(HOUR).delivery_timeout(2 * HOUR)).await;
    let keyed = producer.send(OutgoingRecord::to("rides").key("21").value("x")).await.expect("taken");
    // 1173551340 modulo 8.
    assert_eq!(keyed.partition(), 4);
    let mut used = std::collections::HashSet::new();
    for _ in 0..40 {
        let mut partitions = Vec::new();
        for _ in 0..5 {
            partitions.push(producer.send(OutgoingRecord::to("rides").value("x")).await.expect("taken").partition());
        }
        partitions.dedup();
        assert_eq!(partitions.len(), 1, "one batch, one partition");
        used.insert(partitions[0]);
        soon(producer.flush()).await.expect("flushed");
    }
    assert!(used.len() > 2, "forty batches went to {used:?}");
    assert_eq!(broker.values(4).first().map(Bytes::as_ref), Some(b"x".as_ref()));
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait_until_there_is_room() {
    let (broker, client) = start(1).await;
    broker.on_produce([Fault::HoldAnswer; 64]);
    let config = ProducerConfig::default().batch_bytes(1_000).buffer_bytes(10_000);
    let producer = producer(&client, config).await;
    let sending = producer.clone();
    let all = tokio::spawn(async move {
        let mut deliveries = Vec::new();
        for _ in 0..100 {
            deliveries.push(sending.send(OutgoingRecord::to("rides").value(vec![7; 900])).await.expect("taken"));
        }
        deliveries
    });
    eventually("the buffer is full", || producer.stats().sent_records == 10).await;
    assert!(producer.stats().buffered_bytes <= 10_000);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(producer.stats().sent_records, 10, "the eleventh waits");
    broker.release();
    for (index, delivery) in soon(all).await.unwrap().into_iter().enumerate() {
        assert_eq!(offset(delivery).await, Some(index as u64));
    }
    eventually("all room is free again", || producer.stats().buffered_bytes == 0).await;
    assert!(broker.state().most_in_flight <= 5);
}

#[tokio::test]
async fn a_record_above_a_limit_is_an_error_at_once_that_names_the_setting() {
    let (_broker, client) = start(1).await;
    let producer = producer(&client, ProducerConfig::default()).await;
    let big =
        producer.send(OutgoingRecord::to("rides").value(vec![0; 9 << 20])).await.expect_err("above the node's frame");
    assert!(big.to_string().contains("max_frame_bytes"), "{big}");
    let config = ProducerConfig::default().batch_bytes(100).buffer_bytes(1_000);
    let small_buffer = client.producer(config).await.expect("starts");
    let big = small_buffer.send(OutgoingRecord::to("rides").value(vec![0; 1_001])).await.expect_err("above the buffer");
    assert_eq!(big, ClientError::RecordTooLarge { bytes: 1_022, limit: 1_000, setting: "buffer_bytes" });
    // Larger than a batch is no error: it travels alone.
    let alone = small_buffer.send(OutgoingRecord::to("rides").value(vec![0; 500])).await.expect("taken");
    assert_eq!(offset(alone).await, Some(0));
}

#[tokio::test]
async fn each_compression_arrives() {
    let (broker, client) = start(1).await;
    for compression in Compression::ALL {
        let producer = producer(&client, ProducerConfig::default().compression(compression)).await;
        offset(send(&producer, "compressed").await).await;
        soon(producer.close()).await.expect("closed");
    }
    let state = broker.state();
    let seen: Vec<_> =
        state.topics["rides"].1[0].batches.iter().map(|batch| batch.header.attributes.compression().unwrap()).collect();
    assert_eq!(seen, Compression::ALL);
}

#[tokio::test]
async fn a_batch_whose_acknowledgement_was_lost_is_not_written_twice() {
    let (broker, client) = start(1).await;
    broker.on_produce([Fault::DoAndHangUp]);
    let producer = producer(&client, ProducerConfig::default()).await;
    let delivery = send(&producer, "once").await;
    assert_eq!(offset(delivery).await, Some(0));
    assert_eq!(broker.values(0), ["once"]);
    assert_eq!(sequences(&broker), [(1, 0), (1, 0)], "the retry carries the same number");
}

#[tokio::test]
async fn without_idempotence_the_same_retry_is_a_duplicate() {
    let (broker, client) = start(1).await;
    broker.on_produce([Fault::DoAndHangUp]);
    let producer = producer(&client, ProducerConfig::default().idempotence(false)).await;
    offset(send(&producer, "twice").await).await;
    assert_eq!(broker.values(0), ["twice", "twice"]);
}

#[tokio::test]
async fn order_holds_when_the_first_of_several_batches_in_flight_is_refused() {
    for code in [ErrorCode::NotLeader, ErrorCode::Overloaded, ErrorCode::NotEnoughReplicas] {
        let (broker, client) = start(1).await;
        let producer = producer(&client, ProducerConfig::default().linger(HOUR).delivery_timeout(2 * HOUR)).await;
        offset(send_alone(&producer, "a").await).await;
        // The later ones are refused before the first is, because the broker misses it.
        broker.on_produce([Fault::RefuseHeld(code)]);
        let mut deliveries = Vec::new();
        for (index, value) in ["b", "c", "d", "e"].into_iter().enumerate() {
            deliveries.push(send_alone(&producer, value).await);
            if index == 0 {
                eventually("it is on its way", || broker.state().produce_requests == 2).await;
            }
        }
        eventually("a later one came", || broker.state().produce_requests > 2).await;
        broker.release();
        for (index, delivery) in deliveries.into_iter().enumerate() {
            assert_eq!(offset(delivery).await, Some(index as u64 + 1), "{code:?}");
        }
        assert_eq!(texts(&broker.values(0)), ["a", "b", "c", "d", "e"], "{code:?}");
        assert!(broker.state().seen.iter().all(|seen| seen.0 == ProducerId(1)), "one producer id throughout");
        assert!(producer.stats().retries > 1);
    }
}

#[tokio::test]
async fn order_holds_and_nothing_is_doubled_through_a_storm_of_faults() {
    let (broker, client) = start(1).await;
    let faults = [
        Fault::Refuse(ErrorCode::Overloaded),
        Fault::DoAndHangUp,
        Fault::None,
        Fault::HangUp,
        Fault::None,
        Fault::Refuse(ErrorCode::NotLeader),
        Fault::DoAndHangUp,
    ];
    broker.on_produce(faults.into_iter().cycle().take(21));
    let producer = producer(&client, ProducerConfig::default().batch_bytes(100)).await;
    let values: Vec<String> = (0..300).map(|number| format!("value-{number:03}")).collect();
    let mut deliveries = Vec::new();
    for value in &values {
        deliveries.push(producer.send(OutgoingRecord::to("rides").value(value.clone())).await.expect("taken"));
    }
    let delivering = async {
        for (index, delivery) in deliveries.into_iter().enumerate() {
            let offset = delivery.await.expect("delivered").offset;
            assert_eq!(offset, Some(Offset(index as u64)));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), delivering).await.expect("done within a minute");
    assert_eq!(texts(&broker.values(0)), values);
}

#[tokio::test]
async fn a_refusal_that_no_retry_helps_fails_its_records_and_leaves_no_gap() {
    let (broker, client) = start(1).await;
    broker.on_produce([Fault::None, Fault::RefuseHeld(ErrorCode::BatchTooLarge)]);
    let producer = producer(&client, ProducerConfig::default().linger(HOUR).delivery_timeout(2 * HOUR)).await;
    offset(send_alone(&producer, "before").await).await;
    let refused = send_alone(&producer, "too large").await;
    eventually("it is on its way", || broker.state().produce_requests == 2).await;
    let behind = send_alone(&producer, "fine").await;
    eventually("the next one is behind it", || broker.state().produce_requests == 3).await;
    broker.release();
    match soon(refused).await {
        Err(ClientError::Refused { error, .. }) => assert_eq!(error.code, ErrorCode::BatchTooLarge),
        other => panic!("{other:?}"),
    }
    assert_eq!(offset(behind).await, Some(1));
    assert_eq!(sequences(&broker), [(1, 0), (1, 1), (1, 2), (1, 1)], "the number that was never used is used");
}

#[tokio::test]
async fn a_broker_that_forgot_the_producer_gets_a_new_one_when_nothing_can_be_doubled() {
    let (broker, client) = start(1).await;
    let producer = producer(&client, ProducerConfig::default()).await;
    offset(send(&producer, "before").await).await;
    broker.state().topics.get_mut("rides").unwrap().1[0].forget_producers();
    assert_eq!(offset(send(&producer, "after").await).await, Some(1));
    assert_eq!(sequences(&broker), [(1, 0), (1, 1), (2, 0)]);
}

#[tokio::test]
async fn a_broker_that_forgot_the_producer_after_an_unknown_outcome_fails_the_record_instead_of_doubling_it() {
    let (broker, client) = start(1).await;
    let producer = producer(&client, ProducerConfig::default()).await;
    offset(send(&producer, "before").await).await;
    broker.on_produce([Fault::HangUp, Fault::Refuse(ErrorCode::UnknownProducer)]);
    let error = soon(send(&producer, "perhaps").await).await.expect_err("nobody can tell");
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
    assert_eq!(offset(send(&producer, "after").await).await, Some(1), "later records go on under a new id");
}

#[tokio::test]
async fn a_duplicate_too_old_to_be_placed_is_delivered_without_an_offset() {
    let (broker, client) = start(1).await;
    broker.on_produce([Fault::Refuse(ErrorCode::DuplicateSequence)]);
    let producer = producer(&client, ProducerConfig::default()).await;
    assert_eq!(offset(send(&producer, "old").await).await, None);
}

#[tokio::test]
async fn a_record_that_misses_its_deadline_says_how_long_and_why() {
    let (broker, client) = start(1).await;
    broker.on_produce([Fault::Refuse(ErrorCode::NotEnoughReplicas); 100]);
    // Longer than the longest backoff: the next record must not miss its own deadline waiting for it.
    let producer = producer(&client, ProducerConfig::default().delivery_timeout(Duration::from_millis(1_500))).await;
    let error = soon(send(&producer, "x").await).await.expect_err("never accepted");
    let text = error.to_string();
    assert!(
        text.contains("partition 0 of topic 'rides'") && text.contains("1500 ms") && text.contains("as scripted"),
        "{text}"
    );
    assert!(error.is_retryable());
    eventually("its room is free", || producer.stats().buffered_bytes == 0).await;
    broker.state().produce_faults.clear();
    assert_eq!(offset(send(&producer, "y").await).await, Some(0), "the number it had leaves no gap");
}

#[tokio::test]
async fn a_silent_broker_fails_the_record_at_its_deadline_and_not_at_the_request_timeout() {
    let (broker, client) = start(1).await;
    broker.on_produce([Fault::Ignore]);
    let producer = producer(&client, ProducerConfig::default().delivery_timeout(Duration::from_millis(100))).await;
    let started = tokio::time::Instant::now();
    let error = soon(send(&producer, "x").await).await.expect_err("never answered");
    assert!(matches!(error, ClientError::DeliveryTimedOut { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "the request timeout is five seconds");
}

#[tokio::test]
async fn without_a_leader_records_wait_for_one() {
    let (broker, client) = start(1).await;
    broker.state().has_leaders = false;
    let producer = producer(&client, ProducerConfig::default()).await;
    let delivery = send(&producer, "x").await;
    eventually("who leads was asked again", || broker.state().metadata_requests > 3).await;
    assert!(!delivery.is_done());
    broker.state().has_leaders = true;
    assert_eq!(offset(delivery).await, Some(0));
}

#[tokio::test]
async fn acks_none_is_done_once_written_and_knows_no_offset() {
    let (broker, client) = start(1).await;
    let producer = producer(&client, ProducerConfig::default().acks(Acks::None)).await;
    assert_eq!(offset(send(&producer, "x").await).await, None);
    eventually("it came", || broker.values(0) == ["x"]).await;
    assert_eq!(sequences(&broker), [(-1, -1)]);
}

#[tokio::test]
async fn timestamps_are_the_records_own_or_the_brokers() {
    let (broker, client) = start(1).await;
    let producer = producer(&client, ProducerConfig::default()).await;
    let record = || OutgoingRecord::to("rides").value("x").timestamp(TimestampMs(42));
    let own = soon(producer.send(record()).await.expect("taken")).await.expect("delivered");
    assert_eq!(own.timestamp, TimestampMs(42));
    broker.state().append_time = Some(TimestampMs(99));
    let brokers = soon(producer.send(record()).await.expect("taken")).await.expect("delivered");
    assert_eq!(brokers.timestamp, TimestampMs(99));
    assert_eq!(broker.state().topics["rides"].1[0].batches[0].header.leader_epoch, LeaderEpoch(1));
}

#[tokio::test]
async fn dropping_the_last_handle_fails_what_is_not_acknowledged() {
    let (broker, client) = start(1).await;
    broker.on_produce([Fault::HoldAnswer]);
    let producer = producer(&client, ProducerConfig::default()).await;
    let delivery = send(&producer, "x").await;
    drop(producer);
    let error = soon(delivery).await.expect_err("abandoned");
    assert_eq!(error, ClientError::Closed { what: "producer" });
    assert!(error.to_string().contains("close() or flush()"), "{error}");
}

#[tokio::test]
async fn close_waits_for_everything_and_closes_the_other_handles() {
    let (broker, client) = start(1).await;
    let producer = producer(&client, ProducerConfig::default().linger(HOUR).delivery_timeout(2 * HOUR)).await;
    let other = producer.clone();
    let delivery = send(&producer, "x").await;
    soon(producer.close()).await.expect("all delivered");
    assert!(delivery.is_done());
    assert_eq!(broker.values(0), ["x"]);
    let error = other.send(OutgoingRecord::to("rides").value("y")).await.expect_err("closed");
    assert_eq!(error, ClientError::Closed { what: "producer" });
}

#[tokio::test]
async fn a_topic_deleted_meanwhile_fails_its_records_and_one_created_anew_takes_them() {
    let (broker, client) = start(1).await;
    let producer = producer(&client, ProducerConfig::default()).await;
    offset(send(&producer, "old").await).await;
    broker.state().topics.remove("rides");
    let error = soon(send(&producer, "nowhere").await).await.expect_err("gone");
    assert_eq!(error, ClientError::UnknownTopic { topic: "rides".into() });
    broker.create("rides", 1);
    assert_eq!(offset(send(&producer, "new").await).await, Some(0));
    assert_eq!(broker.values(0), ["new"]);
}

#[test]
fn deliveries_resolve_when_their_runtime_is_gone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut kept = None;
    runtime.block_on(async {
        let (broker, client) = start(1).await;
        broker.on_produce([Fault::Ignore]);
        let producer = producer(&client, ProducerConfig::default()).await;
        let delivery = send(&producer, "x").await;
        kept = Some((producer, delivery));
    });
    drop(runtime);
    let (_producer, delivery) = kept.unwrap();
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(other.block_on(async { soon(delivery).await }).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_a_producer_on_many_threads() {
    let (broker, client) = start(3).await;
    let producer = producer(&client, ProducerConfig::default().buffer_bytes(200_000)).await;
    let tasks = (0..8).map(|task| {
        let producer = producer.clone();
        tokio::spawn(async move {
            let mut deliveries = Vec::new();
            for number in 0..2_000 {
                let record = OutgoingRecord::to("rides").key(format!("user{task}")).value(format!("{number:05}"));
                deliveries.push(producer.send(record).await.expect("taken"));
            }
            let metadata: Vec<_> =
                join_all(deliveries).await.into_iter().map(|outcome| outcome.expect("delivered")).collect();
            assert!(metadata.is_sorted_by_key(|metadata| metadata.offset), "the order of one task is kept");
        })
    });
    for task in join_all(tasks).await {
        task.expect("no panic");
    }
    assert_eq!((0..3).map(|partition| broker.values(partition).len()).sum::<usize>(), 16_000);
    assert_eq!(producer.stats().delivered_records, 16_000);
}
