//! Records that were deleted on request are gone, at once and for good, and nothing else is.

use callboard::client::{Client, ClientError};
use callboard::protocol::ErrorCode;
use callboard::protocol::messages::{DeleteBefore, DeleteRecords, DeleteRecordsPartition, LogDescription};
use callboard::testing::Node;
use callboard::types::{Offset, PartitionIndex, TopicId};

use crate::support::*;

async fn log(client: &Client) -> LogDescription {
    client.admin().describe_logs(&[("t".to_owned(), 0)]).await.unwrap().remove(0).expect("described")
}

async fn delete(client: &Client, before: DeleteBefore) -> Result<u64, ErrorCode> {
    let deleted = client.admin().delete_records(&[("t".to_owned(), 0, before)]).await.expect("the node answers");
    deleted.into_iter().next().expect("one outcome").map(|start| start.0).map_err(|error| error.code)
}

fn wide_values(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|n| format!("{n:01000}"))
}

#[tokio::test]
async fn deleted_records_are_gone_with_their_segments_and_stay_so_after_a_restart() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[("segment_bytes", "16384")]).await;
    send_each(&client, "t", wide_values(0..60)).await;
    let before = log(&client).await;
    assert!(before.segments >= 4, "{before:?}");

    assert_eq!(delete(&client, DeleteBefore::Offset(Offset(33))).await, Ok(33));
    let after = log(&client).await;
    assert_eq!((after.log_start_offset.0, after.high_watermark.0), (33, 60));
    assert!(after.segments < before.segments && after.size_bytes < before.size_bytes, "{after:?}");
    wait_until("the files are gone", || segments(&partition_dirs(&dir, topic)[0]).len() == after.segments as usize);
    let mut raw = RawClient::greeted(&node.address());
    assert_eq!(raw.fetch(topic, 32).unwrap_err().code, ErrorCode::OffsetOutOfRange);
    let kept: Vec<_> = (33..60).zip(wide_values(33..60)).collect();
    assert_eq!(read_all(&client, "t").await, kept);
    assert_eq!(delete(&client, DeleteBefore::Offset(Offset(7))).await, Ok(33), "asking for less changes nothing");
    assert_eq!(delete(&client, DeleteBefore::Offset(Offset(61))).await, Err(ErrorCode::OffsetOutOfRange));
    node.stop().unwrap();

    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    assert_eq!(read_all(&client, "t").await, kept);
    assert_eq!(delete(&client, DeleteBefore::HighWatermark).await, Ok(60));
    let empty = log(&client).await;
    assert_eq!((empty.log_start_offset.0, empty.size_bytes, empty.segments), (60, 0, 0), "the last segment went, too");
    send_each(&client, "t", ["on".to_owned()]).await;
    assert_eq!(read_all(&client, "t").await, [(60, "on".to_owned())]);
    node.stop().unwrap();
}

#[tokio::test]
async fn each_partition_of_a_request_is_answered_for_itself() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 2, &[]).await;
    send_each(&client, "t", values(0..5)).await;
    let nowhere = TopicId(uuid::Uuid::from_u128(1));
    let place =
        |topic, partition, before| DeleteRecordsPartition { topic, partition: PartitionIndex(partition), before };
    let partitions = vec![
        place(topic, 0, DeleteBefore::Offset(Offset(2))),
        place(topic, 1, DeleteBefore::HighWatermark),
        place(topic, 9, DeleteBefore::HighWatermark),
        place(nowhere, 0, DeleteBefore::HighWatermark),
    ];
    let mut raw = RawClient::greeted(&node.address());
    let reply = raw.ask(&DeleteRecords { timeout_ms: 10_000, partitions: partitions.clone() }).unwrap();
    let outcomes: Vec<_> =
        reply.partitions.into_iter().map(|o| o.into_result().map(|start| start.0).map_err(|e| e.code)).collect();
    let unknown = Err(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(outcomes, [Ok(2), Ok(0), unknown, unknown]);
    let twice = [partitions[0], partitions[0]].to_vec();
    let error = raw.ask(&DeleteRecords { timeout_ms: 10_000, partitions: twice }).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    let missing = client.admin().delete_records(&[("t".to_owned(), 7, DeleteBefore::HighWatermark)]).await.unwrap_err();
    assert!(matches!(missing, ClientError::UnknownPartition { partition: 7, .. }), "{missing}");
}
