//! A node says of itself what an operator would otherwise have to look up on its machine.

use std::sync::Arc;

use callboard::actors::node::RunningNode;
use callboard::client::{Client, OutgoingRecord, ProducerConfig};
use callboard::config::NodeConfig;
use callboard::protocol::ErrorCode;
use callboard::protocol::messages::DescribeNodeReply;
use callboard::storage::disk::VirtualDisk;
use callboard::storage::disk::virtual_disk::FaultyOperation;
use callboard::testing::Node;
use callboard::types::NodeId;

use crate::support::*;

async fn described(client: &Client) -> DescribeNodeReply {
    client.admin().describe_node().await.expect("the node answers")
}

#[tokio::test]
async fn a_healthy_node_describes_its_process_its_disk_and_its_budgets() {
    let node = Node::start_with(|config| config.storage.tail_cache_bytes = 5 << 20).unwrap();
    let client = connect(&node.address()).await;
    create(&client, "rides", 2, &[]).await;
    send_all(&client, "rides", values(0..100)).await;
    let first = described(&client).await;
    assert_eq!((first.node_id, first.bound.as_str()), (NodeId(1), node.address().as_str()));
    assert_eq!(format!("{}:{}", first.advertised_host, first.advertised_port), node.address());
    assert_eq!(first.software, format!("callboard {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(first.process.pid, std::process::id());
    assert!(first.process.user_cpu_us > 0 && first.process.resident_bytes > Some(1 << 20), "{first:?}");
    assert!(first.disk.free_bytes > Some(0) && first.disk.total_bytes >= first.disk.free_bytes, "{first:?}");
    assert_eq!((first.disk.min_free_bytes, first.disk.refusing_appends.as_ref()), (0, None));
    assert_eq!(first.replicas, callboard::protocol::messages::ReplicasDescription::default());
    let budgets = first.budgets;
    assert!(budgets.tail_cache_bytes.used > 0 && budgets.tail_cache_bytes.limit == 5 << 20, "{budgets:?}");
    assert!(budgets.connections.used >= 1 && budgets.connections.limit <= budgets.configured_connections);
    assert_eq!((budgets.request_bytes.limit, budgets.open_files), (128 << 20, 4_096));
    assert!(first.machine.cpus >= 1 && first.machine.core_threads >= 1 && first.machine.disk_threads == 2);

    let wall_ms = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let second = client.admin().describe_broker(NodeId(1)).await.expect("the node answers");
    assert!((second.wall_clock.0 - wall_ms).abs() < PATIENCE.as_millis() as i64, "{second:?}");
    assert!(second.wall_clock >= first.wall_clock && second.uptime_ms >= first.uptime_ms);
    let cpu = |of: &DescribeNodeReply| of.process.user_cpu_us + of.process.system_cpu_us;
    assert!(cpu(&second) >= cpu(&first));
}

#[tokio::test]
async fn a_node_names_the_partitions_that_take_no_appends_and_counts_the_damaged_ranges() {
    let (disk, home) = (VirtualDisk::new(1), Directory::new());
    let mut config = NodeConfig::default();
    config.node.data_dir = home.to_path_buf();
    config.listener.native.bind = "127.0.0.1:0".to_owned();
    config.listener.http.bind = None;
    config.storage.min_free_bytes = 0;
    let node = RunningNode::start_on(Arc::new(disk.clone()), config).unwrap();
    let client = connect(&node.ready().native.unwrap().to_string()).await;
    create(&client, "broken", 1, &[]).await;
    create(&client, "fine", 1, &[]).await;
    send_all(&client, "fine", values(0..10)).await;
    assert_eq!(described(&client).await.replicas.offline_count, 0);

    // The next write of records is the one below: the producer's id comes from a block that is reserved already.
    disk.fail_nth(FaultyOperation::Write, 1, ".log");
    let producer = client.producer(ProducerConfig::default()).await.unwrap();
    // It is never acknowledged: the producer keeps trying until it is dropped.
    let _delivery = producer.send(OutgoingRecord::to("broken").partition(0).value("lost")).await.unwrap();
    wait_until_async("the write has failed", || async { described(&client).await.replicas.offline_count > 0 }).await;
    let replicas = described(&client).await.replicas;
    let [broken] = &replicas.offline[..] else { panic!("{replicas:?}") };
    assert_eq!((broken.topic.as_str(), broken.partition.0, replicas.offline_count), ("broken", 0, 1));
    assert_eq!(broken.cause.code, ErrorCode::StorageFailed, "{broken:?}");
    assert_eq!((replicas.damaged_partitions, replicas.damaged_ranges), (0, 0));
    drop(node);
}

#[tokio::test]
async fn a_node_that_refuses_appends_for_want_of_space_says_so_and_why() {
    let node = Node::start_with(|config| config.storage.min_free_bytes = 1 << 50).unwrap();
    let client = connect(&node.address()).await;
    create(&client, "rides", 1, &[]).await;
    wait_until_async("the node has looked at its disk", || async {
        described(&client).await.disk.refusing_appends.is_some()
    })
    .await;
    let disk = described(&client).await.disk;
    let refusal = disk.refusing_appends.unwrap();
    assert_eq!((refusal.code, disk.min_free_bytes), (ErrorCode::DiskFull, 1 << 50));
    assert!(refusal.message.contains("storage.min_free_bytes"), "{refusal}");
}
