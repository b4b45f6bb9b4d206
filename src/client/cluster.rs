//! The shared part of every client: the pool of connections, and who leads what.
//!
//! ```text
//!   topic("rides") ─► cache ─ too old, or unknown ─► Metadata, asked of any broker, one question at a time
//!   connection(node, lane) ─► slot ─ none, or dead ─► backoff ─► Connection::open
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::Backoff;
use super::connection::{Connection, lock};
use super::{Admin, ClientConfig, ClientError, Consumer, ConsumerConfig, Producer, ProducerConfig};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{Metadata, MetadataReply, PartitionMetadata, Request};
use crate::types::{ClusterId, NodeId, TopicId};

/// Connections to a cluster and the knowledge of who leads what. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    cluster_id: ClusterId,
    /// The smallest frame limit that any node named.
    frame_limit: AtomicUsize,
    known: Mutex<Known>,
    slots: Mutex<HashMap<(NodeId, Lane), Arc<Slot>>>,
    /// Held while metadata is asked for, so that a hundred tasks that miss the same topic ask once.
    refreshing: tokio::sync::Mutex<()>,
}

/// Which of the two connections to a broker: a parked fetch and its large replies never delay an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Main,
    Fetch,
}

#[derive(Debug, Default)]
struct Slot {
    live: Mutex<Option<Arc<Connection>>>,
    opening: tokio::sync::Mutex<Opening>,
}

#[derive(Debug, Default)]
struct Opening {
    backoff: Backoff,
    not_before: Option<Instant>,
}

#[derive(Debug, Default)]
struct Known {
    brokers: HashMap<NodeId, String>,
    controller: Option<NodeId>,
    topics: HashMap<String, Arc<Topic>>,
}

/// A topic as the cluster last described it.
#[derive(Debug)]
pub(super) struct Topic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub partitions: Vec<PartitionMetadata>,
    learned: Instant,
}

