//! `callboard-producer` and `callboard produce`.
//!
//! ```text
//!   stdin ─► thread: lines ─┐
//!                           ├─► Producer.send ─► deliveries, in order ─► settle: counts what became of them
//!   load: n, send time ─────┘                    (bounded queue)
//! ```
//!
//! Reading order: [`lines`], `template`, [`load`], `run`.

pub mod lines;
pub mod load;
mod template;

use std::io::{IsTerminal, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::args::{ConnectArgs, ProduceArgs};
use super::error::CliError;
use super::output;
use super::progress::{self, Progress, grouped, print_line};
use super::stop::Stop;
use super::topic::create_if_missing;
use crate::client::{Client, ClientError, Delivery, OutgoingRecord, Producer, ProducerConfig};
use lines::{Portion, read_on_thread};
use template::Template;

/// Portions of deliveries that wait to be settled. A portion has at most 4,096, so about half a million in all.
const UNSETTLED_PORTIONS: usize = 128;

/// Connections opened at a time when a load starts, so that a thousand producers do not overrun the listener's backlog.
const CONNECTING_AT_A_TIME: usize = 64;

/// What became of the records so far.
#[derive(Debug, Default)]
struct Counters {
    delivered: AtomicU64,
    delivered_bytes: AtomicU64,
    failed: AtomicU64,
}

/// How it ended, beside the counters.
#[derive(Debug, Default)]
struct Ending {
    /// The first record that failed.
    first_failure: Option<ClientError>,
    /// What kept the rest from being read or sent.
    fatal: Option<CliError>,
    last_is_open: bool,
}

impl Ending {
    fn merge(&mut self, other: Self) {
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.fatal = self.fatal.take().or(other.fatal);
        self.last_is_open |= other.last_is_open;
    }
}

/// Sends what `args` say until the input ends, the count is reached, or the user stops it.
///
/// # Errors
/// [`CliError`]; [`CliError::Failed`] when records failed, after the summary.
pub async fn run(connect: &ConnectArgs, args: ProduceArgs) -> Result<(), CliError> {
    let stop = Stop::on_signals()?;
    let client = tokio::select! {
        biased;
        () = stop.wait() => return Ok(()),
        client = super::connect(connect, "callboard-producer") => client?,
    };
    if args.create_topic {
        create_if_missing(&client.admin(), &args.topic).await?;
    }
    let is_load = args.producers.is_some();
    let counters = Arc::new(Counters::default());
    let started = Instant::now();
    let progress = {
        let counters = Arc::clone(&counters);
        // A line that is written over would disturb who is typing.
        Progress::start(is_load || !std::io::stdin().is_terminal(), move |elapsed| counters.describe(elapsed))
    };
    let ending = if is_load {
        send_load(connect, &args, &stop, &counters).await
    } else {
        let producer = client.producer(config(&args)).await?;
        send_lines(producer, std::io::stdin(), &args, &stop, &counters).await
    };
    drop(progress);
    summarise(connect.json, is_load, &counters, &ending, started.elapsed())?;
    ending.into_result(&counters)
}

fn config(args: &ProduceArgs) -> ProducerConfig {
    let config = ProducerConfig::default();
    let buffer_bytes = config.buffer_bytes.max(args.batch_bytes.saturating_mul(2));
    config
        .acks(args.acks)
        .compression(args.compression)
        .linger(args.linger)
        .batch_bytes(args.batch_bytes)
        .buffer_bytes(buffer_bytes)
}

async fn send_lines(
    producer: Producer,
    input: impl Read + Send + 'static,
    args: &ProduceArgs,
    stop: &Stop,
    counters: &Arc<Counters>,
) -> Ending {
    let portions = read_on_thread(input, args.delimiter.clone());
    send_portions(producer, portions, args, stop, counters).await
}

async fn send_portions(
    producer: Producer,
    mut portions: mpsc::Receiver<Portion>,
    args: &ProduceArgs,
    stop: &Stop,
    counters: &Arc<Counters>,
) -> Ending {
    let template = Template::new(args);
    let (unsettled, settled) = settle(Arc::clone(counters));
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut ending = Ending::default();
    while left > 0 && ending.fatal.is_none() {
        let portion = tokio::select! {
            biased;
            () = stop.wait(), if !portions.is_closed() => {
                // Nothing more is read. What has been read is gone from the pipe, and nobody else can send it.
                portions.close();
                continue;
            }
            portion = portions.recv() => portion,
        };
        let mut records = match portion {
            Some(Portion::Records(records)) => records,
            Some(Portion::End { last_is_open }) => {
                ending.last_is_open = last_is_open;
                break;
            }
            Some(Portion::Failed(error)) => {
                ending.fatal = Some(CliError::Failed(error.to_string()));
                break;
            }
            None => break,
        };
        records.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= records.len() as u64;
        let mut deliveries = Vec::with_capacity(records.len());
        for line in records {
            if let Err(fatal) = send(&producer, template.record(line), counters, &mut ending, &mut deliveries).await {
                ending.fatal = Some(fatal);
                break;
            }
        }
        if unsettled.send(deliveries).await.is_err() {
            break;
        }
    }
    drop(unsettled);
    finish(producer, settled, ending).await
}

/// Hands one record over. A record that is too large is counted and the next ones go on; anything else ends the command.
async fn send(
    producer: &Producer,
    record: OutgoingRecord,
    counters: &Counters,
    ending: &mut Ending,
    deliveries: &mut Vec<(Delivery, u32)>,
) -> Result<(), CliError> {
    let bytes = record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
    match producer.send(record).await {
        Ok(delivery) => {
            deliveries.push((delivery, u32::try_from(bytes).unwrap_or(u32::MAX)));
            Ok(())
        }
        Err(error @ ClientError::RecordTooLarge { .. }) => {
            counters.failed.fetch_add(1, Ordering::Relaxed);
            ending.first_failure.get_or_insert(error);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

type Deliveries = Vec<(Delivery, u32)>;

/// Awaits deliveries in the order in which they were sent, and counts. Ends with the first failure when the queue is closed.
fn settle(counters: Arc<Counters>) -> (mpsc::Sender<Deliveries>, tokio::task::JoinHandle<Option<ClientError>>) {
    let (sender, mut queue) = mpsc::channel::<Deliveries>(UNSETTLED_PORTIONS);
    let settled = tokio::spawn(async move {
        let mut first_failure = None;
        while let Some(deliveries) = queue.recv().await {
            for (delivery, bytes) in deliveries {
                match delivery.await {
                    Ok(_) => {
                        counters.delivered.fetch_add(1, Ordering::Relaxed);
                        counters.delivered_bytes.fetch_add(u64::from(bytes), Ordering::Relaxed);
                    }
                    Err(error) => {
                        counters.failed.fetch_add(1, Ordering::Relaxed);
                        first_failure.get_or_insert(error);
                    }
                }
            }
        }
        first_failure
    });
    (sender, settled)
}

/// Waits until everything sent is acknowledged or failed.
async fn finish(
    producer: Producer,
    settled: tokio::task::JoinHandle<Option<ClientError>>,
    mut ending: Ending,
) -> Ending {
    // Each failure it could report has been counted by its delivery.
    let _ = producer.close().await;
    match settled.await {
        Ok(failure) => ending.first_failure = ending.first_failure.or(failure),
        Err(error) => ending.fatal = Some(CliError::Failed(format!("counting deliveries failed: {error}"))),
    }
    ending
}

async fn send_load(connect: &ConnectArgs, args: &ProduceArgs, stop: &Stop, counters: &Arc<Counters>) -> Ending {
    let connecting = Arc::new(Semaphore::new(CONNECTING_AT_A_TIME));
    let mut producers = JoinSet::new();
    for number in 1..=args.producers.unwrap_or(1) {
        let (connect, args, stop) = (connect.clone(), args.clone(), stop.clone());
        let (counters, connecting) = (Arc::clone(counters), Arc::clone(&connecting));
        producers.spawn(async move {
            let opened = {
                let _turn = connecting.acquire().await;
                open(&connect, &args, number).await
            };
            match opened {
                Ok(producer) => send_numbered(producer, &args, number, &stop, &counters).await,
                Err(fatal) => Ending { fatal: Some(fatal), ..Ending::default() },
            }
        });
    }
    let mut ending = Ending::default();
    while let Some(one) = producers.join_next().await {
        match one {
            Ok(one) => ending.merge(one),
            Err(error) => ending.fatal = Some(CliError::Failed(format!("a producer stopped early: {error}"))),
        }
    }
    ending
}

/// A producer with a connection of its own, as separate programs would have.
async fn open(connect: &ConnectArgs, args: &ProduceArgs, number: u32) -> Result<Producer, CliError> {
    let client: Client = super::connect(connect, &format!("callboard-producer-{number}")).await?;
    Ok(client.producer(config(args)).await?)
}

async fn send_numbered(
    producer: Producer,
    args: &ProduceArgs,
    number: u32,
    stop: &Stop,
    counters: &Arc<Counters>,
) -> Ending {
    let mut template = Template::new(args);
    if let Some(prefix) = &args.keys {
        template.key = Some(format!("{prefix}{number}").into());
    }
    let mut ticks = (!args.interval.is_zero()).then(|| tokio::time::interval(args.interval));
    if let Some(ticks) = &mut ticks {
        // After a stall the missed records are sent at once: the load keeps its rate.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    }
    // At a pace each record is counted at once; without one it is cheaper to count them by the hundred.
    let portion = if ticks.is_some() { 1 } else { 256 };
    let (unsettled, settled) = settle(Arc::clone(counters));
    let mut ending = Ending::default();
    let mut deliveries = Vec::with_capacity(portion);
    for n in 1..=args.count.unwrap_or(u64::MAX) {
        if let Some(ticks) = &mut ticks {
            tokio::select! {
                biased;
                () = stop.wait() => break,
                _ = ticks.tick() => {}
            }
        } else if stop.is_stopped() {
            break;
        }
        let record = template.record(load::value(n, load::wall_us()));
        if let Err(fatal) = send(&producer, record, counters, &mut ending, &mut deliveries).await {
            ending.fatal = Some(fatal);
            break;
        }
        let full = deliveries.len() >= portion;
        if full && unsettled.send(std::mem::replace(&mut deliveries, Vec::with_capacity(portion))).await.is_err() {
            break;
        }
    }
    // The receiver only goes away with its task, whose failure `finish` reports.
    let _ = unsettled.send(deliveries).await;
    drop(unsettled);
    finish(producer, settled, ending).await
}

impl Counters {
    fn describe(&self, elapsed: Duration) -> String {
        let (delivered, bytes) = (self.delivered.load(Ordering::Relaxed), self.delivered_bytes.load(Ordering::Relaxed));
        let failed = self.failed.load(Ordering::Relaxed);
        let failures = if failed == 0 { String::new() } else { format!(", {} FAILED", grouped(failed)) };
        format!("sent {}{failures}", progress::rates(delivered, bytes, elapsed))
    }
}

fn summarise(
    json: bool,
    is_load: bool,
    counters: &Counters,
    ending: &Ending,
    elapsed: Duration,
) -> Result<(), CliError> {
    let failed = counters.failed.load(Ordering::Relaxed);
    if json {
        return output::print_json(&json!({
            "delivered_records": counters.delivered.load(Ordering::Relaxed),
            "delivered_bytes": counters.delivered_bytes.load(Ordering::Relaxed),
            "failed_records": failed,
            "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            "last_record_unterminated": ending.last_is_open,
        }));
    }
    if is_load || failed > 0 || progress::is_watched() {
        print_line(&format!("{} in {}", counters.describe(elapsed), output::duration(elapsed)));
        if ending.last_is_open {
            print_line(
                "the last record had no line end; callboard-consumer --no-final-newline gives it back like that",
            );
        }
    }
    Ok(())
}

impl Ending {
    fn into_result(self, counters: &Counters) -> Result<(), CliError> {
        let failed = counters.failed.load(Ordering::Relaxed);
        match (self.fatal, self.first_failure) {
            (Some(fatal), _) => Err(fatal),
            (None, Some(first)) => Err(CliError::Failed(match failed {
                1 => format!("1 record was not delivered: {first}"),
                _ => format!("{} records were not delivered; the first one: {first}", grouped(failed)),
            })),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
