//! Records that own nothing: sent from where they are, and read where they came.

use std::time::Duration;

use bytes::Bytes;

use super::broker::{FakeBroker, Fault};
use super::{eventually, soon, start};
use crate::client::{
    Client, ClientError, Compression, Consumer, ConsumerConfig, FetchedBatch, Header, OutgoingRecord, ProducerConfig,
    RecordRef, StartAt, TopicProducer,
};
use crate::types::{Offset, TimestampMs, TimestampType};

async fn start_topic(partitions: u32, config: ProducerConfig) -> (FakeBroker, Client, TopicProducer) {
    let (broker, client) = start(partitions).await;
    let producer = client.producer(config).await.expect("starts");
    let rides = soon(producer.topic("rides")).await.expect("known");
    (broker, client, rides)
}

async fn consumer(client: &Client, start: StartAt) -> Consumer {
    let config = ConsumerConfig::default().max_wait(Duration::from_millis(50));
    let mut consumer = client.consumer(config).await.expect("starts");
    consumer.assign("rides", None, start).await.expect("assigned");
    consumer
}

fn contents(batch: &FetchedBatch) -> Vec<(u64, &str)> {
    batch.iter().map(|view| (view.offset.0, std::str::from_utf8(view.value.unwrap()).unwrap())).collect()
}

#[tokio::test]
async fn records_of_one_call_keep_their_order_over_many_batches_and_each_knows_its_offset() {
    let (broker, _client, rides) = start_topic(1, ProducerConfig::default().batch_bytes(2_000)).await;
    let values: Vec<String> = (0..1_000).map(|number| format!("value {number}")).collect();
    let deliveries = soon(rides.send_batch(values.iter().map(RecordRef::new))).await;
    assert_eq!((deliveries.len(), deliveries.is_empty()), (1_000, false));
    soon(deliveries.all()).await.expect("delivered");
    assert!(deliveries.is_done());
    assert_eq!(broker.values(0), values);
    for (index, delivery) in deliveries.each().enumerate() {
        assert_eq!(soon(delivery).await.expect("delivered").offset, Some(Offset(index as u64)));
    }
    let stats = rides.producer().stats();
    assert_eq!((stats.sent_records, stats.delivered_records, stats.buffered_bytes), (1_000, 1_000, 0));
    assert!(stats.delivered_batches >= 5, "a batch has 2,000 bytes: {stats:?}");
}

#[tokio::test]
async fn a_record_that_cannot_be_taken_fails_alone() {
    let config = ProducerConfig::default().batch_bytes(100).buffer_bytes(1_000);
    let (broker, _client, rides) = start_topic(2, config).await;
    let large = [0; 1_000];
    let to = |partition| move |value: &'static str| RecordRef::new(value).partition(partition);
    let records = [to(1)("a"), RecordRef::new(&large), to(7)("nowhere"), to(1)("b")];
    let deliveries = soon(rides.send_batch(records)).await;
    let mut outcomes = Vec::new();
    for delivery in deliveries.each() {
        outcomes.push(soon(delivery).await.map(|metadata| (metadata.partition, metadata.offset)));
    }
    let too_large = ClientError::RecordTooLarge { bytes: 1_021, limit: 1_000, setting: "buffer_bytes" };
    let unknown = ClientError::UnknownPartition { topic: "rides".into(), partition: 7, partitions: 2 };
    assert_eq!(outcomes[1..3], [Err(too_large.clone()), Err(unknown)]);
    assert_eq!((&outcomes[0], &outcomes[3]), (&Ok((1, Some(Offset(0)))), &Ok((1, Some(Offset(1))))));
    assert_eq!(soon(deliveries.all()).await, Err(too_large), "the first failure");
    assert_eq!(broker.values(1), ["a", "b"]);
}

#[tokio::test]
async fn records_of_one_call_wait_for_room() {
    let config = ProducerConfig::default().batch_bytes(1_000).buffer_bytes(10_000);
    let (broker, _client, rides) = start_topic(1, config).await;
    broker.on_produce([Fault::HoldAnswer; 64]);
    let producer = rides.producer().clone();
    let sending = tokio::spawn(async move {
        let value = [7; 900];
        rides.send_batch(vec![RecordRef::new(&value); 100]).await
    });
    eventually("the buffer is full", || producer.stats().sent_records == 10).await;
    assert!(!sending.is_finished());
    assert!(producer.stats().buffered_bytes <= 10_000);
    broker.release();
    let deliveries = soon(sending).await.unwrap();
    soon(deliveries.all()).await.expect("delivered");
    assert_eq!(broker.values(0).len(), 100);
}

