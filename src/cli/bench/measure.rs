//! One measurement of a server: a topic of its own, producers, consumers, and what both sides used meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::args::{AmountArgs, BatchArgs, CommonArgs, ConsumeBench, LatencyBench, ProduceBench};
use super::clock::BenchClock;
use super::load::{Amount, Fleet, FleetSettings, Pace, Sent};
use super::probes::drop_from_page_cache;
use super::read::{CountedFrom, ReadBack, ReaderSettings, Readers};
use super::record::{Content, batch_bytes};
use super::report::{Figures, Used};
use super::topic::BenchTopic;
use super::usage::Usage;
use crate::cli::error::CliError;
use crate::cli::stop::Stop;
use crate::client::{Client, ClientConfig, ConsumerConfig, ProducerConfig};

/// A producer takes at least so many bytes ahead of what is acknowledged. Little more than what is in flight: memory that is
/// used again soon is still in a cache.
const LEAST_BUFFER_BYTES: usize = 4 << 20;
/// A consumer fetches at least so many bytes ahead.
const LEAST_PREFETCH_BYTES: usize = 16 << 20;
/// So long does what a bench fills a topic with take at most to be acknowledged.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// What the parts of a measurement share.
struct Stage<'a> {
    server: &'a str,
    topic: &'a BenchTopic,
    content: Arc<Content>,
    clock: BenchClock,
    stop: &'a Stop,
}

/// CPU and memory of both sides, from here on.
struct Meter {
    node: Usage,
    bench: Usage,
}

impl Meter {
    async fn start(stage: &Stage<'_>) -> Result<Self, CliError> {
        Ok(Self { node: Usage::of_node(&stage.topic.admin).await?, bench: Usage::own() })
    }

    /// Adds what was used since the start to `figures`.
    async fn stop(self, stage: &Stage<'_>, figures: Figures) -> Result<Figures, CliError> {
        let bench = Usage::own().since(self.bench);
        let node = Usage::of_node(&stage.topic.admin).await?.since(self.node);
        let used = |usage| Some(Used::new(usage, figures.bytes));
        Ok(Figures { node: used(node), bench: used(bench), ..figures })
    }
}

impl AmountArgs {
    /// What was asked for, or so many bytes.
    #[must_use]
    pub fn or_bytes(&self, bytes: usize, record_bytes: usize) -> Amount {
        let records = |bytes: usize| Amount::Records((bytes / record_bytes).max(1) as u64);
        match (self.records, self.bytes, self.duration) {
            (Some(count), _, _) => Amount::Records(count),
            (_, Some(bytes), _) => records(bytes),
            (_, _, Some(time)) => Amount::Duration(time),
            (None, None, None) => records(bytes),
        }
    }
}

/// So long does a batch wait to be full when records are sent as fast as it goes: ten milliseconds fill any at a tenth of
/// the speed of a node, and a batch that is full does not wait.
const LINGER_UNPACED: Duration = Duration::from_millis(20);

fn producer_config(args: &CommonArgs, batch: &BatchArgs, rate: Option<u64>) -> ProducerConfig {
    let linger = batch.linger.unwrap_or(if rate.is_some() { Duration::ZERO } else { LINGER_UNPACED });
    let bytes = batch.batch_size.unwrap_or_else(|| batch_bytes(batch.batch_records, args.record_size));
    let in_flight = usize::from(batch.batches_in_flight);
    ProducerConfig::default()
        .acks(args.acks)
        .compression(args.compression)
        .linger(linger)
        .batch_bytes(bytes)
        .buffer_bytes(LEAST_BUFFER_BYTES.max(bytes * (in_flight + 2)))
        .delivery_timeout(DELIVERY_TIMEOUT + linger)
        .max_in_flight(in_flight)
}

