//! What the node tells those who watch over it: whether it can acknowledge, and how things stand.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::NodeError;
use crate::actors::broker::{BrokerView, Replica};
use crate::actors::partition_leader::{CacheBudget, ReadBudget};
use crate::config::NodeConfig;
use crate::engine::metadata::TopicImage;
use crate::http::{BudgetSample, HttpServer, HttpSettings, ListenerSample, NodeSample, NodeStatus};
use crate::metrics::Metrics;
use crate::net::{self, ConnectionGate, NodeBudget};
use crate::protocol::ApiError;
use crate::types::PartitionIndex;

/// How many partitions a probe is told of by name: a disk that fails takes all of them at once.
const NAMED_PARTITIONS: usize = 10;

/// What there is to look at once the node serves.
pub(super) struct Serving {
    /// The metadata, and the replicas that it calls for.
    pub view: watch::Receiver<Arc<BrokerView>>,
    /// The connections of the native protocol.
    pub gate: ConnectionGate,
    /// Room for requests in work.
    pub requests: NodeBudget,
    /// Room for the newest records.
    pub cache: CacheBudget,
    /// Room for cold reads.
    pub reads: ReadBudget,
}

impl Serving {
    /// What there is to look at on a node that serves no clients.
    pub(super) fn nothing(view: watch::Receiver<Arc<BrokerView>>) -> Self {
        let (gate, requests) = (ConnectionGate::new(0, 0), NodeBudget::new(0));
        Self { view, gate, requests, cache: CacheBudget::new(0), reads: ReadBudget::new(0) }
    }
}

/// The state of a node from its first moment to its last.
pub(super) struct Status {
    data_dir: PathBuf,
    metrics: Arc<Metrics>,
    serving: OnceLock<Serving>,
    stopping: AtomicBool,
}

impl Status {
    pub(super) fn new(data_dir: PathBuf, metrics: Arc<Metrics>) -> Self {
        Self { data_dir, metrics, serving: OnceLock::new(), stopping: AtomicBool::new(false) }
    }

    /// Metadata is applied, partitions are open, clients are about to be let in.
    pub(super) fn serves(&self, serving: Serving) {
        // A node starts once.
        let _ = self.serving.set(serving);
    }

    /// No more connections and records from now on.
    pub(super) fn stops(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Partitions that take no records: those that could not be opened, and those that failed since.
    fn offline(&self, serving: &Serving) -> Vec<String> {
        let view = Arc::clone(&serving.view.borrow());
        let line =
            |topic: &str, partition: u32, cause: &str| format!("partition {topic}-{partition} is offline: {cause}");
        let mut lines = Vec::new();
        for (topic, partition, cause) in offline_replicas(&view) {
            lines.push(line(topic.name.as_str(), partition.0, &cause.message));
        }
        for entry in self.metrics.partitions.all() {
            if let Some(cause) = entry.offline() {
                lines.push(line(entry.topic.as_str(), entry.partition.0, &cause));
            }
        }
        lines
    }
}

/// The replicas that could not be opened.
fn offline_replicas(view: &BrokerView) -> impl Iterator<Item = (&TopicImage, PartitionIndex, &ApiError)> {
    view.replicas.iter().flat_map(|(id, replicas)| {
        let topic = view.image.topics.get(id);
        let offline = (0..).zip(replicas.iter()).filter_map(|(number, replica)| match replica {
            Replica::Offline(cause) => Some((PartitionIndex(number), cause)),
            Replica::Leader(_) | Replica::Follower(_) | Replica::Retired(_) | Replica::Elsewhere => None,
        });
        offline.filter_map(move |(partition, cause)| Some((topic?.as_ref(), partition, cause)))
    })
}

fn budget(name: &'static str, used_bytes: usize, limit_bytes: usize) -> BudgetSample {
    BudgetSample { name, used_bytes: used_bytes as u64, limit_bytes: limit_bytes as u64 }
}

impl NodeStatus for Status {
    fn not_ready(&self) -> Vec<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return vec!["the node is stopping".to_owned()];
        }
        let Some(serving) = self.serving.get() else {
            let place = self.data_dir.display();
            return vec![format!("the node is starting: metadata and partitions under {place} are being opened")];
        };
        let mut reasons: Vec<String> = self.metrics.disk.refusing().into_iter().collect();
        let mut offline = self.offline(serving);
        offline.sort();
        let unnamed = offline.len().saturating_sub(NAMED_PARTITIONS);
        reasons.extend(offline.into_iter().take(NAMED_PARTITIONS));
        if unnamed > 0 {
            reasons.push(format!("{unnamed} more partitions are offline: see callboard topic describe"));
        }
        reasons
    }

    fn sample(&self) -> NodeSample {
        let Some(serving) = self.serving.get() else { return NodeSample::default() };
        let offline = self.offline(serving).len() as u64;
        let view = Arc::clone(&serving.view.borrow());
        let replicas = view.replicas.values().flat_map(|replicas| replicas.iter());
        let here =
            replicas.filter(|replica| !matches!(replica, Replica::Retired(_) | Replica::Elsewhere)).count() as u64;
        let led = view.replicas.values().flat_map(|replicas| replicas.iter());
        let led = led.filter(|replica| matches!(replica, Replica::Leader(_))).count();
        let (counts, requests) = (serving.gate.counts(), &serving.requests);
        let requests_used = requests.total_bytes().saturating_sub(requests.available_bytes());
        let (reads_used, reads_limit) = serving.reads.used_and_total_bytes();
        NodeSample {
            topics: view.image.topics.len() as u64,
            partitions_online: here.saturating_sub(offline),
            partitions_offline: offline,
            partitions_led: led as u64,
            cluster: view.image.health(),
            native: ListenerSample {
                open: counts.open as u64,
                accepted: counts.accepted,
                refused_by_node_limit: counts.refused_by_node_limit,
                refused_by_address_limit: counts.refused_by_address_limit,
            },
            budgets: vec![
                budget("requests", requests_used, requests.total_bytes()),
                budget("tail_caches", serving.cache.used_bytes(), serving.cache.limit_bytes()),
                budget("tail_replies", serving.cache.lent_bytes(), serving.cache.limit_bytes()),
                budget("cold_reads", reads_used, reads_limit),
            ],
        }
    }
}

