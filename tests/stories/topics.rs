//! The life of topics: names, settings, files, and what those who use a deleted one are told.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use callboard::actors::controller::{KnownTopics, Rehearsed, rehearse};
use callboard::actors::node::NodeError;
use callboard::client::{Client, ClientError, ConsumerConfig, OutgoingRecord, ProducerConfig, StartAt};
use callboard::protocol::ErrorCode;
use callboard::protocol::messages::{Acks, AlterTopic, Fetch, Metadata, TopicDescription};
use callboard::storage::data_dir::{METADATA_DIR, look};
use callboard::storage::disk::RealDisk;
use callboard::testing::Node;

use crate::support::*;

/// The metadata as a stopped node left it.
fn metadata_of(data_dir: &Path) -> KnownTopics {
    let meta = look(&RealDisk, data_dir).expect("a data directory").meta.expect("with an identity");
    match rehearse(&RealDisk, &data_dir.join(METADATA_DIR), &meta, None).expect("whole metadata") {
        Rehearsed::Known(known) => known,
        other => panic!("{other:?}"),
    }
}

async fn describe(client: &Client, name: &str) -> TopicDescription {
    client.admin().describe_topics(Some(&[name.to_owned()])).await.unwrap().remove(0).expect("described")
}

fn setting<'a>(topic: &'a TopicDescription, key: &str) -> (&'a str, bool) {
    let entry = topic.config.iter().find(|entry| entry.key == key).expect("a setting");
    (&entry.value, entry.overridden)
}

fn change(name: &str, set: &[(&str, &str)], reset: &[&str]) -> AlterTopic {
    let set: BTreeMap<_, _> = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    AlterTopic { name: name.to_owned(), set, reset: reset.iter().map(|key| (*key).to_owned()).collect() }
}

#[tokio::test]
async fn names_that_are_no_names_are_refused_wherever_they_come() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    let admin = client.admin();
    let before = std::fs::read_dir(node.data_dir()).unwrap().count();
    let too_long = "x".repeat(250);
    for name in ["", too_long.as_str(), ".", "..", "../x", "a/b", "a\\b", "a\0b", "naïve", "two words", "line\nbreak"]
    {
        let owned = [name.to_owned()];
        let created = admin.create_topics(&[new_topic(name, 1, &[])], false).await.unwrap().remove(0);
        let error = created.expect_err(name);
        assert_eq!(error.code, ErrorCode::InvalidTopicName, "{name:?}: {error}");
        let codes = [
            code_of(admin.delete_topics(&owned).await.unwrap().remove(0)),
            code_of(admin.alter_topics(&[change(name, &[], &[])]).await.unwrap().remove(0)),
            code_of(admin.describe_topics(Some(&owned)).await.unwrap().remove(0)),
            code_of(admin.metadata(Some(&owned)).await.unwrap().topics.remove(0).topic.into_result()),
        ];
        assert_eq!(codes, [ErrorCode::InvalidTopicName; 4], "{name:?}");
    }
    let internal = admin.create_topics(&[new_topic("__x", 1, &[])], false).await.unwrap().remove(0).unwrap_err();
    assert_eq!(internal.code, ErrorCode::InvalidTopicName);
    assert!(internal.message.contains("internal"), "{internal}");
    assert_eq!(std::fs::read_dir(node.data_dir()).unwrap().count(), before, "no file came of it");
    serves_others(&node);
}

#[tokio::test]
async fn a_name_of_249_bytes_is_created_written_read_survives_a_restart_and_is_deleted_with_its_files() {
    let dir = Directory::new();
    let name = format!("{}.-_9", "Long".repeat(62))[..249].to_owned();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, &name, 2, &[]).await;
    send_each(&client, &name, values(0..5)).await;
    assert_eq!(read_all(&client, &name).await, numbered(0..5));
    node.stop().unwrap();

    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    assert_eq!(client.admin().list_topics().await.unwrap(), std::slice::from_ref(&name));
    assert_eq!(describe(&client, &name).await.id, topic);
    assert_eq!(read_all(&client, &name).await, numbered(0..5));
    send_each(&client, &name, values(5..6)).await;
    assert_eq!(read_all(&client, &name).await, numbered(0..6));

    assert_eq!(partition_dirs(&dir, topic).len(), 2);
    delete(&client, &name).await;
    wait_until("its files are gone", || partition_dirs(&dir, topic).is_empty());
    assert_eq!(client.admin().list_topics().await.unwrap(), Vec::<String>::new());
    node.stop().unwrap();
}

