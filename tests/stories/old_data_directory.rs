//! A data directory that an earlier release wrote opens: every record is there, retries are still no duplicates, appends go
//! on. The directories were made by scripts/data-dir-fixture and are kept as they were; so is what their own release read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use callboard::client::{Client, ConsumedRecord, ConsumerConfig, StartAt};
use callboard::testing::Node;
use callboard::types::record_batch::RecordBatch;
use serde_json::{Value, json};

use crate::support::*;

/// The generations there are, oldest first. A new one is added when a format changes; none ever goes.
const GENERATIONS: [&str; 2] = ["data-dir-v1", "data-dir-v2"];

/// Where the directories of a generation lie.
pub fn fixture(generation: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(generation)
}

/// Copies a directory and all in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of one of the directories, to boot a node on.
pub fn copied(generation: &str, name: &str) -> Directory {
    let dir = Directory::new();
    copy(&fixture(generation).join(name), &dir);
    dir
}

/// What the release that wrote the directory read from it, by topic, each record in the form of `--format json`.
fn expected(generation: &str, name: &str) -> BTreeMap<String, Vec<Value>> {
    let text = fs::read_to_string(fixture(generation).join(format!("{name}.jsonl"))).unwrap();
    let mut topics: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        topics.entry(record["topic"].as_str().unwrap().to_owned()).or_default().push(record);
    }
    topics.values_mut().for_each(|records| records.sort_by_key(place));
    topics
}

fn place(record: &Value) -> (u64, u64) {
    (record["partition"].as_u64().unwrap(), record["offset"].as_u64().unwrap())
}

fn as_json(record: &ConsumedRecord) -> Value {
    let string = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map(|bytes| text(bytes));
    let headers: Vec<_> =
        record.headers.iter().map(|header| json!({"key": header.key, "value": string(&header.value)})).collect();
    json!({"topic": &*record.topic, "partition": record.partition, "offset": record.offset.0,
        "timestamp": record.timestamp.0, "key": string(&record.key), "value": string(&record.value), "headers": headers})
}

/// All that a topic holds, by partition and offset.
async fn read_topic(client: &Client, topic: &str) -> Vec<Value> {
    let partitions = partitions(client, topic).await;
    let places: Vec<_> = (0..partitions).map(|number| (topic.to_owned(), number)).collect();
    let logs = client.admin().describe_logs(&places).await.unwrap();
    let count: u64 =
        logs.into_iter().map(|log| log.expect("online")).map(|l| l.high_watermark.0 - l.log_start_offset.0).sum();
    let mut consumer = client.consumer(ConsumerConfig::default()).await.unwrap();
    consumer.assign(topic, None, StartAt::Earliest).await.unwrap();
    let mut records = Vec::new();
    for _ in 0..count {
        records.push(as_json(&soon("the next record", consumer.recv()).await.unwrap()));
    }
    records.sort_by_key(place);
    records
}

async fn partitions(client: &Client, topic: &str) -> u32 {
    let described = client.admin().describe_topics(Some(&[topic.to_owned()])).await.unwrap().remove(0).unwrap();
    u32::try_from(described.partitions.len()).unwrap()
}

async fn check_all(client: &Client, expected: &BTreeMap<String, Vec<Value>>, story: &str) {
    assert_eq!(client.admin().list_topics().await.unwrap(), ["empty", "orders", "packed", "relaxed"], "{story}");
    assert_eq!((partitions(client, "empty").await, read_topic(client, "empty").await), (3, Vec::new()), "{story}");
    for (topic, records) in expected {
        assert_eq!(&read_topic(client, topic).await, records, "{topic} of {story}");
    }
}

/// The last batch of a partition as it lies in its newest segment.
fn last_batch(partition: &Path) -> RecordBatch {
    let newest = segments(partition).into_iter().next_back().unwrap();
    let mut bytes = bytes::Bytes::from(fs::read(newest).unwrap());
    let mut last = None;
    while !bytes.is_empty() {
        last = Some(RecordBatch::split_from(&mut bytes).unwrap());
    }
    last.unwrap()
}

#[tokio::test]
async fn a_directory_of_an_earlier_release_opens_with_every_record_and_takes_more() {
    for (generation, name) in GENERATIONS.iter().flat_map(|generation| [(generation, "clean"), (generation, "killed")])
    {
        let story = format!("{generation}/{name}");
        let (dir, mut expected) = (copied(generation, name), expected(generation, name));
        let node = Node::start_in(&dir, |_| {}).unwrap();
        let client = connect(&node.address()).await;
        check_all(&client, &expected, &story).await;

        let orders = client.admin().describe_topics(Some(&["orders".to_owned()])).await.unwrap().remove(0).unwrap().id;
        let partition = partition_dirs(&dir, orders).remove(0);
        assert!(segments(&partition).len() > 1, "{story}: several segments");
        let batch = last_batch(&partition);
        assert!(batch.header.producer_id.0 >= 0, "{story}: an idempotent producer's");
        let mut raw = RawClient::greeted(&node.address());
        let repeated = raw.produce(orders, batch.to_vec().into()).unwrap_or_else(|error| panic!("{story}: {error}"));
        assert_eq!(repeated.base_offset, batch.header.base_offset, "{story}: a retry is no duplicate");

        send_each(&client, "orders", ["new".to_owned()]).await;
        let appended = read_topic(&client, "orders").await;
        let new: Vec<_> = appended.iter().filter(|record| record["value"] == "new").cloned().collect();
        assert_eq!(new.len(), 1, "{story}");
        let records = expected.get_mut("orders").unwrap();
        records.extend(new);
        records.sort_by_key(place);
        check_all(&client, &expected, &story).await;
        node.stop().unwrap();

        let node = Node::start_in(&dir, |_| {}).unwrap();
        check_all(&connect(&node.address()).await, &expected, &format!("{story}, started again")).await;
        node.stop().unwrap();
    }
}

#[test]
fn the_directories_are_small_and_were_left_as_they_are_called() {
    for generation in GENERATIONS {
        let dir = fixture(generation);
        assert!(dir.join("clean/clean-stop").exists() && !dir.join("killed/clean-stop").exists());
        let mut bytes = 0;
        let mut folders = vec![dir];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() { folders.push(entry.path()) } else { bytes += metadata.len() }
            }
        }
        assert!(bytes < 200_000, "{generation} has {bytes} bytes");
    }
}
