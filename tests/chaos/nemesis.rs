//! Carries out faults, each when its time has come, and ends those that do not last.
//!
//! ```text
//!   schedule: Step ─► inject ─► Stage: processes, links, disk ─► what ends it, and when
//!                                                                      │ due, or all at once at the end
//!                        Report: so often ◄── counted                  ▼
//!                                                          start, resume, open, empty
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use callboard::cli::evaluate::clients::Journal;
use callboard::cli::evaluate::history::Place;
use callboard::cli::local_cluster::plan::NodePlan;
use callboard::protocol::messages::PartitionMove;
use callboard::types::{NodeId, PartitionIndex, TopicPartition};
use fastrand::Rng;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::disk::flip;
use crate::net::{End, Link};
use crate::report::Report;
use crate::schedule::{Direction, Fault, Hurt, Step, Whom};
use crate::stage::{MIN_FREE_BYTES, Stage};
use crate::workload::{REPLICATION_FACTOR, Workload, delete};

/// How much later everything arrives on a slow link.
const SLOW: Duration = Duration::from_millis(150);
/// How long is waited for the controllers to take a move up: they may be what is hurt.
const TAKEN: Duration = Duration::from_secs(2);

/// What ends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cure {
    Start(NodeId),
    Resume(NodeId),
    Open(End, End),
    Room,
}

/// Faults of one round.
pub struct Nemesis<'a> {
    stage: &'a mut Stage,
    report: &'a mut Report,
    workload: &'a mut Workload,
    /// The topic that is deleted and created again, and what became of those before it.
    short_lived: &'a mut Workload,
    rng: Rng,
    cures: Vec<(Instant, Cure)>,
    /// At most one replica of a partition is damaged in a round, so that two are left.
    flipped: BTreeSet<Place>,
    /// What clients of deleted topics saw that must not be.
    pub violations: Vec<String>,
    /// What they were told.
    pub journals: Vec<Arc<Journal>>,
}

impl<'a> Nemesis<'a> {
    /// One for this round.
    pub fn new(
        (stage, report): (&'a mut Stage, &'a mut Report),
        (workload, short_lived): (&'a mut Workload, &'a mut Workload),
        rng: Rng,
    ) -> Self {
        let (cures, flipped) = (Vec::new(), BTreeSet::new());
        let (violations, journals) = (Vec::new(), Vec::new());
        Self { stage, report, workload, short_lived, rng, cures, flipped, violations, journals }
    }

