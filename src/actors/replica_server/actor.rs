//! The server's handlers.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, Recipient, SpawnHandle};
use tokio::sync::watch;

use super::serving::Serving;
use crate::actors::broker::{BrokerView, Replica};
use crate::actors::partition_leader::{
    Answer, FetchForFollower, PartitionAnswer, PartitionLeader, ReplyTo, RequestTag,
};
use crate::actors::peer_session::{
    AnswerTo, ConnectionService, PeerCall, PeerContext, PeerGone, PeerReplyBody, PeerRequestBody, StartService,
};
use crate::actors::replica_fetcher::wire;
use crate::actors::send::post;
use crate::engine::waiters::OwnerId;
use crate::net::NetLimits;
use crate::protocol::frame::Attachment;
use crate::protocol::messages::Outcome;
use crate::protocol::messages::peer::{FetchReplica, FetchReplicas, FetchReplicasReply, LeaderAnswer, ReplicaFetched};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{Clock, CorrelationId, MonoTime, TopicPartition};

/// The longest that a request may ask to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Fetches wait until a multiple of this, so that those of many partitions end together and share a reply, and the request that renews them.
const DEADLINE_GRID: Duration = Duration::from_millis(250);
/// The largest answer: what a frame between nodes holds, beside the heads of other answers.
const MAX_ANSWER_BYTES: usize = NetLimits::between_nodes().max_frame_bytes - (1 << 20);
/// Connections of other nodes are numbered apart from those of clients, which the budget of cold reads tells apart by number.
const BETWEEN_NODES: u64 = 1 << 63;

/// What the servers of a node share.
#[derive(Clone)]
pub struct ReplicaServerSettings {
    /// The replicas of this node.
    pub view: watch::Receiver<Arc<BrokerView>>,
    /// The node's clocks.
    pub clock: Arc<dyn Clock>,
}

/// The request that waits.
struct Waiting {
    answer: AnswerTo,
    max_bytes: usize,
    deadline: MonoTime,
}

/// See the module page.
pub struct ReplicaServer {
    settings: ReplicaServerSettings,
    from: Arc<PeerContext>,
    view: Arc<BrokerView>,
    answers_to: Arc<Recipient<PartitionAnswer>>,
    serving: Serving,
    waiting: Option<Waiting>,
    is_flush_due: bool,
    timer: Option<(MonoTime, SpawnHandle)>,
}

/// All answers that were queued have been taken in.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
struct Flush;

impl ReplicaServer {
    /// The service for [`crate::actors::peer_session::PeerServices::replicas`], which starts a server for each connection that asks, on
    /// the thread of its session.
    #[must_use]
    pub fn start(settings: ReplicaServerSettings) -> StartService {
        StartService::new(move |from| {
            let settings = settings.clone();
            let server = Self::create(|ctx| Self::new(ctx, settings, from));
            ConnectionService { calls: server.clone().recipient(), gone: server.recipient() }
        })
    }

    fn new(ctx: &mut Context<Self>, settings: ReplicaServerSettings, from: Arc<PeerContext>) -> Self {
        let view = Arc::clone(&settings.view.borrow());
        let answers_to = Arc::new(ctx.address().recipient());
        let (serving, waiting) = (Serving::default(), None);
        Self { settings, from, view, answers_to, serving, waiting, is_flush_due: false, timer: None }
    }

    fn serve(&mut self, request: FetchReplicas, mut answer: AnswerTo, ctx: &mut Context<Self>) {
        if request.replica != self.from.node {
            let text = format!(
                "node {} asks for replicas of node {}: a node asks for its own only",
                self.from.node, request.replica
            );
            return answer.send(Err(ApiError::new(ErrorCode::InvalidRequest, text)));
        }
        // Nothing in the frame is kept, and the request may wait for long.
        answer.release_bytes();
        // What comes with this request overtakes the one that waits, whose answer makes room for the next.
        self.answer_waiting();
        if self.settings.view.has_changed().unwrap_or(false) {
            self.view = Arc::clone(&self.settings.view.borrow_and_update());
        }
        let deadline = self.settings.clock.now().plus(wait(&request));
        let parks_until = on_grid(self.settings.clock.now(), deadline);
        for fetch in &request.fetches {
            self.ask(&request, fetch, parks_until);
        }
        self.waiting =
            Some(Waiting { answer, max_bytes: (request.max_bytes as usize).min(MAX_ANSWER_BYTES), deadline });
        if self.serving.is_ready() {
            self.flush_soon(ctx);
        }
        self.arm(ctx);
    }

    fn ask(&mut self, request: &FetchReplicas, fetch: &FetchReplica, parks_until: MonoTime) {
        let FetchReplica { partition, number, may_wait, .. } = *fetch;
        let serial = self.serving.ask(partition, number);
        match replica(&self.view, partition) {
            Ok(replica) => {
                let connection = OwnerId(self.from.owner.0 | BETWEEN_NODES);
                let tag = RequestTag { connection, correlation: CorrelationId(0), request: serial, item: 0 };
                let reply = ReplyTo::new(Arc::clone(&self.answers_to), tag);
                let (fetch, wait_until) = (wire::fetch_from_wire(request, fetch), may_wait.then_some(parks_until));
                post(replica, FetchForFollower { fetch, wait_until, reply });
            }
            Err(error) => self.put(serial, Err(error)),
        }
    }