#[tokio::test]
async fn keys_headers_and_timestamps_travel_and_every_record_can_have_its_own() {
    for compression in [Compression::None, Compression::Lz4] {
        let (_broker, client, rides) = start_topic(1, ProducerConfig::default().compression(compression)).await;
        let headers = [Header { key: "trace".into(), value: Some(Bytes::from_static(b"1")) }];
        let headers = [&headers[..], &[Header { key: "empty".into(), value: None }]].concat();
        let full = RecordRef::new("value").key("key").headers(&headers).timestamp(TimestampMs(1_000));
        let bare = RecordRef { timestamp: Some(TimestampMs(900)), ..RecordRef::default() };
        let deliveries = soon(rides.send_batch([full, bare])).await;
        let mut times = Vec::new();
        for delivery in deliveries.each() {
            times.push(soon(delivery).await.expect("delivered").timestamp.0);
        }
        assert_eq!(times, [1_000, 900]);
        let mut consumer = consumer(&client, StartAt::Earliest).await;
        let batch = soon(consumer.next_batch()).await.expect("a batch");
        let views: Vec<_> = batch.iter().collect();
        assert_eq!((views[0].key, views[0].value), (Some(b"key".as_slice()), Some(b"value".as_slice())));
        assert_eq!(views[0].headers().collect::<Vec<_>>(), [("trace", Some(b"1".as_slice())), ("empty", None)]);
        assert_eq!((views[1].key, views[1].value, views[1].headers().count()), (None, None, 0));
        assert_eq!(views.iter().map(|view| view.timestamp.0).collect::<Vec<_>>(), [1_000, 900]);
        assert_eq!((&**batch.topic(), batch.partition()), ("rides", 0));
        assert_eq!((batch.timestamp_type(), batch.next_offset()), (TimestampType::CreateTime, Offset(2)));
    }
}

#[tokio::test]
async fn a_topic_handle_knows_its_topic_from_the_start_and_what_became_of_it() {
    let (broker, client, rides) = start_topic(1, ProducerConfig::default()).await;
    let unknown = rides.producer().topic("nowhere").await.expect_err("no such topic");
    assert_eq!(unknown, ClientError::UnknownTopic { topic: "nowhere".into() });
    assert_eq!(
        soon(soon(rides.send(RecordRef::new("a"))).await.expect("taken")).await.unwrap().offset,
        Some(Offset(0))
    );
    assert_eq!(rides.name(), "rides");
    broker.state().topics.clear();
    let lost = soon(soon(rides.send(RecordRef::new("b"))).await.expect("taken")).await.expect_err("deleted");
    assert_eq!(lost, ClientError::UnknownTopic { topic: "rides".into() });
    let refused = soon(rides.send_batch([RecordRef::new("c")])).await;
    assert_eq!(soon(refused.all()).await, Err(lost));
    broker.create("rides", 1);
    soon(soon(rides.send_batch([RecordRef::new("d")])).await.all()).await.expect("created anew");
    assert_eq!(broker.values(0), ["d"]);
    drop(client);
}

#[tokio::test]
async fn what_one_record_at_a_time_left_of_a_batch_comes_as_a_batch() {
    let (_broker, client, rides) = start_topic(1, ProducerConfig::default()).await;
    for values in [["a", "b", "c", "d"], ["e", "f", "g", "h"]] {
        soon(rides.send_batch(values.iter().map(RecordRef::new))).await.all().await.expect("delivered");
    }
    let mut consumer = consumer(&client, StartAt::Offset(Offset(1))).await;
    assert_eq!(soon(consumer.recv()).await.unwrap().value.unwrap(), "b", "the batch starts before what is wanted");
    assert_eq!(contents(&soon(consumer.next_batch()).await.unwrap()), [(2, "c"), (3, "d")]);
    assert_eq!(consumer.position("rides", 0), Some(Offset(4)));
    assert_eq!(contents(&soon(consumer.next_batch()).await.unwrap()), [(4, "e"), (5, "f"), (6, "g"), (7, "h")]);
    soon(consumer.seek("rides", 0, StartAt::Offset(Offset(2)))).await.expect("assigned");
    assert_eq!(contents(&soon(consumer.next_batch()).await.unwrap()), [(2, "c"), (3, "d")], "from where the seek said");
    assert_eq!(soon(consumer.recv()).await.unwrap().value.unwrap(), "e", "and on");
}

#[tokio::test]
async fn memory_of_acknowledged_batches_is_used_again_and_never_seen_in_another_batch() {
    let (broker, _client, rides) = start_topic(1, ProducerConfig::default().batch_bytes(8_000)).await;
    let mut expected = Vec::new();
    for round in 0..50u8 {
        // Batches of different lengths, so that what a longer one left behind would show.
        let value = vec![round; 7_000 - 100 * usize::from(round)];
        soon(rides.send(RecordRef::new(&value))).await.expect("taken").await.expect("delivered");
        expected.push(Bytes::from(value));
    }
    assert_eq!(broker.values(0), expected);
}

#[tokio::test]
async fn owned_and_borrowed_records_of_one_producer_keep_their_common_order() {
    let (broker, _client, rides) = start_topic(1, ProducerConfig::default().linger(Duration::from_millis(20))).await;
    for number in 0..10 {
        drop(soon(rides.producer().send(OutgoingRecord::to("rides").value(format!("{}", 2 * number)))).await.unwrap());
        drop(soon(rides.send(RecordRef::new(&format!("{}", 2 * number + 1)))).await.unwrap());
    }
    soon(rides.producer().flush()).await.expect("delivered");
    assert_eq!(broker.values(0), (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}
