//! What was injected, how often, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use callboard::cli::output::counted;
use tokio::time::Instant;

use crate::schedule::Step;
use crate::workload::Workload;

/// Of one run.
pub struct Report {
    seed: u64,
    started: Instant,
    rounds: u64,
    injected: BTreeMap<String, u64>,
    met_nobody: u64,
    sent: u64,
    acknowledged: u64,
    seen: u64,
    readers: u64,
    /// And the round in which it was.
    longest_gap: (Duration, u64),
    longest_healing: (Duration, u64),
    violations: u64,
}

impl Report {
    /// Nothing has happened yet.
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            started: Instant::now(),
            rounds: 0,
            injected: BTreeMap::new(),
            met_nobody: 0,
            sent: 0,
            acknowledged: 0,
            seen: 0,
            readers: 0,
            longest_gap: (Duration::ZERO, 0),
            longest_healing: (Duration::ZERO, 0),
            violations: 0,
        }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Something that is worth knowing now.
    pub fn note(&self, what: &str) {
        let millis = self.elapsed().as_millis();
        println!("{:4}:{:02}.{}  {what}", millis / 60_000, millis / 1_000 % 60, millis / 100 % 10);
    }

    /// A fault was injected, and met somebody, or nobody.
    pub fn fault(&mut self, step: &Step, met: Option<&str>) {
        let what = step.fault.to_string();
        let Some(met) = met else {
            self.met_nobody += 1;
            return self.note(&format!("{what}: not now"));
        };
        self.note(&format!("{what}, {} ms: {met}", step.lasts.as_millis()));
        *self.injected.entry(what).or_default() += 1;
    }

    /// How many faults met somebody.
    pub fn injected(&self) -> u64 {
        self.injected.values().sum()
    }

    /// What clients did that have ended.
    pub fn clients_of(&mut self, workload: &Workload) {
        let written = workload.journal.read();
        self.sent += written.history.sent_count();
        self.acknowledged += written.history.acknowledged_counts().values().sum::<u64>();
        self.seen += u64::try_from(written.history.seen_count()).unwrap_or(u64::MAX);
        self.readers += u64::from(workload.consumers_started());
    }

    /// A round is over.
    pub fn round(&mut self, number: u64, gap: Duration, healing: Duration) {
        self.rounds += 1;
        self.longest_gap = self.longest_gap.max((gap, number));
        self.longest_healing = self.longest_healing.max((healing, number));
    }

    /// So much did not hold.
    pub fn violations(&mut self, count: usize) {
        self.violations += u64::try_from(count).unwrap_or(u64::MAX);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed().as_secs();
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        writeln!(f, "seed {}: {} in {minutes}:{seconds:02}", self.seed, counted(self.rounds, "round"))?;
        for (what, count) in &self.injected {
            writeln!(f, "{count:8}  {what}")?;
        }
        writeln!(f, "{:8}  faults in all; {} more met nobody", self.injected(), self.met_nobody)?;
        writeln!(f, "{:8}  records sent", self.sent)?;
        writeln!(f, "{:8}  acknowledged", self.acknowledged)?;
        writeln!(
            f,
            "{:8}  not, in time or because their producer was killed: they may be there or not",
            self.sent - self.acknowledged
        )?;
        writeln!(f, "{:8}  seen, by {}", self.seen, counted(self.readers, "consumer"))?;
        let told = |(time, round): (Duration, u64)| format!("{:.1} s, in round {round}", time.as_secs_f64());
        writeln!(f, "longest time without an acknowledgement in a partition: {}", told(self.longest_gap))?;
        writeln!(f, "longest time until all was whole again: {}", told(self.longest_healing))?;
        write!(f, "{} violations", self.violations)
    }
}
