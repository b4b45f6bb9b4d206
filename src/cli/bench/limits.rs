//! `callboard bench limit`, and the limits that stand beside the figures of a node.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::args::{CommonArgs, ConsumeBench, Flush, LatencyBench, LimitBench, ProduceBench};
use super::latency::Latencies;
use super::limit::Limit;
use super::load::Amount;
use super::moved::Moved;
use super::probes;
use super::report::Figures;
use crate::cli::error::CliError;
use crate::cli::stop::Stop;

/// A round of a ping-pong or of syncs ends after so long, however many were asked for.
const LONGEST: Duration = Duration::from_secs(60);
/// Bytes of a write of the limit beside a node: a chunk that was read from a socket is still in a core's cache when it is
/// written to the file. Runs with 64 and 128 KiB are slower, runs with 1 MiB differ sixfold (docs/performance.md).
const CHUNK_BYTES: usize = 256 << 10;
/// What a limit moves beside a bench that runs for a time.
const BYTES_OF_A_DURATION: usize = 1 << 30;
/// Rounds of a ping-pong beside a node.
const ROUNDS: u64 = 20_000;

/// Runs what blocks on a thread, and tells it when the user wants the end.
async fn blocking<T: Send + 'static>(
    stop: &Stop,
    work: impl FnOnce(&AtomicBool) -> io::Result<T> + Send + 'static,
) -> Result<T, CliError> {
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopped);
    let mut task = tokio::task::spawn_blocking(move || work(&flag));
    let done = tokio::select! {
        done = &mut task => done,
        () = stop.wait() => {
            stopped.store(true, Ordering::Relaxed);
            task.await
        }
    };
    let failed = |error: io::Error| CliError::Failed(format!("the limit could not be measured: {error}"));
    done.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
}

fn moved(moved: Moved, stop: &Stop) -> Figures {
    Figures { complete: !stop.is_stopped(), ..Figures::rates(None, moved.bytes, moved.elapsed) }
}

fn timed(times: &Latencies, stop: &Stop) -> Figures {
    Figures { acknowledged: times.percentiles(), complete: !stop.is_stopped(), ..Figures::default() }
}

/// `callboard bench limit`, once.
///
/// # Errors
/// When sockets or files fail.
pub async fn alone(args: &LimitBench, stop: &Stop) -> Result<Figures, CliError> {
    let LimitBench { what, directory, record_size, rounds, bytes, write_size, .. } = args.clone();
    if what.ping_pong {
        let times = blocking(stop, move |flag| probes::ping_pong(record_size, rounds, LONGEST, flag)).await?;
        return Ok(timed(&times, stop));
    }
    if what.sync_latency {
        let work = move |flag: &AtomicBool| probes::sync_latency(&directory, record_size, rounds, LONGEST, flag);
        return Ok(timed(&blocking(stop, work).await?, stop));
    }
    if what.read {
        let work = move |flag: &AtomicBool| probes::sequential_read(&directory, bytes, write_size, flag);
        return Ok(moved(blocking(stop, work).await?, stop));
    }
    let connections = usize::from(args.connections);
    let files = if what.loopback { 0 } else { args.files.map_or(connections, usize::from).min(connections) };
    let limit = Limit { connections, files, bytes, chunk_bytes: write_size, sync: args.sync, directory };
    through(limit, stop).await
}

async fn through(limit: Limit, stop: &Stop) -> Result<Figures, CliError> {
    let work = move |flag: &AtomicBool| {
        if limit.files > 0 {
            probes::warm_memory(&limit.directory, limit.bytes, flag)?;
        }
        limit.run(flag)
    };
    Ok(moved(blocking(stop, work).await?, stop))
}

fn connections(args: &CommonArgs) -> usize {
    args.connections.unwrap_or(args.producers).min(args.producers) as usize
}

/// What stands beside `callboard bench produce`: as many connections and files, synced where the node syncs.
///
/// # Errors
/// When sockets or files fail.
pub async fn beside_produce(args: &ProduceBench, stop: &Stop) -> Result<Figures, CliError> {
    let common = &args.common;
    let bytes = match args.amount.or_bytes(BYTES_OF_A_DURATION, common.record_size) {
        Amount::Records(count) => usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(common.record_size),
        Amount::Duration(_) => BYTES_OF_A_DURATION,
    };
    let connections = connections(common);
    let limit = Limit {
        connections,
        files: (common.partitions as usize).min(connections),
        bytes,
        chunk_bytes: CHUNK_BYTES,
        sync: common.flush == Flush::Always,
        directory: common.directory.clone(),
    };
    through(limit, stop).await
}

/// What stands beside `callboard bench consume`: sockets alone, with writes of the fetches' size; of cold data, the disk.
///
/// # Errors
/// When sockets or files fail.
pub async fn beside_consume(args: &ConsumeBench, stop: &Stop) -> Result<Figures, CliError> {
    let (directory, fetch_size) = (args.common.directory.clone(), args.fetch_size);
    let bytes = match args.amount.or_bytes(BYTES_OF_A_DURATION / 2, args.common.record_size) {
        Amount::Records(count) => usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(args.common.record_size),
        Amount::Duration(_) => BYTES_OF_A_DURATION,
    };
    if args.cold.is_some() {
        let work = move |flag: &AtomicBool| probes::sequential_read(&directory, bytes, fetch_size, flag);
        return Ok(moved(blocking(stop, work).await?, stop));
    }
    let connections = args.consumers as usize;
    through(Limit { connections, files: 0, bytes, chunk_bytes: fetch_size, sync: false, directory }, stop).await
}

/// What stands beside `callboard bench latency`: one bare message to and fro at a time.
///
/// # Errors
/// When sockets fail.
pub async fn beside_latency(args: &LatencyBench, stop: &Stop) -> Result<Figures, CliError> {
    let (bytes, longest) = (args.common.record_size, args.amount.duration.unwrap_or(LONGEST));
    let times = blocking(stop, move |flag| probes::ping_pong(bytes, ROUNDS, longest, flag)).await?;
    Ok(timed(&times, stop))
}
