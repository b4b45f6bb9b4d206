//! Where the story happens: carries out one step after the other, and judges what comes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use super::clients::{self, DELIVERY, Journal, Running};
use super::history::Place;
use super::report::Report;
use super::story::{Act, PARTITIONS, REPLICATION_FACTOR, Step, TOPICS, Victims};
use crate::cli::error::CliError;
use crate::cli::local_cluster::LocalCluster;
use crate::cli::output::{counted, duration};
use crate::client::{Client, ClientError, ReadFrom};
use crate::protocol::messages::{NewTopic, PartitionMetadata};
use crate::types::NodeId;

/// How long anything may take that needs an election, a lease that lapses, or a log that is caught up with.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(50);
/// Records that must be acknowledged in a partition before it counts as flowing.
const FLOWING: u64 = 5;
/// For so long nothing may move before it counts as standing still: several fetches of every replica and consumer.
const QUIET: Duration = Duration::from_secs(2);
/// Nothing may be committed for so long at least: a lease lapses meanwhile, and the in-sync set shrinks.
const HALTED: Duration = Duration::from_secs(8);
/// Violations that are printed; there may be one for each record.
const PRINTED_VIOLATIONS: usize = 10;

/// What an act works with.
struct Scene {
    places: Vec<Place>,
    journal: Arc<Journal>,
    producers: Vec<Running>,
    consumers: Vec<Running>,
    /// The numbers that were given out: no two clients of an act are the same.
    producers_started: u32,
    consumers_started: u32,
    killed_brokers: Vec<NodeId>,
}

impl Scene {
    /// The partition under watch.
    fn watched(&self) -> &Place {
        &self.places[0]
    }
}

/// The cluster, what happens on it now, and what is told of it.
pub struct Stage {
    cluster: LocalCluster,
    client: Client,
    /// What is told.
    pub report: Report,
    step_time: Duration,
}

impl Stage {
    /// A stage on a cluster that runs.
    ///
    /// # Errors
    /// That the cluster was not reached.
    pub async fn open(cluster: LocalCluster, step_time: Duration) -> Result<Self, CliError> {
        let client = Client::connect(clients::config(&cluster.bootstrap(), "evaluate")).await?;
        Ok(Self { cluster, client, report: Report::default(), step_time })
    }

    /// Carries out an act, the `number`th.
    ///
    /// # Errors
    /// When something could not be tried; what did not hold stands in the report.
    pub async fn act(&mut self, number: usize, act: &Act) -> Result<(), CliError> {
        self.report.act(act.title)?;
        let mut scene = self.set(number, act).await?;
        for step in act.steps {
            self.report.step(&step.told())?;
            match step {
                Step::Flow => self.flow(&scene).await?,
                Step::KillClients => self.kill_clients(&mut scene).await?,
                Step::RestartClients => {
                    self.start_producer(&mut scene)?;
                    self.start_consumer(&mut scene)?;
                }
                Step::AnotherConsumer => self.start_consumer(&mut scene)?,
                Step::Kill(victims) => self.kill(&mut scene, *victims).await?,
                Step::Halt => self.halt(&scene, act).await?,
                Step::BringBack => self.bring_back(&mut scene).await?,
                Step::Check => self.check(&mut scene).await?,
            }
            self.expect_no_other_end()?;
        }
        Ok(())
    }

    /// Topics, two producers and two consumers.
    async fn set(&mut self, number: usize, act: &Act) -> Result<Scene, CliError> {
        let names = (b'a'..).take(TOPICS as usize).map(|letter| format!("act-{}-{}", number + 1, char::from(letter)));
        let topics: Vec<NewTopic> = names
            .map(|name| NewTopic {
                name,
                partitions: Some(PARTITIONS),
                replication_factor: Some(REPLICATION_FACTOR),
                config: BTreeMap::from([("min_insync_replicas".to_owned(), act.min_insync_replicas.to_string())]),
            })
            .collect();
        self.report.step(&format!(
            "create {} with {} each, replication factor {REPLICATION_FACTOR}, min_insync_replicas {}",
            counted(TOPICS.into(), "topic"),
            counted(PARTITIONS.into(), "partition"),
            act.min_insync_replicas
        ))?;
        for (topic, created) in topics.iter().zip(self.client.admin().create_topics(&topics, false).await?) {
            let what = format!("topic '{}' was not created", topic.name);
            created.map_err(|error| CliError::Refused { what, error })?;
        }
        let places = topics.iter().flat_map(|topic| (0..PARTITIONS).map(|number| Place::new(&topic.name, number)));
        let mut scene = Scene {
            places: places.collect(),
            journal: Arc::default(),
            producers: Vec::new(),
            consumers: Vec::new(),
            producers_started: 0,
            consumers_started: 0,
            killed_brokers: Vec::new(),
        };
        self.expect_all_in_sync(&scene).await?;
        for _ in 0..2 {
            self.start_producer(&mut scene)?;
            self.start_consumer(&mut scene)?;
        }
        Ok(scene)
    }

