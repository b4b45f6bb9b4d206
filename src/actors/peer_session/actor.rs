//! The session's handlers: the hello, and passing on the rest.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Recipient, WrapFuture};
use tokio_util::sync::CancellationToken;

use super::dialect::{BetweenNodes, PeerReplyBody, PeerRequestBody};
use super::messages::{AnswerTo, ConnectionService, PeerCall, PeerContext, PeerGone, PeerIncoming, PeerServices};
use crate::actors::codec::{CloseConnection, Codec, Disconnected};
use crate::actors::peer::{Expected, Identity, Myself, SOFTWARE};
use crate::actors::send::{post, post_to};
use crate::actors::spans;
use crate::engine::waiters::OwnerId;
use crate::protocol::messages::peer::{PeerHello, PeerHelloReply, Pong};
use crate::protocol::peer_api::PEER_PROTOCOL_VERSION;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::ClusterId;

/// What the sessions of other nodes on this one share.
#[derive(Clone, Debug)]
pub struct PeerSessionSettings {
    /// Who this node is.
    pub myself: Myself,
    /// Who serves what.
    pub services: PeerServices,
    /// The largest frame that is taken, in bytes after the length field.
    pub max_frame_bytes: u32,
    /// Cancelled when the sessions are to end.
    pub stop: CancellationToken,
}

/// See the module page.
pub struct PeerSession {
    settings: PeerSessionSettings,
    codec: Addr<Codec<BetweenNodes>>,
    owner: OwnerId,
    address: SocketAddr,
    from: Option<Arc<PeerContext>>,
    /// What serves its followers' fetches, once it has asked for some.
    replicas: Option<ConnectionService>,
    closing: bool,
}

impl PeerSession {
    /// The session of the connection from `address` that `codec` serves. `owner` is unique among them.
    #[must_use]
    pub fn new(
        settings: PeerSessionSettings,
        codec: Addr<Codec<BetweenNodes>>,
        owner: OwnerId,
        address: SocketAddr,
    ) -> Self {
        Self { settings, codec, owner, address, from: None, replicas: None, closing: false }
    }

    fn close(&mut self) {
        self.closing = true;
        post(&self.codec, CloseConnection);
    }

    /// Answers with an error that ends the connection.
    fn turn_away(&mut self, answer: AnswerTo, error: ApiError) {
        answer.send(Err(error));
        self.close();
    }

    fn greet(&mut self, hello: PeerHello, answer: AnswerTo) {
        let result = match &self.from {
            Some(_) => {
                Err(ApiError::new(ErrorCode::InvalidRequest, "PeerHello comes once, at the start of a connection"))
            }
            None => check(&self.settings.myself, &hello),
        };
        if let Err(error) = result {
            tracing::warn!(
                node = %hello.node, directory = %hello.directory, address = %self.address, software = hello.software, %error,
                "turned another node away"
            );
            return self.turn_away(answer, error);
        }
        let PeerHello { cluster, node, directory, connection, software, .. } = hello;
        tracing::debug!(%node, %connection, address = %self.address, software, "another node has connected");
        let (address, owner) = (self.address, self.owner);
        self.from = Some(Arc::new(PeerContext { cluster, node, directory, connection, software, address, owner }));
        let Myself { node, directory, cluster } = &self.settings.myself;
        answer.send(Ok(PeerReplyBody::PeerHello(PeerHelloReply {
            protocol: PEER_PROTOCOL_VERSION,
            cluster: cluster.get(),
            node: *node,
            directory: *directory,
            software: SOFTWARE.to_owned(),
            max_frame_bytes: self.settings.max_frame_bytes,
        })));
    }