/// Opens the topic, measures, and deletes it again, whatever came of it.
async fn on_a_topic<T>(
    server: &str,
    args: &CommonArgs,
    stop: &Stop,
    measure: impl AsyncFnOnce(Stage<'_>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let client = Client::connect(ClientConfig::new(server).client_id("callboard-bench")).await?;
    let topic = BenchTopic::open(&client, args).await?;
    let content = Arc::new(Content::new(fastrand::u32(..), args.record_size));
    let outcome = measure(Stage { server, topic: &topic, content, clock: BenchClock::start(), stop }).await;
    topic.close().await;
    outcome
}

impl Stage<'_> {
    async fn fleet(&self, args: &CommonArgs, producer: ProducerConfig) -> Result<Fleet, CliError> {
        let settings = FleetSettings {
            topic: Arc::clone(&self.topic.name),
            partitions: self.topic.partitions,
            producers: args.producers,
            connections: args.connections.unwrap_or(args.producers),
            producer,
            content: Arc::clone(&self.content),
        };
        Fleet::connect(self.server, &settings, self.clock).await
    }

    /// Readers from where the topic ends now.
    async fn readers(
        &self,
        consumers: u32,
        consumer: ConsumerConfig,
        sent: Vec<u64>,
    ) -> Result<ReaderSettings, CliError> {
        if consumers > self.topic.partitions {
            let text = format!(
                "{consumers} consumers cannot share {} partitions: give more --partitions, or let each read everything \
                 (consume --fan-out)",
                self.topic.partitions
            );
            return Err(CliError::Usage(text));
        }
        Ok(ReaderSettings {
            topic: Arc::clone(&self.topic.name),
            consumers,
            fan_out: false,
            consumer,
            content: Arc::clone(&self.content),
            from: self.topic.ends().await?,
            sent_before: sent,
        })
    }

    fn figures(&self, sent: &Sent) -> Figures {
        let bytes = sent.records * self.content.record_bytes() as u64;
        Figures {
            records_per_batch: (sent.batches > 0).then(|| sent.records as f64 / sent.batches as f64),
            acknowledged: sent.acknowledged.percentiles(),
            complete: !sent.stopped,
            ..Figures::rates(Some(sent.records), bytes, sent.elapsed)
        }
    }
}

/// `callboard bench produce`, once.
///
/// # Errors
/// When the server is not reached or refuses, or a record fails.
pub async fn produce(server: &str, args: &ProduceBench, stop: &Stop) -> Result<Figures, CliError> {
    let ProduceBench { common, batch, .. } = args;
    let amount = args.amount.or_bytes(1 << 30, common.record_size);
    // About one record of each batch.
    let time_every = u64::from(batch.batch_records.min(1_000));
    let pace = args.rate.map_or(Pace::Closed { time_every }, Pace::Open);
    on_a_topic(server, common, stop, async |stage: Stage<'_>| {
        let mut fleet = stage.fleet(common, producer_config(common, batch, args.rate)).await?;
        if !args.warm_up.is_zero() {
            fleet.run(Amount::Duration(args.warm_up), pace, stop).await?;
        }
        let meter = Meter::start(&stage).await?;
        let sent = fleet.run(amount, pace, stop).await?;
        meter.stop(&stage, stage.figures(&sent)).await
    })
    .await
}

/// `callboard bench consume`, once.
///
/// # Errors
/// As [`produce`], or when a record is not read as it was sent.
pub async fn consume(server: &str, args: &ConsumeBench, stop: &Stop) -> Result<Figures, CliError> {
    let ConsumeBench { common, batch, .. } = args;
    let amount = args.amount.or_bytes(512 << 20, common.record_size);
    let config = ConsumerConfig::default()
        .partition_max_bytes(args.fetch_size)
        .max_bytes(ConsumerConfig::default().max_bytes.max(args.fetch_size))
        .prefetch_bytes(LEAST_PREFETCH_BYTES.max(args.fetch_size * 4));
    on_a_topic(server, common, stop, async |stage: Stage<'_>| {
        let mut fleet = stage.fleet(common, producer_config(common, batch, None)).await?;
        let shared = if args.fan_out { 1 } else { args.consumers };
        let mut settings = stage.readers(shared, config, fleet.sent()).await?;
        (settings.consumers, settings.fan_out) = (args.consumers, args.fan_out);
        // With acks = 0 nobody says what has arrived: the reader waits for it.
        fleet.run(amount, Pace::Closed { time_every: u64::MAX }, stop).await?;
        if let Some(data_dir) = &args.cold {
            make_cold(data_dir, &stage.topic.name)?;
        }
        let readers = Readers::connect(server, &settings, stage.clock).await?;
        let (_known, goal) = watch::channel(Some(fleet.sent()));
        let meter = Meter::start(&stage).await?;
        let read = readers.run(goal, args.passes, CountedFrom::default(), stop).await?;
        let bytes = read.records * stage.content.record_bytes() as u64;
        let figures = Figures::rates(Some(read.records), bytes, read.elapsed);
        meter.stop(&stage, Figures { complete: !read.stopped, ..figures }).await
    })
    .await
}

