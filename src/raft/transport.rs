//! How Raft reaches other members. The messages are openraft's, what carries them is whoever implements [`RaftTransport`].
//!
//! ```text
//!   openraft ──► Peer (RaftNetwork) ──► RaftTransport ──► wire, or a test's network ──► Raft::append_entries, vote, install_snapshot
//! ```
//!
//! A snapshot goes in chunks, one message each, whose bytes are `InstallSnapshotRequest::data`: a frame carries them as its
//! attachment. That keeps every frame below the limit, gives each chunk a time limit of its own, and openraft starts over when
//! a chunk goes missing. One message with the whole image would have needed a limit for the image.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Timeout as TimeoutError, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{RaftNetwork, RaftNetworkFactory};

use super::types::{ControllerNode, MetadataRaft, RaftId};

/// How long openraft leaves a member alone that could not be reached.
const BACKOFF: Duration = Duration::from_millis(200);

/// Why a message got no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError<E: std::error::Error = openraft::error::Infallible> {
    /// There is no connection, or it broke before the answer came. Whether the message arrived is not known.
    #[error("{to} cannot be reached: {reason}")]
    Unreachable {
        /// The member.
        to: RaftId,
        /// What the connection says.
        reason: String,
    },
    /// No answer came in time. Whether the message arrived is not known.
    #[error("{to} did not answer in time")]
    Timeout {
        /// The member.
        to: RaftId,
    },
    /// Somebody else answers at its address: another directory, another cluster, or software that does not speak this.
    #[error("{to} was not found at its address: {reason}")]
    Refused {
        /// The member.
        to: RaftId,
        /// What was found.
        reason: String,
    },
    /// The member answered with an error.
    #[error(transparent)]
    Remote(#[from] RaftError<RaftId, E>),
}

impl<E: std::error::Error> TransportError<E> {
    /// Whether the same message may succeed later without anyone doing something about it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }
}

/// A member to send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressee {
    /// The member.
    pub id: RaftId,
    /// Who stands behind it, and where.
    pub node: ControllerNode,
}

/// Carries Raft's messages. Every call ends after `timeout`, and delivers its message once or not at all.
pub trait RaftTransport<C: MetadataRaft>: Send + Sync + 'static {
    /// Sends entries, or a heartbeat.
    fn append_entries(
        &self,
        to: &Addressee,
        request: AppendEntriesRequest<C>,
        timeout: Duration,
    ) -> impl Future<Output = Result<AppendEntriesResponse<RaftId>, TransportError>> + Send;

    /// Asks for a vote.
    fn vote(
        &self,
        to: &Addressee,
        request: VoteRequest<RaftId>,
        timeout: Duration,
    ) -> impl Future<Output = Result<VoteResponse<RaftId>, TransportError>> + Send;

    /// Sends one chunk of a snapshot.
    fn install_snapshot(
        &self,
        to: &Addressee,
        chunk: InstallSnapshotRequest<C>,
        timeout: Duration,
    ) -> impl Future<Output = Result<InstallSnapshotResponse<RaftId>, TransportError<InstallSnapshotError>>> + Send;
}

/// Makes openraft's links to other members out of a transport.
#[derive(Debug)]
pub struct Network<T> {
    from: RaftId,
    transport: Arc<T>,
}

impl<T> Network<T> {
    /// Links that start at `from`.
    #[must_use]
    pub fn new(from: RaftId, transport: Arc<T>) -> Self {
        Self { from, transport }
    }
}

/// The link to one member.
#[derive(Debug)]
pub struct Peer<C, T> {
    from: RaftId,
    to: Addressee,
    transport: Arc<T>,
    config: PhantomData<C>,
}

impl<C: MetadataRaft, T: RaftTransport<C>> RaftNetworkFactory<C> for Network<T> {
    type Network = Peer<C, T>;

    async fn new_client(&mut self, target: RaftId, node: &ControllerNode) -> Peer<C, T> {
        let to = Addressee { id: target, node: node.clone() };
        Peer { from: self.from, to, transport: Arc::clone(&self.transport), config: PhantomData }
    }
}

type Failed<E = openraft::error::Infallible> = RPCError<RaftId, ControllerNode, RaftError<RaftId, E>>;

impl<C, T> Peer<C, T> {
    /// What openraft is told of a message that got no answer.
    fn failed<E: std::error::Error + 'static>(
        &self,
        action: RPCTypes,
        timeout: Duration,
        error: TransportError<E>,
    ) -> Failed<E> {
        match error {
            TransportError::Remote(error) => {
                RPCError::RemoteError(RemoteError::new_with_node(self.to.id, self.to.node.clone(), error))
            }
            TransportError::Timeout { to: target } => {
                RPCError::Timeout(TimeoutError { action, id: self.from, target, timeout })
            }
            // Both wait before they try again: the connection has to come up, or somebody has to correct the address.
            error @ (TransportError::Unreachable { .. } | TransportError::Refused { .. }) => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
        }
    }
}

impl<C: MetadataRaft, T: RaftTransport<C>> RaftNetwork<C> for Peer<C, T> {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftId>, Failed> {
        let timeout = option.hard_ttl();
        let answer = self.transport.append_entries(&self.to, request, timeout).await;
        answer.map_err(|error| self.failed(RPCTypes::AppendEntries, timeout, error))
    }

    async fn vote(&mut self, request: VoteRequest<RaftId>, option: RPCOption) -> Result<VoteResponse<RaftId>, Failed> {
        let timeout = option.hard_ttl();
        let answer = self.transport.vote(&self.to, request, timeout).await;
        answer.map_err(|error| self.failed(RPCTypes::Vote, timeout, error))
    }

    async fn install_snapshot(
        &mut self,
        chunk: InstallSnapshotRequest<C>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<RaftId>, Failed<InstallSnapshotError>> {
        let timeout = option.hard_ttl();
        let answer = self.transport.install_snapshot(&self.to, chunk, timeout).await;
        answer.map_err(|error| self.failed(RPCTypes::InstallSnapshot, timeout, error))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
