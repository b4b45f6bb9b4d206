//! `callboard-consumer` and `callboard consume`.
//!
//! ```text
//!   Consumer.recv_batch ─► until count, end or Ctrl-C ─► Formatter ─► Sink: stdout or a file
//!                                                   └──► Latencies, counters ─► progress line, summary
//! ```
//!
//! With `--consumers N` each reads everything over a connection of its own and writes a file of its own.
//!
//! Reading order: [`start`], [`mod@format`], [`sink`], [`latency`], `run`.

pub mod format;
pub mod latency;
pub mod sink;
pub mod start;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::{ConnectArgs, ConsumeArgs};
use super::error::CliError;
use super::output;
use super::produce::load::wall_us;
use super::progress::{self, Progress, print_line};
use super::stop::Stop;
use crate::client::{ConsumedRecord, Consumer, ConsumerConfig, StartAt};
use crate::types::Offset;
use format::Formatter;
use latency::Latencies;
use sink::Sink;

/// Records taken from the consumer at a time: enough to make the rest cheap, few enough for a lively `--count` and Ctrl-C.
const RECORDS_AT_A_TIME: usize = 2_048;

/// How often to look whether the end is reached when no record comes: control batches and compacted records move the
/// position without one.
const END_CHECK: Duration = Duration::from_millis(50);

/// Connections opened at a time, so that a thousand consumers do not overrun the listener's backlog.
const CONNECTING_AT_A_TIME: usize = 64;

/// What was read so far, by all consumers of the command.
#[derive(Debug, Default)]
struct Counters {
    records: AtomicU64,
    bytes: AtomicU64,
    latencies: Latencies,
}

/// Reads what `args` say until the count or the end is reached, or the user stops it.
///
/// # Errors
/// [`CliError`]; [`CliError::OutputClosed`] when the reader of stdout is gone.
pub async fn run(connect: &ConnectArgs, args: ConsumeArgs) -> Result<(), CliError> {
    // Before anything is connected.
    args.read_from()?;
    let stop = Stop::on_signals()?;
    let counters = Arc::new(Counters::default());
    let started = Instant::now();
    let progress = {
        let counters = Arc::clone(&counters);
        // Records on the same terminal are progress enough.
        let apart = args.output.is_some() || !std::io::stdout().is_terminal();
        Progress::start(apart, move |elapsed| counters.describe(elapsed))
    };
    let result = match (args.consumers, &args.output) {
        (Some(consumers), Some(directory)) => {
            read_in_files(connect, &args, consumers, directory, &stop, &counters).await
        }
        (_, Some(path)) => match Sink::file(path, formatter(&args)) {
            Ok(sink) => read(connect, &args, "callboard-consumer", sink, &stop, &counters).await,
            Err(error) => Err(error),
        },
        (_, None) => read(connect, &args, "callboard-consumer", Sink::stdout(formatter(&args)), &stop, &counters).await,
    };
    drop(progress);
    if !matches!(result, Err(CliError::OutputClosed)) {
        summarise(connect.json, &args, &counters, started.elapsed())?;
    }
    result
}

fn formatter(args: &ConsumeArgs) -> Formatter {
    Formatter::new(args.format, args.key_separator.clone(), args.delimiter.clone(), args.no_final_newline)
}

async fn read_in_files(
    connect: &ConnectArgs,
    args: &ConsumeArgs,
    consumers: u32,
    directory: &Path,
    stop: &Stop,
    counters: &Arc<Counters>,
) -> Result<(), CliError> {
    std::fs::create_dir_all(directory).map_err(|error| CliError::writing(&directory.display().to_string(), &error))?;
    let connecting = Arc::new(Semaphore::new(CONNECTING_AT_A_TIME));
    let mut readers = JoinSet::new();
    for number in 1..=consumers {
        let sink = Sink::file(&directory.join(format!("consumer-{number}.txt")), formatter(args))?;
        let (connect, args, stop) = (connect.clone(), args.clone(), stop.clone());
        let (counters, connecting) = (Arc::clone(counters), Arc::clone(&connecting));
        readers.spawn(async move {
            let opened = {
                let _turn = connecting.acquire().await;
                open(&connect, &args, &format!("callboard-consumer-{number}")).await
            };
            follow(opened?, &args, sink, &stop, &counters).await
        });
    }
    let mut result = Ok(());
    while let Some(one) = readers.join_next().await {
        let one = one.unwrap_or_else(|error| Err(CliError::Failed(format!("a consumer stopped early: {error}"))));
        result = result.and(one);
    }
    result
}

async fn read(
    connect: &ConnectArgs,
    args: &ConsumeArgs,
    client_id: &str,
    sink: Sink,
    stop: &Stop,
    counters: &Counters,
) -> Result<(), CliError> {
    let consumer = tokio::select! {
        biased;
        () = stop.wait() => return Ok(()),
        opened = open(connect, args, client_id) => opened?,
    };
    follow(consumer, args, sink, stop, counters).await
}

async fn open(connect: &ConnectArgs, args: &ConsumeArgs, client_id: &str) -> Result<Consumer, CliError> {
    let client = super::connect(connect, client_id).await?;
    let mut consumer = client.consumer(ConsumerConfig::default().read_from(args.read_from()?)).await?;
    let partitions = (!args.partition.is_empty()).then(|| args.partition.clone());
    // Before reading starts: it would start elsewhere.
    if let StartAt::Offset(from) = start(args) {
        check_not_beyond_the_end(&consumer, args, from).await?;
    }
    consumer.assign(&args.topic, partitions, start(args)).await?;
    Ok(consumer)
}

