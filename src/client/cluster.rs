//! The shared part of every client: the pool of connections, and whom to ask.
//!
//! ```text
//!   connection(node, lane) ─► slot ─ none, or dead ─► backoff ─► Connection::open
//!   ask(..) ─► the controller, else any of: live brokers, the bootstrap list, brokers of earlier replies
//! ```
//!
//! What all brokers can answer is asked of one, and of another beside it when that one is silent: see `first_answer`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::Backoff;
use super::connection::{Connection, lock};
use super::first_answer::{Attempt, cause_of, first_answer, verdict};
use super::known::{Known, KnownBroker};
use super::{Admin, ClientConfig, ClientError, Consumer, ConsumerConfig, Producer, ProducerConfig};
use crate::protocol::messages::Request;
use crate::types::{ClusterId, NodeId};

/// Connections to a cluster and the knowledge of who leads what. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ClientConfig,
    cluster_id: ClusterId,
    entry: NodeId,
    /// The smallest frame limit that any node named.
    frame_limit: AtomicUsize,
    pub(super) known: Mutex<Known>,
    slots: Mutex<HashMap<(NodeId, Lane), Arc<Slot>>>,
    /// Held while metadata is asked for, so that a hundred tasks that miss the same topic ask once.
    pub(super) refreshing: tokio::sync::Mutex<()>,
    /// Whose turn it is to be asked: it moves on when one had nothing new to say, because that one may be cut off from the rest.
    turn: AtomicUsize,
}

/// Which of the two connections to a broker: a parked fetch and its large replies never delay an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Main,
    Fetch,
}

/// What to do about a broker that could not be reached a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Wait until it is time to try again.
    Wait,
    /// Fail at once until then.
    Fail,
    /// Try now: the caller waits between its attempts.
    Now,
}

#[derive(Debug, Default)]
struct Slot {
    live: Mutex<Option<Arc<Connection>>>,
    opening: tokio::sync::Mutex<Opening>,
}

#[derive(Debug, Default)]
struct Opening {
    backoff: Backoff,
    /// When to try again, and why the last attempt failed.
    failed: Option<(Instant, ClientError)>,
}

/// Somebody who can answer what all brokers know.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Broker(NodeId),
    Address(String),
}