    fn start_producer(&self, scene: &mut Scene) -> Result<(), CliError> {
        scene.producers_started += 1;
        let name = format!("producer-{}", scene.producers_started);
        let address = self.cluster.bootstrap();
        let number = scene.producers_started;
        scene.producers.push(clients::start_producer(&name, number, &address, &scene.places, &scene.journal));
        self.report.note(&format!("{name} sends to all partitions in turn"))
    }

    fn start_consumer(&self, scene: &mut Scene) -> Result<(), CliError> {
        scene.consumers_started += 1;
        let name = format!("consumer-{}", scene.consumers_started);
        let address = self.cluster.bootstrap();
        scene.consumers.push(clients::start_consumer(&name, ReadFrom::Leader, &address, &scene.places, &scene.journal));
        self.report.note(&format!("{name} reads all partitions from the beginning"))
    }

    async fn kill_clients(&self, scene: &mut Scene) -> Result<(), CliError> {
        let (producer, consumer) = (scene.producers.remove(0), scene.consumers.remove(0));
        self.report.note(&format!("{} and {} are gone", producer.name, consumer.name))?;
        scene.journal.read().history.reader_ended(&consumer.name);
        producer.kill().await;
        consumer.kill().await;
        Ok(())
    }

    /// Step [`Step::Flow`].
    async fn flow(&mut self, scene: &Scene) -> Result<(), CliError> {
        let counts = || scene.journal.read().history.acknowledged_counts();
        let before = counts();
        let flowing = wait_for(PATIENCE, async || {
            let now = counts();
            let grown = |place| now.get(place).copied().unwrap_or(0) - before.get(place).copied().unwrap_or(0);
            scene.places.iter().all(|place| grown(place) >= FLOWING).then_some(())
        });
        let flows = flowing.await;
        let within = || format!("within {} s", PATIENCE.as_secs());
        let after = flows.map_or_else(within, |((), after)| format!("after {}", duration(after)));
        self.report.expect(flows.is_some(), &format!("records are acknowledged in every partition {after}"))?;
        sleep(self.step_time).await;
        self.expect_all_seen(scene).await
    }

    async fn expect_all_seen(&mut self, scene: &Scene) -> Result<(), CliError> {
        // What is acknowledged meanwhile counts as well: nobody who keeps up is behind for long.
        let seen = wait_for(PATIENCE, async || scene.journal.read().history.behind().is_empty().then_some(())).await;
        let (behind, interruption, sent, acknowledged) = {
            let written = scene.journal.read();
            let acknowledged: u64 = written.history.acknowledged_counts().values().sum();
            let interruption = written.newest_interruption.clone().unwrap_or_else(|| "none".to_owned());
            (written.history.behind().join(", "), interruption, written.history.sent_count(), acknowledged)
        };
        let what = match seen {
            Some(_) => format!("all consumers see what is acknowledged ({acknowledged} of {sent} sent so far)"),
            None => format!(
                "all consumers see what is acknowledged within {} s; behind: {behind}; last interruption: {interruption}",
                PATIENCE.as_secs()
            ),
        };
        self.report.expect(seen.is_some(), &what)
    }

    async fn kill(&mut self, scene: &mut Scene, victims: Victims) -> Result<(), CliError> {
        let leader = self.leader(scene.watched()).await?;
        let victims = match victims {
            Victims::Leader => vec![leader],
            Victims::Followers(count) => {
                let running = self.cluster.brokers().into_iter().filter(|id| self.cluster.is_running(*id));
                running.filter(|id| *id != leader).take(count).collect()
            }
        };
        let watched = scene.watched();
        self.report.note(&format!("{watched} is led by {}", self.cluster.name(leader)))?;
        for id in victims {
            let pid = self.cluster.pid(id).unwrap_or_default();
            self.cluster.kill(id).await?;
            scene.killed_brokers.push(id);
            self.report.note(&format!("{} is gone (node {id}, process {pid})", self.cluster.name(id)))?;
        }
        Ok(())
    }

    /// The broker that leads `place`, once that is one that runs.
    async fn leader(&self, place: &Place) -> Result<NodeId, CliError> {
        let found = wait_for(PATIENCE, async || {
            let partitions = self.partitions(&place.topic).await.ok()?;
            let partition = partitions.into_iter().find(|partition| partition.partition.0 == place.partition)?;
            partition.leader.filter(|leader| self.cluster.is_running(*leader))
        });
        let nobody = || CliError::Failed(format!("no broker that runs leads {place} within {} s", PATIENCE.as_secs()));
        found.await.map(|(leader, _)| leader).ok_or_else(nobody)
    }

    async fn partitions(&self, topic: &str) -> Result<Vec<PartitionMetadata>, ClientError> {
        let described = self.client.admin().describe_topics(Some(&[topic.to_owned()])).await?;
        let refused = |error| ClientError::Refused { what: format!("topic '{topic}' is not described"), error };
        let topics: Vec<_> = described.into_iter().collect::<Result<_, _>>().map_err(refused)?;
        Ok(topics.into_iter().flat_map(|topic| topic.partitions).collect())
    }

