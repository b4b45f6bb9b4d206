//! The sending side: producers, each on a task, over connections of their own.
//!
//! ```text
//!   Fleet ─► one task a producer: make record n ─► Producer::send ─► deliveries, some of them ─► a task beside it: the
//!              closed loop: the next when there is room     (bounded queue)                      latency of each
//!              in flight:   the next when one is acknowledged, timed on the spot
//!              open loop:   when it is due (pacer)
//! ```
//!
//! A record is made, encoded and checksummed when it is sent. Numbers go on from phase to phase (warm-up, measurement, the
//! next run), so that consumers can tell what is missing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::clock::BenchClock;
use super::latency::{Latencies, SharedLatencies};
use super::pacer::{Pacer, Schedule};
use super::record::{Content, Maker, Stamp};
use crate::cli::error::CliError;
use crate::cli::stop::Stop;
use crate::client::{Client, ClientConfig, Delivery, OutgoingRecord, Producer, ProducerConfig, ProducerStats};

/// Deliveries of a producer that wait to be timed. Each is a few words; beyond that it waits for acknowledgements.
const UNTIMED: usize = 16 << 10;
/// A closed loop looks at the clock once in so many records: a look takes as long as a sixth of sending 100 bytes.
const CLOCK_EVERY: u64 = 16;
/// How long before its first record an open loop starts, so that all producers are ready.
const LEAD_NS: u64 = 10_000_000;
/// Above this rate an open loop times one record of several: timing each would be most of its work.
const MOST_TIMED_A_SECOND: u64 = 50_000;

/// How much is sent in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Amount {
    /// So many records of all producers.
    Records(u64),
    /// For so long.
    Duration(Duration),
}

/// How it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The next record when the producer's buffer has room. One latency is taken in so many records.
    Closed {
        /// See above.
        time_every: u64,
    },
    /// The next record when one of so many is acknowledged.
    InFlight(u32),
    /// Records a second of all producers, whatever became of those before.
    Open(u64),
}

/// The producers of a bench.
#[derive(Debug)]
pub struct Fleet {
    senders: Vec<Sender>,
    clock: BenchClock,
}

/// What the producers of a bench have in common.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// The topic.
    pub topic: Arc<str>,
    /// Its partitions.
    pub partitions: u32,
    /// How many producers.
    pub producers: u32,
    /// How many connections they share.
    pub connections: u32,
    /// How each batches.
    pub producer: ProducerConfig,
    /// What they send.
    pub content: Arc<Content>,
}

/// What a phase has sent.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Records that were acknowledged (with acks = 0: written to the socket).
    pub records: u64,
    /// Batches that they came in.
    pub batches: u64,
    /// From the first record to the last acknowledgement.
    pub elapsed: Duration,
    /// From when a record was to be sent until it was acknowledged.
    pub acknowledged: Latencies,
    /// It was stopped before its end.
    pub stopped: bool,
}

#[derive(Debug)]
struct Sender {
    number: u32,
    partition: u32,
    topic: Arc<str>,
    producer: Producer,
    content: Arc<Content>,
    maker: Maker,
    next: u64,
}

/// A phase, as one sender sees it.
#[derive(Clone)]
struct Phase {
    clock: BenchClock,
    stop: Stop,
    /// The most records of this sender.
    records: u64,
    until_ns: u64,
    latencies: SharedLatencies,
}

impl Phase {
    fn is_over(&self) -> bool {
        self.stop.is_stopped() || self.clock.now_ns() >= self.until_ns
    }
}

