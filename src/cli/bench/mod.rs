//! `callboard bench`: how fast a node is, beside what its machine allows.
//!
//! ```text
//!   produce ┐                         ┌─ load: producers, closed or open loop ─► client::Producer ─┐
//!   consume ├─► run, interleaved ─────┤                                                            ├─► a node
//!   latency ┘        │ beside         └─ read: consumers, every record verified ◄─ client::Consumer ┘
//!                    ├─► limit: sockets and files in plain blocking code
//!                    └─► null:  our own server side that stores nothing, in a process of its own
//!   gates ─► a node of its own, and these commands as processes, interleaved ─► the table of ratios
//! ```
//!
//! Absolute figures of a machine move by a factor of two from minute to minute; a ratio of two measurements of the same
//! run does not. docs/bench.md says what each figure means, and what it does not.
//!
//! Reading order: [`args`], `record`, `verify`, `pacer`, `load`, `read`, `measure`, `limit`, `report`, `gates`.

pub mod args;
mod clock;
mod gates;
mod latency;
mod limit;
mod limits;
mod load;
mod measure;
mod moved;
mod null;
mod pacer;
mod probes;
mod read;
mod record;
mod report;
mod server_process;
mod temporary_file;
mod topic;
mod usage;
mod verify;

use serde_json::{Value, json};

use super::args::ConnectArgs;
use super::error::CliError;
use super::output;
use super::stop::Stop;
use args::{BenchCommand, Beside, CommonArgs, ConsumeBench, LatencyBench, LimitBench, ProduceBench};
use report::{Figures, Report, Run};
use server_process::ServerProcess;

/// Runs a bench to its end, on threads of its own.
///
/// # Errors
/// [`CliError`]; what was measured until Ctrl-C is no error.
pub fn run(connect: &ConnectArgs, command: BenchCommand) -> Result<(), CliError> {
    super::warnings::show();
    match command {
        BenchCommand::Produce(args) => block_on(args.common.threads, produce(connect, &args)),
        BenchCommand::Consume(args) => block_on(args.common.threads, consume(connect, &args)),
        BenchCommand::Latency(args) => block_on(args.common.threads, latency(connect, &args)),
        BenchCommand::Limit(args) => block_on(1, limit(connect, &args)),
        BenchCommand::Null(args) => null::run(&args),
        BenchCommand::Gates(args) => block_on(1, gates::run(connect, &args)),
    }
}

fn block_on(threads: u16, bench: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    // With one thread a request and its answer cross no thread in the client.
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads.into());
    }
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| CliError::Failed(format!("cannot start threads: {error}")))?.block_on(bench)
}

async fn produce(connect: &ConnectArgs, args: &ProduceBench) -> Result<(), CliError> {
    let stop = Stop::on_signals()?;
    let settings =
        json!({"rate": args.rate, "batch_records": args.batch.batch_records, "batch_bytes": args.batch.batch_size});
    let node = async |server: &str| measure::produce(server, args, &stop).await;
    let limit = async || limits::beside_produce(args, &stop).await;
    repeat("produce", connect, &args.common, settings, &stop, node, limit).await
}

async fn consume(connect: &ConnectArgs, args: &ConsumeBench) -> Result<(), CliError> {
    if args.common.beside.contains(&Beside::Null) {
        let text =
            "a null server keeps nothing to read back: use --beside limit here, and --beside null with latency --rate";
        return Err(CliError::Usage(text.to_owned()));
    }
    let stop = Stop::on_signals()?;
    let settings = json!({"consumers": args.consumers, "fan_out": args.fan_out, "fetch_bytes": args.fetch_size,
        "passes": args.passes, "cold": args.cold.is_some()});
    let node = async |server: &str| measure::consume(server, args, &stop).await;
    let limit = async || limits::beside_consume(args, &stop).await;
    repeat("consume", connect, &args.common, settings, &stop, node, limit).await
}

async fn latency(connect: &ConnectArgs, args: &LatencyBench) -> Result<(), CliError> {
    let stop = Stop::on_signals()?;
    let in_flight = args.rate.is_none().then_some(args.in_flight);
    let settings = json!({"rate": args.rate, "in_flight": in_flight, "consumers": args.rate.map(|_| args.consumers)});
    let node = async |server: &str| measure::latency(server, args, &stop).await;
    let limit = async || limits::beside_latency(args, &stop).await;
    repeat("latency", connect, &args.common, settings, &stop, node, limit).await
}

async fn limit(connect: &ConnectArgs, args: &LimitBench) -> Result<(), CliError> {
    let stop = Stop::on_signals()?;
    let settings = json!({"connections": args.connections, "files": args.files, "sync": args.sync, "bytes": args.bytes,
        "write_bytes": args.write_size, "record_bytes": args.record_size, "rounds": args.rounds});
    let mut report = Report { bench: "limit", settings, runs: Vec::new() };
    for _ in 0..args.runs {
        report.runs.push(Run { measured: vec![("limit", limits::alone(args, &stop).await?)] });
        if stop.is_stopped() {
            break;
        }
    }
    print(connect, &report)
}

/// Measures the node and what stands beside it, in turn, so many times.
async fn repeat(
    bench: &'static str,
    connect: &ConnectArgs,
    common: &CommonArgs,
    own_settings: Value,
    stop: &Stop,
    node: impl AsyncFn(&str) -> Result<Figures, CliError>,
    limit: impl AsyncFn() -> Result<Figures, CliError>,
) -> Result<(), CliError> {
    let null = if common.beside.contains(&Beside::Null) { Some(ServerProcess::null().await?) } else { None };
    let measured = interleave(connect, common, stop, null.as_ref(), node, limit).await;
    if let Some(null) = null {
        null.stop().await;
    }
    print(connect, &Report { bench, settings: settings(connect, common, own_settings), runs: measured? })
}

async fn interleave(
    connect: &ConnectArgs,
    common: &CommonArgs,
    stop: &Stop,
    null: Option<&ServerProcess>,
    node: impl AsyncFn(&str) -> Result<Figures, CliError>,
    limit: impl AsyncFn() -> Result<Figures, CliError>,
) -> Result<Vec<Run>, CliError> {
    let mut runs = Vec::new();
    for _ in 0..common.runs {
        let mut measured = vec![("node", node(&connect.server).await?)];
        if common.beside.contains(&Beside::Limit) && !stop.is_stopped() {
            measured.push(("limit", limit().await?));
        }
        if let Some(null) = null.filter(|_| !stop.is_stopped()) {
            measured.push(("null", node(&null.address).await?));
        }
        runs.push(Run { measured });
        if stop.is_stopped() {
            break;
        }
    }
    Ok(runs)
}

fn settings(connect: &ConnectArgs, common: &CommonArgs, own: Value) -> Value {
    let mut settings = json!({
        "server": connect.server,
        "record_bytes": common.record_size,
        "producers": common.producers,
        "connections": common.connections.unwrap_or(common.producers),
        "partitions": common.partitions,
        "acks": format!("{:?}", common.acks).to_lowercase(),
        "flush": common.flush,
        "compression": format!("{:?}", common.compression).to_lowercase(),
        "threads": common.threads,
        "beside": common.beside,
    });
    if let (Some(all), Value::Object(own)) = (settings.as_object_mut(), own) {
        all.extend(own);
    }
    settings
}

fn print(connect: &ConnectArgs, report: &Report) -> Result<(), CliError> {
    if connect.json { output::print_json(&report.to_json()) } else { output::print(&report.to_table()) }
}
