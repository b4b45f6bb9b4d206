//! Starts of a node with records: many segments after a stop, many bytes after a kill.

use callboard::client::{Acks, Client, ClientConfig, OutgoingRecord, ProducerConfig};

use crate::node::{Node, megabytes, milliseconds};
use crate::start::{again, create};
use crate::{Result, Setup, row, spread};

/// The smallest segments that can be set; a batch of more than half of that gets one for itself.
const SEGMENT_BYTES: &str = "16384";
const ONE_A_SEGMENT_BYTES: usize = 9_000;
const SEGMENTS: usize = 10_000;
const SEGMENT_PARTITIONS: u32 = 100;
const DIRTY_BYTES: usize = 1 << 30;
const RUNS: usize = 3;

/// Sends `records` of `bytes` each over all partitions of `topic`, in batches of about `batch_bytes`, and waits until they
/// are acknowledged.
pub async fn fill(
    address: &str,
    topic: &str,
    records: usize,
    bytes: usize,
    partitions: u32,
    batch_bytes: usize,
) -> Result<()> {
    let client = Client::connect(ClientConfig::new(address)).await?;
    let config = ProducerConfig::default().acks(Acks::Leader).batch_bytes(batch_bytes);
    let producer = client.producer(config).await?;
    let mut value: Vec<u8> = (0..bytes).map(|at| (at * 31) as u8).collect();
    for number in 0..records {
        value[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let partition = (number % partitions as usize) as u32;
        let record = OutgoingRecord::to(topic).partition(partition).value(value.clone());
        drop(producer.send(record).await?);
    }
    producer.close().await?;
    Ok(())
}

/// A clean start with 10,000 segments.
pub async fn many_segments(setup: &Setup) -> Result<()> {
    Node::remove_data(setup, "segments");
    let node = Node::start(setup, "segments", &[]).await?;
    let client = Client::connect(ClientConfig::new(&node.address)).await?;
    create(&client, "segments", SEGMENT_PARTITIONS, &[("flush", "os"), ("segment_bytes", SEGMENT_BYTES)]).await?;
    fill(&node.address, "segments", SEGMENTS, ONE_A_SEGMENT_BYTES, SEGMENT_PARTITIONS, 1).await?;
    let segments = count_segments(node.data_dir())?;
    node.stop()?;
    again(setup, "segments", &format!("{segments} segments in {SEGMENT_PARTITIONS} partitions")).await?;
    Node::remove_data(setup, "segments");
    Ok(())
}

fn count_segments(root: &std::path::Path) -> Result<usize> {
    let mut count = 0;
    for directory in std::fs::read_dir(root)? {
        let directory = directory?.path();
        if directory.is_dir() {
            for file in std::fs::read_dir(directory)? {
                count += usize::from(file?.path().extension().is_some_and(|suffix| suffix == "log"));
            }
        }
    }
    Ok(count)
}

/// A start after kill -9 with a gigabyte that nobody has synced.
pub async fn after_a_kill(setup: &Setup, partitions: u32) -> Result<()> {
    let (mut answered, mut ready, mut memory) = (Vec::new(), Vec::new(), (0, 0));
    for _ in 0..RUNS {
        Node::remove_data(setup, "crash");
        // No checkpoint either: all of it lies past the recovery point.
        let settings = ["storage.checkpoint_interval_ms=600000"];
        let mut node = Node::start(setup, "crash", &settings).await?;
        let client = Client::connect(ClientConfig::new(&node.address)).await?;
        create(&client, "dirty", partitions, &[("flush", "os"), ("segment_bytes", "1073741824")]).await?;
        const RECORD_BYTES: usize = 64 << 10;
        fill(&node.address, "dirty", DIRTY_BYTES / RECORD_BYTES - 64, RECORD_BYTES, partitions, 1 << 20).await?;
        node.kill()?;
        let node = Node::start(setup, "crash", &settings).await?;
        answered.push(milliseconds(node.answered));
        ready.push(milliseconds(node.ready));
        memory = node.memory_bytes()?;
        node.stop()?;
    }
    Node::remove_data(setup, "crash");
    let what = format!("kill -9 with 1 GiB dirty in {partitions} partition(s)");
    row(&format!("{what}: exec to Hello answered"), &spread(answered));
    row(&format!("{what}: exec to ready line"), &spread(ready));
    row(&format!("{what}: memory when ready"), &megabytes(memory));
    Ok(())
}
