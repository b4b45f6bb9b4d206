//! The reading side: consumers, each with a connection of its own, that verify every record.
//!
//! ```text
//!   Readers ─► one task a consumer: recv_batch ─► Verifier ─► latency of each record, from when it was to be sent
//!      ▲                               until the goal is reached, which may become known while it reads
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::clock::BenchClock;
use super::latency::{Latencies, SharedLatencies};
use super::record::Content;
use super::verify::Verifier;
use crate::cli::error::CliError;
use crate::cli::stop::Stop;
use crate::client::{Client, ClientConfig, ClientError, Consumer, ConsumerConfig, StartAt};
use crate::types::Offset;

/// Records that are taken from the client at a time.
const TAKEN: usize = 4_096;
/// A record that was acknowledged comes sooner than this, or never.
const PATIENCE: Duration = Duration::from_secs(30);

/// The consumers of a bench.
#[derive(Debug)]
pub struct Readers {
    readers: Vec<Reader>,
    clock: BenchClock,
}

/// What the consumers of a bench have in common.
#[derive(Clone, Debug)]
pub struct ReaderSettings {
    /// The topic.
    pub topic: Arc<str>,
    /// How many consumers.
    pub consumers: u32,
    /// Whether each reads every partition.
    pub fan_out: bool,
    /// How each reads.
    pub consumer: ConsumerConfig,
    /// What was sent.
    pub content: Arc<Content>,
    /// Where reading starts, by partition.
    pub from: Vec<Offset>,
    /// How many records each producer had sent before that.
    pub sent_before: Vec<u64>,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct ReadBack {
    /// Records, each verified.
    pub records: u64,
    /// From the start to the last record.
    pub elapsed: Duration,
    /// From when a record was to be sent until a consumer had it.
    pub end_to_end: Latencies,
    /// It was stopped before its end.
    pub stopped: bool,
}

#[derive(Debug)]
struct Reader {
    consumer: Consumer,
    topic: Arc<str>,
    partitions: Vec<u32>,
    from: Vec<Offset>,
    sent_before: Vec<u64>,
    content: Arc<Content>,
    verifier: Verifier,
}

/// What readers are to read: how many records each producer has sent in the end; nothing while that is not known.
pub type Goal = watch::Receiver<Option<Vec<u64>>>;

/// Latencies count of records that were to be sent from this moment on: none before it is set. Clones share it.
#[derive(Clone, Debug)]
pub struct CountedFrom(Arc<AtomicU64>);

impl Default for CountedFrom {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl CountedFrom {
    /// Counts from here on.
    pub fn set(&self, now_ns: u64) {
        self.0.store(now_ns, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Task {
    clock: BenchClock,
    stop: Stop,
    goal: Goal,
    passes: u32,
    latencies: SharedLatencies,
    counted_from: CountedFrom,
}

impl Readers {
    /// Connects. Nothing is fetched yet.
    ///
    /// # Errors
    /// When the node is not reached, or refuses.
    pub async fn connect(server: &str, settings: &ReaderSettings, clock: BenchClock) -> Result<Self, CliError> {
        let mut readers = Vec::new();
        let count = u32::try_from(settings.from.len()).unwrap_or(u32::MAX);
        for number in 0..settings.consumers {
            let step = if settings.fan_out { 1 } else { settings.consumers };
            let first = if settings.fan_out { 0 } else { number };
            let partitions: Vec<u32> = (first..count).step_by(step as usize).collect();
            let client = Client::connect(ClientConfig::new(server).client_id("callboard-bench")).await?;
            readers.push(Reader {
                consumer: client.consumer(settings.consumer.clone()).await?,
                topic: Arc::clone(&settings.topic),
                partitions,
                from: settings.from.clone(),
                sent_before: settings.sent_before.clone(),
                content: Arc::clone(&settings.content),
                verifier: Verifier::new(Arc::clone(&settings.content), settings.sent_before.clone(), count),
            });
        }
        Ok(Self { readers, clock })
    }

    /// Reads until the goal, so many times, and verifies every record.
    ///
    /// # Errors
    /// The first record that is not as it was sent, or does not come.
    pub async fn run(
        self,
        goal: Goal,
        passes: u32,
        counted_from: CountedFrom,
        stop: &Stop,
    ) -> Result<ReadBack, CliError> {
        let started_ns = self.clock.now_ns();
        let latencies = SharedLatencies::default();
        let (clock, stop) = (self.clock, stop.clone());
        let task = Task { clock, stop: stop.clone(), goal, passes, latencies: latencies.clone(), counted_from };
        let mut tasks = JoinSet::new();
        for reader in self.readers {
            tasks.spawn(reader.run(task.clone()));
        }
        let mut records = 0;
        while let Some(ended) = tasks.join_next().await {
            // The others are dropped with the set at the first failure.
            records += ended.map_err(|error| CliError::Failed(format!("a consumer ended: {error}")))??;
        }
        let elapsed = Duration::from_nanos(clock.now_ns().saturating_sub(started_ns));
        Ok(ReadBack { records, elapsed, end_to_end: latencies.take(), stopped: stop.is_stopped() })
    }
}

impl Reader {
    /// Reads from the start, again.
    async fn start_over(&mut self) -> Result<(), ClientError> {
        let count = u32::try_from(self.from.len()).unwrap_or(u32::MAX);
        self.verifier = Verifier::new(Arc::clone(&self.content), self.sent_before.clone(), count);
        for partition in &self.partitions {
            let from = StartAt::Offset(self.from[*partition as usize]);
            self.consumer.assign(&self.topic, Some(vec![*partition]), from).await?;
        }
        Ok(())
    }

    /// How many records there are for this reader in one pass.
    fn share(&self, sent: &[u64]) -> u64 {
        let of = |partition: &u32| {
            let producers = (*partition as usize..sent.len()).step_by(self.from.len());
            producers.map(|at| sent[at] - self.sent_before[at]).sum::<u64>()
        };
        self.partitions.iter().map(of).sum()
    }

    async fn run(mut self, mut task: Task) -> Result<u64, CliError> {
        let mut all = 0;
        for _ in 0..task.passes {
            self.start_over().await?;
            all += self.pass(&mut task).await?;
            if task.stop.is_stopped() {
                break;
            }
        }
        Ok(all)
    }

    async fn pass(&mut self, task: &mut Task) -> Result<u64, CliError> {
        let mut records = 0;
        loop {
            let goal = task.goal.borrow_and_update().clone();
            if let Some(sent) = &goal
                && records >= self.share(sent)
            {
                return self.finish(sent, records);
            }
            let came = tokio::select! {
                biased;
                came = timeout(PATIENCE, self.consumer.recv_batch(TAKEN)) => came,
                // Once it is known the sender is gone, and nothing changes any more.
                Ok(()) = task.goal.changed() => continue,
                () = task.stop.wait() => return Ok(records),
            };
            match came {
                Ok(batch) => records += self.verify(&batch?, task)?,
                Err(_) if goal.is_none() => {}
                Err(_) => {
                    let text = format!("lost: no record came for {} s after {records} of them", PATIENCE.as_secs());
                    return Err(CliError::Failed(text));
                }
            }
        }
    }

    fn verify(&mut self, batch: &[crate::client::ConsumedRecord], task: &Task) -> Result<u64, CliError> {
        let (now_ns, counted_from_ns) = (task.clock.now_ns(), task.counted_from.get());
        for record in batch {
            let checked = self.verifier.check(record.partition, record.offset.0, record.value.as_deref());
            let stamp = checked.map_err(|fault| CliError::Failed(fault.to_string()))?;
            if stamp.intended_ns >= counted_from_ns {
                task.latencies.record(now_ns.saturating_sub(stamp.intended_ns));
            }
        }
        Ok(batch.len() as u64)
    }

    fn finish(&self, sent: &[u64], records: u64) -> Result<u64, CliError> {
        for partition in &self.partitions {
            self.verifier.finish(*partition, sent).map_err(|fault| CliError::Failed(fault.to_string()))?;
        }
        Ok(records)
    }
}