/// Starts the HTTP listener, if there is to be one. It is bound when this returns, and comes up beside the node: a node that
/// recovers for seconds is seen to live meanwhile.
pub(super) async fn start_http(config: &NodeConfig, settings: HttpSettings) -> Result<Option<HttpServer>, NodeError> {
    let Some(address) = &config.listener.http.bind else { return Ok(None) };
    let io = |cause| NodeError::Io { what: "cannot start the HTTP listener".to_owned(), cause };
    let (listener, _) = net::bind(address).await.map_err(NodeError::BindHttp)?;
    let listener = listener.into_std().map_err(io)?;
    HttpServer::start(listener, settings).map(Some).map_err(io)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::engine::metadata::{ClusterImage, FEATURE_LEVEL, MetadataRecord};
    use crate::protocol::ErrorCode;
    use crate::types::{ClusterId, NodeId, TopicConfigOverrides, TopicId, TopicName};

    /// A view of one topic whose partitions are all offline.
    fn all_offline(partitions: usize) -> watch::Receiver<Arc<BrokerView>> {
        let (topic, mut image) = (TopicId(uuid::Uuid::from_u128(7)), ClusterImage::empty(ClusterId::random()));
        let name = TopicName::new("t").expect("legal");
        let replicas = vec![vec![NodeId(1)]; partitions];
        let config = TopicConfigOverrides::default();
        image.apply(&MetadataRecord::FeatureLevel { level: FEATURE_LEVEL }).expect("fits");
        image.apply(&MetadataRecord::TopicCreated { topic, name, replicas, config }).expect("fits");
        let offline = vec![Replica::Offline(ApiError::new(ErrorCode::StorageFailed, "a bad disk")); partitions];
        let replicas = HashMap::from([(topic, Arc::from(offline))]);
        watch::channel(Arc::new(BrokerView { image: Arc::new(image), partitions, replicas })).1
    }

    fn serving(view: watch::Receiver<Arc<BrokerView>>) -> Serving {
        let (gate, requests) = (ConnectionGate::new(1, 1), NodeBudget::new(1 << 20));
        Serving { view, gate, requests, cache: CacheBudget::new(1 << 20), reads: ReadBudget::new(1 << 20) }
    }

    #[test]
    fn a_node_is_ready_between_its_start_and_its_stop() {
        let status = Status::new("/data".into(), Arc::default());
        assert_eq!(status.not_ready(), ["the node is starting: metadata and partitions under /data are being opened"]);
        status.serves(serving(all_offline(0)));
        assert_eq!(status.not_ready(), [""; 0]);
        status.stops();
        assert_eq!(status.not_ready(), ["the node is stopping"]);
    }

    #[test]
    fn each_reason_is_a_line_and_of_many_partitions_ten_are_named() {
        let metrics = Arc::new(Metrics::default());
        let status = Status::new("/data".into(), Arc::clone(&metrics));
        status.serves(serving(all_offline(25)));
        metrics.disk.refuse(Some("no space".to_owned()));
        let reasons = status.not_ready();
        assert_eq!(reasons.len(), 12, "{reasons:?}");
        assert_eq!((reasons[0].as_str(), reasons[1].as_str()), ("no space", "partition t-0 is offline: a bad disk"));
        assert_eq!(reasons[11], "15 more partitions are offline: see callboard topic describe");
        let sample = status.sample();
        assert_eq!((sample.partitions_online, sample.partitions_offline, sample.topics), (0, 25, 1));
    }
}
