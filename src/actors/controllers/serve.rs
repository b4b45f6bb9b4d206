//! The other end: what came over a link, asked of the controller of this process.
//!
//! ```text
//!   PeerSession ─ PeerCall ─► Controller ─► here: the wire's request ─► the typed message ─► Controller ─► … ─► AnswerTo
//! ```

use std::time::Duration;

use actix::{MailboxError, Message, Recipient};
use bytes::Bytes;

use super::local::LocalController;
use super::wire;
use crate::actors::controller::{
    AddPartitions, AlterTopics, AskController, ChangeControllers, Committed, CreateTopics, DeleteTopics,
    DescribeControllers, ElectLeaders, FindController, FollowMetadata, InitProducer, MetadataNews, Reassign,
};
use crate::actors::peer_session::{PeerCall, PeerContext, PeerReplyBody, PeerRequestBody};
use crate::engine::broker::{Answer, Request};
use crate::protocol::frame::Attachment;
use crate::protocol::messages::peer::{Decided, FetchMetadata, FetchMetadataReply, Heard};
use crate::protocol::messages::{ChangeControllersReply, Outcome};
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::encode_image;
use crate::types::{BrokerEpoch, NodeId};

/// How long one request for metadata may wait for news: brokers ask again.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Entries of more bytes than this are not sent one by one: the image is. An image and a frame's limit are far above it.
const MAX_ENTRY_BYTES: usize = 4 << 20;

type Served = Result<(PeerReplyBody, Vec<Attachment>), ApiError>;

/// Answers what another node asks of the controller of this process.
pub async fn answer(controller: &LocalController, call: PeerCall) {
    let PeerCall { from, body, attachments: _, mut answer } = call;
    // The body is decoded, and nothing is attached to it: what waits for news takes no room.
    answer.release_bytes();
    match serve(controller, &from, body).await {
        Ok((reply, attachments)) => answer.send_with(Ok(reply), attachments),
        Err(error) => answer.send(Err(error)),
    }
}

async fn serve(controller: &LocalController, from: &PeerContext, body: PeerRequestBody) -> Served {
    let reply = match body {
        PeerRequestBody::FindController(_) => {
            PeerReplyBody::FindController(send(&controller.find, FindController).await?)
        }
        PeerRequestBody::FetchMetadata(request) => {
            check_node(from, request.node)?;
            return follow(controller, request).await;
        }
        PeerRequestBody::ForwardCreateTopics(request) => {
            let request = CreateTopics { topics: request.topics, validate_only: request.validate_only };
            PeerReplyBody::ForwardCreateTopics(decided(send(&controller.create_topics, request).await??))
        }
        PeerRequestBody::ForwardDeleteTopics(request) => {
            let decision = send(&controller.delete_topics, DeleteTopics(request.names)).await??;
            PeerReplyBody::ForwardDeleteTopics(decided(decision))
        }
        PeerRequestBody::ForwardAlterTopics(request) => {
            let decision = send(&controller.alter_topics, AlterTopics(request.topics)).await??;
            PeerReplyBody::ForwardAlterTopics(decided(decision))
        }
        PeerRequestBody::ForwardInitProducer(request) => {
            let reply = send(&controller.init_producer, InitProducer(request.current)).await??;
            PeerReplyBody::ForwardInitProducer(reply)
        }
        PeerRequestBody::ForwardAddPartitions(request) => {
            let decision = send(&controller.add_partitions, AddPartitions(request.topics)).await??;
            PeerReplyBody::ForwardAddPartitions(decided(decision))
        }
        PeerRequestBody::ForwardReassign(request) => {
            let decision = send(&controller.reassign, Reassign(request.partitions)).await??;
            PeerReplyBody::ForwardReassign(decided(decision))
        }
        PeerRequestBody::ForwardElectLeaders(request) => {
            let decision = send(&controller.elect_leaders, ElectLeaders(request.partitions)).await??;
            PeerReplyBody::ForwardElectLeaders(decided(decision))
        }
        PeerRequestBody::ForwardChangeControllers(request) => {
            let controllers = send(&controller.change_controllers, ChangeControllers(request.change)).await??;
            PeerReplyBody::ForwardChangeControllers(ChangeControllersReply { controllers })
        }
        PeerRequestBody::DescribeControllers(_) => {
            PeerReplyBody::DescribeControllers(send(&controller.describe_controllers, DescribeControllers).await??)
        }
        body => ask(controller, from, body).await?,
    };
    Ok((reply, Vec::new()))
}