    /// Step [`Step::Halt`].
    async fn halt(&mut self, scene: &Scene, act: &Act) -> Result<(), CliError> {
        let moved = || {
            let written = scene.journal.read();
            (written.history.acknowledged_counts(), written.history.seen_count())
        };
        // What was committed before the kill is still being told.
        let mut last = (moved(), Instant::now());
        let quiet = wait_for(PATIENCE, async || {
            let now = moved();
            if now != last.0 {
                last = (now, Instant::now());
            }
            (last.1.elapsed() >= QUIET).then_some(())
        });
        let is_quiet = quiet.await.is_some();
        self.report.expect(is_quiet, "acknowledgements and consumers stand still")?;
        let (at_rest, failed_before) = (moved(), scene.journal.read().failed);
        let told = wait_for(2 * DELIVERY, async || (scene.journal.read().failed > failed_before).then_some(()));
        let (told, ()) = tokio::join!(told, sleep(self.step_time.max(HALTED)));
        let now = moved();
        let minimum = counted(act.min_insync_replicas.into(), "replica");
        self.report
            .expect(now.0 == at_rest.0, &format!("nothing is acknowledged while fewer than {minimum} are in sync"))?;
        self.report.expect(now.1 == at_rest.1, "no consumer sees what is not committed")?;
        let failure = scene.journal.read().newest_failure.clone();
        let failure = failure.map_or_else(|| "nothing".to_owned(), |error| error.to_string());
        self.report.expect(told.is_some(), &format!("producers are told: {failure}"))
    }

    /// Step [`Step::BringBack`].
    async fn bring_back(&mut self, scene: &mut Scene) -> Result<(), CliError> {
        let killed = std::mem::take(&mut scene.killed_brokers);
        for id in &killed {
            self.cluster.start_without_waiting(*id)?;
        }
        for id in &killed {
            self.cluster.ready(*id).await?;
            self.report.note(&format!("{} is back", self.cluster.name(*id)))?;
        }
        self.expect_all_in_sync(scene).await
    }

    async fn expect_all_in_sync(&mut self, scene: &Scene) -> Result<(), CliError> {
        let found = wait_for(PATIENCE, async || {
            for place in scene.places.iter().filter(|place| place.partition == 0) {
                let partitions = self.partitions(&place.topic).await.ok()?;
                let is_whole = |partition: &PartitionMetadata| {
                    partition.leader.is_some() && partition.in_sync.len() == REPLICATION_FACTOR as usize
                };
                (partitions.len() == PARTITIONS as usize && partitions.iter().all(is_whole)).then_some(())?;
            }
            Some(())
        });
        let found = found.await.map(|((), after)| format!("after {}", duration(after)));
        let what = found.clone().unwrap_or_else(|| format!("within {} s", PATIENCE.as_secs()));
        self.report.expect(
            found.is_some(),
            &format!("all {REPLICATION_FACTOR} replicas of every partition are in sync {what}"),
        )
    }

    /// Step [`Step::Check`].
    async fn check(&mut self, scene: &mut Scene) -> Result<(), CliError> {
        for producer in scene.producers.drain(..) {
            let name = producer.name.clone();
            let finished = producer.finish(2 * DELIVERY).await;
            self.report.expect(finished, &format!("{name} learns what became of each of its records"))?;
        }
        // One more that reads what the others saw as it came.
        self.start_consumer(scene)?;
        self.expect_all_seen(scene).await?;
        for consumer in scene.consumers.drain(..) {
            consumer.kill().await;
        }
        let (violations, failed) = {
            let written = scene.journal.read();
            (written.history.check(), written.failed)
        };
        for violation in violations.iter().take(PRINTED_VIOLATIONS) {
            self.report.note(&format!("VIOLATION: {violation}"))?;
        }
        let clean = violations.is_empty();
        let count = violations.len().try_into().unwrap_or(u64::MAX);
        let what = if clean { String::new() } else { format!(" ({})", counted(count, "violation")) };
        self.report.expect(
            clean,
            &format!(
                "nothing acknowledged is missing, nothing is doubled, order and offsets are the same for all{what}"
            ),
        )?;
        self.report.note(&format!("{} not acknowledged in time, and may be there or not", counted(failed, "record")))
    }

    /// A node that ends without being killed is a failure of its own.
    fn expect_no_other_end(&mut self) -> Result<(), CliError> {
        while let Some((id, status)) = self.cluster.next_end().now_or_never() {
            let name = self.cluster.name(id);
            self.report.expect(false, &format!("{name} goes on until it is killed (it ended by itself: {status})"))?;
        }
        Ok(())
    }
}

/// Asks until there is an answer, and how long that took; none when there is none within `patience`.
pub(super) async fn wait_for<T>(
    patience: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Option<(T, Duration)> {
    let started = Instant::now();
    let asked = async {
        loop {
            if let Some(found) = condition().await {
                return (found, started.elapsed());
            }
            sleep(LOOK).await;
        }
    };
    tokio::time::timeout(patience, asked).await.ok()
}
