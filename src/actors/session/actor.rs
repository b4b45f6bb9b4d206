//! The session's handlers: route each request, and put answers where they belong.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Recipient};
use tokio::sync::watch;

use super::fetch::FetchInWork;
use super::gather::Gather;
use super::node::NodeFacts;
use crate::actors::broker::{Broker, BrokerView, Replica};
use crate::actors::codec::{
    ClientRequest, CloseConnection, Codec, Disconnected, Held, Reply, ReplyBody, RequestBody, RequestPermit, RoomFreed,
};
use crate::actors::controllers::Controllers;
use crate::actors::partition_leader::{OwnerGone, PartitionAnswer, PartitionLeader, ReplyTo, RequestTag};
use crate::actors::send::post;
use crate::actors::spans;
use crate::config::LimitsSection;
use crate::engine::waiters::OwnerId;
use crate::metrics::Metrics;
use crate::protocol::frame::{Attachment, FrameHead};
use crate::protocol::messages;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{
    Clock, ListenerKind, MonoTime, NodeId, Operation, Principal, RequestContext, TopicAction, TopicConfig,
    TopicPartition, authorize,
};

/// What the sessions of a node share.
#[derive(Clone)]
pub struct SessionSettings {
    /// This node.
    pub node: NodeId,
    /// The `limits` section of the config.
    pub limits: LimitsSection,
    /// The settings of topics that do not override them.
    pub topic_defaults: TopicConfig,
    /// The node's clocks.
    pub clock: Arc<dyn Clock>,
    /// The replicas of this node.
    pub view: watch::Receiver<Arc<BrokerView>>,
    /// Whoever decides.
    pub controllers: Controllers,
    /// The broker.
    pub broker: Addr<Broker>,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// What the node says of itself.
    pub facts: Arc<NodeFacts>,
}

pub(super) enum InWork {
    Gather(Gather),
    Fetch(FetchInWork),
}

/// A request whose reply may be large, until there is room for it among the replies in work.
pub(super) struct Deferred {
    pub head: FrameHead,
    pub body: LargeRequest,
    pub deadline: MonoTime,
    pub permit: RequestPermit,
}

pub(super) enum LargeRequest {
    Fetch(messages::Fetch),
    Metadata(messages::Metadata),
    DescribeTopics(messages::DescribeTopics),
}

/// See the module page.
pub struct Session {
    pub(super) settings: SessionSettings,
    pub(super) codec: Addr<Codec>,
    pub(super) owner: OwnerId,
    pub(super) context: Option<Arc<RequestContext>>,
    pub(super) in_work: BTreeMap<u64, InWork>,
    pub(super) deferred: VecDeque<Deferred>,
    pub(super) room_taken: usize,
    pub(super) answers_to: Arc<Recipient<PartitionAnswer>>,
    pub(super) room_to: Arc<Recipient<RoomFreed>>,
    address: SocketAddr,
    view: Arc<BrokerView>,
    next_request: u64,
    closing: bool,
}

impl Session {
    /// The session of the connection that `codec` serves. `owner` is unique within the node.
    #[must_use]
    pub fn new(
        ctx: &mut Context<Self>,
        settings: SessionSettings,
        codec: Addr<Codec>,
        owner: OwnerId,
        address: SocketAddr,
    ) -> Self {
        let view = Arc::clone(&settings.view.borrow());
        Self {
            settings,
            codec,
            owner,
            context: None,
            in_work: BTreeMap::new(),
            deferred: VecDeque::new(),
            room_taken: 0,
            answers_to: Arc::new(ctx.address().recipient()),
            room_to: Arc::new(ctx.address().recipient()),
            address,
            view,
            next_request: 0,
            closing: false,
        }
    }

    /// The newest view of the broker. A cheap look whether it changed, then the one at hand.
    pub(super) fn view(&mut self) -> &Arc<BrokerView> {
        if self.settings.view.has_changed().unwrap_or(false) {
            self.view = Arc::clone(&self.settings.view.borrow_and_update());
        }
        &self.view
    }