#[tokio::test]
async fn a_topic_is_created_described_altered_deleted_and_created_anew() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let admin = client.admin();

    let checked = admin.create_topics(&[new_topic("rides", 3, &[])], true).await.unwrap().remove(0).unwrap();
    assert_eq!((checked.partitions, checked.replication_factor), (3, 1));
    assert_eq!(admin.list_topics().await.unwrap(), Vec::<String>::new(), "checking creates nothing");

    let first = create(&client, "rides", 3, &[("retention_ms", "5000000")]).await;
    let again = admin.create_topics(&[new_topic("rides", 1, &[])], false).await.unwrap().remove(0);
    assert_eq!(code_of(again), ErrorCode::TopicExists);
    let described = describe(&client, "rides").await;
    assert_eq!((described.id, described.partitions.len()), (first, 3));
    assert_eq!(setting(&described, "retention_ms"), ("5000000", true));
    assert_eq!(setting(&described, "flush"), ("always", false));

    let altered =
        admin.alter_topics(&[change("rides", &[("flush", "os")], &["retention_ms"])]).await.unwrap().remove(0).unwrap();
    assert!(altered.iter().any(|entry| entry.key == "flush" && entry.value == "os" && entry.overridden), "{altered:?}");
    assert!(!setting(&describe(&client, "rides").await, "retention_ms").1);
    for (wrong, says) in [
        (change("rides", &[("flush", "sometimes")], &[]), "flush"),
        (change("rides", &[("segment_bytes", "1")], &[]), "segment_bytes"),
        (change("rides", &[("retention_msec", "1")], &[]), "did you mean"),
        (change("rides", &[], &["nothing_like_it"]), "nothing_like_it"),
        (change("rides", &[("min_insync_replicas", "2")], &[]), "min_insync_replicas"),
    ] {
        let error = admin.alter_topics(&[wrong]).await.unwrap().remove(0).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(error.message.contains(says), "{error}");
    }

    send_each(&client, "rides", values(0..3)).await;
    delete(&client, "rides").await;
    wait_until("its files are gone", || partition_dirs(&dir, first).is_empty());
    assert_eq!(
        code_of(admin.delete_topics(&["rides".to_owned()]).await.unwrap().remove(0)),
        ErrorCode::UnknownTopicOrPartition
    );

    let second = create(&client, "rides", 1, &[]).await;
    assert_ne!(first, second);
    send_each(&client, "rides", ["new".to_owned()]).await;
    assert_eq!(read_all(&client, "rides").await, [(0, "new".to_owned())], "no record of the old one is in the new one");
    let mut raw = RawClient::greeted(&node.address());
    assert_eq!(code_of(raw.produce(first, batch(&["late"]))), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(code_of(raw.fetch(first, 0)), ErrorCode::UnknownTopicOrPartition);

    node.stop().unwrap();
    let known = metadata_of(&dir);
    assert!(known.deleted.is_empty(), "the files are gone, so is the tombstone: {:?}", known.deleted);
    assert_eq!(known.topics.iter().map(|topic| topic.id).collect::<Vec<_>>(), [second]);
}

