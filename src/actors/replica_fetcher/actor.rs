//! The fetcher's handlers: when a request goes out, and where its answers belong.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ArbiterHandle, AsyncContext, Context, Handler, Message, Recipient};
use bytes::Bytes;
use tokio::sync::watch;

use super::MAX_WAIT;
use super::lane::{Ended, Lane, Wanted};
use super::throttle::{Alarm, Throttle};
use super::wire::{self, Taken};
use crate::actors::broker::BrokerView;
use crate::actors::log_writer::Room;
use crate::actors::partition_leader::{FetchFromLeader, LeaderAnswered};
use crate::actors::peer::{Answer, PeerAddress, PeerHandle, PeerLinks, PeerTarget};
use crate::actors::send::{post, post_to};
use crate::engine::follower::ReplicaFetched;
use crate::engine::replication::FetchId;
use crate::protocol::messages::peer::{self, FetchReplicas, FetchReplicasReply, PeerConnection};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{Clock, MonoTime, NodeId, TopicConfig};

/// How long a request may take: what it waits at the leader, and as long as a large reply needs on a slow network.
const PATIENCE: Duration = MAX_WAIT.saturating_add(Duration::from_secs(6));
/// After a failure nothing is sent to that leader for so long. Followers ask again after 100 ms, so all of them share the next attempt.
const PAUSE: Duration = Duration::from_millis(250);
/// How long answers of other partitions may wait at the leader for a request to come with, after one was answered: its followers
/// usually ask again within this, and the request that is sent for them serves.
const LINGER: Duration = Duration::from_millis(1);

/// What a fetcher needs of its node.
pub struct ReplicaFetcherSettings {
    /// The node.
    pub node: NodeId,
    /// What topics have that set nothing themselves.
    pub topic_defaults: TopicConfig,
    /// For the budgets of throttled topics.
    pub clock: Arc<dyn Clock>,
    /// The metadata, for where leaders are, and for who is throttled.
    pub view: watch::Receiver<Arc<BrokerView>>,
    /// The links to other nodes.
    pub links: Arc<PeerLinks>,
    /// Where it runs: the thread of the data links, so that an answer crosses threads only on its way to the replica.
    pub arbiter: ArbiterHandle,
}

/// One leader's node.
#[derive(Default)]
pub(super) struct Leader {
    pub(super) lane: Lane<Recipient<LeaderAnswered>>,
    /// A look at the lane is due, once all that is queued has been taken in.
    is_flush_due: bool,
    is_lingering: bool,
    /// The last request failed: nothing is sent for a while.
    is_paused: bool,
}

/// See the module page.
pub struct ReplicaFetcher {
    view: watch::Receiver<Arc<BrokerView>>,
    links: Arc<PeerLinks>,
    pub(super) leaders: HashMap<NodeId, Leader>,
    pub(super) throttle: Throttle,
    pub(super) alarm: Alarm,
}

/// Everything that was queued before has been taken in: send what there is to send.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
struct Flush(NodeId);

/// A request was answered, or failed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Answered {
    leader: NodeId,
    request: u64,
    result: Result<Answer<FetchReplicasReply>, ApiError>,
}

impl ReplicaFetcher {
    /// Starts the fetcher of a node. It lives as long as its thread, or whoever sends it fetches.
    #[must_use]
    pub fn start(settings: ReplicaFetcherSettings) -> Recipient<FetchFromLeader> {
        let ReplicaFetcherSettings { node, topic_defaults, clock, view, links, arbiter } = settings;
        let throttle = Throttle::new(node, topic_defaults, clock, view.clone());
        let start = move |_: &mut Context<Self>| Self {
            view,
            links,
            leaders: HashMap::new(),
            throttle,
            alarm: Alarm::default(),
        };
        Self::start_in_arbiter(&arbiter, start).recipient()
    }

    fn flush_soon(&mut self, leader: NodeId, ctx: &mut Context<Self>) {
        let known = self.leaders.entry(leader).or_default();
        if !known.is_flush_due {
            known.is_flush_due = true;
            ctx.notify(Flush(leader));
        }
    }