    pub(super) fn now(&self) -> MonoTime {
        self.settings.clock.now()
    }

    /// A moment `wait_ms` from now, at most `limits.max_wait_ms`.
    pub(super) fn deadline(&self, wait_ms: u32) -> MonoTime {
        let wait = wait_ms.min(self.settings.limits.max_wait_ms);
        self.now().plus(std::time::Duration::from_millis(wait.into()))
    }

    pub(super) fn next_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    pub(super) fn reply_to(&self, head: FrameHead, request: u64, item: usize) -> ReplyTo {
        let item = u32::try_from(item).unwrap_or(u32::MAX);
        let (connection, correlation) = (self.owner, head.correlation_id);
        ReplyTo::new(Arc::clone(&self.answers_to), RequestTag { connection, correlation, request, item })
    }

    pub(super) fn send(
        &self,
        head: FrameHead,
        result: Result<ReplyBody, ApiError>,
        attachments: Vec<Attachment>,
        held: Held,
    ) {
        post(&self.codec, Reply { head, result, attachments, held });
    }

    /// Whether the client may do `operation`.
    pub(super) fn allow(&self, operation: Operation<'_>) -> Result<(), ApiError> {
        let Some(context) = &self.context else {
            return Err(ApiError::new(ErrorCode::HelloRequired, "the first request of a connection is Hello"));
        };
        authorize(context, operation).map_err(|denied| ApiError::new(ErrorCode::NotAuthorized, denied.to_string()))
    }

    /// The leader of `partition` on this node, if the client may do `action` to its topic.
    pub(super) fn leader_of(
        &mut self,
        partition: TopicPartition,
        action: TopicAction,
    ) -> Result<Addr<PartitionLeader>, ApiError> {
        match self.replica_of(partition, action)? {
            Replica::Leader(address) => Ok(address),
            _ => Err(self.not_led_here(partition)),
        }
    }

    /// The replica of `partition` on this node that serves readers, if the client may read its topic: the leader, or a follower,
    /// which serves what it knows to be committed (rule 13).
    pub(super) fn reader_of(&mut self, partition: TopicPartition) -> Result<Addr<PartitionLeader>, ApiError> {
        match self.replica_of(partition, TopicAction::Read)? {
            Replica::Leader(address) | Replica::Follower(address) => Ok(address),
            _ => Err(self.not_led_here(partition)),
        }
    }

    /// The replica of `partition` on this node, if there is one that is open.
    fn replica_of(&mut self, partition: TopicPartition, action: TopicAction) -> Result<Replica, ApiError> {
        let view = Arc::clone(self.view());
        let unknown = || {
            let text = format!("there is no partition {partition} (topic id, partition): refresh the metadata");
            ApiError::new(ErrorCode::UnknownTopicOrPartition, text)
        };
        let topic = view.image.topics.get(&partition.topic).ok_or_else(unknown)?;
        self.allow(Operation::Topic(action, &topic.name))?;
        match view.replica(partition).ok_or_else(unknown)? {
            Replica::Offline(cause) => Err(cause.clone()),
            replica => Ok(replica.clone()),
        }
    }

    fn not_led_here(&mut self, partition: TopicPartition) -> ApiError {
        let name = self.view().image.topics.get(&partition.topic).map(|topic| topic.name.to_string());
        let (number, name) = (partition.partition, name.unwrap_or_default());
        let text = format!("partition {number} of topic '{name}' is not led here: refresh the metadata");
        ApiError::new(ErrorCode::NotLeader, text)
    }

