//! The node's memory while everything that a budget bounds is used up at once, beside the sum of the budgets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use callboard::client::{Client, ClientConfig};
use callboard::protocol::messages::{Fetch, FetchPartition};
use callboard::types::{Offset, PartitionIndex, TopicId};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::node::{Node, megabytes};
use crate::slow::{COLD_RECORD_BYTES, COLD_RECORDS, gather, produce};
use crate::start::create;
use crate::wire::Wire;
use crate::{Result, Setup, row};

/// Large batches keep buffers, small ones keep pieces of shared chunks.
const SIZES: [usize; 2] = [1 << 20, 4 << 10];
const PRODUCERS: usize = 32;
const STALLED_READERS: usize = 128;
const DURATION: Duration = Duration::from_secs(10);
/// A stalled reader asks again this often, and takes nothing.
const PACE: Duration = Duration::from_millis(20);

/// Producers that send all they can, readers of the newest records that take nothing, and the crowd of slow readers and
/// senders, all at once.
pub async fn experiment(setup: &Setup) -> Result<()> {
    Node::remove_data(setup, "load");
    let retention = ("retention_bytes", "67108864");
    let node = Node::start(setup, "load", &[]).await?;
    let client = Client::connect(ClientConfig::new(&node.address)).await?;
    create(&client, "cold", 1, &[("flush", "os")]).await?;
    crate::logs::fill(&node.address, "cold", COLD_RECORDS as usize, COLD_RECORD_BYTES, 1, COLD_RECORD_BYTES).await?;
    let cold = Wire::open(&node.address).await?.topic_id("cold").await?;
    let mut all = JoinSet::new();
    for number in 0..PRODUCERS {
        let name = format!("load-{number}");
        create(&client, &name, 1, &[("flush", "os"), ("segment_bytes", "16777216"), retention]).await?;
        let mut producer = Wire::open(&node.address).await?;
        let (topic, end) = (producer.topic_id(&name).await?, Arc::new(AtomicU64::new(0)));
        for _ in 0..STALLED_READERS / PRODUCERS {
            all.spawn(stall(Wire::open_narrow(&node.address).await?, topic, Arc::clone(&end)));
        }
        all.spawn(async move {
            while let Ok(offset) = produce(&mut producer, topic, SIZES[number % SIZES.len()]).await {
                end.store(offset.0, Ordering::Relaxed);
            }
        });
    }
    let crowd = gather(&node.address, cold).await?;
    let (began, mut most) = (Instant::now(), (0, 0));
    while began.elapsed() < DURATION {
        most = most.max(node.memory_bytes()?);
        tokio::time::sleep(PACE).await;
    }
    drop((all, crowd));
    row(
        &format!("{PRODUCERS} producers, {STALLED_READERS} readers that take nothing, 2,000 slow ones: memory at most"),
        &megabytes(most),
    );
    node.stop()?;
    Node::remove_data(setup, "load");
    Ok(())
}

/// Asks for the newest records again and again until the node has had enough of it, and takes nothing.
async fn stall(mut reader: Wire, topic: TopicId, end: Arc<AtomicU64>) {
    loop {
        let offset = Offset(end.load(Ordering::Relaxed));
        let partition =
            FetchPartition { topic, partition: PartitionIndex(0), leader_epoch: None, offset, max_bytes: 1 << 20 };
        let fetch = Fetch { max_wait_ms: 1_000, min_bytes: 1, max_bytes: 1 << 20, partitions: vec![partition] };
        let Ok(request) = reader.encode(&fetch, Vec::new()) else { return };
        if reader.socket.write_all(&request).await.is_err() {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
}