    /// Sends what there is to send to `leader`; if `may_be_empty`, a request that only fetches the answers of earlier ones, too.
    pub(super) fn flush(&mut self, leader: NodeId, may_be_empty: bool, ctx: &mut Context<Self>) {
        let Some(known) = self.leaders.get_mut(&leader).filter(|known| !known.is_paused) else { return };
        let (throttle, mut later) = (&mut self.throttle, None);
        let mut take = |topic, bytes| {
            let taken = throttle.take(topic, bytes);
            let wait = |at: MonoTime| later = Some(later.map_or(at, |earlier: MonoTime| earlier.min(at)));
            taken.map_err(wait).ok()
        };
        while let Some((request, body)) = known.lane.next_request(may_be_empty, &mut take) {
            match link(&self.view, &self.links, leader) {
                Ok(link) => send(ctx, link, leader, request, body),
                Err(error) => return self.failed(leader, request, &error, ctx),
            }
        }
        if known.lane.lacks_carrier() && !known.is_lingering {
            known.is_lingering = true;
            ctx.run_later(LINGER, move |fetcher, ctx| {
                fetcher.leaders.entry(leader).or_default().is_lingering = false;
                fetcher.flush(leader, true, ctx);
            });
        }
        let is_waiting = known.lane.waits_for_budget();
        if let Some(at) = later {
            self.wake_at(at, ctx);
        }
        if is_waiting {
            self.watch_metadata(ctx);
        }
    }

    /// Tells whoever waits for that request, or for an earlier one, and sends nothing for a while.
    fn failed(&mut self, leader: NodeId, request: u64, error: &ApiError, ctx: &mut Context<Self>) {
        let known = self.leaders.entry(leader).or_default();
        known.lane.ended();
        let failed = known.lane.take_failed(request);
        // That a node is out of reach is logged by its link.
        tracing::debug!(%leader, %error, fetches = failed.len(), "fetches for replicas failed");
        for (partition, Ended { id, taken, answer_to }) in failed {
            self.throttle.settle(partition, taken, 0);
            answer(&answer_to, id, Err(error.clone()), None);
        }
        if !std::mem::replace(&mut known.is_paused, true) {
            ctx.run_later(PAUSE, move |fetcher, ctx| {
                fetcher.leaders.entry(leader).or_default().is_paused = false;
                fetcher.flush(leader, true, ctx);
            });
        }
    }

    fn answered(
        &mut self,
        leader: NodeId,
        request: u64,
        received: Answer<FetchReplicasReply>,
        ctx: &mut Context<Self>,
    ) {
        let Answer { reply: FetchReplicasReply { answers }, attachments, mut permit } = received;
        if answers.len() != attachments.len() {
            let text = format!("the leader sent {} answers with {} attachments", answers.len(), attachments.len());
            return self.failed(leader, request, &ApiError::new(ErrorCode::InvalidRequest, text), ctx);
        }
        // The room of the frame goes with its batches: it is taken until they are written.
        let room: Room = permit.take_room().map(Arc::new);
        let frame_bytes: usize = attachments.iter().map(Bytes::len).sum();
        let known = self.leaders.entry(leader).or_default();
        known.lane.ended();
        for (answered, attached) in answers.into_iter().zip(attachments) {
            // A batch may be kept for long in the tail cache. It must not keep a much larger frame alive.
            let is_part = attached.len() * 2 < frame_bytes;
            let attached = if is_part { Bytes::copy_from_slice(&attached) } else { attached };
            take_answer((known, &mut self.throttle), leader, answered, attached, &room);
        }
        // Followers ask again in this very turn, most of them.
        self.flush_soon(leader, ctx);
    }
}