    /// Carries out all steps, and ends all faults.
    pub async fn carry_out(&mut self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            self.cure_until(Instant::now() + step.after).await?;
            self.inject(step).await?;
            self.stage.ended_by_itself()?;
        }
        let last = self.cures.iter().map(|(due, _)| *due).max().unwrap_or_else(Instant::now);
        self.cure_until(last).await?;
        self.heal()
    }

    /// Waits until then, and ends what is due meanwhile.
    async fn cure_until(&mut self, then: Instant) -> Result<(), String> {
        loop {
            self.cures.sort_by_key(|(due, _)| *due);
            let next = self.cures.first().map(|(due, _)| *due).filter(|due| *due <= then);
            sleep_until(next.unwrap_or(then)).await;
            if next.is_none() {
                return Ok(());
            }
            let (_, cure) = self.cures.remove(0);
            self.cure(cure)?;
        }
    }

    fn cure(&mut self, cure: Cure) -> Result<(), String> {
        match cure {
            Cure::Start(id) => {
                self.stage.hurt.remove(&id);
                self.stage.start(id)
            }
            Cure::Resume(id) => {
                self.stage.hurt.remove(&id);
                // One that was killed meanwhile is started by what ends that.
                let _ = self.stage.cluster.resume(id);
                Ok(())
            }
            Cure::Open(from, to) => {
                self.stage.net.set(from, to, Link::Open);
                Ok(())
            }
            Cure::Room => self.stage.disk.as_ref().map_or(Ok(()), |disk| disk.empty().map_err(|e| e.to_string())),
        }
    }

    /// Whatever was forgotten: nothing is hurt from here on.
    fn heal(&mut self) -> Result<(), String> {
        self.stage.net.open_all();
        self.cure(Cure::Room)?;
        for id in self.stage.nodes(|_| true) {
            self.cure(Cure::Resume(id))?;
            self.cure(Cure::Start(id))?;
        }
        Ok(())
    }

    fn ends(&mut self, step: &Step, cure: Cure) {
        self.cures.push((Instant::now() + step.lasts, cure));
    }

    async fn inject(&mut self, step: &Step) -> Result<(), String> {
        let met = match step.fault {
            Fault::Kill(whom) => self.kill(step, whom).await?,
            Fault::Pause(whom) => self.pause(step, whom).await,
            Fault::KillDuringRecovery(whom, times) => self.kill_during_recovery(step, whom, times).await?,
            Fault::KillAllBrokers => self.kill_all(step, NodePlan::is_broker).await?,
            Fault::KillAllNodes => self.kill_all(step, |_| true).await?,
            Fault::Between(one, other, hurt, direction) => {
                let (one, other) = (self.find(one).await, self.find(other).await);
                let ends = one.zip(other).filter(|(one, other)| one != other);
                ends.map(|(one, other)| {
                    self.hurt_links(step, (End::Node(one), &[End::Node(other)]), hurt, direction);
                    format!("{} and {}", self.name(one), self.name(other))
                })
            }
            Fault::Isolate(whom, hurt, direction) => self.find(whom).await.map(|id| {
                let others = self.stage.nodes(|node| node.id != id).into_iter().map(End::Node);
                let others: Vec<_> = others.chain([End::Clients]).collect();
                self.hurt_links(step, (End::Node(id), &others), hurt, direction);
                self.name(id)
            }),
            Fault::Clients(whom, hurt, direction) => self.find(whom).await.map(|id| {
                self.hurt_links(step, (End::Node(id), &[End::Clients]), hurt, direction);
                self.name(id)
            }),
            Fault::Flip(place) => self.flip(place).await?,
            Fault::FillDisk(is_full) => self.fill_disk(step, is_full)?,
            Fault::Reassign(place, first) => self.reassign(place, first).await,
            Fault::Recreate => self.recreate().await?,
            Fault::ReplaceClients => {
                self.workload.replace_clients().await;
                Some("others in their places".to_owned())
            }
        };
        self.report.fault(step, met.as_deref());
        Ok(())
    }

    fn name(&self, id: NodeId) -> String {
        self.stage.cluster.name(id)
    }

    async fn find(&self, whom: Whom) -> Option<NodeId> {
        self.stage.find(whom, &self.workload.places).await
    }

    async fn kill(&mut self, step: &Step, whom: Whom) -> Result<Option<String>, String> {
        let Some(id) = self.find(whom).await else { return Ok(None) };
        self.stage.kill(&[id]).await?;
        self.stage.hurt.insert(id);
        self.ends(step, Cure::Start(id));
        Ok(Some(self.name(id)))
    }

    async fn pause(&mut self, step: &Step, whom: Whom) -> Option<String> {
        let id = self.find(whom).await?;
        self.stage.cluster.pause(id).ok()?;
        self.stage.hurt.insert(id);
        self.ends(step, Cure::Resume(id));
        Some(self.name(id))
    }

    async fn kill_during_recovery(&mut self, step: &Step, whom: Whom, times: u8) -> Result<Option<String>, String> {
        let Some(id) = self.find(whom).await else { return Ok(None) };
        self.stage.kill(&[id]).await?;
        for _ in 0..times {
            self.stage.start(id)?;
            // Between the first look at the directory and the registration, on most machines.
            sleep(Duration::from_millis(self.rng.u64(5..400))).await;
            self.stage.kill(&[id]).await?;
        }
        self.stage.hurt.insert(id);
        self.ends(step, Cure::Start(id));
        Ok(Some(format!("{}, {times} times", self.name(id))))
    }

    async fn kill_all(&mut self, step: &Step, kind: impl Fn(&NodePlan) -> bool) -> Result<Option<String>, String> {
        let nodes = self.stage.nodes(kind);
        for id in &nodes {
            // Whoever stands still does nothing while the others are killed. One that does not run is not there to stand still.
            let _ = self.stage.cluster.pause(*id);
        }
        self.stage.kill(&nodes).await?;
        for id in nodes {
            self.stage.hurt.insert(id);
            self.ends(step, Cure::Start(id));
        }
        Ok(Some("gone".to_owned()))
    }

    fn hurt_links(&mut self, step: &Step, (one, others): (End, &[End]), hurt: Hurt, direction: Direction) {
        let link = match hurt {
            Hurt::Broken => Link::Broken,
            Hurt::Silent => Link::Silent,
            Hurt::Slow => Link::Slow(SLOW),
        };
        for other in others {
            for (from, to, is_hurt) in
                [(one, *other, direction != Direction::To), (*other, one, direction != Direction::From)]
            {
                if is_hurt {
                    self.stage.net.set(from, to, link);
                    self.ends(step, Cure::Open(from, to));
                }
            }
        }
    }

    /// In the first partition from this one on in which all replicas are in sync and well: two that are intact hold what is damaged.
    async fn flip(&mut self, first: usize) -> Result<Option<String>, String> {
        let places = self.workload.places.clone();
        for place in places.iter().cycle().skip(first).take(places.len()) {
            if self.flipped.contains(place) {
                continue;
            }
            let Some((topic, partition)) = self.stage.partition(place).await else { return Ok(None) };
            let replicas = partition.replicas;
            let is_whole = (replicas.len(), partition.in_sync.len()) == (REPLICATION_FACTOR, REPLICATION_FACTOR);
            if !is_whole || self.stage.was_full || replicas.iter().any(|id| self.stage.hurt.contains(id)) {
                continue;
            }
            let Some(committed) = self.stage.committed(place).await else { continue };
            let victim = replicas[self.rng.usize(..REPLICATION_FACTOR)];
            let data_dir = self.stage.cluster.directory().join(self.name(victim));
            let replica = TopicPartition::new(topic, PartitionIndex(place.partition));
            let flipped = flip(&data_dir, replica, committed, &mut self.rng).map_err(|error| error.to_string())?;
            if let Some((path, offset)) = flipped {
                self.flipped.insert(place.clone());
                let file = path.file_name().unwrap_or_default().display();
                return Ok(Some(format!("{}: {place}@{offset} in {file}", self.name(victim))));
            }
        }
        Ok(None)
    }

    fn fill_disk(&mut self, step: &Step, is_full: bool) -> Result<Option<String>, String> {
        let Some(disk) = &self.stage.disk else { return Ok(None) };
        self.stage.was_full = true;
        disk.fill(if is_full { 0 } else { MIN_FREE_BYTES / 2 }).map_err(|error| error.to_string())?;
        self.ends(step, Cure::Room);
        Ok(self.stage.on_small_disk().map(|id| self.name(id)))
    }

    async fn reassign(&mut self, place: usize, first: usize) -> Option<String> {
        let place = &self.workload.places[place];
        let brokers = self.stage.cluster.brokers();
        let replicas: Vec<_> = brokers.iter().cycle().skip(first).take(REPLICATION_FACTOR).copied().collect();
        let told = format!("{place} to {replicas:?}");
        let wanted = PartitionMove {
            topic: place.topic.to_string(),
            partition: PartitionIndex(place.partition),
            replicas: Some(replicas),
        };
        let taken = timeout(TAKEN, self.stage.client.admin().reassign_partitions(&[wanted])).await.ok()?.ok()?.pop()?;
        taken.ok().map(|_| told)
    }

    async fn recreate(&mut self) -> Result<Option<String>, String> {
        let name = self.short_lived.places[0].topic.to_string();
        if !self.stage.hurt.is_empty() {
            // Whoever is hurt may be needed for it, and is helped by nobody while this waits.
            return Ok(None);
        }
        delete(self.stage, &name).await?;
        self.short_lived.kill().await;
        self.violations.extend(self.short_lived.judge().await);
        self.journals.push(Arc::clone(&self.short_lived.journal));
        self.report.clients_of(self.short_lived);
        *self.short_lived = Workload::short_lived(self.stage, &name).await?;
        Ok(Some(name))
    }
}
