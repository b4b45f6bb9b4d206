//! What came of a bench: figures of each run, ratios within a run, and their spread.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::latency::Percentiles;
use super::usage::Usage;
use crate::cli::output;

/// The figures of one measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Records that were acknowledged, or read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Bytes of their values.
    pub bytes: u64,
    /// From the start to the last of them.
    pub elapsed_seconds: f64,
    /// Records in a batch, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_per_batch: Option<f64>,
    /// Records a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_per_second: Option<f64>,
    /// Megabytes (10^6) of values a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub megabytes_per_second: Option<f64>,
    /// From when a record was to be sent until it was acknowledged; of a bare message, until it came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Percentiles>,
    /// From when a record was to be sent until a consumer had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end: Option<Percentiles>,
    /// What the node used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Used>,
    /// What the bench itself used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bench: Option<Used>,
    /// Whether it ran to its end.
    pub complete: bool,
}

/// What a process used for a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Used {
    /// See [`Usage`].
    #[serde(flatten)]
    pub usage: Usage,
    /// Seconds of CPU for 10^9 bytes of values.
    pub cpu_seconds_per_gigabyte: f64,
}

impl Used {
    /// The usage for so many bytes.
    #[must_use]
    pub fn new(usage: Usage, bytes: u64) -> Self {
        Self { usage, cpu_seconds_per_gigabyte: usage.cpu_seconds / (bytes.max(1) as f64 / 1e9) }
    }
}

impl Figures {
    /// Bytes in a time, and records if there are any.
    #[must_use]
    pub fn rates(records: Option<u64>, bytes: u64, elapsed: Duration) -> Self {
        let elapsed_seconds = elapsed.as_secs_f64();
        let a_second = |count: u64| count as f64 / elapsed_seconds.max(1e-9);
        Self {
            records,
            bytes,
            elapsed_seconds,
            records_per_second: records.map(a_second),
            megabytes_per_second: Some(a_second(bytes) / 1e6),
            complete: true,
            ..Self::default()
        }
    }

