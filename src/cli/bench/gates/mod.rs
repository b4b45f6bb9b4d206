//! `callboard bench gates`: what Callboard's speed is judged by, five interleaved runs of all of it, and the table.
//!
//! ```text
//!   a run:   limit ─ node ─ limit ─ node ─ null ─ node ─ …   each a process, its JSON read
//!   a gate:  one figure divided by another of the same run ─► median and spread over the runs ─► met, or not
//! ```

mod legs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use super::args::GatesBench;
use super::probes::warm_memory;
use super::report::Spread;
use super::server_process::ServerProcess;
use crate::cli::args::ConnectArgs;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::progress::print_line;
use crate::cli::stop::Stop;
use legs::{Leg, Server, Size};

/// What is asked of a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    AtLeast(f64),
    AtMost(f64),
}

impl Asked {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("at least {bound:.2}"),
            Self::AtMost(bound) => format!("at most {bound:.2}"),
        }
    }
}

/// One gate: a figure of one measurement, divided by the sum of figures of others.
struct Gate {
    name: &'static str,
    ours: (&'static str, &'static str),
    theirs: &'static [(&'static str, &'static str)],
    asked: Asked,
}

const RATE: &str = "megabytes_per_second";
const RECORDS: &str = "records_per_second";
const ACK_P50: &str = "acknowledged/p50_us";
const ACK_P99: &str = "acknowledged/p99_us";

const fn gate(
    name: &'static str,
    ours: (&'static str, &'static str),
    theirs: &'static [(&'static str, &'static str)],
    asked: Asked,
) -> Gate {
    Gate { name, ours, theirs, asked }
}

/// The gates, in the words of docs/bench.md.
const GATES: &[Gate] = &[
    gate(
        "produce, 1 KiB x 1,000, one connection",
        ("produce, 1 connection", RATE),
        &[("limit, 1 connection", RATE)],
        Asked::AtLeast(0.7),
    ),
    gate(
        "produce, 1 KiB x 1,000, two connections and partitions",
        ("produce, 2 connections", RATE),
        &[("limit, 2 connections", RATE)],
        Asked::AtLeast(0.7),
    ),
    gate(
        "produce, two connections against one",
        ("produce, 2 connections", RATE),
        &[("produce, 1 connection", RATE)],
        Asked::AtLeast(1.0),
    ),
    gate("produce, synced, 8 producers", ("produce, synced", RATE), &[("limit, synced", RATE)], Asked::AtLeast(0.85)),
    gate(
        "produce, 100 B x 1,000",
        ("produce, 100 B x 1,000", RECORDS),
        &[("null, 100 B x 1,000", RECORDS)],
        Asked::AtLeast(0.7),
    ),
    gate(
        "produce, 100 B x 10,000",
        ("produce, 100 B x 10,000", RECORDS),
        &[("null, 100 B x 10,000", RECORDS)],
        Asked::AtLeast(0.7),
    ),
    gate("consume, in memory", ("consume, in memory", RATE), &[("loopback", RATE)], Asked::AtLeast(0.5)),
    gate("consume, cold", ("consume, cold", RATE), &[("disk, sequential read", RATE)], Asked::AtLeast(0.5)),
    gate("one record in flight, p50", ("one in flight", ACK_P50), &[("TCP ping-pong", ACK_P50)], Asked::AtMost(1.5)),
    gate(
        "end to end at 10,000 records/s, p50",
        ("end to end, 10,000/s", "end_to_end/p50_us"),
        &[("null, 10,000/s", "end_to_end/p50_us")],
        Asked::AtMost(2.0),
    ),
    gate(
        "end to end at 10,000 records/s, p99",
        ("end to end, 10,000/s", "end_to_end/p99_us"),
        &[("null, 10,000/s", "end_to_end/p99_us")],
        Asked::AtMost(3.0),
    ),
    // A ping-pong wakes two threads: its p50 stands for two wake-ups.
    gate(
        "one synced record in flight, p99",
        ("one in flight, synced", ACK_P99),
        &[("fdatasync", ACK_P99), ("TCP ping-pong", ACK_P50)],
        Asked::AtMost(5.0),
    ),
];