impl Fleet {
    /// Connects.
    ///
    /// # Errors
    /// When the node is not reached, or refuses.
    pub async fn connect(server: &str, settings: &FleetSettings, clock: BenchClock) -> Result<Self, CliError> {
        let mut clients = Vec::new();
        for _ in 0..settings.connections.min(settings.producers).max(1) {
            clients.push(Client::connect(ClientConfig::new(server).client_id("callboard-bench")).await?);
        }
        let mut senders = Vec::new();
        for (number, client) in (0..settings.producers).zip(clients.iter().cycle()) {
            senders.push(Sender {
                number,
                partition: number % settings.partitions,
                topic: Arc::clone(&settings.topic),
                producer: client.producer(settings.producer.clone()).await?,
                content: Arc::clone(&settings.content),
                maker: Maker::default(),
                next: 0,
            });
        }
        Ok(Self { senders, clock })
    }

    /// How many records each producer has sent so far.
    #[must_use]
    pub fn sent(&self) -> Vec<u64> {
        self.senders.iter().map(|sender| sender.next).collect()
    }

    /// Runs a phase to its end, and waits for the last acknowledgement.
    ///
    /// # Errors
    /// The first record that failed.
    pub async fn run(&mut self, amount: Amount, pace: Pace, stop: &Stop) -> Result<Sent, CliError> {
        let before = self.stats();
        let start_ns = self.clock.now_ns() + if matches!(pace, Pace::Open(_)) { LEAD_NS } else { 0 };
        let until_ns = match amount {
            Amount::Records(_) => u64::MAX,
            Amount::Duration(time) => start_ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        };
        let producers = self.senders.len() as u64;
        let latencies = SharedLatencies::default();
        let mut tasks = JoinSet::new();
        for (at, sender) in (0..).zip(self.senders.drain(..)) {
            let records = match amount {
                Amount::Records(all) => all / producers + u64::from(at < all % producers),
                Amount::Duration(_) => u64::MAX,
            };
            let (clock, stop, latencies) = (self.clock, stop.clone(), latencies.clone());
            let phase = Phase { clock, stop, records, until_ns, latencies };
            let schedule = |rate| Schedule { start_ns, rate, producers: producers as u32, producer: at as u32 };
            match pace {
                Pace::Closed { time_every } => tasks.spawn(sender.send_closed(phase, time_every)),
                Pace::InFlight(most) => tasks.spawn(sender.send_in_flight(phase, most)),
                Pace::Open(rate) => tasks.spawn(sender.send_open(phase, schedule(rate))),
            };
        }
        let mut outcome = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.unwrap_or_else(|error| Err(CliError::Failed(format!("a producer ended: {error}"))));
            match ended {
                Ok(sender) => self.senders.push(sender),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome?;
        let elapsed_ns = self.clock.now_ns().saturating_sub(start_ns);
        self.senders.sort_by_key(|sender| sender.number);
        let after = self.stats();
        Ok(Sent {
            records: after.delivered_records - before.delivered_records,
            batches: after.delivered_batches - before.delivered_batches,
            elapsed: Duration::from_nanos(elapsed_ns),
            acknowledged: latencies.take(),
            stopped: stop.is_stopped(),
        })
    }

    fn stats(&self) -> ProducerStats {
        let all = self.senders.iter().map(|sender| sender.producer.stats());
        all.fold(ProducerStats::default(), |sum, each| ProducerStats {
            delivered_records: sum.delivered_records + each.delivered_records,
            delivered_batches: sum.delivered_batches + each.delivered_batches,
            ..sum
        })
    }
}

impl Sender {
    async fn send(&mut self, intended_ns: u64) -> Result<Delivery, CliError> {
        let stamp = Stamp { producer: self.number, number: self.next, intended_ns };
        let value = self.maker.make(&self.content, stamp);
        let record = OutgoingRecord::to(Arc::clone(&self.topic)).partition(self.partition).value(value);
        let delivery = self.producer.send(record).await?;
        self.next += 1;
        Ok(delivery)
    }

    /// Waits for the acknowledgements of all that was sent, and until they are timed.
    async fn finish(self, timing: Timing) -> Result<Self, CliError> {
        self.producer.flush().await?;
        timing.finish().await?;
        Ok(self)
    }

