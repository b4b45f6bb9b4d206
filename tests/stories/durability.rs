//! Restarts, damage, and nodes that must not start.

use std::os::unix::fs::FileExt;
use std::time::Instant;

use bytes::Bytes;
use callboard::actors::node::NodeError;
use callboard::client::{ClientError, ConsumerConfig, Damaged, StartAt};
use callboard::config::Role;
use callboard::protocol::ErrorCode;
use callboard::storage::data_dir::DataDirError;
use callboard::testing::Node;
use callboard::types::record_batch::RecordBatch;
use callboard::types::{ClusterId, NodeId};

use crate::support::*;

#[tokio::test]
async fn after_a_clean_stop_everything_is_there_again_and_again() {
    let dir = Directory::new();
    let mut expected = 0;
    for round in 0..4 {
        let node = Node::start_in(&dir, |_| {}).unwrap();
        let client = connect(&node.address()).await;
        if round == 0 {
            create(&client, "always", 1, &[]).await;
            create(&client, "os", 1, &[("flush", "os"), ("segment_bytes", "16384")]).await;
            create(&client, "empty", 3, &[]).await;
        }
        for topic in ["always", "os"] {
            assert_eq!(read_all(&client, topic).await, numbered(0..expected), "{topic} in round {round}");
            send_all(&client, topic, values(expected..expected + 500)).await;
        }
        expected += 500;
        assert_eq!(client.admin().list_topics().await.unwrap(), ["always", "empty", "os"]);
        node.stop().unwrap();
        assert!(dir.join("clean-stop").exists());
    }
}

/// Flips a bit in the record at `offset`, in whichever segment it lies. Nothing else of the file changes, not even for a moment.
pub fn damage(partition: &std::path::Path, offset: u64) {
    for path in segments(partition) {
        let content = std::fs::read(&path).unwrap();
        let mut rest = Bytes::from(content.clone());
        while let Ok(batch) = RecordBatch::split_from(&mut rest) {
            let end = content.len() - rest.len();
            if (batch.header.base_offset..batch.header.end_offset_exclusive())
                .contains(&callboard::types::Offset(offset))
            {
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                file.write_all_at(&[content[end - 5] ^ 0x10], end as u64 - 5).unwrap();
                return;
            }
        }
    }
    panic!("offset {offset} is in no segment");
}

#[tokio::test]
async fn a_damaged_record_is_found_never_served_and_what_lies_around_it_is() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[("segment_bytes", "16384")]).await;
    send_each(&client, "t", (0..60).map(|n| format!("{n:01000}"))).await;
    node.stop().unwrap();
    damage(&partition_dirs(&dir, topic)[0], 20);

    // After a clean stop no record is read, so the damage is not noticed yet.
    let started = Instant::now();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    assert!(started.elapsed().as_secs() < 5);
    let client = connect(&node.address()).await;
    let unread = client.admin().describe_logs(&[("t".to_owned(), 0)]).await.unwrap().remove(0).unwrap();
    assert_eq!((unread.damaged, unread.high_watermark.0), (Vec::new(), 60), "nobody has looked at the records yet");
    let mut raw = RawClient::greeted(&node.address());
    let mut served = Vec::new();
    let mut offset = 0;
    let mut refusals = Vec::new();
    while offset < 60 {
        match raw.fetch(topic, offset) {
            Ok((state, records)) => {
                assert_eq!(state.high_watermark.0, 60);
                offset = records.last().expect("a fetch below the end brings something").0 + 1;
                served.extend(records);
            }
            Err(error) => {
                assert_eq!(error.code, ErrorCode::DamagedLog, "{error}");
                assert!(error.message.contains("go on reading at 21"), "{error}");
                refusals.push(offset);
                offset = 21;
            }
        }
    }
    assert_eq!(refusals, [20]);
    let whole: Vec<_> = (0..60).filter(|n| *n != 20).map(|n| (n, format!("{n:01000}"))).collect();
    assert_eq!(served, whole);
    let described = client.admin().describe_logs(&[("t".to_owned(), 0)]).await.unwrap().remove(0).unwrap();
    assert_eq!(described.damaged.iter().map(|(from, to)| (from.0, to.0)).collect::<Vec<_>>(), [(20, 21)]);

    let mut strict = consumer(&client, "t", ConsumerConfig::default(), StartAt::Earliest).await;
    assert_eq!(take(&mut strict, 20).await, whole[..20]);
    let error = soon("the damage", strict.recv()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Damaged { offset, .. } if offset.0 == 20), "{error:?}");
    let skipping = ConsumerConfig::default().on_damaged(Damaged::Skip);
    let mut skipping = consumer(&client, "t", skipping, StartAt::Earliest).await;
    assert_eq!(take(&mut skipping, 59).await, whole);

    send_each(&client, "t", ["after".to_owned()]).await;
    assert_eq!(raw.fetch(topic, 60).unwrap().1, [(60, "after".to_owned())], "appends go on");
    node.stop().unwrap();
}