/// The figures of one run, by measurement.
type Found = BTreeMap<&'static str, Value>;

impl Gate {
    fn is_wanted(&self, only: &[String]) -> bool {
        only.is_empty() || only.iter().any(|text| self.name.contains(text.as_str()))
    }

    fn needs(&self, leg: &Leg) -> bool {
        self.ours.0 == leg.name || self.theirs.iter().any(|(name, _)| *name == leg.name)
    }

    fn ratio(&self, run: &Found) -> Option<f64> {
        let theirs: Option<f64> = self.theirs.iter().map(|what| figure(run, *what)).sum();
        Some(figure(run, self.ours)? / theirs.filter(|theirs| *theirs > 0.0)?)
    }
}

fn figure(run: &Found, (leg, metric): (&str, &str)) -> Option<f64> {
    run.get(leg)?.pointer(&format!("/{metric}"))?.as_f64()
}

/// A directory that goes away with its content.
struct Workshop(PathBuf);

impl Workshop {
    fn create(parent: &Path) -> Result<Self, CliError> {
        let path = parent.join(format!("callboard-gates-{}", std::process::id()));
        let failed = |error: std::io::Error| CliError::writing(&path.display().to_string(), &error);
        std::fs::create_dir_all(&path).map_err(failed)?;
        // Commands are told of it by its whole name.
        std::fs::canonicalize(&path).map(Self).map_err(failed)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // What cannot be removed has a name that says whose it is.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the gates.
///
/// # Errors
/// When something could not be measured. A gate that is not met is no error.
pub async fn run(connect: &ConnectArgs, args: &GatesBench) -> Result<(), CliError> {
    let stop = Stop::on_signals()?;
    let wanted: Vec<&Gate> = GATES.iter().filter(|gate| gate.is_wanted(&args.only)).collect();
    if wanted.is_empty() {
        let names: Vec<&str> = GATES.iter().map(|gate| gate.name).collect();
        return Err(CliError::Usage(format!("--only matches no gate; there are: {}", names.join("; "))));
    }
    let workshop = Workshop::create(&args.directory)?;
    let data_dir = workshop.0.join("data");
    let size = Size {
        bytes: args.bytes,
        duration: args.duration,
        directory: workshop.0.display().to_string(),
        data_dir: data_dir.display().to_string(),
    };
    let mut legs = legs::all(&size);
    legs.retain(|leg| wanted.iter().any(|gate| gate.needs(leg)));
    let (node, null) = (ServerProcess::node(&data_dir, &args.set).await?, ServerProcess::null().await?);
    let mut runs: Vec<Found> = Vec::new();
    let measured = measure(&legs, args.runs, &workshop, (&node, &null), &stop, &mut runs).await;
    node.stop().await;
    null.stop().await;
    measured?;
    if connect.json {
        return output::print_json(&to_json(&wanted, &legs, &runs));
    }
    output::print(&format!("{}\n\n{}", gates_table(&wanted, &runs), legs_table(&legs, &runs)))
}

async fn measure(
    legs: &[Leg],
    count: u32,
    workshop: &Workshop,
    (node, null): (&ServerProcess, &ServerProcess),
    stop: &Stop,
    runs: &mut Vec<Found>,
) -> Result<(), CliError> {
    for number in 1..=count {
        let mut run = Found::new();
        for leg in legs {
            if stop.is_stopped() {
                return Ok(());
            }
            let address = match leg.server {
                Server::Node => Some(node.address.clone()),
                Server::Null => Some(null.address.clone()),
                Server::Nothing => None,
            };
            let (leg, directory) = (leg.clone(), workshop.0.clone());
            let name = leg.name;
            let task = tokio::task::spawn_blocking(move || take(&leg, address.as_deref(), &directory));
            let figures = task.await.unwrap_or_else(|error| Err(CliError::Failed(error.to_string())))?;
            print_line(&format!("run {number} of {count}: {name}: {}", in_short(&figures)));
            run.insert(name, figures);
        }
        runs.push(run);
    }
    Ok(())
}

/// Takes one measurement, in a process of its own.
fn take(leg: &Leg, address: Option<&str>, directory: &Path) -> Result<Value, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("{}: {error}", leg.command()));
    warm_memory(directory, leg.warmed_bytes, &AtomicBool::new(false)).map_err(|error| failed(&error))?;
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    command.arg("bench").args(&leg.arguments).arg("--json").stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(address) = address {
        command.args(["--server", address]);
    }
    let output = command.output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&format!("it ended with {}", output.status)));
    }
    let told: Value = serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))?;
    let figures = told.pointer(&format!("/runs/0/{}", leg.measured()));
    figures.cloned().ok_or_else(|| failed(&"it told no figures"))
}

