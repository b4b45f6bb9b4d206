//! `callboard evaluate failover`: what each fault costs a producer.
//!
//! ```text
//!   whole, first replicas lead ─► fault ─► acknowledgements flow again ─► the victim is back ─► whole, first replicas lead
//!                                 └─ OUTAGE, LED AGAIN ─────────────────┘└─ AT ITS RETURN, IN SYNC AGAIN ─────────────────┘
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::Instant;

use super::args::{FailoverArgs, Fault};
use super::failures::{directory, leave};
use super::probe::Probe;
use super::stage::wait_for;
use crate::cli::error::CliError;
use crate::cli::local_cluster::{LocalCluster, Stopped};
use crate::cli::output::{self, counted, duration};
use crate::cli::stop::Stop;
use crate::client::{Client, ClientConfig};
use crate::config::ClusterSection;
use crate::protocol::messages::{NewTopic, PartitionElection, PartitionMetadata, PartitionMove};
use crate::types::PartitionIndex;

const CONTROLLERS: u16 = 3;
const BROKERS: u16 = 4;
const REPLICATION_FACTOR: u32 = 3;
/// The topic of the one partition that is written to.
const MEASURED: &str = "measured";
/// The topics of the others begin so.
const OTHERS: &str = "others";
/// A topic has so many of them at most, which is below the limit of a node.
const PARTITIONS_A_TOPIC: u32 = 500;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// For so long at least is looked what a fault does.
const WATCHED: Duration = Duration::from_millis(1_500);
/// After so many acknowledgements without a pause they flow.
const FLOWING: u64 = 20;

/// Measures, and prints the table.
///
/// # Errors
/// [`CliError`] when a record failed or was lost, or something could not be tried.
pub async fn run(args: &FailoverArgs) -> Result<(), CliError> {
    let stop = Stop::on_signals()?;
    let directory = directory(args.dir.as_deref())?;
    let result = tokio::select! {
        result = measure(&directory, args) => result,
        () = stop.wait() => Err(CliError::Failed("stopped before the end".to_owned())),
    };
    leave(&directory, args.dir.is_some(), result)
}