#[tokio::test]
async fn the_flush_policy_takes_effect_when_it_is_altered() {
    let node = Node::start_with(|config| config.storage.checkpoint_interval_ms = 600_000).unwrap();
    let client = connect(&node.address()).await;
    create(&client, "t", 1, &[("flush", "os")]).await;
    send_each(&client, "t", values(0..5)).await;
    let log = || async { client.admin().describe_logs(&[("t".to_owned(), 0)]).await.unwrap().remove(0).unwrap() };
    let before = log().await;
    assert_eq!(
        (before.log_end_offset.0, before.high_watermark.0, before.durable_end_offset.0),
        (5, 5, 0),
        "written, not synced"
    );
    client.admin().alter_topics(&[change("t", &[("flush", "always")], &[])]).await.unwrap().remove(0).unwrap();
    send_each(&client, "t", values(5..6)).await;
    assert_eq!(log().await.durable_end_offset.0, 6, "now acknowledged means synced");
    client
        .admin()
        .alter_topics(&[change("t", &[("flush", "interval"), ("flush_interval_ms", "20")], &[])])
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    send_each(&client, "t", values(6..7)).await;
    wait_until_async("the interval's sync", || async { log().await.durable_end_offset.0 == 7 }).await;
}

#[tokio::test]
async fn those_who_use_a_deleted_topic_are_told_so() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "gone", 1, &[]).await;
    send_each(&client, "gone", values(0..3)).await;
    let producer = client.producer(ProducerConfig::default()).await.unwrap();
    producer.send(OutgoingRecord::to("gone").value("x")).await.unwrap().await.unwrap();
    let mut reader = consumer(&client, "gone", ConsumerConfig::default(), StartAt::Latest).await;
    let mut raw = RawClient::greeted(&node.address());
    let parked = raw.send(&Fetch { max_wait_ms: 60_000, ..fetch(topic, 0, 4) }, Vec::new());
    raw.expect_silence(Duration::from_millis(50));

    let admin = connect(&node.address()).await;
    delete(&admin, "gone").await;
    let frame = raw.frame();
    assert_eq!(frame.head.correlation_id, parked, "a parked fetch is answered when its topic goes");
    let reply = callboard::protocol::frame::decode_reply::<Fetch>(&frame).unwrap();
    let error = reply.partitions.into_iter().next().unwrap().into_result().unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownTopicOrPartition);
    assert!(error.message.contains("deleted"), "{error}");

    let told = soon("the consumer is told", reader.recv()).await.unwrap_err();
    assert!(
        matches!(&told, ClientError::TopicDeleted { topic, .. } | ClientError::UnknownTopic { topic } if topic == "gone"),
        "{told:?}"
    );
    let told = soon("the producer is told", async {
        match producer.send(OutgoingRecord::to("gone").value("y")).await {
            Ok(delivery) => delivery.await.unwrap_err(),
            Err(error) => error,
        }
    })
    .await;
    assert!(matches!(&told, ClientError::TopicDeleted { .. } | ClientError::UnknownTopic { .. }), "{told:?}");
    serves_others(&node);
}

#[tokio::test]
async fn nobody_waits_for_ever_while_topics_come_and_go() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    for round in 0..15 {
        let topic = create(&client, "brief", 1, &[("flush", "os")]).await;
        let address = node.address();
        let hammering = std::thread::spawn(move || {
            let mut raw = RawClient::greeted(&address);
            let mut sent = 0;
            for _ in 0..60 {
                raw.send(&produce(topic, 0, None, Acks::All), vec![batch(&["x"])]);
                raw.send(&Fetch { max_wait_ms: 60_000, ..fetch(topic, 0, 0) }, Vec::new());
                raw.send(&Metadata { topics: None }, Vec::new());
                sent += 3;
            }
            for answered in 0..sent {
                let Heard::Frame(_) = raw.hear_within(PATIENCE) else {
                    panic!("{answered} of {sent} requests were answered");
                };
            }
        });
        tokio::time::sleep(Duration::from_millis(round)).await;
        delete(&client, "brief").await;
        hammering.join().expect("every request was answered");
    }
}

