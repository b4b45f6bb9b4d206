//! What is old or too much goes, visibly: the log start offset moves, and readers are told where records begin.

use callboard::client::{Client, ClientError, ConsumerConfig, OutOfRange, StartAt};
use callboard::protocol::ErrorCode;
use callboard::protocol::messages::{AlterTopic, LogDescription, OffsetAt};
use callboard::testing::Node;
use callboard::types::Offset;

use crate::support::*;

async fn log(client: &Client, topic: &str) -> LogDescription {
    client.admin().describe_logs(&[(topic.to_owned(), 0)]).await.unwrap().remove(0).expect("described")
}

fn wide_values(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|n| format!("{n:01000}"))
}

#[tokio::test]
async fn beyond_retention_bytes_the_oldest_segments_go_and_readers_meet_the_new_start() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |config| config.storage.retention_check_ms = 50).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[("segment_bytes", "16384")]).await;
    send_each(&client, "t", wide_values(0..100)).await;
    let before = log(&client, "t").await;
    assert_eq!((before.log_start_offset.0, before.high_watermark.0), (0, 100));
    assert!(before.segments >= 6, "{before:?}");
    let mut slow = consumer(
        &client,
        "t",
        ConsumerConfig::default()
            .max_bytes(4_096)
            .partition_max_bytes(4_096)
            .prefetch_bytes(4_096)
            .out_of_range(OutOfRange::Error),
        StartAt::Earliest,
    )
    .await;
    assert_eq!(take(&mut slow, 1).await[0].0, 0);

    let set = [("retention_bytes".to_owned(), "40000".to_owned())].into();
    let alter = AlterTopic { name: "t".to_owned(), set, reset: Vec::new() };
    client.admin().alter_topics(&[alter]).await.unwrap().remove(0).unwrap();
    wait_until_async("segments go", || async { log(&client, "t").await.log_start_offset.0 > 0 }).await;
    wait_until_async("no more than is kept", || async { log(&client, "t").await.size_bytes < 40_000 + 17_000 }).await;
    let after = log(&client, "t").await;
    assert_eq!(after.high_watermark.0, 100);
    assert!(after.size_bytes >= 20_000, "no more than needed goes: {after:?}");
    let start = after.log_start_offset.0;
    wait_until("the files are gone", || segments(&partition_dirs(&dir, topic)[0]).len() == after.segments as usize);

    let earliest =
        client.admin().list_offsets(&[("t".to_owned(), 0, OffsetAt::Earliest)]).await.unwrap().remove(0).unwrap();
    assert_eq!(earliest.offset, Some(Offset(start)));
    let mut raw = RawClient::greeted(&node.address());
    let error = raw.fetch(topic, start - 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::OffsetOutOfRange);
    assert!(error.message.contains(&format!("{start} to 100")), "{error}");
    let kept: Vec<_> = (start..100).zip(wide_values(start..100)).collect();
    assert_eq!(read_all(&client, "t").await, kept);

    let error = soon("the slow consumer is told", async {
        loop {
            if let Err(error) = slow.recv().await {
                break error;
            }
        }
    })
    .await;
    let ClientError::OffsetOutOfRange { log_start_offset, end_offset, .. } = &error else { panic!("{error:?}") };
    assert_eq!((log_start_offset.0, end_offset.0), (start, 100));
    let mut late = consumer(&client, "t", ConsumerConfig::default(), StartAt::Offset(Offset(0))).await;
    assert_eq!(take(&mut late, 100 - start as usize).await, kept, "by default a reader goes on where records begin");
    let latest = ConsumerConfig::default().out_of_range(OutOfRange::Latest);
    let mut last = consumer(&client, "t", latest, StartAt::Offset(Offset(0))).await;
    let writing = tokio::spawn({
        let client = client.clone();
        async move {
            loop {
                send_each(&client, "t", ["new".to_owned()]).await;
            }
        }
    });
    assert_eq!(take(&mut last, 1).await[0].1, "new");
    writing.abort();

    drop(client);
    node.stop().unwrap();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    assert!(log(&connect(&node.address()).await, "t").await.log_start_offset.0 >= start, "what is gone stays gone");
    node.stop().unwrap();
}

#[tokio::test]
async fn what_is_older_than_retention_ms_goes_and_what_is_young_stays() {
    let node = Node::start_with(|config| config.storage.retention_check_ms = 50).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[("segment_bytes", "16384"), ("retention_ms", "3600000")]).await;
    let mut raw = RawClient::greeted(&node.address());
    let old = "o".repeat(1_000);
    for _ in 0..40 {
        // Batches by hand carry a time of 1970.
        raw.produce(topic, batch(&[&old])).unwrap();
    }
    send_each(&client, "t", wide_values(40..80)).await;
    wait_until_async("the old ones go", || async { log(&client, "t").await.log_start_offset.0 >= 24 }).await;
    let start = log(&client, "t").await.log_start_offset.0;
    assert!(start <= 40 + 1, "a segment with a young record stays, log start is {start}");
    let kept = read_all(&client, "t").await;
    assert_eq!(kept.iter().map(|record| record.0).collect::<Vec<_>>(), (start..80).collect::<Vec<_>>());
    assert_eq!(kept.last().map(|record| record.1.clone()), wide_values(79..80).next());
}
