//! Controllers that do as a test says, in this process and behind sockets.

mod over_links;
mod searching;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, ResponseFuture};

use super::*;
use crate::actors::controller::{
    AddPartitions, AlterTopics, AskController, ChangeControllers, Committed, CreateTopics, DeleteTopics,
    DescribeControllers, ElectLeaders, FindController, FollowMetadata, InitProducer, MetadataNews, Reassign,
};
use crate::actors::peer_session::PeerCall;
use crate::engine::broker::{Answer, Request};
use crate::engine::metadata::ClusterImage;
use crate::protocol::messages::peer::{DescribeControllersReply, FindControllerReply, KnownController};
use crate::protocol::messages::{
    ControllerDescription, ControllerRole, CreatedTopic, InitProducerReply, NewTopic, PartitionElection, PartitionMove,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{BrokerEpoch, ClusterId, DirectoryId, NodeId, ProducerEpoch, ProducerId, TopicId, TopicName};

const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(9));

fn topic() -> TopicId {
    TopicId(uuid::Uuid::from_u128(7))
}

fn not_controller() -> ApiError {
    ApiError::new(ErrorCode::NotController, "another controller decides")
}

fn stopping(node: u32) -> Request {
    Request::Stopping { node: NodeId(node), epoch: BrokerEpoch(3) }
}

fn wanted(name: &str) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: Some(1), replication_factor: None, config: Default::default() }
}

/// How a controller behaves.
struct Part {
    decides: bool,
    term: u64,
    /// It answers nothing, not even that it does not decide.
    hangs: bool,
    /// It answers no request, but says that it decides.
    is_stuck: bool,
    /// What it answers brokers.
    answer: Result<Option<Answer>, ApiError>,
    news: MetadataNews,
    heard: Vec<Request>,
    followed: Vec<FollowMetadata>,
    searches: usize,
    /// The controllers that it names.
    names: Vec<KnownController>,
}

/// Stands where a controller would.
#[derive(Clone)]
struct Double(Arc<Mutex<Part>>);

impl Double {
    fn new(decides: bool, term: u64) -> Self {
        let image = Arc::new(ClusterImage::empty(CLUSTER));
        let news = MetadataNews { image, entries: None, hand_overs: Vec::new() };
        Self(Arc::new(Mutex::new(Part {
            decides,
            term,
            hangs: false,
            is_stuck: false,
            answer: Ok(None),
            news,
            heard: Vec::new(),
            followed: Vec::new(),
            searches: 0,
            names: Vec::new(),
        })))
    }

    fn set(&self, change: impl FnOnce(&mut Part)) {
        change(&mut self.0.lock().unwrap());
    }

    fn get<T>(&self, look: impl FnOnce(&Part) -> T) -> T {
        look(&self.0.lock().unwrap())
    }

    fn heard(&self) -> Vec<Request> {
        self.get(|part| part.heard.clone())
    }

    /// The answer, at once, never, or that it does not decide.
    fn say<T: 'static>(
        &self,
        answer: impl FnOnce(&mut Part) -> Result<T, ApiError>,
    ) -> ResponseFuture<Result<T, ApiError>> {
        let mut part = self.0.lock().unwrap();
        if part.hangs || part.is_stuck {
            return Box::pin(std::future::pending());
        }
        let answer = if part.decides { answer(&mut part) } else { Err(not_controller()) };
        Box::pin(std::future::ready(answer))
    }
}

impl Actor for Double {
    type Context = Context<Self>;
}

impl Handler<FindController> for Double {
    type Result = ResponseFuture<FindControllerReply>;
    fn handle(&mut self, _: FindController, _: &mut Self::Context) -> Self::Result {
        let mut part = self.0.lock().unwrap();
        part.searches += 1;
        let reply = FindControllerReply {
            cluster: Some(CLUSTER),
            decides: part.decides,
            term: part.term,
            leader: None,
            controllers: part.names.clone(),
        };
        if part.hangs { Box::pin(std::future::pending()) } else { Box::pin(std::future::ready(reply)) }
    }
}

impl Handler<AskController> for Double {
    type Result = ResponseFuture<Result<Option<Answer>, ApiError>>;
    fn handle(&mut self, AskController(request): AskController, _: &mut Self::Context) -> Self::Result {
        self.set(|part| part.heard.push(request));
        self.say(|part| part.answer.clone())
    }
}

impl Handler<FollowMetadata> for Double {
    type Result = ResponseFuture<Result<MetadataNews, ApiError>>;
    fn handle(&mut self, request: FollowMetadata, _: &mut Self::Context) -> Self::Result {
        self.set(|part| part.followed.push(request));
        // Whoever asks from the beginning is given all of it.
        self.say(|part| {
            let entries = part.news.entries.clone().filter(|_| request.index > 0);
            Ok(MetadataNews { entries, ..part.news.clone() })
        })
    }
}