#[tokio::test]
async fn what_nobody_knows_is_put_aside_and_never_removed() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "known", 1, &[]).await;
    send_each(&client, "known", values(0..3)).await;
    node.stop().unwrap();
    let stranger = format!("precious-{}-0", uuid::Uuid::new_v4().as_simple());
    std::fs::create_dir(dir.join(&stranger)).unwrap();
    std::fs::write(dir.join(&stranger).join("00000000000000000000.log"), b"somebody's data").unwrap();
    std::fs::write(dir.join("notes.txt"), b"not a partition").unwrap();

    let node = Node::start_in(&dir, |_| {}).unwrap();
    let aside = dir.join("quarantine").join(&stranger);
    wait_until("the stranger is put aside", || aside.is_dir());
    assert_eq!(std::fs::read(aside.join("00000000000000000000.log")).unwrap(), b"somebody's data");
    assert!(!dir.join(&stranger).exists());
    let client = connect(&node.address()).await;
    assert_eq!(read_all(&client, "known").await, numbered(0..3));
    assert_eq!(partition_dirs(&dir, topic).len(), 1);
    node.stop().unwrap();
    assert_eq!(std::fs::read(dir.join("notes.txt")).unwrap(), b"not a partition");
}

#[tokio::test]
async fn files_of_a_deleted_topic_that_a_crash_left_behind_go_at_the_next_start() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    let files = partition_dirs(&dir, topic).remove(0);
    let mut half_removed = files.as_os_str().to_owned();
    half_removed.push(".deleted");
    delete(&client, "t").await;
    wait_until("its files are gone", || partition_dirs(&dir, topic).is_empty());
    node.stop().unwrap();
    std::fs::create_dir_all(&half_removed).unwrap();
    std::fs::write(Path::new(&half_removed).join("00000000000000000000.log"), b"x").unwrap();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    wait_until("what was half removed is removed", || partition_dirs(&dir, topic).is_empty());
    node.stop().unwrap();
}

#[tokio::test]
async fn declared_topics_are_created_when_missing_and_never_overwritten() {
    let dir = Directory::new();
    std::fs::create_dir_all(&*dir).unwrap();
    let (file, data) = (dir.join("topics.json"), dir.join("data"));
    let declare = |text: &str| std::fs::write(&file, text).unwrap();
    let start = || Node::start_in(&data, |config| config.topics.file = Some(file.clone()));
    declare(r#"[{"name": "orders", "partitions": 2, "config": {"retention_ms": "86400000"}}]"#);
    let node = start().unwrap();
    let client = connect(&node.address()).await;
    let orders = describe(&client, "orders").await;
    assert_eq!((orders.partitions.len(), setting(&orders, "retention_ms")), (2, ("86400000", true)));
    send_each(&client, "orders", values(0..2)).await;
    node.stop().unwrap();

    declare(r#"[{"name": "orders", "partitions": 9, "config": {"retention_ms": "1000"}}, {"name": "bills"}]"#);
    let node = start().unwrap();
    let client = connect(&node.address()).await;
    assert_eq!(
        describe(&client, "orders").await,
        TopicDescription { partitions: describe(&client, "orders").await.partitions, ..orders },
        "as it was"
    );
    assert_eq!(describe(&client, "orders").await.partitions.len(), 2);
    assert_eq!(read_all(&client, "orders").await, numbered(0..2));
    assert_eq!(client.admin().list_topics().await.unwrap(), ["bills", "orders"]);
    node.stop().unwrap();

    declare(r#"[{"name": "../x"}]"#);
    let error = start().unwrap_err();
    assert!(matches!(error, NodeError::TopicsFile(_)), "{error:?}");
    assert!(error.to_string().contains("topics.json:1"), "{error}");
    declare(r#"[{"name": "wide", "partitions": 100000}]"#);
    let error = start().unwrap_err();
    assert!(matches!(error, NodeError::DeclaredTopic { .. }), "{error:?}");
    assert!(
        error.to_string().contains("topic 'wide'") && error.to_string().contains("max_partitions_per_topic"),
        "{error}"
    );
    std::fs::remove_file(&file).unwrap();
    assert!(start().unwrap_err().to_string().contains("cannot read the topics file"));
}
