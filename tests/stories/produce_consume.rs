//! Records go in and come out: acknowledgements, retries that are no duplicates, ranges, epochs, waiting.

use std::time::Duration;

use callboard::client::{
    ClientError, Compression, ConsumerConfig, OutOfRange, OutgoingRecord, ProducerConfig, StartAt,
};
use callboard::protocol::ErrorCode;
use callboard::protocol::messages::{
    Acks, DescribeLogs, Fetch, FetchPartition, InitProducer, ListOffsets, ListOffsetsPartition, OffsetAt,
};
use callboard::testing::Node;
use callboard::types::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, TimestampMs, TopicId};

use crate::support::proxy::Proxy;
use crate::support::*;

#[tokio::test]
async fn acks_0_is_never_answered_1_when_written_and_all_when_synced() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    raw.send(&produce(topic, 0, None, Acks::None), vec![batch(&["none"])]);
    let asked = raw.send(&produce(topic, 0, None, Acks::Leader), vec![batch(&["leader"])]);
    assert_eq!(raw.frame().head.correlation_id, asked, "the first thing answered is the second request");
    let placed = raw.produce(topic, batch(&["all"])).unwrap();
    assert_eq!(placed.base_offset.0, 2);
    let expected: Vec<_> = ["none", "leader", "all"].iter().zip(0..).map(|(v, n)| (n, (*v).to_owned())).collect();
    assert_eq!(read_all(&client, "t").await, expected);
    // What is refused with acks = 0 is not appended, and nobody hears of it.
    raw.send(&produce(topic, 0, None, Acks::None), vec![batch(&["x"]).slice(..40)]);
    raw.expect_silence(Duration::from_millis(50));

    for acks in [Acks::None, Acks::Leader, Acks::All] {
        let producer = client.producer(ProducerConfig::default().acks(acks)).await.unwrap();
        let sent = producer.send(OutgoingRecord::to("t").value(format!("{acks:?}"))).await.unwrap().await.unwrap();
        assert_eq!(sent.offset.is_some(), acks != Acks::None);
        producer.close().await.unwrap();
    }
    node.stop().unwrap();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    assert_eq!(
        read_all(&connect(&node.address()).await, "t").await.len(),
        6,
        "after a clean stop all of them are there"
    );
}

#[tokio::test]
async fn keys_headers_times_and_nothing_come_through_every_compression_unchanged() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    create(&client, "t", 3, &[]).await;
    let kinds = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for (number, compression) in (0..).zip(kinds) {
        let producer = client.producer(ProducerConfig::default().compression(compression)).await.unwrap();
        for n in 0..100_i64 {
            let record = OutgoingRecord::to("t")
                .partition(1)
                .key(format!("key {n}"))
                .value(vec![u8::try_from(n).unwrap(); n as usize * 10])
                .header("kind", format!("{compression:?}"))
                .timestamp(TimestampMs(1_000_000 * number + n));
            drop(producer.send(record).await.unwrap());
        }
        producer.send(OutgoingRecord::to("t").partition(1)).await.unwrap().await.unwrap();
        producer.close().await.unwrap();
    }
    let mut reader = client.consumer(ConsumerConfig::default()).await.unwrap();
    reader.assign("t", None, StartAt::Earliest).await.unwrap();
    let mut offset = 0;
    for (number, compression) in (0..).zip(kinds) {
        for n in 0..100_i64 {
            let record = soon("a record", reader.recv()).await.unwrap();
            assert_eq!((record.offset.0, record.partition), (offset, 1));
            assert_eq!(record.key.as_deref(), Some(format!("key {n}").as_bytes()));
            assert_eq!(record.value.as_deref(), Some(&vec![u8::try_from(n).unwrap(); n as usize * 10][..]));
            assert_eq!(record.headers[0].value.as_deref(), Some(format!("{compression:?}").as_bytes()));
            assert_eq!(record.timestamp, TimestampMs(1_000_000 * number + n));
            offset += 1;
        }
        let empty = soon("a record", reader.recv()).await.unwrap();
        assert_eq!((empty.key, empty.value), (None, None));
        offset += 1;
    }
}

