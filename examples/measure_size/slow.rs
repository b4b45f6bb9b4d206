//! One client's latencies, alone and beside a crowd that reads and sends slowly. Calm and crowded phases take turns, so that
//! both meet the machine in the same moods.

use std::time::{Duration, Instant};

use callboard::client::{Client, ClientConfig};
use callboard::protocol::frame::Attachment;
use callboard::protocol::messages::{Acks, Fetch, FetchPartition, Produce, ProducePartition};
use callboard::types::record_batch::{BatchBuilder, Compression, RecordBatch};
use callboard::types::{Offset, PartitionIndex, TimestampMs, TopicId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::logs::fill;
use crate::node::{Node, megabytes};
use crate::start::create;
use crate::wire::Wire;
use crate::{Result, Setup, row};

const CROWD: usize = 1_000;
const ROUNDS: usize = 5;
const PHASE: Duration = Duration::from_secs(2);
pub const COLD_RECORDS: u64 = 8_192;
pub const COLD_RECORD_BYTES: usize = 32 << 10;
/// What a slow reader asks for, and a slow sender announces.
const LARGE_BYTES: u32 = 4 << 20;
/// A slow one moves a little this often.
const PACE: Duration = Duration::from_millis(500);

/// Latencies in microseconds: produce 1 KiB, fetch it, fetch 32 KiB or more from disk, send a frame of 256 KiB.
const KINDS: [&str; 4] = ["produce 1 KiB", "fetch 1 KiB, in memory", "fetch 64 KiB, cold", "produce 256 KiB"];
type Latencies = [Vec<u64>; 4];

pub async fn experiment(setup: &Setup) -> Result<()> {
    Node::remove_data(setup, "slow");
    let node = Node::start(setup, "slow", &[]).await?;
    let client = Client::connect(ClientConfig::new(&node.address)).await?;
    create(&client, "live", 1, &[("flush", "os")]).await?;
    create(&client, "cold", 1, &[("flush", "os")]).await?;
    fill(&node.address, "cold", COLD_RECORDS as usize, COLD_RECORD_BYTES, 1, COLD_RECORD_BYTES).await?;
    let mut wire = Wire::open(&node.address).await?;
    let topics = (wire.topic_id("live").await?, wire.topic_id("cold").await?);
    let (mut calm, mut crowded) = (Latencies::default(), Latencies::default());
    let mut memory = (0, 0);
    phase(&mut wire, topics, &mut Latencies::default()).await?;
    for _ in 0..ROUNDS {
        phase(&mut wire, topics, &mut calm).await?;
        let crowd = gather(&node.address, topics.1).await?;
        phase(&mut wire, topics, &mut crowded).await?;
        memory = memory.max(node.memory_bytes()?);
        drop(crowd);
        tokio::time::sleep(PACE).await;
    }
    for ((kind, calm), crowded) in KINDS.iter().zip(&mut calm).zip(&mut crowded) {
        let (calm, crowded) = (percentiles(calm), percentiles(crowded));
        let ratio = crowded.1 as f64 / calm.1 as f64;
        row(
            &format!("{kind}: p50 / p99 alone, beside {CROWD} slow readers and {CROWD} slow senders"),
            &format!("{} / {} µs, {} / {} µs: p99 x {ratio:.1}", calm.0, calm.1, crowded.0, crowded.1),
        );
    }
    row("memory beside the slow ones", &megabytes(memory));
    node.stop()?;
    Node::remove_data(setup, "slow");
    Ok(())
}

fn percentiles(microseconds: &mut [u64]) -> (u64, u64) {
    microseconds.sort_unstable();
    let at = |share: f64| microseconds.get((microseconds.len() as f64 * share) as usize).copied().unwrap_or(0);
    (at(0.5), at(0.99))
}

/// The client that is measured: one request at a time.
async fn phase(wire: &mut Wire, (live, cold): (TopicId, TopicId), latencies: &mut Latencies) -> Result<()> {
    let end = Instant::now() + PHASE;
    let mut turn = 0;
    while Instant::now() < end {
        turn += 1;
        let began = Instant::now();
        let offset = produce(wire, live, 1 << 10).await?;
        latencies[0].push(elapsed(began));
        let began = Instant::now();
        fetch(wire, live, offset, 1 << 20).await?;
        latencies[1].push(elapsed(began));
        if turn % 4 == 0 {
            let began = Instant::now();
            // Far from the tail, which is cached, and not where the last one was.
            let offset = Offset((turn * 977) % (COLD_RECORDS / 2));
            fetch(wire, cold, offset, 64 << 10).await?;
            latencies[2].push(elapsed(began));
        }
        if turn % 16 == 0 {
            let began = Instant::now();
            produce(wire, live, 256 << 10).await?;
            latencies[3].push(elapsed(began));
        }
    }
    Ok(())
}

fn elapsed(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

pub async fn produce(wire: &mut Wire, topic: TopicId, bytes: usize) -> Result<Offset> {
    let mut builder = BatchBuilder::new(Compression::None, bytes + 256);
    builder.append(TimestampMs(1), None, Some(&vec![7; bytes]), &[]);
    let mut attachment = Attachment::new();
    attachment.push_batch(&RecordBatch::split_from(&mut builder.build()?)?);
    let partition = ProducePartition { topic, partition: PartitionIndex(0), leader_epoch: None };
    let request = Produce { acks: Acks::All, timeout_ms: 60_000, partitions: vec![partition] };
    let (reply, _) = wire.ask(&request, vec![attachment]).await?;
    let produced = reply.partitions.into_iter().next().ok_or("no outcome")?;
    Ok(produced.into_result()?.base_offset)
}

fn fetch_request(topic: TopicId, offset: Offset, max_bytes: u32) -> Fetch {
    let partition = FetchPartition { topic, partition: PartitionIndex(0), leader_epoch: None, offset, max_bytes };
    Fetch { max_wait_ms: 60_000, min_bytes: 1, max_bytes, partitions: vec![partition] }
}

async fn fetch(wire: &mut Wire, topic: TopicId, offset: Offset, max_bytes: u32) -> Result<()> {
    let (_, records) = wire.ask(&fetch_request(topic, offset, max_bytes), Vec::new()).await?;
    if records.iter().all(|records| records.is_empty()) { Err("nothing was fetched".into()) } else { Ok(()) }
}

/// Slow readers and slow senders, until it is dropped.
pub async fn gather(address: &str, cold: TopicId) -> Result<JoinSet<()>> {
    let mut crowd = JoinSet::new();
    for number in 0..CROWD {
        let mut reader = Wire::open_narrow(address).await?;
        let request = fetch_request(cold, Offset(number as u64 % (COLD_RECORDS / 2)), LARGE_BYTES);
        let request = reader.encode(&request, Vec::new())?;
        reader.socket.write_all(&request).await?;
        crowd.spawn(async move {
            let mut bytes = [0; 1_024];
            // Until the node has had enough of it, or the phase is over.
            while reader.socket.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                tokio::time::sleep(PACE).await;
            }
        });
        let mut sender = Wire::open(address).await?;
        sender.socket.write_all(&LARGE_BYTES.to_be_bytes()).await?;
        crowd.spawn(async move {
            while sender.socket.write_all(&[0x95; 100]).await.is_ok() {
                tokio::time::sleep(PACE).await;
            }
        });
    }
    Ok(crowd)
}