#[tokio::test]
async fn a_torn_tail_after_an_unclean_stop_is_cut_off_and_appends_go_on() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    send_each(&client, "t", values(0..10)).await;
    node.stop().unwrap();
    // As a power loss in the middle of a write would leave it.
    std::fs::remove_file(dir.join("clean-stop")).unwrap();
    let segment = segments(&partition_dirs(&dir, topic)[0]).pop().unwrap();
    let mut content = std::fs::read(&segment).unwrap();
    content.extend_from_slice(&batch(&["torn"])[..50]);
    std::fs::write(&segment, content).unwrap();

    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    assert_eq!(read_all(&client, "t").await, numbered(0..10));
    send_each(&client, "t", values(10..12)).await;
    assert_eq!(read_all(&client, "t").await, numbered(0..12));
    node.stop().unwrap();
}

#[test]
fn a_data_directory_has_one_node_one_cluster_and_one_process() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let error = Node::start_in(&dir, |_| {}).unwrap_err();
    assert!(matches!(error, NodeError::DataDir(DataDirError::InUse { .. })), "{error:?}");
    let line = format!(
        "data directory {} is in use by another process (pid {}): stop that one, or set node.data_dir to another directory",
        dir.display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), line);
    serves_others(&node);
    node.stop().unwrap();

    let other = ClusterId::random();
    let error = Node::start_in(&dir, |config| config.node.cluster_id = Some(other)).unwrap_err();
    assert!(error.to_string().contains(&format!("this node to cluster {other}: set ")), "{error}");
    let error = Node::start_in(&dir, |config| config.node.id = NodeId(7)).unwrap_err();
    assert!(error.to_string().contains("belongs to node 1, this is node 7"), "{error}");
    let error = Node::start_in(&dir, |config| config.node.roles = vec![Role::Broker]).unwrap_err();
    assert!(error.to_string().contains("set cluster.controllers to all controllers"), "{error}");
    let error = Node::start_in(&dir, |config| config.threads.disk = 0).unwrap_err();
    assert!(matches!(error, NodeError::Config(_)) && error.to_string().contains("threads.disk = 0"), "{error}");

    let foreign = Directory::new();
    std::fs::create_dir_all(&*foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "precious").unwrap();
    let error = Node::start_in(&foreign, |_| {}).unwrap_err();
    assert!(error.to_string().contains("'thesis.tex'") && error.to_string().contains("no data directory"), "{error}");

    Node::start_in(&dir, |_| {}).expect("none of these did it any harm").stop().unwrap();
}

#[tokio::test]
async fn a_port_in_use_ends_the_start_with_one_line_and_leaves_no_trace() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    create(&client, "t", 1, &[]).await;
    send_each(&client, "t", values(0..3)).await;
    node.stop().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Node::start_in(&dir, |config| config.listener.native.bind = address.clone()).unwrap_err();
    assert!(matches!(error, NodeError::Bind(_)), "{error:?}");
    assert!(error.to_string().starts_with(&format!("{address} is in use by another process")), "{error}");
    assert!(!error.to_string().contains('\n'));
    assert!(dir.join("clean-stop").exists(), "the next start still reads no record data");
    let error =
        Node::start_in(&dir, |config| config.listener.native.bind = "no.such.host.invalid:1".into()).unwrap_err();
    assert!(error.to_string().contains("cannot be resolved"), "{error}");
    let node = Node::start_in(&dir, |_| {}).unwrap();
    assert_eq!(read_all(&connect(&node.address()).await, "t").await, numbered(0..3));
    node.stop().unwrap();
}