    async fn send_closed(mut self, phase: Phase, time_every: u64) -> Result<Self, CliError> {
        let timing = Timing::start(&phase);
        let mut now_ns = phase.clock.now_ns();
        for index in 0..phase.records {
            let is_timed = index.is_multiple_of(time_every);
            if is_timed || index.is_multiple_of(CLOCK_EVERY) {
                if phase.is_over() {
                    break;
                }
                now_ns = phase.clock.now_ns();
            }
            let delivery = self.send(now_ns).await?;
            if is_timed {
                timing.add(now_ns, delivery).await;
            }
        }
        self.finish(timing).await
    }

    async fn send_in_flight(mut self, phase: Phase, most: u32) -> Result<Self, CliError> {
        // Acknowledgements of a partition come in the order of its records: the oldest is the next to come.
        let mut flying = VecDeque::with_capacity(most as usize);
        for _ in 0..phase.records {
            if phase.is_over() {
                break;
            }
            if flying.len() == most as usize {
                land(flying.pop_front(), &phase).await?;
            }
            let now_ns = phase.clock.now_ns();
            flying.push_back((now_ns, self.send(now_ns).await?));
        }
        while !flying.is_empty() {
            land(flying.pop_front(), &phase).await?;
        }
        Ok(self)
    }

    async fn send_open(mut self, phase: Phase, schedule: Schedule) -> Result<Self, CliError> {
        let failed = |error| CliError::Failed(format!("the timer of an open loop failed: {error}"));
        let pacer = Pacer::start(schedule, phase.clock).map_err(failed)?;
        let timing = Timing::start(&phase);
        let time_every = schedule.rate.div_ceil(MOST_TIMED_A_SECOND);
        let mut sent = 0;
        'sending: while sent < phase.records && !phase.stop.is_stopped() {
            let due = tokio::select! {
                due = pacer.due(sent) => due.map_err(failed)?,
                () = phase.stop.wait() => break,
            };
            for index in due.start..due.end.min(phase.records) {
                let intended_ns = schedule.at(index);
                if intended_ns >= phase.until_ns {
                    break 'sending;
                }
                let delivery = self.send(intended_ns).await?;
                sent = index + 1;
                if index.is_multiple_of(time_every) {
                    timing.add(intended_ns, delivery).await;
                }
            }
        }
        self.finish(timing).await
    }
}

/// Waits for an acknowledgement and takes its time on the spot: no other task has to be woken for that.
async fn land(flying: Option<(u64, Delivery)>, phase: &Phase) -> Result<(), CliError> {
    if let Some((intended_ns, delivery)) = flying {
        delivery.await?;
        phase.latencies.record(phase.clock.now_ns().saturating_sub(intended_ns));
    }
    Ok(())
}

/// The task beside a producer that times its acknowledgements.
struct Timing {
    untimed: mpsc::Sender<(u64, Delivery)>,
    task: JoinHandle<()>,
}

impl Timing {
    fn start(phase: &Phase) -> Self {
        let (untimed, mut deliveries) = mpsc::channel::<(u64, Delivery)>(UNTIMED);
        let (clock, latencies) = (phase.clock, phase.latencies.clone());
        let task = tokio::spawn(async move {
            while let Some((intended_ns, delivery)) = deliveries.recv().await {
                // A record that failed is told by its producer.
                if delivery.await.is_ok() {
                    latencies.record(clock.now_ns().saturating_sub(intended_ns));
                }
            }
        });
        Self { untimed, task }
    }

    async fn add(&self, intended_ns: u64, delivery: Delivery) {
        // The task lives until this is dropped.
        let _ = self.untimed.send((intended_ns, delivery)).await;
    }

    async fn finish(self) -> Result<(), CliError> {
        drop(self.untimed);
        self.task.await.map_err(|error| CliError::Failed(format!("timing the acknowledgements ended: {error}")))
    }
}