#[tokio::test]
async fn a_retry_after_a_lost_reply_is_no_duplicate_not_even_across_a_restart() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let proxy = Proxy::to(&node.address());
    let direct = connect(&node.address()).await;
    create(&direct, "t", 1, &[]).await;
    // Clients are sent to the advertised address: let that be the proxy's.
    node.stop().unwrap();
    let start = || {
        let advertised = proxy.address();
        Node::start_in(&dir, |config| config.listener.native.advertise = Some(advertised)).unwrap()
    };
    let mut node = start();
    proxy.lead_to(&node.address());
    let client = connect(&proxy.address()).await;
    let producer = client.producer(ProducerConfig::default()).await.unwrap();
    let send = |n: u64| {
        let producer = producer.clone();
        async move {
            let record = OutgoingRecord::to("t").partition(0).value(format!("value {n}"));
            let sent = producer.send(record).await.expect("taken").await.expect("acknowledged in the end");
            assert_eq!(sent.offset, Some(Offset(n)), "the retry is told where the original went");
        }
    };
    for n in 0..10 {
        if n % 3 == 1 {
            proxy.lose_next_reply();
        }
        soon("a record", send(n)).await;
    }
    assert!(proxy.lost() >= 3, "{} replies were lost", proxy.lost());

    let lost_before = proxy.lost();
    proxy.lose_next_reply();
    let sending = tokio::spawn(send(10));
    wait_until_async("the reply is lost", || async { proxy.lost() > lost_before }).await;
    tokio::task::spawn_blocking(move || node.stop()).await.unwrap().expect("a clean stop");
    node = start();
    proxy.lead_to(&node.address());
    soon("the retry at the restarted node", sending).await.unwrap();
    soon("the next record", send(11)).await;
    producer.close().await.unwrap();
    assert_eq!(read_all(&connect(&proxy.address()).await, "t").await, numbered(0..12));
    node.stop().unwrap();
}

#[tokio::test]
async fn sequence_numbers_are_judged_and_remembered_across_a_restart() {
    let dir = Directory::new();
    let mut node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    let me = raw.ask(&InitProducer { current: None }).unwrap();
    let (id, epoch) = (me.producer_id.0, me.producer_epoch.0);
    for restart in [true, false] {
        let sequence = |n: i32| sequenced_batch(id, epoch, n, &["a", "b"]);
        if raw.fetch(topic, 0).unwrap().1.is_empty() {
            assert_eq!(raw.produce(topic, sequence(0)).unwrap().base_offset.0, 0);
            assert_eq!(raw.produce(topic, sequence(2)).unwrap().base_offset.0, 2);
        }
        assert_eq!(raw.produce(topic, sequence(0)).unwrap().base_offset.0, 0, "the place of the original");
        assert_eq!(raw.produce(topic, sequence(2)).unwrap().base_offset.0, 2);
        assert_eq!(code_of(raw.produce(topic, sequence(6))), ErrorCode::OutOfOrderSequence);
        let stranger = sequenced_batch(id + 1_000, 0, 5, &["x"]);
        assert_eq!(code_of(raw.produce(topic, stranger)), ErrorCode::UnknownProducer);
        if restart {
            node.stop().unwrap();
            node = Node::start_in(&dir, |_| {}).unwrap();
            raw = RawClient::greeted(&node.address());
        }
    }
    let next = raw.ask(&InitProducer { current: Some((me.producer_id, me.producer_epoch)) }).unwrap();
    assert_eq!((next.producer_id, next.producer_epoch), (me.producer_id, ProducerEpoch(epoch + 1)));
    assert_eq!(raw.produce(topic, sequenced_batch(id, epoch + 1, 0, &["c"])).unwrap().base_offset.0, 4);
    assert_eq!(code_of(raw.produce(topic, sequenced_batch(id, epoch, 4, &["old"]))), ErrorCode::ProducerFenced);
    let another = raw.ask(&InitProducer { current: None }).unwrap();
    assert_ne!(another.producer_id, me.producer_id, "ids are not handed out twice, restarts included");
    node.stop().unwrap();
}

#[tokio::test]
async fn unknown_topics_and_partitions_are_named_in_every_request() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 2, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    for (topic, partition) in [(TopicId::random(), 0), (topic, 2), (topic, u32::MAX)] {
        let (produced, _) = raw.ask_with(&produce(topic, partition, None, Acks::All), vec![batch(&["x"])]).unwrap();
        let fetched = raw.ask(&fetch(topic, partition, 0)).unwrap();
        let partition = PartitionIndex(partition);
        let entry = ListOffsetsPartition { topic, partition, at: OffsetAt::Latest };
        let listed = raw.ask(&ListOffsets { partitions: vec![entry] }).unwrap();
        let described = raw.ask(&DescribeLogs { partitions: vec![(topic, partition)] }).unwrap();
        let codes = [
            code_of(produced.partitions.into_iter().next().unwrap().into_result()),
            code_of(fetched.partitions.into_iter().next().unwrap().into_result()),
            code_of(listed.partitions.into_iter().next().unwrap().into_result()),
            code_of(described.partitions.into_iter().next().unwrap().into_result()),
        ];
        assert_eq!(codes, [ErrorCode::UnknownTopicOrPartition; 4]);
    }
    let mut reader = client.consumer(ConsumerConfig::default()).await.unwrap();
    let unknown = reader.assign("nowhere", None, StartAt::Earliest).await.unwrap_err();
    assert!(matches!(&unknown, ClientError::UnknownTopic { topic } if topic == "nowhere"), "{unknown:?}");
    let partition = reader.assign("t", Some(vec![2]), StartAt::Earliest).await.unwrap_err();
    assert_eq!(partition.to_string(), "topic 't' has no partition 2: it has 2, numbered from 0");
    let producer = client.producer(ProducerConfig::default()).await.unwrap();
    assert!(matches!(
        producer.send(OutgoingRecord::to("nowhere")).await.unwrap_err(),
        ClientError::UnknownTopic { .. }
    ));
}

