//! Raft over the links of a node.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};

use super::error::PeerError;
use super::handle::PeerHandle;
use super::identity::{PeerAddress, PeerTarget};
use super::links::PeerLinks;
use super::raft_wire::{self, MAX_APPEND_BYTES, OutgoingAppend};
use crate::protocol::messages::peer::PeerConnection;
use crate::raft::{Addressee, RaftId, RaftTransport, TransportError, TypeConfig};

/// Carries Raft's messages over the control connections of a node's links.
#[derive(Clone, Debug)]
pub struct RaftOverPeers {
    links: Arc<PeerLinks>,
}

impl RaftOverPeers {
    /// A transport over `links`.
    #[must_use]
    pub fn new(links: Arc<PeerLinks>) -> Self {
        Self { links }
    }

    fn link(&self, to: &Addressee) -> PeerHandle {
        let address = PeerAddress { host: to.node.host.clone(), port: to.node.port };
        let target = PeerTarget { node: Some(to.node.node), directory: Some(to.node.directory), address };
        self.links.link(&target, PeerConnection::Control)
    }
}

fn failed<E: std::error::Error>(to: RaftId, error: &PeerError) -> TransportError<E> {
    let reason = error.to_string();
    match error {
        PeerError::TimedOut { .. } => TransportError::Timeout { to },
        PeerError::Answered { error, .. } => match raft_wire::read_ended(error) {
            Some(fatal) => TransportError::Remote(RaftError::Fatal(fatal)),
            None if error.is_retryable() => TransportError::Unreachable { to, reason },
            None => TransportError::Refused { to, reason },
        },
        PeerError::Refused { .. } => TransportError::Refused { to, reason },
        PeerError::Unreachable { .. }
        | PeerError::Lost { .. }
        | PeerError::Busy { .. }
        | PeerError::TooLarge { .. } => TransportError::Unreachable { to, reason },
    }
}

impl RaftTransport<TypeConfig> for RaftOverPeers {
    async fn append_entries(
        &self,
        to: &Addressee,
        request: AppendEntriesRequest<TypeConfig>,
        timeout: Duration,
    ) -> Result<AppendEntriesResponse<RaftId>, TransportError> {
        let outgoing = raft_wire::append(request, MAX_APPEND_BYTES);
        let OutgoingAppend { message, entries, cut_after } =
            outgoing.map_err(|error| TransportError::Unreachable { to: to.id, reason: error.to_string() })?;
        let answer = self.link(to).ask(&message, entries, timeout).await.map_err(|error| failed(to.id, &error))?;
        Ok(raft_wire::read_appended(answer.reply, cut_after))
    }

    async fn vote(
        &self,
        to: &Addressee,
        request: VoteRequest<RaftId>,
        timeout: Duration,
    ) -> Result<VoteResponse<RaftId>, TransportError> {
        let message = raft_wire::ask_vote(&request);
        let answer = self.link(to).ask(&message, Vec::new(), timeout).await.map_err(|error| failed(to.id, &error))?;
        Ok(raft_wire::read_voted(answer.reply))
    }

    async fn install_snapshot(
        &self,
        to: &Addressee,
        chunk: InstallSnapshotRequest<TypeConfig>,
        timeout: Duration,
    ) -> Result<InstallSnapshotResponse<RaftId>, TransportError<InstallSnapshotError>> {
        let (message, data) = raft_wire::snapshot(chunk);
        let answer = self.link(to).ask(&message, vec![data], timeout).await.map_err(|error| failed(to.id, &error))?;
        match raft_wire::read_installed(answer.reply) {
            Some(installed) => installed.map_err(|error| TransportError::Remote(RaftError::APIError(error))),
            None => {
                let reason = "its answer to a chunk of a snapshot holds neither a vote nor a mismatch".to_owned();
                Err(TransportError::Refused { to: to.id, reason })
            }
        }
    }
}