impl Client {
    /// Reaches the cluster through the first bootstrap address that answers.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] names every address tried and why it failed.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        config.validate()?;
        let first = open_first(&config).await?;
        let client = Self {
            shared: Arc::new(Shared {
                cluster_id: first.hello().cluster_id,
                entry: first.hello().node_id,
                frame_limit: AtomicUsize::new(config.max_frame_bytes),
                config,
                known: Mutex::default(),
                slots: Mutex::default(),
                refreshing: tokio::sync::Mutex::default(),
                turn: AtomicUsize::new(0),
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

    /// The node that answered first, at one of the addresses that were given.
    #[must_use]
    pub fn entry(&self) -> NodeId {
        self.shared.entry
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
        self.connect_to(node, lane, Retry::Wait).await
    }

    /// The connection to `node`, opened if need be.
    pub(super) async fn connect_to(
        &self,
        node: NodeId,
        lane: Lane,
        retry: Retry,
    ) -> Result<Arc<Connection>, ClientError> {
        let slot = self.slot(node, lane);
        if let Some(connection) = slot.open_connection() {
            return Ok(connection);
        }
        let mut opening = slot.opening.lock().await;
        if let Some(connection) = slot.open_connection() {
            return Ok(connection);
        }
        match &opening.failed {
            Some((moment, error)) if retry == Retry::Fail && *moment > Instant::now() => return Err(error.clone()),
            Some((moment, _)) if retry == Retry::Wait => sleep_until(*moment).await,
            _ => {}
        }
        // After the wait, so that a broker that moved is found where it is now.
        let Some(address) = lock(&self.shared.known).brokers().get(&node).map(|broker| broker.address.clone()) else {
            let cause = "the cluster names no address for it".to_owned();
            return Err(ClientError::Disconnected { address: format!("broker {node}"), cause });
        };
        match open_checked(&address, &self.shared.config, Some(self.shared.cluster_id)).await {
            Ok(connection) => {
                *opening = Opening::default();
                let connection = Arc::new(connection);
                self.note_limits(&connection);
                *lock(&slot.live) = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                opening.failed = Some((Instant::now() + opening.backoff.next_delay(), error.clone()));
                Err(error)
            }
        }
    }

    /// Every broker that was ever named.
    pub(super) fn brokers(&self) -> Vec<(NodeId, KnownBroker)> {
        lock(&self.shared.known).brokers().iter().map(|(node, broker)| (*node, broker.clone())).collect()
    }

    /// Everybody who can answer what all brokers know, the likeliest to answer first.
    pub(super) fn sources(&self) -> Vec<Source> {
        let brokers = self.brokers();
        let slots = lock(&self.shared.slots).clone();
        let slot = |node: NodeId| slots.get(&(node, Lane::Main));
        let is_open = |node: NodeId| slot(node).is_some_and(|slot| slot.open_connection().is_some());
        let is_troubled = |node: NodeId| slot(node).is_some_and(|slot| slot.is_troubled());
        let (mut likely, mut unlikely) = (Vec::new(), Vec::new());
        for (node, broker) in &brokers {
            let is_likely = !is_troubled(*node) && (is_open(*node) || broker.is_live);
            if is_likely { &mut likely } else { &mut unlikely }.push(Source::Broker(*node));
        }
        // The one that was reached first is open before anybody has named it.
        let unnamed = slots.keys().filter(|(node, lane)| *lane == Lane::Main && brokers.iter().all(|(n, _)| n != node));
        likely.extend(unnamed.map(|(node, _)| Source::Broker(*node)));
        if !likely.is_empty() {
            let turn = self.shared.turn.load(Ordering::Relaxed) % likely.len();
            likely.rotate_left(turn);
        }
        let is_new = |address: &&String| brokers.iter().all(|(_, broker)| broker.address != **address);
        likely.extend(self.shared.config.bootstrap.iter().filter(is_new).cloned().map(Source::Address));
        likely.extend(unlikely);
        likely
    }

    /// Asks another one first the next time.
    pub(super) fn pass_the_turn(&self) {
        self.shared.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection to one of [`Client::sources`].
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], for this one.
    async fn reach(&self, source: Source) -> Result<Arc<Connection>, ClientError> {
        let name = self.name_of(&source);
        let reached = match source {
            Source::Broker(node) => self.connect_to(node, Lane::Main, Retry::Now).await,
            Source::Address(address) => {
                let opened = open_checked(&address, &self.shared.config, Some(self.shared.cluster_id)).await;
                opened.map(|connection| self.adopt(connection))
            }
        };
        reached.map_err(|error| ClientError::Unreachable { tried: vec![(name, cause_of(&error))] })
    }

    fn name_of(&self, source: &Source) -> String {
        match source {
            Source::Address(address) => address.clone(),
            Source::Broker(node) => {
                let known = lock(&self.shared.known).brokers().get(node).map(|broker| broker.address.clone());
                known.unwrap_or_else(|| format!("broker {node}"))
            }
        }
    }

    /// Asks one of `sources` after the other, as [`first_answer`] does.
    pub(super) async fn ask_any<R: Request + Sync>(
        &self,
        sources: Vec<Source>,
        request: &R,
    ) -> Result<R::Reply, ClientError> {
        let attempt = |source| (self.name_of(&source), self.ask_source(source, request).boxed());
        let attempts: Vec<Attempt<'_, R::Reply>> = sources.into_iter().map(attempt).collect();
        first_answer(attempts).await.map_err(verdict)
    }

    async fn ask_source<R: Request + Sync>(&self, source: Source, request: &R) -> Result<R::Reply, ClientError> {
        self.reach(source).await?.request(request, self.shared.config.request_timeout).await
    }

    /// Asks the controller if it is known to be a broker, else any broker. Retries while nothing was carried out, and with
    /// `harmless` (asking twice, or two brokers, changes nothing) after any failure that may pass.
    pub(super) async fn ask<R: Request + Sync>(&self, request: &R, harmless: bool) -> Result<R::Reply, ClientError> {
        let deadline = Instant::now() + self.shared.config.delivery_timeout;
        let mut backoff = Backoff::default();
        loop {
            let asked = self.controller();
            let error = match self.ask_once(asked, request, harmless).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let (is_first, delay) = (backoff.is_fresh(), backoff.next_delay());
            // Nobody there is answered at once: who calls an administrator's command wants to know.
            let hopeless = matches!(error, ClientError::Unreachable { .. }) || !error.is_retryable();
            let perhaps_twice = error.leaves_outcome_unknown() && !harmless;
            if hopeless || perhaps_twice || Instant::now() + delay >= deadline {
                return Err(error);
            }
            self.pass_the_turn();
            // Another node may be the controller by now. What fails here fails again above.
            let _ = self.fetch_metadata(Some(Vec::new())).await;
            // Once: brokers that do not agree on it would be asked in turn without a pause.
            if !is_first || self.controller() == asked {
                sleep(delay).await;
            }
        }
    }

    async fn ask_once<R: Request + Sync>(
        &self,
        controller: Option<NodeId>,
        request: &R,
        harmless: bool,
    ) -> Result<R::Reply, ClientError> {
        let mut sources = self.sources();
        if let Some(node) = controller {
            sources.retain(|source| !matches!(source, Source::Broker(other) if *other == node));
            sources.insert(0, Source::Broker(node));
        }
        if harmless {
            return self.ask_any(sources, request).await;
        }
        // Sent once: what is raced is only who can be reached.
        let attempt = |source| (self.name_of(&source), self.reach(source).boxed());
        let attempts: Vec<Attempt<'_, Arc<Connection>>> = sources.into_iter().map(attempt).collect();
        let connection = first_answer(attempts).await.map_err(verdict)?;
        connection.request(request, self.shared.config.request_timeout).await
    }

    pub(super) fn controller(&self) -> Option<NodeId> {
        lock(&self.shared.known).controller()
    }

    /// Puts a connection that was opened by address where its node's connection belongs, unless there is one.
    fn adopt(&self, connection: Connection) -> Arc<Connection> {
        self.note_limits(&connection);
        let slot = self.slot(connection.hello().node_id, Lane::Main);
        let mut live = lock(&slot.live);
        let open = live.take().filter(|connection| connection.is_open());
        Arc::clone(live.insert(open.unwrap_or_else(|| Arc::new(connection))))
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

    /// Whether it leaves somebody waiting; or was not reached when that was last tried, or is being tried now.
    fn is_troubled(&self) -> bool {
        match self.open_connection() {
            Some(connection) => connection.is_silent(),
            None => self.opening.try_lock().map_or(true, |opening| opening.failed.is_some()),
        }
    }
}

async fn open_first(config: &ClientConfig) -> Result<Connection, ClientError> {
    let mut attempts: Vec<Attempt<'_, Connection>> = Vec::new();
    for address in &config.bootstrap {
        attempts.push((address.clone(), open_checked(address, config, None).boxed()));
    }
    let named = |(address, error)| (address, cause_of(&error));
    let unreachable = |failed: Vec<_>| ClientError::Unreachable { tried: failed.into_iter().map(named).collect() };
    first_answer(attempts).await.map_err(unreachable)
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