#[tokio::test]
async fn a_read_outside_the_partition_follows_the_consumers_policy() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    send_each(&client, "t", values(0..5)).await;
    let mut raw = RawClient::greeted(&node.address());
    let error = raw.fetch(topic, 6).unwrap_err();
    assert_eq!(error.code, ErrorCode::OffsetOutOfRange);
    assert!(error.message.contains("0 to 5"), "{error}");
    assert_eq!(raw.fetch(topic, 5).unwrap().1, [], "the end itself is where the next record will be");
    assert_eq!(raw.fetch(topic, 3).unwrap().1, numbered(3..5));

    let beyond = StartAt::Offset(Offset(1_000));
    let with = |policy| ConsumerConfig::default().out_of_range(policy);
    let mut earliest = consumer(&client, "t", with(OutOfRange::Earliest), beyond).await;
    assert_eq!(take(&mut earliest, 5).await, numbered(0..5));
    let mut strict = consumer(&client, "t", with(OutOfRange::Error), beyond).await;
    let error = soon("the refusal", strict.recv()).await.unwrap_err();
    let ClientError::OffsetOutOfRange { offset, log_start_offset, end_offset, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((offset.0, log_start_offset.0, end_offset.0), (1_000, 0, 5));
    assert!(error.to_string().contains("holds 0 up to but not 5"), "{error}");
    strict.seek("t", 0, StartAt::Offset(Offset(4))).await.unwrap();
    assert_eq!(take(&mut strict, 1).await, numbered(4..5), "after a seek it goes on");
    let mut latest = consumer(&client, "t", with(OutOfRange::Latest), beyond).await;
    // It reads from the end that it found: wait until it has looked, which a raw fetch cannot see.
    let writing = tokio::spawn({
        let client = client.clone();
        async move {
            for n in 5.. {
                send_each(&client, "t", values(n..n + 1)).await;
            }
        }
    });
    let (offset, value) = take(&mut latest, 1).await.remove(0);
    assert!(offset >= 5 && value == format!("value {offset}"), "{offset}: {value}");
    writing.abort();
}

#[tokio::test]
async fn a_leader_epoch_that_is_over_or_not_known_yet_is_refused() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    node.stop().unwrap();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    // A client asks again until the broker has its lease.
    send_each(&client, "t", values(0..1)).await;
    let described = client.admin().describe_topics(None).await.unwrap().remove(0).unwrap();
    let current = described.partitions[0].leader_epoch;
    assert!(current > LeaderEpoch(0), "every election raises the epoch, of the same broker too");
    let mut raw = RawClient::greeted(&node.address());
    for (epoch, code) in [
        (current.0 - 1, Some(ErrorCode::FencedLeaderEpoch)),
        (current.0, None),
        (current.0 + 1, Some(ErrorCode::UnknownLeaderEpoch)),
    ] {
        let (reply, _) = raw.ask_with(&produce(topic, 0, Some(epoch), Acks::All), vec![batch(&["x"])]).unwrap();
        let produced = reply.partitions.into_iter().next().unwrap().into_result();
        assert_eq!(produced.err().map(|error| error.code), code);
        let mut request = fetch(topic, 0, 0);
        request.partitions[0].leader_epoch = Some(LeaderEpoch(epoch));
        let fetched = raw.ask(&request).unwrap().partitions.into_iter().next().unwrap().into_result();
        assert_eq!(fetched.err().map(|error| error.code), code);
    }
    node.stop().unwrap();
}