    fn put(&mut self, serial: u64, result: Result<Answer, ApiError>) {
        let Some((partition, number)) = self.serving.asked(serial) else { return };
        let (outcome, records) = match result.and_then(to_wire) {
            Ok((answer, records)) => (Outcome::from(Ok(answer)), records),
            Err(error) => (Outcome::from(Err(error)), Attachment::new()),
        };
        self.serving.put(serial, ReplicaFetched { partition, number, outcome }, records);
    }

    fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.is_flush_due {
            self.is_flush_due = true;
            ctx.notify(Flush);
        }
    }

    /// Answers the request that waits, if one does, with what is ready.
    fn answer_waiting(&mut self) {
        let Some(Waiting { answer, max_bytes, .. }) = self.waiting.take() else { return };
        let (answers, attachments) = self.serving.take(max_bytes);
        answer.send_with(Ok(PeerReplyBody::FetchReplicas(FetchReplicasReply { answers })), attachments);
    }

    /// Keeps one timer, for the deadline of the request that waits, or that of an earlier one.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Some(deadline) = self.waiting.as_ref().map(|waiting| waiting.deadline) else { return };
        if let Some((armed, handle)) = self.timer {
            if armed <= deadline {
                return;
            }
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(deadline.since(self.settings.clock.now()), |server, ctx| {
            server.timer = None;
            let now = server.settings.clock.now();
            if server.waiting.as_ref().is_some_and(|waiting| waiting.deadline <= now) {
                server.answer_waiting();
            }
            server.arm(ctx);
        });
        self.timer = Some((deadline, handle));
    }
}

/// What the follower's node is told.
fn to_wire(answer: Answer) -> Result<(LeaderAnswer, Attachment), ApiError> {
    let Answer::ForFollower(records) = answer else {
        return Err(ApiError::new(ErrorCode::Unknown, "the partition gave an answer of another kind"));
    };
    let (answer, records) = wire::answer_to_wire(records);
    if records.len() > MAX_ANSWER_BYTES {
        // A frame of that size would end the connection, for all partitions, again and again.
        let text = format!(
            "a batch of {} bytes is above what goes between nodes, {MAX_ANSWER_BYTES} bytes: no follower can have it, and \
             the topic's max_batch_bytes should be lower",
            records.len()
        );
        return Err(ApiError::new(ErrorCode::BatchTooLarge, text));
    }
    Ok((answer, records))
}

fn wait(request: &FetchReplicas) -> Duration {
    Duration::from_millis(request.max_wait_ms.into()).min(LONGEST_WAIT)
}

/// The last moment of the grid that is not after `deadline`; `deadline` itself where none lies between it and `now`.
fn on_grid(now: MonoTime, deadline: MonoTime) -> MonoTime {
    let grid = DEADLINE_GRID.as_millis();
    let aligned = u64::try_from(deadline.0.as_millis() / grid * grid).map(Duration::from_millis);
    aligned.ok().map(MonoTime).filter(|aligned| *aligned > now).unwrap_or(deadline)
}

/// The replica of `partition` here, whatever its part: it knows best whether it leads.
fn replica(view: &BrokerView, partition: TopicPartition) -> Result<&actix::Addr<PartitionLeader>, ApiError> {
    let known = view.replica(partition);
    if let Some(address) = known.and_then(Replica::address) {
        return Ok(address);
    }
    Err(match known {
        Some(Replica::Offline(cause)) => cause.clone(),
        _ => ApiError::new(ErrorCode::NotLeader, "no replica of this partition is open here: refresh the metadata"),
    })
}

impl Actor for ReplicaServer {
    type Context = Context<Self>;
}

impl Handler<PeerCall> for ReplicaServer {
    type Result = ();
    fn handle(&mut self, call: PeerCall, ctx: &mut Context<Self>) {
        let PeerCall { body, answer, .. } = call;
        match body {
            PeerRequestBody::FetchReplicas(request) => self.serve(request, answer, ctx),
            _ => answer.send(Err(ApiError::new(ErrorCode::InvalidRequest, "only fetches of replicas are served here"))),
        }
    }
}

impl Handler<PartitionAnswer> for ReplicaServer {
    type Result = ();
    fn handle(&mut self, PartitionAnswer { tag, result }: PartitionAnswer, ctx: &mut Context<Self>) {
        self.put(tag.request, result);
        if self.waiting.is_some() && self.serving.is_ready() {
            self.flush_soon(ctx);
        }
    }
}

impl Handler<Flush> for ReplicaServer {
    type Result = ();
    fn handle(&mut self, _: Flush, _: &mut Context<Self>) {
        self.is_flush_due = false;
        if self.serving.is_ready() {
            self.answer_waiting();
        }
    }
}

impl Handler<PeerGone> for ReplicaServer {
    type Result = ();
    fn handle(&mut self, _: PeerGone, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