impl Fault {
    /// How long an outage may be: what a cluster of this kind is meant to reach.
    fn target(self) -> Duration {
        let lease = Duration::from_millis(ClusterSection::default().lease_ms);
        match self {
            Self::LeaderKilled | Self::FollowerKilled => Duration::from_millis(500),
            Self::LeaderAndControllerKilled => Duration::from_millis(1_500),
            Self::LeaderHangs | Self::FollowerHangs => lease + Duration::from_millis(500),
            Self::HandOver | Self::LeaderStops => Duration::from_millis(50),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What one round came to.
#[derive(Clone, Copy, Debug)]
struct Round {
    outage: Duration,
    /// Until every partition was led by a broker that runs.
    led_again: Duration,
    /// The longest time without an acknowledgement while the victim came back, caught up, and led again.
    at_return: Duration,
    /// From its start until all replicas were in sync.
    in_sync_again: Duration,
}

/// A cluster, and whom it is measured with.
struct Bench {
    cluster: LocalCluster,
    client: Client,
    probe: Probe,
}

async fn measure(directory: &Path, args: &FailoverArgs) -> Result<(), CliError> {
    output::print(&format!("start {CONTROLLERS} controllers and {BROKERS} brokers in {}", directory.display()))?;
    let cluster = LocalCluster::builder(directory).apart(CONTROLLERS, BROKERS).start().await?;
    let client = Client::connect(ClientConfig::new(cluster.bootstrap()).client_id("evaluate")).await?;
    let created = Instant::now();
    create(&client, MEASURED, 1).await?;
    for from in (0..args.partitions).step_by(PARTITIONS_A_TOPIC as usize) {
        create(&client, &format!("{OTHERS}-{from}"), PARTITIONS_A_TOPIC.min(args.partitions - from)).await?;
    }
    let created = created.elapsed();
    let probe = Probe::start(&client, MEASURED).await?;
    let mut bench = Bench { cluster, client, probe };
    let whole = bench.until_whole().await?;
    output::print(&format!(
        "{} of {REPLICATION_FACTOR} replicas each: created in {}, whole {} later",
        counted((args.partitions + 1).into(), "partition"),
        duration(created),
        duration(whole)
    ))?;
    let faults = if args.only.is_empty() { Fault::value_variants() } else { &args.only };
    let mut rows = Vec::new();
    for fault in faults {
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            rounds.push(bench.round(*fault).await?);
        }
        rows.push(row(*fault, &rounds));
        output::print(&format!("{}: done {} times", fault.name(), args.rounds))?;
    }
    let header = ["FAULT", "OUTAGE, MEDIAN", "WORST", "TARGET", "LED AGAIN", "AT ITS RETURN", "IN SYNC AGAIN"];
    output::print(&format!("\n{}", output::table(&header, rows)))?;
    bench.account().await
}

/// The worst of everything, and the median of what counts most.
fn row(fault: Fault, rounds: &[Round]) -> Vec<String> {
    let sorted = |of: &dyn Fn(&Round) -> Duration| {
        let mut times: Vec<Duration> = rounds.iter().map(of).collect();
        times.sort_unstable();
        times
    };
    let worst = |times: Vec<Duration>| times.last().copied().unwrap_or_default();
    let outages = sorted(&|round| round.outage);
    let median = outages.get(outages.len() / 2).copied().unwrap_or_default();
    vec![
        fault.name(),
        duration(median),
        duration(worst(outages)),
        duration(fault.target()),
        duration(worst(sorted(&|round| round.led_again))),
        duration(worst(sorted(&|round| round.at_return))),
        duration(worst(sorted(&|round| round.in_sync_again))),
    ]
}

async fn create(client: &Client, name: &str, partitions: u32) -> Result<(), CliError> {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        replication_factor: Some(REPLICATION_FACTOR),
        config: BTreeMap::from([("min_insync_replicas".to_owned(), "2".to_owned())]),
    };
    for created in client.admin().create_topics(&[topic], false).await? {
        created.map_err(|error| CliError::Refused { what: format!("topic '{name}' was not created"), error })?;
    }
    Ok(())
}

impl Bench {
    async fn round(&mut self, fault: Fault) -> Result<Round, CliError> {
        let measured = self.measured().await?;
        let leader = measured.leader.ok_or_else(|| CliError::Failed("nobody leads the partition".to_owned()))?;
        let follower = measured.in_sync.iter().copied().find(|node| *node != leader).unwrap_or(leader);
        let decides = self.client.admin().describe_cluster().await?.controller;
        self.probe.reset();
        let began = Instant::now();
        let victims = match fault {
            Fault::LeaderKilled | Fault::LeaderHangs | Fault::LeaderStops => vec![leader],
            Fault::FollowerKilled | Fault::FollowerHangs => vec![follower],
            Fault::LeaderAndControllerKilled => [Some(leader), decides].into_iter().flatten().collect(),
            Fault::HandOver => Vec::new(),
        };
        match fault {
            Fault::LeaderHangs | Fault::FollowerHangs => {
                victims.iter().try_for_each(|victim| self.cluster.pause(*victim))?;
            }
            Fault::HandOver => self.hand_over(&measured).await?,
            Fault::LeaderStops => {
                if !matches!(self.cluster.stop(leader, PATIENCE).await?, Stopped::Ended(status) if status.success()) {
                    return Err(CliError::Failed(format!("broker {leader} did not stop cleanly")));
                }
            }
            Fault::LeaderKilled | Fault::FollowerKilled | Fault::LeaderAndControllerKilled => {
                for victim in &victims {
                    self.cluster.kill(*victim).await?;
                }
            }
        }
        let led = self.until(|all| all.iter().all(|p| p.leader.is_some_and(|leader| !victims.contains(&leader))));
        let fault_took = began.elapsed();
        let (led, flows) = tokio::join!(led, self.until_flowing(began));
        let led_again = fault_took + led?;
        flows?;
        let outage = self.probe.longest();
        self.probe.reset();
        let back = Instant::now();
        match fault {
            Fault::LeaderHangs | Fault::FollowerHangs => {
                victims.iter().try_for_each(|victim| self.cluster.resume(*victim))?;
            }
            _ => {
                for victim in &victims {
                    self.cluster.start(*victim).await?;
                }
            }
        }
        self.until(|all| all.iter().all(is_whole)).await?;
        let in_sync_again = back.elapsed();
        self.until_whole().await?;
        Ok(Round { outage, led_again, at_return: self.probe.longest(), in_sync_again })
    }