#[tokio::test]
async fn a_fetch_waits_for_enough_over_all_its_partitions_and_no_longer_than_it_may() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 3, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    let entry =
        |partition: u32| FetchPartition { partition: PartitionIndex(partition), ..fetch(topic, 0, 0).partitions[0] };
    let wide = |min_bytes, max_wait_ms| Fetch {
        max_wait_ms,
        min_bytes,
        max_bytes: 1 << 20,
        partitions: (0..3).map(entry).collect(),
    };
    let empty = raw.ask_with(&wide(1, 100), Vec::new()).unwrap();
    assert_eq!(empty.1.iter().map(bytes::Bytes::len).collect::<Vec<_>>(), [0, 0, 0], "its time was over");

    let one = batch(&["x".repeat(300).as_str()]);
    let waiting = raw.send(&wide(2 * u32::try_from(one.len()).unwrap(), 60_000), Vec::new());
    let mut writer = RawClient::greeted(&node.address());
    let put = |writer: &mut RawClient, partition| {
        writer.ask_with(&produce(topic, partition, None, Acks::All), vec![one.clone()]).unwrap();
    };
    put(&mut writer, 1);
    raw.expect_silence(Duration::from_millis(100));
    put(&mut writer, 2);
    let frame = raw.frame();
    assert_eq!(frame.head.correlation_id, waiting);
    let sizes: Vec<_> = frame.attachments.iter().map(bytes::Bytes::len).collect();
    assert_eq!(sizes, [0, one.len(), one.len()], "what came first is in the answer as well");

    let mut broken = wide(1 << 19, 60_000);
    broken.partitions[0].offset = Offset(77);
    let reply = raw.ask(&broken).unwrap();
    let outcomes: Vec<_> =
        reply.partitions.into_iter().map(|o| o.into_result().map(|_| ()).map_err(|e| e.code)).collect();
    assert_eq!(outcomes, [Err(ErrorCode::OffsetOutOfRange), Ok(()), Ok(())], "an error is answered at once");

    let tiny = Fetch { max_bytes: 0, ..wide(1, 1_000) };
    let (_, attachments) = raw.ask_with(&tiny, Vec::new()).unwrap();
    assert!(attachments.iter().any(|records| !records.is_empty()), "one batch comes whatever the limit");
}

#[tokio::test]
async fn offsets_are_found_by_time_and_position() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    create(&client, "t", 1, &[]).await;
    let producer = client.producer(ProducerConfig::default()).await.unwrap();
    for n in 0..10 {
        let record = OutgoingRecord::to("t").value(format!("value {n}")).timestamp(TimestampMs(1_000 + n * 10));
        producer.send(record).await.unwrap().await.unwrap();
    }
    let places = [
        OffsetAt::Earliest,
        OffsetAt::Latest,
        OffsetAt::MaxTimestamp,
        OffsetAt::Timestamp(TimestampMs(0)),
        OffsetAt::Timestamp(TimestampMs(1_041)),
        OffsetAt::Timestamp(TimestampMs(1_091)),
    ];
    let asked: Vec<_> = places.iter().map(|at| ("t".to_owned(), 0, *at)).collect();
    let found: Vec<_> = client
        .admin()
        .list_offsets(&asked)
        .await
        .unwrap()
        .into_iter()
        .map(|l| l.unwrap().offset.map(|o| o.0))
        .collect();
    assert_eq!(found, [Some(0), Some(10), Some(9), Some(0), Some(5), None]);
    let mut reader = consumer(&client, "t", ConsumerConfig::default(), StartAt::Timestamp(TimestampMs(1_041))).await;
    assert_eq!(take(&mut reader, 5).await, numbered(5..10));
}

#[tokio::test]
async fn many_records_through_many_partitions_keep_their_order_by_key() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    create(&client, "t", 4, &[]).await;
    let producer = client.producer(ProducerConfig::default().linger(Duration::from_millis(1))).await.unwrap();
    let mut deliveries = Vec::new();
    for n in 0..20_000_u32 {
        let record = OutgoingRecord::to("t").key(format!("user{}", n % 7)).value(n.to_string());
        deliveries.push(producer.send(record).await.unwrap());
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    let mut reader = client.consumer(ConsumerConfig::default()).await.unwrap();
    reader.assign("t", None, StartAt::Earliest).await.unwrap();
    let mut next: std::collections::HashMap<String, u32> = std::collections::HashMap::new();
    for _ in 0..20_000 {
        let record = soon("a record", reader.recv()).await.unwrap();
        let key = text(&record.key.unwrap());
        let value: u32 = text(&record.value.unwrap()).parse().unwrap();
        let expected = next.entry(key.clone()).or_insert_with(|| key[4..].parse().unwrap());
        assert_eq!(value, *expected, "{key}");
        *expected += 7;
    }
}
