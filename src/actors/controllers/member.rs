//! One controller, in this process or behind a link, and what it can be asked.

use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use tokio::time::timeout;

use super::local::LocalController;
use super::metadata;
use super::wire;
use crate::actors::controller::{
    AddPartitions, AlterTopics, AskController, ChangeControllers, Committed, CreateTopics, DeleteTopics,
    DescribeControllers, ElectLeaders, FindController, FollowMetadata, InitProducer, MetadataNews, Reassign,
};
use crate::actors::peer::{self, PeerError, PeerHandle, PeerLinks, PeerTarget};
use crate::engine::broker::{Answer, Request};
use crate::engine::metadata::ClusterImage;
use crate::protocol::messages::peer::{
    self as messages, Decided, DescribeControllersReply, FindControllerReply, ForwardAddPartitions, ForwardAlterTopics,
    ForwardChangeControllers, ForwardCreateTopics, ForwardDeleteTopics, ForwardElectLeaders, ForwardInitProducer,
    ForwardReassign, PeerConnection, PeerRequest,
};
use crate::protocol::messages::{ControllerDescription, CreatedTopic, InitProducerReply, Outcome};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{NodeId, TopicId};

/// Why a member has not done what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It does not decide, or was not reached: nothing was done.
    NotTaken(String),
    /// Whether it was done is not known.
    Unknown(ApiError),
    /// It decides, and has refused.
    Refused(ApiError),
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        match error.code {
            ErrorCode::NotController | ErrorCode::WrongNode => Self::NotTaken(error.message),
            // It may have ended in the middle of it.
            ErrorCode::ShuttingDown | ErrorCode::StorageFailed | ErrorCode::TimedOut => Self::Unknown(error),
            _ => Self::Refused(error),
        }
    }
}

impl From<PeerError> for Failed {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Answered { error, .. } => error.into(),
            PeerError::Lost { .. } | PeerError::TimedOut { .. } => {
                Self::Unknown(ApiError::new(ErrorCode::TimedOut, error.to_string()))
            }
            // The same to whomever it is sent.
            PeerError::TooLarge { .. } => Self::Refused(ApiError::new(ErrorCode::FrameTooLarge, error.to_string())),
            PeerError::Unreachable { .. } | PeerError::Refused { .. } | PeerError::Busy { .. } => {
                Self::NotTaken(error.to_string())
            }
        }
    }
}

enum Door {
    Here(LocalController),
    There(PeerTarget, Arc<PeerLinks>),
}

/// A controller.
pub(super) struct Member {
    name: String,
    node: Option<NodeId>,
    door: Door,
    /// It was not listed.
    is_hearsay: bool,
}

type Answers<T> = Result<Committed<Vec<Result<T, ApiError>>>, Failed>;

impl Member {
    pub fn here(node: NodeId, local: LocalController) -> Self {
        Self { name: format!("node {node}, this one"), node: Some(node), door: Door::Here(local), is_hearsay: false }
    }

    pub fn there(target: PeerTarget, links: Arc<PeerLinks>) -> Self {
        Self { name: target.to_string(), node: target.node, door: Door::There(target, links), is_hearsay: false }
    }

    /// One that another controller named.
    pub fn heard_of(target: PeerTarget, links: Arc<PeerLinks>) -> Self {
        Self { is_hearsay: true, ..Self::there(target, links) }
    }