impl Client {
    /// Reaches the cluster through the first bootstrap address that answers.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] names every address tried and why it failed.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        config.validate()?;
        let first = open_first(config.bootstrap.iter(), &config, None).await?;
        let client = Self {
            shared: Arc::new(Shared {
                cluster_id: first.hello().cluster_id,
                frame_limit: AtomicUsize::new(config.max_frame_bytes),
                config,
                known: Mutex::default(),
                slots: Mutex::default(),
                refreshing: tokio::sync::Mutex::default(),
            }),
        };
        client.adopt(first);
        // No topics: who the brokers are is all that is needed yet.
        client.fetch_metadata(Some(Vec::new())).await?;
        Ok(client)
    }

    /// The cluster that was reached.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.shared.cluster_id
    }

    /// Administration of topics.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin { client: self.clone() }
    }

    /// A producer that shares this client's connections.
    ///
    /// # Errors
    /// [`ClientError::InvalidConfig`].
    pub async fn producer(&self, config: ProducerConfig) -> Result<Producer, ClientError> {
        Producer::start(self.clone(), config)
    }

    /// A consumer that shares this client's connections. Nothing is assigned to it yet.
    ///
    /// # Errors
    /// [`ClientError::InvalidConfig`].
    pub async fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, ClientError> {
        Consumer::start(self.clone(), config)
    }

    pub(super) fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// The largest frame that every node met so far takes, in bytes.
    pub(super) fn frame_limit(&self) -> usize {
        self.shared.frame_limit.load(Ordering::Relaxed)
    }

    /// The connection to `node`, opened if need be; after failures not before its backoff.
    pub(super) async fn connection(&self, node: NodeId, lane: Lane) -> Result<Arc<Connection>, ClientError> {
        let slot = self.slot(node, lane);
        if let Some(connection) = slot.open_connection() {
            return Ok(connection);
        }
        let mut opening = slot.opening.lock().await;
        if let Some(connection) = slot.open_connection() {
            return Ok(connection);
        }
        if let Some(moment) = opening.not_before {
            sleep_until(moment).await;
        }
        // After the wait, so that a broker that moved is found where it is now.
        let Some(address) = lock(&self.shared.known).brokers.get(&node).cloned() else {
            let cause = "the cluster names no address for it".to_owned();
            return Err(ClientError::Disconnected { address: format!("broker {node}"), cause });
        };
        match open_checked(&address, &self.shared.config, Some(self.shared.cluster_id)).await {
            Ok(connection) => {
                opening.backoff.reset();
                opening.not_before = None;
                let connection = Arc::new(connection);
                self.note_limits(&connection);
                *lock(&slot.live) = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                opening.not_before = Some(Instant::now() + opening.backoff.next_delay());
                Err(error)
            }
        }
    }

    /// The topic as it is known, or as it is learned now if that is too old.
    pub(super) async fn topic(&self, name: &str) -> Result<Arc<Topic>, ClientError> {
        match self.known_topic(name) {
            Some(topic) if topic.learned.elapsed() < self.shared.config.metadata_max_age => Ok(topic),
            _ => self.learn_topic(name).await,
        }
    }

    /// The topic as it is known, however old that is.
    pub(super) fn known_topic(&self, name: &str) -> Option<Arc<Topic>> {
        lock(&self.shared.known).topics.get(name).cloned()
    }

    /// The topic as the cluster describes it now. Keeps asking for a while when nobody knows it.
    pub(super) async fn learn_topic(&self, name: &str) -> Result<Arc<Topic>, ClientError> {
        let started = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let error = match self.ask_for_topic(name).await {
                Ok(topic) => return Ok(topic),
                Err(error) => error,
            };
            let patience = match &error {
                ClientError::UnknownTopic { .. } => self.shared.config.unknown_topic_wait,
                error if error.is_retryable() => self.shared.config.delivery_timeout,
                _ => return Err(error),
            };
            let delay = backoff.next_delay();
            if started.elapsed() + delay >= patience {
                return Err(error);
            }
            sleep(delay).await;
        }
    }

    async fn ask_for_topic(&self, name: &str) -> Result<Arc<Topic>, ClientError> {
        let wanted = Instant::now();
        let _one_at_a_time = self.shared.refreshing.lock().await;
        if let Some(topic) = self.known_topic(name).filter(|topic| topic.learned > wanted) {
            return Ok(topic);
        }
        let reply = self.fetch_metadata(Some(vec![name.to_owned()])).await?;
        match reply.topics.into_iter().next().map(|entry| entry.topic.into_result()) {
            Some(Ok(_)) => self.known_topic(name).ok_or_else(|| ClientError::UnknownTopic { topic: name.to_owned() }),
            Some(Err(error)) if error.code != ErrorCode::UnknownTopicOrPartition => {
                Err(ClientError::Refused { what: format!("topic '{name}' cannot be used"), error })
            }
            _ => Err(ClientError::UnknownTopic { topic: name.to_owned() }),
        }
    }

    /// Asks any broker for metadata, once, and keeps what it says.
    pub(super) async fn fetch_metadata(&self, topics: Option<Vec<String>>) -> Result<MetadataReply, ClientError> {
        let connection = self.any_connection().await?;
        let reply = connection.request(&Metadata { topics }, self.shared.config.request_timeout).await?;
        let mut known = lock(&self.shared.known);
        known.controller = reply.controller;
        if !reply.brokers.is_empty() {
            let address = |host: &str, port| {
                if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
            };
            known.brokers = reply.brokers.iter().map(|b| (b.node_id, address(&b.host, b.port))).collect();
        }
        for entry in &reply.topics {
            match &entry.topic.value {
                Some(topic) => {
                    let mut partitions = topic.partitions.clone();
                    partitions.sort_unstable_by_key(|partition| partition.partition);
                    let topic =
                        Topic { name: entry.name.as_str().into(), id: topic.id, partitions, learned: Instant::now() };
                    known.topics.insert(entry.name.clone(), Arc::new(topic));
                }
                None => drop(known.topics.remove(&entry.name)),
            }
        }
        drop(known);
        Ok(reply)
    }

    /// Asks the controller if it is known to be a broker, else any broker. Retries while nothing was carried out, and with
    /// `harmless` (asking twice changes nothing) after any failure that may pass.
    pub(super) async fn ask<R: Request + Sync>(&self, request: &R, harmless: bool) -> Result<R::Reply, ClientError> {
        let deadline = Instant::now() + self.shared.config.delivery_timeout;
        let mut backoff = Backoff::default();
        loop {
            let (error, carried_out) = match self.controller_connection().await {
                Err(error) => (error, false),
                Ok(connection) => match connection.request(request, self.shared.config.request_timeout).await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => {
                        let maybe = error.leaves_outcome_unknown();
                        (error, maybe)
                    }
                },
            };
            let delay = backoff.next_delay();
            // Nobody there is answered at once: who calls an administrator's command wants to know.
            let hopeless = matches!(error, ClientError::Unreachable { .. }) || !error.is_retryable();
            if hopeless || (carried_out && !harmless) || Instant::now() + delay >= deadline {
                return Err(error);
            }
            sleep(delay).await;
            // Another node may be the controller by now. What fails here fails again above.
            let _ = self.fetch_metadata(Some(Vec::new())).await;
        }
    }

    async fn controller_connection(&self) -> Result<Arc<Connection>, ClientError> {
        let controller = {
            let known = lock(&self.shared.known);
            known.controller.filter(|node| known.brokers.contains_key(node))
        };
        if let Some(node) = controller
            && let Ok(connection) = self.connection(node, Lane::Main).await
        {
            return Ok(connection);
        }
        self.any_connection().await
    }

    async fn any_connection(&self) -> Result<Arc<Connection>, ClientError> {
        let slots: Vec<Arc<Slot>> = {
            let slots = lock(&self.shared.slots);
            slots.iter().filter(|((_, lane), _)| *lane == Lane::Main).map(|(_, slot)| Arc::clone(slot)).collect()
        };
        if let Some(connection) = slots.iter().find_map(|slot| slot.open_connection()) {
            return Ok(connection);
        }
        let mut addresses: Vec<String> = lock(&self.shared.known).brokers.values().cloned().collect();
        for address in &self.shared.config.bootstrap {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        let connection = open_first(addresses.iter(), &self.shared.config, Some(self.shared.cluster_id)).await?;
        Ok(self.adopt(connection))
    }

    /// Puts a connection that was opened by address where its node's connection belongs.
    fn adopt(&self, connection: Connection) -> Arc<Connection> {
        let connection = Arc::new(connection);
        self.note_limits(&connection);
        let slot = self.slot(connection.hello().node_id, Lane::Main);
        *lock(&slot.live) = Some(Arc::clone(&connection));
        connection
    }

    fn note_limits(&self, connection: &Connection) {
        let limit = usize::try_from(connection.hello().max_frame_bytes).unwrap_or(usize::MAX);
        self.shared.frame_limit.fetch_min(limit, Ordering::Relaxed);
    }

    fn slot(&self, node: NodeId, lane: Lane) -> Arc<Slot> {
        Arc::clone(lock(&self.shared.slots).entry((node, lane)).or_default())
    }
}