    fn route(&mut self, request: ClientRequest) {
        let ClientRequest { head, body, attachments, permit } = request;
        let held = |permit| Held { permit: Some(permit), room: None };
        match body {
            RequestBody::Hello(hello) => self.hello(head, &hello, permit),
            _ if self.context.is_none() => {
                let error = ApiError::new(ErrorCode::HelloRequired, "the first request of a connection is Hello");
                self.send(head, Err(error), Vec::new(), held(permit));
                self.close();
            }
            RequestBody::Produce(produce) => self.produce(head, produce, attachments, permit),
            RequestBody::Fetch(fetch) => self.defer(head, LargeRequest::Fetch(fetch), permit),
            RequestBody::Metadata(metadata) => self.defer(head, LargeRequest::Metadata(metadata), permit),
            RequestBody::DescribeTopics(describe) => self.defer(head, LargeRequest::DescribeTopics(describe), permit),
            RequestBody::ListOffsets(list) => self.list_offsets(head, &list, permit),
            RequestBody::DescribeLogs(describe) => self.describe_logs(head, &describe, permit),
            RequestBody::DeleteRecords(delete) => self.delete_records(head, &delete, permit),
            RequestBody::DescribeCluster(_) => self.describe_cluster(head, permit),
            RequestBody::DescribeNode(_) => self.describe_node(head, permit),
            RequestBody::InitProducer(init) => self.init_producer(head, &init, permit),
            RequestBody::CreateTopics(create) => self.create_topics(head, create, permit),
            RequestBody::DeleteTopics(delete) => self.delete_topics(head, delete, permit),
            RequestBody::AlterTopics(alter) => self.alter_topics(head, alter, permit),
            RequestBody::AddPartitions(add) => self.add_partitions(head, add, permit),
            RequestBody::ReassignPartitions(reassign) => self.reassign(head, reassign, permit),
            RequestBody::ElectLeaders(elect) => self.elect_leaders(head, elect, permit),
            RequestBody::ChangeControllers(change) => self.change_controllers(head, change, permit),
        }
    }

    /// Notes who the client is, from its `Hello`.
    pub(super) fn set_context(&mut self, client_id: &str) {
        self.context = Some(Arc::new(RequestContext {
            principal: Principal::Anonymous,
            client_id: client_id.into(),
            address: self.address,
            listener: ListenerKind::Native,
        }));
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
        post(&self.codec, CloseConnection);
    }

    /// Tells every leader that may still hold something of this connection that nobody waits for it.
    fn forget_everything(&mut self) {
        let mut told: Vec<Addr<PartitionLeader>> = Vec::new();
        for work in self.in_work.values() {
            let leaders = match work {
                InWork::Gather(gather) => gather.leaders(),
                InWork::Fetch(fetch) => fetch.leaders(),
            };
            for leader in leaders {
                if !told.contains(leader) {
                    post(leader, OwnerGone(self.owner));
                    told.push(leader.clone());
                }
            }
        }
        self.in_work.clear();
        self.deferred.clear();
    }
}

impl Actor for Session {
    type Context = Context<Self>;
}

impl Handler<ClientRequest> for Session {
    type Result = ();
    fn handle(&mut self, request: ClientRequest, _: &mut Self::Context) {
        if !self.closing {
            let _span = spans::request(self.owner, request.head.correlation_id).entered();
            self.route(request);
        }
    }
}

impl Handler<PartitionAnswer> for Session {
    type Result = ();
    fn handle(&mut self, PartitionAnswer { tag, result }: PartitionAnswer, _: &mut Self::Context) {
        let _span = spans::of(tag).entered();
        match self.in_work.get_mut(&tag.request) {
            Some(InWork::Gather(gather)) => {
                gather.put(tag.item as usize, result);
                self.finish_gather(tag.request);
            }
            Some(InWork::Fetch(_)) => self.fetched(tag.request, tag.item as usize, result),
            // A fetch that was answered without waiting for this partition.
            None => {}
        }
    }
}

impl Handler<RoomFreed> for Session {
    type Result = ();
    fn handle(&mut self, RoomFreed(bytes): RoomFreed, _: &mut Self::Context) {
        self.room_taken = self.room_taken.saturating_sub(bytes);
        self.start_deferred();
    }
}

impl Handler<Disconnected> for Session {
    type Result = ();
    fn handle(&mut self, _: Disconnected, ctx: &mut Self::Context) {
        self.forget_everything();
        ctx.stop();
    }
}