impl Handler<CreateTopics> for Double {
    type Result = ResponseFuture<Result<Committed<Vec<Result<CreatedTopic, ApiError>>>, ApiError>>;
    fn handle(&mut self, request: CreateTopics, _: &mut Self::Context) -> Self::Result {
        self.say(|part| {
            part.answer.clone()?;
            let outcome = |wanted: NewTopic| match TopicName::new(&wanted.name) {
                Ok(name) => Ok(CreatedTopic { id: topic(), name, partitions: 1, replication_factor: 1 }),
                Err(error) => Err(ApiError::new(ErrorCode::InvalidTopicName, error.to_string())),
            };
            Ok(Committed { index: 5, answer: request.topics.into_iter().map(outcome).collect() })
        })
    }
}

impl Handler<DeleteTopics> for Double {
    type Result = ResponseFuture<Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError>>;
    fn handle(&mut self, request: DeleteTopics, _: &mut Self::Context) -> Self::Result {
        self.say(|_| Ok(Committed { index: 6, answer: request.0.iter().map(|_| Ok(topic())).collect() }))
    }
}

impl Handler<AlterTopics> for Double {
    type Result = ResponseFuture<Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError>>;
    fn handle(&mut self, request: AlterTopics, _: &mut Self::Context) -> Self::Result {
        self.say(|_| Ok(Committed { index: 7, answer: request.0.iter().map(|_| Ok(topic())).collect() }))
    }
}

impl Handler<AddPartitions> for Double {
    type Result = ResponseFuture<Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError>>;
    fn handle(&mut self, request: AddPartitions, _: &mut Self::Context) -> Self::Result {
        self.say(|_| Ok(Committed { index: 8, answer: request.0.iter().map(|_| Ok(topic())).collect() }))
    }
}

impl Handler<Reassign> for Double {
    type Result = ResponseFuture<Result<Committed<Vec<Result<Vec<NodeId>, ApiError>>>, ApiError>>;
    fn handle(&mut self, request: Reassign, _: &mut Self::Context) -> Self::Result {
        let replicas = |wanted: &PartitionMove| Ok(wanted.replicas.clone().unwrap_or_default());
        self.say(|_| Ok(Committed { index: 9, answer: request.0.iter().map(replicas).collect() }))
    }
}

impl Handler<ElectLeaders> for Double {
    type Result = ResponseFuture<Result<Committed<Vec<Result<NodeId, ApiError>>>, ApiError>>;
    fn handle(&mut self, request: ElectLeaders, _: &mut Self::Context) -> Self::Result {
        let leader = |wanted: &PartitionElection| Ok(NodeId(wanted.partition.0));
        self.say(|_| Ok(Committed { index: 10, answer: request.0.iter().map(leader).collect() }))
    }
}

impl Handler<ChangeControllers> for Double {
    type Result = ResponseFuture<Result<Vec<ControllerDescription>, ApiError>>;
    fn handle(&mut self, ChangeControllers(wanted): ChangeControllers, _: &mut Self::Context) -> Self::Result {
        self.say(|_| {
            Ok(vec![ControllerDescription {
                node_id: wanted.node_id,
                directory: DirectoryId(uuid::Uuid::nil()),
                host: wanted.host.unwrap_or_default(),
                port: wanted.port.unwrap_or_default(),
                role: ControllerRole::Voter,
                behind: 0,
                trouble: None,
            }])
        })
    }
}

impl Handler<DescribeControllers> for Double {
    type Result = ResponseFuture<Result<DescribeControllersReply, ApiError>>;
    fn handle(&mut self, _: DescribeControllers, _: &mut Self::Context) -> Self::Result {
        self.say(|_| Ok(DescribeControllersReply { controllers: Vec::new(), leases: vec![(NodeId(7), 4_200)] }))
    }
}

impl Handler<InitProducer> for Double {
    type Result = ResponseFuture<Result<InitProducerReply, ApiError>>;
    fn handle(&mut self, _: InitProducer, _: &mut Self::Context) -> Self::Result {
        self.say(|_| Ok(InitProducerReply { producer_id: ProducerId(8), producer_epoch: ProducerEpoch(0) }))
    }
}

impl Handler<PeerCall> for Double {
    type Result = ();
    fn handle(&mut self, call: PeerCall, ctx: &mut Self::Context) {
        let here = LocalController::from(actix::AsyncContext::address(ctx));
        actix_rt::spawn(async move { answer(&here, call).await });
    }
}

/// Its address, once it runs.
fn start(double: &Double) -> Addr<Double> {
    double.clone().start()
}

fn follow_from(index: u64, patience: Duration) -> FollowMetadata {
    FollowMetadata { node: NodeId(1), epoch: Some(BrokerEpoch(3)), index, patience }
}