impl Slot {
    fn open_connection(&self) -> Option<Arc<Connection>> {
        lock(&self.live).as_ref().filter(|connection| connection.is_open()).cloned()
    }
}

impl Topic {
    /// The partition with this number.
    pub fn partition(&self, number: u32) -> Result<&PartitionMetadata, ClientError> {
        let found = self.partitions.iter().find(|partition| partition.partition.0 == number);
        found.ok_or_else(|| ClientError::UnknownPartition {
            topic: self.name.to_string(),
            partition: number,
            partitions: u32::try_from(self.partitions.len()).unwrap_or(u32::MAX),
        })
    }
}

async fn open_first(
    addresses: impl Iterator<Item = &String>,
    config: &ClientConfig,
    cluster: Option<ClusterId>,
) -> Result<Connection, ClientError> {
    let mut tried = Vec::new();
    for address in addresses {
        match open_checked(address, config, cluster).await {
            Ok(connection) => return Ok(connection),
            Err(ClientError::Disconnected { cause, .. }) => tried.push((address.clone(), cause)),
            Err(ClientError::Refused { error, .. }) => tried.push((address.clone(), error.message)),
            Err(ClientError::Protocol { reason, .. }) => tried.push((address.clone(), reason)),
            Err(error) => tried.push((address.clone(), error.to_string())),
        }
    }
    Err(ClientError::Unreachable { tried })
}

async fn open_checked(
    address: &str,
    config: &ClientConfig,
    cluster: Option<ClusterId>,
) -> Result<Connection, ClientError> {
    let connection = Connection::open(address, config).await?;
    let found = connection.hello().cluster_id;
    match cluster {
        Some(expected) if expected != found => {
            let reason = format!("it belongs to cluster {found}, this client talks to cluster {expected}");
            Err(ClientError::Protocol { address: address.to_owned(), reason })
        }
        _ => Ok(connection),
    }
}