/// The data link to `leader`, where the metadata says it is.
fn link(view: &watch::Receiver<Arc<BrokerView>>, links: &PeerLinks, leader: NodeId) -> Result<PeerHandle, ApiError> {
    let view = Arc::clone(&view.borrow());
    let registration = view.image.brokers.get(&leader).map(|broker| &broker.registration);
    let Some((directory, peer)) = registration.and_then(|known| Some((known.directory, known.peer.as_ref()?))) else {
        let text = format!("it is not known here where other nodes reach broker {leader}");
        return Err(ApiError::new(ErrorCode::StaleMetadata, text));
    };
    let address = PeerAddress { host: peer.host.clone(), port: peer.port };
    let target = PeerTarget { node: Some(leader), directory: Some(directory), address };
    Ok(links.link(&target, PeerConnection::Data))
}

fn send(ctx: &Context<ReplicaFetcher>, link: PeerHandle, leader: NodeId, request: u64, body: FetchReplicas) {
    let home = ctx.address();
    // At most two for each leader.
    actix_rt::spawn(async move {
        let result = link.ask(&body, Vec::new(), PATIENCE).await;
        let result = result.map_err(|error| ApiError::new(ErrorCode::NotLeader, error.to_string()));
        post(&home, Answered { leader, request, result });
    });
}

/// Passes one answer to whoever waits for it.
fn take_answer(
    (known, throttle): (&mut Leader, &mut Throttle),
    leader: NodeId,
    answered: peer::ReplicaFetched,
    attached: Bytes,
    room: &Room,
) {
    let peer::ReplicaFetched { partition, number, outcome } = answered;
    let came = attached.len();
    let result = outcome.into_result().and_then(|answer| {
        wire::answer_from_wire(answer, attached).map_err(|damage| {
            tracing::warn!(%leader, topic = %partition.topic, partition = %partition.partition, %damage,
                "records for a replica were damaged on the way: they are asked for again");
            ApiError::from(&damage)
        })
    });
    // An answer that has no place for records says nothing of how many there are to come.
    let bytes = result.as_ref().ok().filter(|taken| taken.verdict.has_records()).map(|taken| taken.bytes);
    if let Some(Ended { id, taken, answer_to }) = known.lane.answered(partition, number, bytes) {
        throttle.settle(partition, taken, came);
        answer(&answer_to, id, result, room.as_ref());
    }
}

fn answer(
    answer_to: &Recipient<LeaderAnswered>,
    id: FetchId,
    result: Result<Taken, ApiError>,
    room: Option<&Arc<crate::net::FrameRoom>>,
) {
    let (result, batches) = match result {
        Ok(Taken { verdict, state, batches, .. }) => (Ok((verdict, state)), batches),
        Err(error) => (Err(error), Vec::new()),
    };
    let headers = batches.iter().map(|batch| batch.header).collect();
    let batches = batches.into_iter().map(|batch| (batch, room.cloned())).collect();
    post_to(answer_to, LeaderAnswered { fetched: ReplicaFetched { id, result, headers }, batches });
}

impl Actor for ReplicaFetcher {
    type Context = Context<Self>;
}

impl Handler<FetchFromLeader> for ReplicaFetcher {
    type Result = ();
    fn handle(&mut self, message: FetchFromLeader, ctx: &mut Context<Self>) {
        let FetchFromLeader { partition, leader, fetch, may_wait, answer_to } = message;
        let (known, throttle) = (self.leaders.entry(leader).or_default(), &self.throttle);
        let wanted = Wanted { fetch, may_wait, answer_to };
        known.lane.want(partition, wanted, |partition| throttle.applies_to(partition));
        self.flush_soon(leader, ctx);
    }
}

impl Handler<Flush> for ReplicaFetcher {
    type Result = ();
    fn handle(&mut self, Flush(leader): Flush, ctx: &mut Context<Self>) {
        self.leaders.entry(leader).or_default().is_flush_due = false;
        self.flush(leader, false, ctx);
    }
}

impl Handler<Answered> for ReplicaFetcher {
    type Result = ();
    fn handle(&mut self, Answered { leader, request, result }: Answered, ctx: &mut Context<Self>) {
        match result {
            Ok(answer) => self.answered(leader, request, answer, ctx),
            Err(error) => self.failed(leader, request, &error, ctx),
        }
    }
}