/// `callboard bench latency`, once.
///
/// # Errors
/// As [`consume`].
pub async fn latency(server: &str, args: &LatencyBench, stop: &Stop) -> Result<Figures, CliError> {
    let common = &args.common;
    let amount = args.amount;
    let amount = match (amount.records, amount.bytes, amount.duration) {
        (None, None, None) => Amount::Duration(Duration::from_secs(5)),
        _ => amount.or_bytes(0, common.record_size),
    };
    let config = ProducerConfig::default().acks(common.acks).compression(common.compression);
    on_a_topic(server, common, stop, async |stage: Stage<'_>| {
        let mut fleet = stage.fleet(common, config).await?;
        let Some(rate) = args.rate else {
            let pace = Pace::InFlight(args.in_flight);
            if !args.warm_up.is_zero() {
                fleet.run(Amount::Duration(args.warm_up), pace, stop).await?;
            }
            let meter = Meter::start(&stage).await?;
            let sent = fleet.run(amount, pace, stop).await?;
            return meter.stop(&stage, stage.figures(&sent)).await;
        };
        let settings = stage.readers(args.consumers, ConsumerConfig::default(), fleet.sent()).await?;
        let readers = Readers::connect(server, &settings, stage.clock).await?;
        let counted_from = CountedFrom::default();
        let (known, goal) = watch::channel(None);
        let (reading_stop, counted) = (stop.clone(), counted_from.clone());
        let reading = tokio::spawn(async move { readers.run(goal, 1, counted, &reading_stop).await });
        let outcome = end_to_end(&mut fleet, args, (amount, rate), &stage, &counted_from).await;
        // Without a goal the readers end with the sender of it.
        let figures = match outcome {
            Ok(figures) => figures,
            Err(error) => {
                reading.abort();
                return Err(error);
            }
        };
        known.send_replace(Some(fleet.sent()));
        let read = reading.await.unwrap_or_else(|error| Err(CliError::Failed(format!("reading ended: {error}"))))?;
        let ReadBack { end_to_end, .. } = read;
        Ok(Figures { end_to_end: end_to_end.percentiles(), ..figures })
    })
    .await
}

async fn end_to_end(
    fleet: &mut Fleet,
    args: &LatencyBench,
    (amount, rate): (Amount, u64),
    stage: &Stage<'_>,
    counted_from: &CountedFrom,
) -> Result<Figures, CliError> {
    if !args.warm_up.is_zero() {
        fleet.run(Amount::Duration(args.warm_up), Pace::Open(rate), stage.stop).await?;
    }
    counted_from.set(stage.clock.now_ns());
    let meter = Meter::start(stage).await?;
    let sent = fleet.run(amount, Pace::Open(rate), stage.stop).await?;
    meter.stop(stage, stage.figures(&sent)).await
}

/// Drops the files of a topic from the page cache.
fn make_cold(data_dir: &Path, topic: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::Failed(format!("cannot make {} cold: {error}; give the node's node.data_dir", data_dir.display()))
    };
    let prefix = format!("{topic}-");
    let mut found = false;
    for entry in std::fs::read_dir(data_dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        found = true;
        for file in std::fs::read_dir(entry.path()).map_err(failed)? {
            match std::fs::File::open(file.map_err(failed)?.path()) {
                Ok(file) => drop_from_page_cache(&file).map_err(failed)?,
                // The node goes on meanwhile: a checkpoint is written beside and renamed, a segment expires.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    let missing = || std::io::Error::other(format!("there is nothing of topic {topic}"));
    if found { Ok(()) } else { Err(failed(missing())) }
}
