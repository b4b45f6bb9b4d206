//! The cluster, its links and its small disk; whom a fault meets; and what must be so when all faults have ended.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use callboard::cli::evaluate::clients;
use callboard::cli::evaluate::history::Place;
use callboard::cli::local_cluster::{LocalCluster, plan::NodePlan};
use callboard::client::Client;
use callboard::protocol::messages::{PartitionMetadata, TopicDescription};
use callboard::types::{NodeId, Offset, TopicId};
use futures_util::FutureExt;
use tokio::time::{sleep, timeout};

use crate::disk::SmallDisk;
use crate::net::Net;
use crate::schedule::Whom;
use crate::workload::{REPLICATION_FACTOR, Workload};

/// How long anything may take once all faults have ended: an election, a lease, a log that is caught up with; on a machine that has
/// much else to do.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is looked whether something has come about.
pub const ASKED_AGAIN: Duration = Duration::from_millis(50);
/// How long is waited for somebody to say whom a fault meets. Nobody may be able to: then it meets any node.
const QUICKLY: Duration = Duration::from_millis(1_500);
/// The broker whose disk is small.
const ON_SMALL_DISK: &str = "broker-4";
/// Appends are refused when less is free.
pub const MIN_FREE_BYTES: u64 = 4 << 20;

/// Short leases, small segments and caches, checkpoints that come often: a fault of a second meets all of these.
fn settings() -> [String; 6] {
    [
        "cluster.lease_ms=2000".to_owned(),
        "storage.checkpoint_interval_ms=100".to_owned(),
        "storage.tail_cache_bytes=262144".to_owned(),
        "storage.tail_cache_partition_bytes=16384".to_owned(),
        "topic_defaults.segment_bytes=16384".to_owned(),
        format!("storage.min_free_bytes={MIN_FREE_BYTES}"),
    ]
}

/// See the module page. The fields go in this order when all ends: no process is left when its disk is taken away.
pub struct Stage {
    /// Asks and tells the cluster.
    pub client: Client,
    /// Its processes.
    pub cluster: LocalCluster,
    /// Its links.
    pub net: Net,
    /// The disk of one broker, where it may be mounted.
    pub disk: Option<SmallDisk>,
    /// Brokers and controllers that are killed or frozen now.
    pub hurt: BTreeSet<NodeId>,
    /// The small disk was full: its broker must be started anew.
    pub was_full: bool,
}

impl Stage {
    /// 3 controllers and 4 brokers, with a proxy before each port.
    pub async fn open(home: &Path) -> Result<Self, String> {
        let disk = SmallDisk::mount(home, &home.join(ON_SMALL_DISK)).map_err(|error| error.to_string())?;
        let net = Net::new();
        let before = net.clone();
        let builder = LocalCluster::builder(home).apart(3, 4).program(env!("CARGO_BIN_EXE_callboard"));
        let builder = builder.set(settings()).detour(move |node| before.put_before(node));
        let cluster = builder.start_within(PATIENCE).start().await.map_err(|error| error.to_string())?;
        let config = clients::config(&cluster.bootstrap(), "chaos").delivery_timeout(2 * QUICKLY);
        let client = Client::connect(config).await.map_err(|error| error.to_string())?;
        Ok(Self { client, cluster, net, disk, hurt: BTreeSet::new(), was_full: false })
    }