/// Refuses a start that nothing can be read from. Records that retention took are another matter: the library goes on where
/// the log starts now, and says so.
async fn check_not_beyond_the_end(consumer: &Consumer, args: &ConsumeArgs, from: Offset) -> Result<(), CliError> {
    let ends = consumer.end_offsets(&args.topic).await?;
    match ends.into_iter().find(|(partition, end)| is_wanted(args, *partition) && *end < from) {
        None => Ok(()),
        Some((partition, end)) => Err(CliError::Failed(format!(
            "--from {from} is beyond the end of partition {partition} of topic '{}', which is {end}: start there or earlier, or name another partition with --partition",
            args.topic
        ))),
    }
}

fn is_wanted(args: &ConsumeArgs, partition: u32) -> bool {
    args.partition.is_empty() || args.partition.contains(&partition)
}

fn start(args: &ConsumeArgs) -> StartAt {
    let unsaid = if args.exit_at_end { StartAt::Earliest } else { StartAt::Latest };
    args.from.map_or(unsaid, |from| from.0)
}

/// Where reading ends, partition by partition.
#[derive(Debug)]
struct Ends(HashMap<u32, Offset>);

impl Ends {
    async fn of_now(consumer: &Consumer, args: &ConsumeArgs) -> Result<Option<Self>, CliError> {
        if !args.exit_at_end {
            return Ok(None);
        }
        let ends = consumer.end_offsets(&args.topic).await?;
        Ok(Some(Self(ends.into_iter().filter(|(partition, _)| is_wanted(args, *partition)).collect())))
    }

    /// Whether every partition has been read up to its end.
    fn reached(&self, position: impl Fn(u32) -> Option<Offset>) -> bool {
        self.0.iter().all(|(&partition, &end)| position(partition).is_some_and(|position| position >= end))
    }

    /// Whether the record came after what was the end.
    fn excludes(&self, record: &ConsumedRecord) -> bool {
        self.0.get(&record.partition).is_some_and(|&end| record.offset >= end)
    }
}

async fn follow(
    mut consumer: Consumer,
    args: &ConsumeArgs,
    mut sink: Sink,
    stop: &Stop,
    counters: &Counters,
) -> Result<(), CliError> {
    let ends = Ends::of_now(&consumer, args).await?;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut end_checks = tokio::time::interval(END_CHECK);
    while left > 0 && !stop.is_stopped() {
        if ends.as_ref().is_some_and(|ends| ends.reached(|partition| consumer.position(&args.topic, partition))) {
            break;
        }
        let wanted = usize::try_from(left).map_or(RECORDS_AT_A_TIME, |left| left.min(RECORDS_AT_A_TIME));
        let ready = consumer.recv_batch(wanted).now_or_never();
        let batch = match ready {
            Some(batch) => batch,
            None => {
                // Nothing more at the moment: show what there is, then wait.
                sink.flush()?;
                tokio::select! {
                    biased;
                    () = stop.wait() => break,
                    batch = consumer.recv_batch(wanted) => batch,
                    _ = end_checks.tick(), if ends.is_some() => continue,
                }
            }
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                // What came before the failure is good.
                sink.flush()?;
                return Err(error.into());
            }
        };
        let kept = batch.iter().filter(|record| !ends.as_ref().is_some_and(|ends| ends.excludes(record)));
        left -= write(kept, &mut sink, counters)?;
        // While records are always ready nothing above waits, and the other consumers want their turn.
        tokio::task::coop::consume_budget().await;
    }
    sink.flush()
}

/// Writes and counts records; gives how many.
fn write<'a>(
    records: impl Iterator<Item = &'a ConsumedRecord> + Clone,
    sink: &mut Sink,
    counters: &Counters,
) -> Result<u64, CliError> {
    counters.latencies.record(records.clone().filter_map(|record| record.value.as_deref()), wall_us());
    let (mut count, mut bytes) = (0, 0);
    for record in records {
        sink.append(record)?;
        count += 1;
        bytes += record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
    }
    counters.records.fetch_add(count, Ordering::Relaxed);
    counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    Ok(count)
}

impl Counters {
    fn describe(&self, elapsed: Duration) -> String {
        let (records, bytes) = (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let latency = self.latencies.summary().map(|summary| format!(", {summary}")).unwrap_or_default();
        format!("read {}{latency}", progress::rates(records, bytes, elapsed))
    }
}

fn summarise(json: bool, args: &ConsumeArgs, counters: &Counters, elapsed: Duration) -> Result<(), CliError> {
    if json {
        let latency = counters.latencies.summary().map(|summary| {
            json!({"records": summary.records, "p50_us": summary.p50_us, "p99_us": summary.p99_us, "max_us": summary.max_us})
        });
        let summary = json!({
            "records": counters.records.load(Ordering::Relaxed),
            "bytes": counters.bytes.load(Ordering::Relaxed),
            "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            "latency": latency,
        });
        if args.output.is_some() {
            return output::print_json(&summary);
        }
        // Standard output belongs to the records.
        print_line(&summary.to_string());
    } else if args.consumers.is_some() || counters.latencies.summary().is_some() || progress::is_watched() {
        print_line(&format!("{} in {}", counters.describe(elapsed), output::duration(elapsed)));
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