fn in_short(figures: &Value) -> String {
    let number = |pointer: &str| figures.pointer(pointer).and_then(Value::as_f64);
    let mut said = Vec::new();
    said.extend(number("/records_per_second").map(|rate| format!("{:.2} M records/s", rate / 1e6)));
    said.extend(number("/megabytes_per_second").map(|rate| format!("{rate:.0} MB/s")));
    for (words, which) in [("acknowledged", "acknowledged"), ("end to end", "end_to_end")] {
        if let (Some(p50), Some(p99)) = (number(&format!("/{which}/p50_us")), number(&format!("/{which}/p99_us"))) {
            said.push(format!("{words} p50 {p50:.0} µs, p99 {p99:.0} µs"));
        }
    }
    said.join(", ")
}

/// The spread of what `pick` finds in each run.
fn spread(runs: &[Found], pick: impl Fn(&Found) -> Option<f64>) -> Option<Spread> {
    Spread::of(runs.iter().filter_map(pick).collect())
}

fn gates_table(gates: &[&Gate], runs: &[Found]) -> String {
    let mut lines = vec![
        format!(
            "| gate ({} interleaved) | ratio, median | smallest to largest | asked | |",
            output::counted(runs.len() as u64, "run")
        ),
        "| --- | --- | --- | --- | --- |".to_owned(),
    ];
    for gate in gates {
        let asked = gate.asked.words();
        lines.push(match spread(runs, |run| gate.ratio(run)) {
            None => format!("| {} | | | {asked} | not measured |", gate.name),
            Some(Spread { min, median, max }) => {
                let verdict = if gate.asked.is_met(median) { "met" } else { "**not met**" };
                format!("| {} | {median:.2} | {min:.2} to {max:.2} | {asked} | {verdict} |", gate.name)
            }
        });
    }
    lines.join("\n")
}

fn legs_table(legs: &[Leg], runs: &[Found]) -> String {
    let mut lines = vec![
        "| measurement | median (smallest to largest) | CPU s/GB: node, bench | node's peak | command |".to_owned(),
        "| --- | --- | --- | --- | --- |".to_owned(),
    ];
    for leg in legs {
        let of = |metric: &'static str| spread(runs, |run| figure(run, (leg.name, metric)));
        let told = |metric, scale: f64, digits: usize, unit: &str| {
            let Spread { min, median, max } = of(metric)?;
            let each = |value: f64| format!("{:.digits$}", value / scale);
            Some(format!("{} ({} to {}) {unit}", each(median), each(min), each(max)))
        };
        let rate =
            if leg.name.contains("100 B") { told(RECORDS, 1e6, 2, "M records/s") } else { told(RATE, 1.0, 0, "MB/s") };
        let p50 = |which| told(which, 1.0, 0, "µs p50");
        let p99 = |which| told(which, 1.0, 0, "µs p99");
        let is_rate = !leg.arguments.iter().any(|word| word == "latency");
        let figures: Vec<String> = match (is_rate, of("end_to_end/p50_us").is_some()) {
            (_, true) => [p50("end_to_end/p50_us"), p99("end_to_end/p99_us")].into_iter().flatten().collect(),
            (true, _) if rate.is_some() => rate.into_iter().collect(),
            _ => [p50(ACK_P50), p99(ACK_P99)].into_iter().flatten().collect(),
        };
        let median = |metric, scale: f64| of(metric).map(|spread| spread.median / scale);
        let cpu = [median("node/cpu_seconds_per_gigabyte", 1.0), median("bench/cpu_seconds_per_gigabyte", 1.0)];
        let cpu: Vec<String> = cpu.iter().flatten().map(|cpu| format!("{cpu:.2}")).collect();
        let peak = of("node/peak_bytes").map_or_else(String::new, |peak| output::bytes(peak.max as u64));
        let (name, figures, cpu) = (leg.name, figures.join(", "), cpu.join(", "));
        lines.push(format!("| {name} | {figures} | {cpu} | {peak} | `{}` |", leg.command()));
    }
    lines.join("\n")
}

