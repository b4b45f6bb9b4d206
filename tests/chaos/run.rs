//! A run: rounds of faults on one cluster, each with topics of its own, and judged at its end.
//!
//! ```text
//!   create topics ─► clients ─► faults ─► all well again? ─► flows? ─► read to the end ─► check ─► delete
//!                       └─────────── journal: what was sent, acknowledged, seen ────────────┘
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use callboard::cli::evaluate::clients::Journal;
use fastrand::Rng;
use tokio::time::{Instant, timeout};

use crate::gap::GapWatch;
use crate::nemesis::Nemesis;
use crate::report::Report;
use crate::schedule::Step;
use crate::stage::{PATIENCE, Stage};
use crate::workload::Workload;

/// Records that must be acknowledged in each partition before anything is injected, and after all is well again.
const FLOWING: u64 = 3;
/// Violations that are printed; there may be one for each record.
const PRINTED: usize = 10;

/// A cluster, and what has happened to it.
pub struct Run {
    stage: Stage,
    report: Report,
    home: PathBuf,
    seed: u64,
}

/// What was found in a round, with the journals that tell of it.
struct Findings {
    violations: Vec<String>,
    journals: Vec<Arc<Journal>>,
}

impl Run {
    /// Begins, in this directory.
    pub async fn begin(home: &Path, seed: u64) -> Self {
        let stage = Stage::open(home).await.unwrap_or_else(|error| panic!("the cluster does not start: {error}"));
        let report = Report::of(seed);
        if stage.disk.is_none() {
            report.note("a small file system can be mounted by root only: no disk will be full");
        }
        Self { stage, report, home: home.to_owned(), seed }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.report.elapsed()
    }

    /// What was injected, and what came of it.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// A round. It panics when something does not hold, and everything that tells of it is kept then.
    pub async fn round(&mut self, number: u64, steps: &[Step]) {
        self.report.note(&format!("round {number}: {} faults", steps.len()));
        let mut findings = Findings { violations: Vec::new(), journals: Vec::new() };
        if let Err(error) = self.try_round(number, steps, &mut findings).await {
            findings.violations.push(error);
        }
        findings.violations.extend(self.stage.panics());
        if !findings.violations.is_empty() {
            self.give_up(number, &findings);
        }
    }

    async fn try_round(&mut self, number: u64, steps: &[Step], findings: &mut Findings) -> Result<(), String> {
        self.stage.was_full = false;
        let mut workload = Workload::of_round(&self.stage, number).await?;
        let mut short_lived = Workload::short_lived(&self.stage, &format!("short-lived-{number}")).await?;
        findings.journals.push(Arc::clone(&workload.journal));
        for clients in [&workload, &short_lived] {
            timeout(PATIENCE, clients.flows(FLOWING)).await.map_err(|_| "nothing flows at the beginning")?;
        }
        let gap = GapWatch::start(&workload.places, &workload.journal);

        let rng = Rng::with_seed(self.seed ^ number.rotate_left(32));
        let (stage, report) = (&mut self.stage, &mut self.report);
        let mut nemesis = Nemesis::new((stage, report), (&mut workload, &mut short_lived), rng);
        let carried_out = nemesis.carry_out(steps).await;
        findings.violations.append(&mut nemesis.violations);
        findings.journals.append(&mut nemesis.journals);
        carried_out?;
        findings.journals.push(Arc::clone(&short_lived.journal));
        let healing = Instant::now();
        self.heal(&workload).await?;
        let healed = healing.elapsed();
        self.report.note(&format!("all is whole after {:.1} s", healed.as_secs_f64()));
        timeout(PATIENCE, workload.flows(FLOWING)).await.map_err(|_| "nothing flows when all is well again")?;

        let gap = gap.longest().await;
        let mut readable = vec![&mut workload];
        if self.stage.is_there(&short_lived).await {
            readable.push(&mut short_lived);
        } else {
            // A request to delete the one before it was held up, and came after that was done: it names no id.
            self.report.note("the topic that was created again was deleted by a request that came late");
            short_lived.kill().await;
            findings.violations.extend(short_lived.judge().await);
        }
        for clients in readable {
            clients.finish_producers().await?;
            clients.read_all(PATIENCE).await?;
            findings.violations.extend(clients.judge().await);
        }
        for clients in [&workload, &short_lived] {
            self.report.clients_of(clients);
        }
        // What was found damaged by reading is mended.
        self.stage.is_whole(&workload.places).await?;
        self.stage.ended_by_itself()?;
        self.report.round(number, gap, healed);
        for clients in [&workload, &short_lived] {
            clients.delete_topics(&self.stage).await;
        }
        Ok(())
    }

    /// What has to be done by hand, and then nothing any more.
    async fn heal(&mut self, workload: &Workload) -> Result<(), String> {
        if self.stage.was_full
            && let Some(id) = self.stage.on_small_disk()
        {
            // A replica that met a full disk is offline until its broker starts anew: docs/operations.md.
            self.stage.kill(&[id]).await?;
            self.stage.start(id)?;
        }
        self.stage.is_whole(&workload.places).await
    }

    /// Keeps what tells of it, and says where it is.
    fn give_up(&mut self, number: u64, Findings { violations, journals }: &Findings) {
        self.stage.cluster.kill_all();
        for (at, journal) in journals.iter().enumerate() {
            let path = self.home.join(format!("journal-{at}.txt"));
            // What cannot be kept takes nothing from what is told.
            let _ = std::fs::write(path, format!("{:#?}", journal.read().history));
        }
        if let Some(disk) = &self.stage.disk {
            let _ = disk.keep();
        }
        self.report.violations(violations.len());
        println!("\n{}", self.report);
        let (seed, home) = (self.seed, self.home.display());
        let told = violations.iter().take(PRINTED).map(|what| format!("  {what}\n")).collect::<String>();
        panic!(
            "seed {seed}, round {number}: {} violations:\n{told}journals, data and the logs of all nodes are in {home}; \
             the same faults again: scripts/chaos MINUTES --seed {seed}",
            violations.len()
        );
    }
}