    /// Puts the next replica of the measured partition first, and has it lead.
    async fn hand_over(&self, measured: &PartitionMetadata) -> Result<(), CliError> {
        let mut replicas = measured.replicas.clone();
        replicas.rotate_left(1);
        let (topic, partition) = (MEASURED.to_owned(), PartitionIndex(0));
        let moved = PartitionMove { topic: topic.clone(), partition, replicas: Some(replicas) };
        let admin = self.client.admin();
        let refused = |error| CliError::Refused { what: "the partition is not handed over".to_owned(), error };
        for moved in admin.reassign_partitions(&[moved]).await? {
            moved.map_err(refused)?;
        }
        for elected in admin.elect_leaders(&[PartitionElection { topic, partition }]).await? {
            elected.map_err(refused)?;
        }
        self.until(|all| all.iter().all(is_led_by_the_first)).await?;
        Ok(())
    }

    /// Waits until what the fault does is over.
    async fn until_flowing(&self, began: Instant) -> Result<(), CliError> {
        tokio::time::sleep_until(began + WATCHED).await;
        let before = self.probe.acknowledged();
        let flows = wait_for(PATIENCE, async || (self.probe.acknowledged() >= before + FLOWING).then_some(()));
        flows.await.map(drop).ok_or_else(|| too_late("records are acknowledged again"))
    }

    /// Waits until all replicas are in sync and the first ones lead, and says how long that took.
    async fn until_whole(&self) -> Result<Duration, CliError> {
        self.until(|all| all.iter().all(|partition| is_whole(partition) && is_led_by_the_first(partition))).await
    }

    async fn until(&self, holds: impl Fn(&[PartitionMetadata]) -> bool) -> Result<Duration, CliError> {
        let found = wait_for(PATIENCE, async || {
            let all = self.all().await?;
            holds(&all).then_some(())
        });
        found.await.map(|((), after)| after).ok_or_else(|| too_late("the partitions are as they should be"))
    }

    /// All partitions; `None` while that cannot be told.
    async fn all(&self) -> Option<Vec<PartitionMetadata>> {
        let topics = self.client.admin().metadata(None).await.ok()?.topics;
        let topics: Vec<_> =
            topics.into_iter().map(|entry| entry.topic.into_result()).collect::<Result<_, _>>().ok()?;
        Some(topics.into_iter().flat_map(|topic| topic.partitions).collect())
    }

    async fn measured(&self) -> Result<PartitionMetadata, CliError> {
        let reply = self.client.admin().metadata(Some(&[MEASURED.to_owned()])).await?;
        let topic = reply.topics.into_iter().find_map(|entry| entry.topic.into_result().ok());
        let partition = topic.and_then(|topic| topic.partitions.into_iter().next());
        partition.ok_or_else(|| CliError::Failed("the cluster does not know the partition".to_owned()))
    }

    /// Every record was acknowledged, and each acknowledged one is in the log once.
    async fn account(self) -> Result<(), CliError> {
        let (acknowledged, failures) = self.probe.finish().await;
        if let Some(first) = failures.first() {
            return Err(CliError::Failed(format!(
                "{} failed, the first: {first}",
                counted(failures.len() as u64, "record")
            )));
        }
        let logs = self.client.admin().describe_logs(&[(MEASURED.to_owned(), 0)]).await?;
        let refused = |error| CliError::Refused { what: "the log is not described".to_owned(), error };
        let log = logs.into_iter().next().transpose().map_err(refused)?;
        let end = log.map_or(0, |log| log.high_watermark.0);
        // The one that was under way at the end may be there.
        if !(acknowledged..=acknowledged + 1).contains(&end) {
            return Err(CliError::Failed(format!("{acknowledged} records were acknowledged, and the log has {end}")));
        }
        output::print(&format!(
            "{} acknowledged, none failed, each is in the log once",
            counted(acknowledged, "record")
        ))
    }
}

fn is_whole(partition: &PartitionMetadata) -> bool {
    partition.leader.is_some() && partition.in_sync.len() == REPLICATION_FACTOR as usize
}

fn is_led_by_the_first(partition: &PartitionMetadata) -> bool {
    partition.leader.is_some() && partition.leader == partition.replicas.first().copied()
}

fn too_late(what: &str) -> CliError {
    CliError::Failed(format!("not within {} s: {what}", PATIENCE.as_secs()))
}