fn to_json(gates: &[&Gate], legs: &[Leg], runs: &[Found]) -> Value {
    let gates: Vec<Value> = gates
        .iter()
        .map(|gate| {
            let ratio = spread(runs, |run| gate.ratio(run));
            let met = ratio.map(|ratio| gate.asked.is_met(ratio.median));
            let each: Vec<Option<f64>> = runs.iter().map(|run| gate.ratio(run)).collect();
            json!({"name": gate.name, "asked": gate.asked.words(), "ratio": ratio, "ratios": each, "met": met})
        })
        .collect();
    let leg = |leg: &Leg| {
        let figures: Vec<_> = runs.iter().map(|run| run.get(leg.name)).collect();
        json!({"name": leg.name, "command": leg.command(), "runs": figures})
    };
    json!({"gates": gates, "measurements": legs.iter().map(leg).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn size() -> Size {
        let (directory, data_dir) = ("files".to_owned(), "data".to_owned());
        Size { bytes: 1 << 20, duration: Duration::from_millis(100), directory, data_dir }
    }

    #[test]
    fn every_gate_names_measurements_that_are_taken_and_every_measurement_serves_a_gate() {
        let legs = legs::all(&size());
        for gate in GATES {
            for (name, _) in gate.theirs.iter().chain([&gate.ours]) {
                assert!(legs.iter().any(|leg| leg.name == *name), "{name}");
            }
        }
        for leg in &legs {
            assert!(GATES.iter().any(|gate| gate.needs(leg)), "{}", leg.name);
        }
    }

    #[test]
    fn a_ratio_is_taken_within_a_run_and_its_median_decides() {
        let run = |ours: f64, theirs: f64| {
            Found::from([("consume, in memory", json!({RATE: ours})), ("loopback", json!({RATE: theirs}))])
        };
        let gate = GATES.iter().find(|gate| gate.name == "consume, in memory").expect("it exists");
        let runs = [run(40.0, 100.0), run(60.0, 100.0), run(11.0, 20.0)];
        let table = gates_table(&[gate], &runs);
        let line = "| consume, in memory | 0.55 | 0.40 to 0.60 | at least 0.50 | met |";
        assert_eq!(table.lines().last(), Some(line));
        assert!(gates_table(&[gate], &runs[..1]).ends_with("| **not met** |"));
        assert!(gates_table(&[gate], &[]).ends_with("| not measured |"));
        assert!(Asked::AtMost(1.5).is_met(1.5) && !Asked::AtMost(1.5).is_met(1.51));
    }

    #[test]
    fn a_figure_may_be_divided_by_a_sum() {
        let run = Found::from([
            ("one in flight, synced", json!({"acknowledged": {"p99_us": 900.0}})),
            ("fdatasync", json!({"acknowledged": {"p99_us": 250.0}})),
            ("TCP ping-pong", json!({"acknowledged": {"p50_us": 50.0}})),
        ]);
        let gate = GATES.last().expect("there are gates");
        assert_eq!(gate.ratio(&run), Some(3.0));
    }
}