    fn route(&mut self, PeerIncoming { head, body, attachments, permit }: PeerIncoming) {
        let answer = AnswerTo::new(self.codec.clone(), head, permit);
        use PeerRequestBody::{
            DescribeControllers, FetchMetadata, FetchReplicas, FindController, FormController, ForwardAddPartitions,
            ForwardAlterTopics, ForwardChangeControllers, ForwardCreateTopics, ForwardDeleteTopics,
            ForwardElectLeaders, ForwardInitProducer, ForwardReassign, JoinController, PeerHello, Ping, ProposeInSync,
            RaftAppend, RaftSnapshot, RaftVote, RegisterBroker, RenewLease, ReportReplicas, StopBroker,
        };
        match (body, self.from.clone()) {
            (PeerHello(hello), _) => self.greet(hello, answer),
            (_, None) => {
                let text = "the first request of a connection between nodes is PeerHello";
                self.turn_away(answer, ApiError::new(ErrorCode::HelloRequired, text));
            }
            (Ping(_), Some(_)) => answer.send(Ok(PeerReplyBody::Ping(Pong {}))),
            (body, Some(from)) => {
                let may_precede_the_cluster = matches!(body, FormController(_) | JoinController(_) | FindController(_));
                if !may_precede_the_cluster && let Err(error) = self.check_cluster(&from) {
                    return self.turn_away(answer, error);
                }
                let services = &self.settings.services;
                if matches!(body, FetchReplicas(_)) && self.replicas.is_none() {
                    self.replicas = services.replicas.as_ref().map(|service| service.start(Arc::clone(&from)));
                }
                let replicas = self.replicas.as_ref().map(|service| &service.calls);
                let (service, role) = match &body {
                    RaftAppend(_) | RaftVote(_) | RaftSnapshot(_) => (services.raft.as_ref(), "controller"),
                    FormController(_) | JoinController(_) => (services.forming.as_ref(), "controller"),
                    FetchReplicas(_) => (replicas, "broker"),
                    FindController(_)
                    | DescribeControllers(_)
                    | RegisterBroker(_)
                    | RenewLease(_)
                    | ReportReplicas(_)
                    | ProposeInSync(_)
                    | StopBroker(_)
                    | FetchMetadata(_)
                    | ForwardCreateTopics(_)
                    | ForwardDeleteTopics(_)
                    | ForwardAlterTopics(_)
                    | ForwardInitProducer(_)
                    | ForwardAddPartitions(_)
                    | ForwardReassign(_)
                    | ForwardElectLeaders(_)
                    | ForwardChangeControllers(_)
                    // These two are answered above.
                    | PeerHello(_)
                    | Ping(_) => (services.controller.as_ref(), "controller"),
                };
                pass_on(service, role, PeerCall { from, body, attachments, answer });
            }
        }
    }

    /// Both ends must be known to be of one cluster. A hello may have come before one of them had any.
    fn check_cluster(&self, from: &PeerContext) -> Result<(), ApiError> {
        match (self.settings.myself.cluster.get(), from.cluster) {
            (Some(own), Some(other)) if own == other => Ok(()),
            (own, other) => {
                let name = |cluster: Option<ClusterId>| cluster.map_or_else(|| "none".to_owned(), |id| id.to_string());
                let text = format!(
                    "this node is of cluster {}, the node that asks said {}: connect again once both have the same",
                    name(own),
                    name(other)
                );
                Err(ApiError::new(ErrorCode::WrongNode, text))
            }
        }
    }
}

/// Hands a request to whoever serves it on this node.
fn pass_on(service: Option<&Recipient<PeerCall>>, role: &str, call: PeerCall) {
    match service {
        Some(service) => post_to(service, call),
        None => {
            let text = format!("this node is no {role}: correct the addresses of the cluster's {role}s");
            call.answer.send(Err(ApiError::new(ErrorCode::NotController, text)));
        }
    }
}

/// Whether the node that says this belongs here.
fn check(myself: &Myself, hello: &PeerHello) -> Result<(), ApiError> {
    if !(hello.protocol_min..=hello.protocol_max).contains(&PEER_PROTOCOL_VERSION) {
        let text = format!(
            "the node that connects ({}) speaks versions {} to {} of the protocol between nodes, this node ({SOFTWARE}) \
             speaks {PEER_PROTOCOL_VERSION}: upgrade the older of the two",
            hello.software, hello.protocol_min, hello.protocol_max
        );
        return Err(ApiError::new(ErrorCode::UnsupportedVersion, text));
    }
    let here = Identity { cluster: myself.cluster.get(), node: myself.node, directory: myself.directory };
    let other = Identity { cluster: hello.cluster, node: hello.node, directory: hello.directory };
    let expected = Expected { node: hello.expected_node, directory: hello.expected_directory };
    here.suits(&expected, &other, ["this node", "the node that connects"])
        .map_err(|text| ApiError::new(ErrorCode::WrongNode, text))
}

impl Actor for PeerSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let (stop, home) = (self.settings.stop.clone(), ctx.address());
        let stopping = async move {
            stop.cancelled().await;
            post(&home, Stop);
        };
        // Ends with this actor.
        ctx.spawn(stopping.into_actor(self));
    }
}

/// The node stops.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for PeerSession {
    type Result = ();
    fn handle(&mut self, _: Stop, _: &mut Context<Self>) {
        self.close();
    }
}

impl Handler<PeerIncoming> for PeerSession {
    type Result = ();
    fn handle(&mut self, request: PeerIncoming, _: &mut Context<Self>) {
        if !self.closing {
            let _span = spans::request(self.owner, request.head.correlation_id).entered();
            self.route(request);
        }
    }
}

impl Handler<Disconnected> for PeerSession {
    type Result = ();
    fn handle(&mut self, _: Disconnected, ctx: &mut Context<Self>) {
        if let Some(from) = self.from.take() {
            let replicas = self.replicas.take().map(|service| service.gone);
            for gone in self.settings.services.gone.iter().chain(&replicas) {
                post_to(gone, PeerGone { from: Arc::clone(&from) });
            }
        }
        ctx.stop();
    }
}