    /// Whether it was heard of, at another address than this one.
    pub fn was_heard_of_elsewhere(&self, target: &PeerTarget) -> bool {
        self.is_hearsay && matches!(&self.door, Door::There(known, _) if known != target)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Whether it decides, or why that is not known.
    pub async fn find(&self, patience: Duration) -> Result<FindControllerReply, String> {
        match &self.door {
            Door::Here(local) => send(&local.find, FindController, patience).await.map_err(|error| error.message),
            Door::There(target, links) => {
                let request = messages::FindController {};
                let answer = link(target, links).ask(&request, Vec::new(), patience).await;
                answer.map(|answer| answer.reply).map_err(|error| error.to_string())
            }
        }
    }

    /// Asks for a broker.
    pub async fn ask(&self, request: &Request, patience: Duration) -> Result<Option<Answer>, Failed> {
        match &self.door {
            Door::Here(local) => Ok(send(&local.ask, AskController(request.clone()), patience).await??),
            Door::There(target, links) => wire::ask(&link(target, links), request, patience).await,
        }
    }

    /// Asks for what was decided since `known`.
    pub async fn follow(
        &self,
        request: FollowMetadata,
        known: &Arc<ClusterImage>,
        patience: Duration,
    ) -> Result<MetadataNews, Failed> {
        let news = match &self.door {
            Door::Here(local) => send(&local.follow, request, patience).await??,
            Door::There(target, links) => metadata::follow(&link(target, links), request, known, patience).await?,
        };
        if news.image.index < known.index {
            let (theirs, ours) = (news.image.index, known.index);
            return Err(Failed::NotTaken(format!("has the metadata up to {theirs} only, this node up to {ours}")));
        }
        Ok(news)
    }

    pub async fn create_topics(&self, request: &CreateTopics, patience: Duration) -> Answers<CreatedTopic> {
        match &self.door {
            Door::Here(local) => Ok(send(&local.create_topics, request.clone(), patience).await??),
            Door::There(target, links) => {
                let CreateTopics { topics, validate_only } = request.clone();
                pass_on(&link(target, links), &ForwardCreateTopics { topics, validate_only }, patience).await
            }
        }
    }

    pub async fn delete_topics(&self, request: &DeleteTopics, patience: Duration) -> Answers<TopicId> {
        match &self.door {
            Door::Here(local) => Ok(send(&local.delete_topics, request.clone(), patience).await??),
            Door::There(target, links) => {
                let request = ForwardDeleteTopics { names: request.0.clone() };
                pass_on(&link(target, links), &request, patience).await
            }
        }
    }

    pub async fn alter_topics(&self, request: &AlterTopics, patience: Duration) -> Answers<TopicId> {
        match &self.door {
            Door::Here(local) => Ok(send(&local.alter_topics, request.clone(), patience).await??),
            Door::There(target, links) => {
                let request = ForwardAlterTopics { topics: request.0.clone() };
                pass_on(&link(target, links), &request, patience).await
            }
        }
    }

    pub async fn add_partitions(&self, request: &AddPartitions, patience: Duration) -> Answers<TopicId> {
        match &self.door {
            Door::Here(local) => Ok(send(&local.add_partitions, request.clone(), patience).await??),
            Door::There(target, links) => {
                let request = ForwardAddPartitions { topics: request.0.clone() };
                pass_on(&link(target, links), &request, patience).await
            }
        }
    }

    pub async fn reassign(&self, request: &Reassign, patience: Duration) -> Answers<Vec<NodeId>> {
        match &self.door {
            Door::Here(local) => Ok(send(&local.reassign, request.clone(), patience).await??),
            Door::There(target, links) => {
                let request = ForwardReassign { partitions: request.0.clone() };
                pass_on(&link(target, links), &request, patience).await
            }
        }
    }

    pub async fn elect_leaders(&self, request: &ElectLeaders, patience: Duration) -> Answers<NodeId> {
        match &self.door {
            Door::Here(local) => Ok(send(&local.elect_leaders, request.clone(), patience).await??),
            Door::There(target, links) => {
                let request = ForwardElectLeaders { partitions: request.0.clone() };
                pass_on(&link(target, links), &request, patience).await
            }
        }
    }

    pub async fn change_controllers(
        &self,
        request: &ChangeControllers,
        patience: Duration,
    ) -> Result<Vec<ControllerDescription>, Failed> {
        match &self.door {
            Door::Here(local) => Ok(send(&local.change_controllers, request.clone(), patience).await??),
            Door::There(target, links) => {
                let request = ForwardChangeControllers { change: request.0.clone() };
                Ok(link(target, links).ask(&request, Vec::new(), patience).await?.reply.controllers)
            }
        }
    }

    pub async fn describe_controllers(&self, patience: Duration) -> Result<DescribeControllersReply, Failed> {
        match &self.door {
            Door::Here(local) => Ok(send(&local.describe_controllers, DescribeControllers, patience).await??),
            Door::There(target, links) => {
                let request = messages::DescribeControllers {};
                Ok(link(target, links).ask(&request, Vec::new(), patience).await?.reply)
            }
        }
    }

    pub async fn init_producer(&self, request: InitProducer, patience: Duration) -> Result<InitProducerReply, Failed> {
        match &self.door {
            Door::Here(local) => Ok(send(&local.init_producer, request, patience).await??),
            Door::There(target, links) => {
                let request = ForwardInitProducer { current: request.0 };
                let answer: peer::Answer<_> = link(target, links).ask(&request, Vec::new(), patience).await?;
                Ok(answer.reply)
            }
        }
    }
}

fn link(target: &PeerTarget, links: &PeerLinks) -> PeerHandle {
    links.link(target, PeerConnection::Control)
}

/// Sends a message within this process.
async fn send<M>(recipient: &Recipient<M>, message: M, patience: Duration) -> Result<M::Result, ApiError>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    match timeout(patience, recipient.send(message)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => {
            Err(ApiError::new(ErrorCode::ShuttingDown, "the controller here has stopped: try again a little later"))
        }
        Err(_) => {
            let text = format!("the controller here did not answer within {} ms", patience.as_millis());
            Err(ApiError::new(ErrorCode::TimedOut, text))
        }
    }
}

/// Passes a client's request on.
async fn pass_on<T, R>(link: &PeerHandle, request: &R, patience: Duration) -> Answers<T>
where
    R: PeerRequest<Reply = Decided<Vec<Outcome<T>>>>,
{
    let Decided { index, answer } = link.ask(request, Vec::new(), patience).await?.reply;
    Ok(Committed { index, answer: answer.into_iter().map(Outcome::into_result).collect() })
}