/// What brokers say for themselves.
async fn ask(
    controller: &LocalController,
    from: &PeerContext,
    body: PeerRequestBody,
) -> Result<PeerReplyBody, ApiError> {
    let ask = async |node, request| {
        check_node(from, node)?;
        asked(controller, request).await
    };
    match body {
        PeerRequestBody::RegisterBroker(request) => {
            let node = request.node;
            let answer = ask(node, wire::read_register(request)?).await?;
            // Whatever was decided of it is part of the metadata as it is now.
            let now = FollowMetadata { node, epoch: None, index: 0, patience: Duration::ZERO };
            let index = send(&controller.follow, now).await??.image.index;
            wire::registered(answer, index).map(PeerReplyBody::RegisterBroker)
        }
        PeerRequestBody::RenewLease(request) => {
            let answer = ask(request.node, wire::read_renew(request)).await?;
            wire::renewed(answer).map(PeerReplyBody::RenewLease)
        }
        PeerRequestBody::ReportReplicas(request) => {
            ask(request.node, wire::read_report(request)?).await?;
            Ok(PeerReplyBody::ReportReplicas(Heard {}))
        }
        PeerRequestBody::ProposeInSync(request) => {
            let answer = ask(request.node, wire::read_propose(request)?).await?;
            wire::refused(answer).map(PeerReplyBody::ProposeInSync)
        }
        PeerRequestBody::StopBroker(request) => {
            ask(request.node, wire::read_stop(request)).await?;
            Ok(PeerReplyBody::StopBroker(Heard {}))
        }
        _ => Err(ApiError::new(ErrorCode::Unknown, "this is no request for a controller: please report it")),
    }
}

async fn asked(controller: &LocalController, request: Request) -> Result<Option<Answer>, ApiError> {
    send(&controller.ask, AskController(request)).await?
}

/// A node speaks for itself only.
fn check_node(from: &PeerContext, node: NodeId) -> Result<(), ApiError> {
    if from.node == node {
        return Ok(());
    }
    let text = format!("node {} speaks for node {node}: each node speaks for itself, please report it", from.node);
    Err(ApiError::new(ErrorCode::InvalidRequest, text))
}

async fn follow(controller: &LocalController, request: FetchMetadata) -> Served {
    let FetchMetadata { node, epoch, index, max_wait_ms } = request;
    let patience = Duration::from_millis(max_wait_ms.into()).min(MAX_WAIT);
    let epoch = Some(epoch).filter(|epoch| *epoch != BrokerEpoch::default());
    let news = send(&controller.follow, FollowMetadata { node, epoch, index, patience }).await??;
    let MetadataNews { image, entries, hand_overs } = news;
    let reply = |is_image| {
        let reply = FetchMetadataReply { index: image.index, is_image, hand_overs: hand_overs.clone() };
        PeerReplyBody::FetchMetadata(reply)
    };
    let fits = |entries: &Vec<Bytes>| {
        let leads_there = index.checked_add(entries.len() as u64) == Some(image.index);
        leads_there && entries.iter().map(Bytes::len).sum::<usize>() <= MAX_ENTRY_BYTES
    };
    if let Some(entries) = entries.filter(fits) {
        return Ok((reply(false), entries.into_iter().map(Attachment::from).collect()));
    }
    let whole = std::sync::Arc::clone(&image);
    // Beside the controllers' thread: an image of many partitions takes milliseconds, and heartbeats do not wait.
    let encoded = actix_rt::task::spawn_blocking(move || encode_image(&whole)).await;
    let failed = |text: String| ApiError::new(ErrorCode::Unknown, format!("the metadata cannot be encoded: {text}"));
    let encoded = encoded.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    Ok((reply(true), vec![Bytes::from(encoded).into()]))
}

fn decided<T>(committed: Committed<Vec<Result<T, ApiError>>>) -> Decided<Vec<Outcome<T>>> {
    let Committed { index, answer } = committed;
    Decided { index, answer: answer.into_iter().map(Outcome::from).collect() }
}

async fn send<M>(recipient: &Recipient<M>, message: M) -> Result<M::Result, ApiError>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    let stopping =
        |_: MailboxError| ApiError::new(ErrorCode::ShuttingDown, "this controller is stopping: ask another one");
    recipient.send(message).await.map_err(stopping)
}