    /// Asks until it is so, within [`PATIENCE`]; else what was wrong last.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> Result<(), String>) -> Result<(), String> {
        let mut wrong = String::new();
        let asked = async {
            while let Err(error) = is_so().await {
                wrong = error;
                sleep(ASKED_AGAIN).await;
            }
        };
        let asked = timeout(PATIENCE, asked).await;
        asked.map_err(|_| format!("not within {PATIENCE:?}: {what}; the last time: {wrong}"))
    }

    /// All nodes of a kind.
    pub fn nodes(&self, is_wanted: impl Fn(&NodePlan) -> bool) -> Vec<NodeId> {
        self.cluster.nodes().filter(|node| is_wanted(node)).map(|node| node.id).collect()
    }

    /// The broker with the small disk.
    pub fn on_small_disk(&self) -> Option<NodeId> {
        self.nodes(|node| node.name == ON_SMALL_DISK).first().copied()
    }

    /// A topic, if somebody knows it.
    pub async fn topic(&self, name: &str) -> Result<TopicDescription, String> {
        let described = self.client.admin().describe_topics(Some(&[name.to_owned()])).await;
        let described = described.map_err(|error| error.to_string())?.pop();
        described.ok_or("not described")?.map_err(|error| error.to_string())
    }

    /// Whether the topic of these clients is the one that they began with.
    pub async fn is_there(&self, clients: &Workload) -> bool {
        let Some(id) = clients.topic else { return true };
        self.topic(&clients.places[0].topic).await.is_ok_and(|topic| topic.id == id)
    }

    /// A partition, and its topic's id, if somebody says so quickly.
    pub async fn partition(&self, place: &Place) -> Option<(TopicId, PartitionMetadata)> {
        let topic = timeout(QUICKLY, self.topic(&place.topic)).await.ok()?.ok()?;
        let mut partitions = topic.partitions.into_iter();
        Some((topic.id, partitions.find(|partition| partition.partition.0 == place.partition)?))
    }

    /// The end of what is committed in a partition, if its leader says so quickly.
    pub async fn committed(&self, place: &Place) -> Option<Offset> {
        let places = [(place.topic.to_string(), place.partition)];
        let described = timeout(QUICKLY, self.client.admin().describe_logs(&places)).await.ok()?.ok()?.pop()?;
        described.ok().map(|log| log.high_watermark)
    }

    /// Whom a fault meets now: one that runs and is not frozen.
    pub async fn find(&self, whom: Whom, places: &[Place]) -> Option<NodeId> {
        let controllers = self.nodes(NodePlan::is_controller);
        let (first, kind) = match whom {
            Whom::Leader(place) => {
                let leader = self.partition(&places[place]).await.and_then(|(_, partition)| partition.leader);
                (leader.into_iter().collect(), self.cluster.brokers())
            }
            Whom::Follower(place) => {
                let partition = self.partition(&places[place]).await.map(|(_, partition)| partition);
                let followers = partition.map(|PartitionMetadata { leader, mut replicas, .. }| {
                    replicas.retain(|replica| Some(*replica) != leader);
                    replicas
                });
                (followers.unwrap_or_default(), self.cluster.brokers())
            }
            Whom::ActiveController => (self.active_controller().await.into_iter().collect(), controllers),
            Whom::OtherController => {
                let active = self.active_controller().await;
                (controllers.iter().copied().filter(|id| Some(*id) != active).collect(), controllers)
            }
        };
        let is_well = |id: &NodeId| self.cluster.is_running(*id) && !self.hurt.contains(id);
        first.into_iter().chain(kind).find(is_well)
    }

    async fn active_controller(&self) -> Option<NodeId> {
        timeout(QUICKLY, self.client.admin().describe_cluster()).await.ok()?.ok()?.controller
    }

    /// Kills nodes, which nobody can connect to from then on.
    pub async fn kill(&mut self, nodes: &[NodeId]) -> Result<(), String> {
        self.ended_by_itself()?;
        for id in nodes {
            self.net.is_down(*id, true);
            if self.cluster.is_running(*id) {
                self.cluster.kill(*id).await.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Starts a node, if it does not run.
    pub fn start(&mut self, id: NodeId) -> Result<(), String> {
        self.ended_by_itself()?;
        self.net.is_down(id, false);
        if self.cluster.is_running(id) {
            return Ok(());
        }
        self.cluster.start_without_waiting(id).map_err(|error| error.to_string())
    }

    /// A node that ended by itself. One whose disk is full may.
    pub fn ended_by_itself(&mut self) -> Result<(), String> {
        while let Some((id, status)) = self.cluster.next_end().now_or_never() {
            if !(self.was_full && Some(id) == self.on_small_disk()) {
                return Err(format!("{} ended by itself: {status}", self.cluster.name(id)));
            }
        }
        Ok(())
    }

    /// What must be once all faults have ended: every node is ready, no partition of any topic lacks anything, those of `places` are
    /// where they should be.
    pub async fn is_whole(&self, places: &[Place]) -> Result<(), String> {
        for id in self.nodes(|_| true) {
            self.cluster.ready(id).await.map_err(|error| error.to_string())?;
        }
        let names: BTreeSet<_> = places.iter().map(|place| place.topic.to_string()).collect();
        self.until("all replicas of all partitions are in sync", async || {
            let about = self.client.admin().describe_cluster().await.map_err(|error| error.to_string())?;
            if about.trouble.count > 0 {
                return Err(format!("{:?}", about.trouble));
            }
            for name in &names {
                for partition in self.topic(name).await?.partitions {
                    let (replicas, in_sync) = (partition.replicas.len(), partition.in_sync.len());
                    if partition.leader.is_none() || (replicas, in_sync) != (REPLICATION_FACTOR, REPLICATION_FACTOR) {
                        return Err(format!("{name}: {partition:?}"));
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Lines in the logs of nodes that none may write.
    pub fn panics(&self) -> Vec<String> {
        let log = |node: &NodePlan| self.cluster.directory().join(format!("{}.log", node.name));
        let logs = self.cluster.nodes().map(|node| (node.name.clone(), std::fs::read_to_string(log(node))));
        logs.flat_map(|(name, text)| {
            let text = text.unwrap_or_default();
            let told = text.lines().filter(|line| line.contains("panicked at")).map(|line| format!("{name}: {line}"));
            told.collect::<Vec<_>>()
        })
        .collect()
    }
}
