//! Where Raft's messages of other members come in.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message};
use openraft::error::RaftError;
use tokio::sync::Semaphore;

use super::dialect::{PeerReplyBody, PeerRequestBody};
use super::messages::PeerCall;
use crate::actors::peer::raft_wire;
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::{Raft, RaftId};

/// Messages that Raft may have in work. Each member has one of each kind under way, so it is far above what there is while Raft
/// answers; when its disk hangs, members ask again and again, and what they asked before must not pile up.
const MAX_IN_WORK: usize = 256;

/// Hands Raft's messages to this controller's Raft, as soon as there is one.
#[derive(Default)]
pub struct RaftDoor {
    raft: Option<Raft>,
    in_work: Option<Arc<Semaphore>>,
}

impl RaftDoor {
    /// A door that is shut: members are told to come back.
    #[must_use]
    pub fn shut() -> Self {
        Self::default()
    }
}

/// Raft takes messages from here on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct OpenRaftDoor(pub Raft);

impl Actor for RaftDoor {
    type Context = Context<Self>;
}

impl Handler<OpenRaftDoor> for RaftDoor {
    type Result = ();
    fn handle(&mut self, OpenRaftDoor(raft): OpenRaftDoor, _: &mut Context<Self>) {
        self.raft = Some(raft);
        self.in_work = Some(Arc::new(Semaphore::new(MAX_IN_WORK)));
    }
}

impl Handler<PeerCall> for RaftDoor {
    type Result = ();
    fn handle(&mut self, call: PeerCall, _: &mut Context<Self>) {
        let (Some(raft), Some(in_work)) = (&self.raft, &self.in_work) else {
            let text = "this controller is still starting: try again";
            return call.answer.send(Err(ApiError::new(ErrorCode::Overloaded, text)));
        };
        let Ok(permit) = Arc::clone(in_work).try_acquire_owned() else {
            let text = format!(
                "this controller has not answered {MAX_IN_WORK} messages of its members: its disk is slow or hangs"
            );
            return call.answer.send(Err(ApiError::new(ErrorCode::Overloaded, text)));
        };
        let raft = raft.clone();
        // Beside the actor: an append waits for the disk, and a vote must not wait for it.
        actix_rt::spawn(async move {
            let PeerCall { body, attachments, answer, .. } = call;
            answer.send(serve(&raft, body, attachments).await);
            drop(permit);
        });
    }
}

async fn serve(raft: &Raft, body: PeerRequestBody, attachments: Vec<bytes::Bytes>) -> Result<PeerReplyBody, ApiError> {
    match body {
        PeerRequestBody::RaftAppend(message) => {
            let request = raft_wire::read_append(message, attachments)?;
            let answer = raft.append_entries(request).await.map_err(|error| ended(&error))?;
            Ok(PeerReplyBody::RaftAppend(raft_wire::appended(&answer)))
        }
        PeerRequestBody::RaftVote(message) => {
            let answer = raft.vote(raft_wire::read_ask_vote(message)).await.map_err(|error| ended(&error))?;
            Ok(PeerReplyBody::RaftVote(raft_wire::voted(&answer)))
        }
        PeerRequestBody::RaftSnapshot(message) => {
            let chunk = raft_wire::read_snapshot(message, &attachments)?;
            raft_wire::installed(raft.install_snapshot(chunk).await).map(PeerReplyBody::RaftSnapshot)
        }
        _ => Err(ApiError::new(ErrorCode::Unknown, "this is no message of Raft's: please report it")),
    }
}

fn ended(error: &RaftError<RaftId>) -> ApiError {
    match error {
        RaftError::Fatal(fatal) => raft_wire::ended(fatal),
        RaftError::APIError(never) => match *never {},
    }
}