    /// What is compared, by name.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<&'static str, f64> {
        let rates = [
            ("records_per_second", self.records_per_second),
            ("megabytes_per_second", self.megabytes_per_second),
            ("acknowledged_p50_us", self.acknowledged.map(|of| of.p50_us)),
            ("acknowledged_p99_us", self.acknowledged.map(|of| of.p99_us)),
            ("end_to_end_p50_us", self.end_to_end.map(|of| of.p50_us)),
            ("end_to_end_p99_us", self.end_to_end.map(|of| of.p99_us)),
        ];
        rates.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The smallest, the middle and the largest of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle; of an even number, the mean of the two there.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`; nothing without any.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { min, median, max })
    }
}

/// One run: the node, and what stands beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What was measured, the node or, for a limit alone, that; then what stands beside it.
    pub measured: Vec<(&'static str, Figures)>,
}

impl Run {
    /// The first of what was measured, divided by each of the others, where both have the metric.
    fn ratios(&self) -> BTreeMap<(&'static str, &'static str), f64> {
        let Some(((_, first), beside)) = self.measured.split_first() else { return BTreeMap::new() };
        let ours = first.metrics();
        let mut ratios = BTreeMap::new();
        for (name, figures) in beside {
            for (metric, theirs) in figures.metrics() {
                if let Some(ours) = ours.get(metric).filter(|_| theirs > 0.0) {
                    ratios.insert((*name, metric), ours / theirs);
                }
            }
        }
        ratios
    }
}

/// Everything that a bench has found out.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which bench.
    pub bench: &'static str,
    /// What was asked for.
    pub settings: Value,
    /// The runs, in order.
    pub runs: Vec<Run>,
}

impl Report {
    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let runs: Vec<Value> = self.runs.iter().map(run_json).collect();
        let mut summary: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
        let mut ratios: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
        for run in &self.runs {
            for (name, figures) in &run.measured {
                for (metric, value) in figures.metrics() {
                    summary.entry(name).or_default().entry(metric).or_default().push(value);
                }
            }
            for ((name, metric), ratio) in run.ratios() {
                ratios.entry(name).or_default().entry(metric).or_default().push(ratio);
            }
        }
        json!({
            "bench": self.bench,
            "settings": self.settings,
            "runs": runs,
            "summary": spreads(summary),
            "ratios": spreads(ratios),
        })
    }

    /// For people: a line for each measurement, a line for each ratio, and the spread of several runs.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut rows = Vec::new();
        for (number, run) in (1..).zip(&self.runs) {
            rows.extend(run.measured.iter().map(|(name, figures)| row(number, name, figures)));
        }
        let rows = without_empty_columns(rows);
        let mut text = output::table(&rows.0, rows.1);
        let mut lines: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
        for run in &self.runs {
            run.ratios().into_iter().for_each(|(what, ratio)| lines.entry(what).or_default().push(ratio));
        }
        let first = self.runs.first().and_then(|run| run.measured.first()).map_or("", |(name, _)| name);
        let ratios: Vec<_> = lines
            .into_iter()
            .filter_map(|((beside, metric), ratios)| {
                let spread = Spread::of(ratios)?;
                let what = format!("{first} / {beside}");
                let of = |ratio: f64| format!("{ratio:.2}");
                Some(vec![what, words(metric).to_owned(), of(spread.min), of(spread.median), of(spread.max)])
            })
            .collect();
        if !ratios.is_empty() {
            text.push_str("\n\n");
            text.push_str(&output::table(&["RATIO", "OF", "MIN", "MEDIAN", "MAX"], ratios));
        }
        text
    }
}

fn words(metric: &str) -> &str {
    match metric {
        "records_per_second" => "records/s",
        "megabytes_per_second" => "MB/s",
        "acknowledged_p50_us" => "acknowledged, p50",
        "acknowledged_p99_us" => "acknowledged, p99",
        "end_to_end_p50_us" => "end to end, p50",
        "end_to_end_p99_us" => "end to end, p99",
        other => other,
    }
}

fn run_json(run: &Run) -> Value {
    let measured: serde_json::Map<_, _> =
        run.measured.iter().map(|(name, figures)| ((*name).to_owned(), json!(figures))).collect();
    let mut ratios: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    for ((name, metric), ratio) in run.ratios() {
        ratios.entry(name).or_default().insert(metric, ratio);
    }
    let mut run = measured;
    if !ratios.is_empty() {
        run.insert("ratios".to_owned(), json!(ratios));
    }
    Value::Object(run)
}

fn spreads(values: BTreeMap<&str, BTreeMap<&str, Vec<f64>>>) -> Value {
    let spread = |(metric, values): (&str, Vec<f64>)| (metric.to_owned(), json!(Spread::of(values)));
    let of = |metrics: BTreeMap<&str, Vec<f64>>| metrics.into_iter().map(spread).collect::<serde_json::Map<_, _>>();
    values.into_iter().map(|(name, metrics)| (name.to_owned(), Value::Object(of(metrics)))).collect()
}

const COLUMNS: [&str; 14] = [
    "RUN",
    "WHAT",
    "RECORDS/S",
    "MB/S",
    "A BATCH",
    "ACKNOWLEDGED p50",
    "p99",
    "p99.9",
    "END TO END p50",
    "p99",
    "p99.9",
    "CPU s/GB: NODE",
    "BENCH",
    "PEAK: NODE",
];

fn row(number: usize, name: &str, figures: &Figures) -> Vec<String> {
    let or_empty = |text: Option<String>| text.unwrap_or_default();
    let latencies = |of: Option<Percentiles>| {
        let each = |pick: fn(&Percentiles) -> f64| or_empty(of.as_ref().map(|of| micros(pick(of))));
        [each(|of| of.p50_us), each(|of| of.p99_us), each(|of| of.p999_us)]
    };
    let cpu = |used: Option<Used>| or_empty(used.map(|used| format!("{:.2}", used.cpu_seconds_per_gigabyte)));
    let name = if figures.complete { name.to_owned() } else { format!("{name} (stopped)") };
    let rate = |rate: f64| crate::cli::progress::grouped(rate as u64);
    let mut row = vec![number.to_string(), name];
    row.push(or_empty(figures.records_per_second.map(rate)));
    row.push(or_empty(figures.megabytes_per_second.map(|rate| format!("{rate:.0}"))));
    row.push(or_empty(figures.records_per_batch.map(|records| format!("{records:.0}"))));
    row.extend(latencies(figures.acknowledged));
    row.extend(latencies(figures.end_to_end));
    row.extend([cpu(figures.node), cpu(figures.bench)]);
    row.push(or_empty(figures.node.map(|used| output::bytes(used.usage.peak_bytes))));
    row
}

fn micros(us: f64) -> String {
    if us < 100.0 { format!("{us:.1} µs") } else { output::micros(us as u64) }
}

fn without_empty_columns(rows: Vec<Vec<String>>) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let used: Vec<usize> = (0..COLUMNS.len()).filter(|at| rows.iter().any(|row| !row[*at].is_empty())).collect();
    let pick = |row: Vec<String>| used.iter().map(|at| row[*at].clone()).collect();
    (used.iter().map(|at| COLUMNS[*at]).collect(), rows.into_iter().map(pick).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(node: u64, limit: u64) -> Run {
        let figures = |megabytes| Figures::rates(None, megabytes * 1_000_000, Duration::from_secs(1));
        Run { measured: vec![("node", figures(node)), ("limit", figures(limit))] }
    }

    #[test]
    fn ratios_are_those_within_a_run_and_their_median_is_no_ratio_of_medians() {
        let report =
            Report { bench: "produce", settings: json!({}), runs: vec![run(50, 100), run(90, 100), run(10, 40)] };
        let told = report.to_json();
        assert_eq!(told["ratios"]["limit"]["megabytes_per_second"], json!({"min": 0.25, "median": 0.5, "max": 0.9}));
        assert_eq!(told["summary"]["node"]["megabytes_per_second"], json!({"min": 10.0, "median": 50.0, "max": 90.0}));
        assert_eq!(told["runs"][2]["ratios"]["limit"]["megabytes_per_second"], json!(0.25));
        let table = report.to_table();
        assert!(table.starts_with("RUN  WHAT   MB/S\n1    node   50\n1    limit  100\n"), "{table}");
        assert!(
            table.ends_with("RATIO         OF    MIN   MEDIAN  MAX\nnode / limit  MB/s  0.25  0.50    0.90"),
            "{table}"
        );
    }

    #[test]
    fn the_middle_of_an_even_number_is_the_mean_of_two() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
