//! Starting a controller: Raft over the files that were opened, and the actor on the same thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle};
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{ServerState, SnapshotPolicy};
use tokio::sync::oneshot;

use super::actor::Controller;
use super::forming::{Seat, SeatRaft};
use super::membership::Membership;
use super::metadata_files::{MetadataError, MetadataFiles};
use super::settings::ControllerSettings;
use crate::actors::peer::PeerLinks;
use crate::actors::peer_session::{OpenRaftDoor, RaftDoor};
use crate::actors::send::post;
use crate::raft::{
    Addressee, ControllerNode, Fatal, Network, Raft, RaftId, RaftTransport, TransportError, TypeConfig, cause_of,
};

/// A snapshot is taken after this many entries, and as many are kept behind it: a start replays no more than these.
const SNAPSHOT_ENTRIES: u64 = 1_000;
/// The heartbeat of a leader.
const HEARTBEAT_MS: u64 = 100;
/// Without a heartbeat for the longer of these, the leader's lease is over; after another time between the two, which is drawn once, a
/// controller stands for election. Votes are synced within the shorter one, or lost.
const ELECTION_TIMEOUT_MS: (u64, u64) = (250, 400);

fn raft_config() -> Result<Arc<openraft::Config>, MetadataError> {
    let config = openraft::Config {
        cluster_name: "callboard".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_TIMEOUT_MS.0,
        election_timeout_max: ELECTION_TIMEOUT_MS.1,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: SNAPSHOT_ENTRIES,
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| MetadataError::Stopped(error.to_string()))
}

/// The transport where there are no other members.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

fn nobody<E: std::error::Error>(to: &Addressee) -> TransportError<E> {
    TransportError::Unreachable { to: to.id, reason: "this node has no link to other controllers".to_owned() }
}

impl RaftTransport<TypeConfig> for Nobody {
    async fn append_entries(
        &self,
        to: &Addressee,
        _: AppendEntriesRequest<TypeConfig>,
        _: Duration,
    ) -> Result<AppendEntriesResponse<RaftId>, TransportError> {
        Err(nobody(to))
    }

    async fn vote(
        &self,
        to: &Addressee,
        _: VoteRequest<RaftId>,
        _: Duration,
    ) -> Result<VoteResponse<RaftId>, TransportError> {
        Err(nobody(to))
    }

    async fn install_snapshot(
        &self,
        to: &Addressee,
        _: InstallSnapshotRequest<TypeConfig>,
        _: Duration,
    ) -> Result<InstallSnapshotResponse<RaftId>, TransportError<InstallSnapshotError>> {
        Err(nobody(to))
    }
}

fn stopped(fatal: &Fatal) -> MetadataError {
    MetadataError::Stopped(cause_of(fatal))
}

/// What a controller is started with.
pub struct Starting<T> {
    /// Its files.
    pub files: MetadataFiles,
    /// What it may decide, and how it treats brokers.
    pub settings: ControllerSettings,
    /// How it reaches them.
    pub transport: Arc<T>,
    /// The members of a cluster that begins now; `None` where it has begun, or another one begins it.
    pub first_members: Option<BTreeMap<RaftId, ControllerNode>>,
    /// How others are reached, and where their messages come in; `None` where there are none.
    pub others: Option<Others>,
}

/// How a controller and others reach each other.
pub struct Others {
    /// Who this one is to them.
    pub me: ControllerNode,
    /// The links to them.
    pub links: Arc<PeerLinks>,
    /// Where Raft's messages come in.
    pub door: Addr<RaftDoor>,
    /// Where invitations come in.
    pub seat: Addr<Seat>,
}

impl Starting<Nobody> {
    /// The only controller of its cluster.
    #[must_use]
    pub fn alone(files: MetadataFiles, me: &ControllerNode, settings: ControllerSettings) -> Self {
        let first_members = files.only_member(me);
        Self { files, settings, transport: Arc::new(Nobody), first_members, others: None }
    }
}

/// Runs Raft on the files of a controller. What else it is started with comes back.
pub(super) async fn run_raft<T: RaftTransport<TypeConfig>>(
    starting: Starting<T>,
) -> Result<(Raft, ControllerSettings, Option<Membership>), MetadataError> {
    let Starting { files: MetadataFiles { storage: files, id }, settings, transport, first_members, others } = starting;
    let network = Network::new(id, transport);
    let raft = Raft::new(id, raft_config()?, network, files.log, files.machine).await.map_err(|e| stopped(&e))?;
    let membership = others.map(|Others { me, links, door, seat }| {
        post(&door, OpenRaftDoor(raft.clone()));
        post(&seat, SeatRaft(raft.clone()));
        Membership::new(me, links)
    });
    if let Some(members) = first_members {
        raft.initialize(members).await.map_err(|error| match error {
            RaftError::Fatal(fatal) => stopped(&fatal),
            RaftError::APIError(error) => MetadataError::Stopped(error.to_string()),
        })?;
    }
    let is_alone = raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([id]));
    let is_alone = is_alone.await.map_err(|e| stopped(&e))?;
    if is_alone {
        if raft.metrics().borrow().state != ServerState::Leader {
            // Nobody else may be elected: there is nothing to wait for.
            raft.trigger().elect().await.map_err(|e| stopped(&e))?;
        }
        lead(&raft).await?;
    }
    Ok((raft, settings, membership))
}

/// Waits until the only member leads and has applied all that is in its log: what cannot be applied ends the start.
async fn lead(raft: &Raft) -> Result<(), MetadataError> {
    let leads = raft.wait(None).state(ServerState::Leader, "the only member leads").await.is_ok();
    if leads && raft.ensure_linearizable().await.is_ok() {
        return Ok(());
    }
    let running = raft.metrics().borrow().running_state.clone();
    Err(running.map_or_else(|fatal| stopped(&fatal), |()| MetadataError::Stopped("Raft does not lead".to_owned())))
}

/// Starts a controller on the current thread. The only one of its cluster is in office soon after; one of several when it is elected.
///
/// # Errors
/// [`MetadataError`]: Raft does not run on what it found.
pub async fn start_here<T: RaftTransport<TypeConfig>>(
    starting: Starting<T>,
) -> Result<Addr<Controller>, MetadataError> {
    let storage = &starting.files.storage;
    let (images, entries) = (storage.images.clone(), storage.entries.clone());
    let (raft, settings, membership) = run_raft(starting).await?;
    Ok(Controller::new(raft, images, entries, settings, membership).start())
}

/// The same on another thread.
///
/// # Errors
/// As [`start_here`].
pub async fn start_on<T: RaftTransport<TypeConfig>>(
    thread: &ArbiterHandle,
    starting: Starting<T>,
) -> Result<Addr<Controller>, MetadataError> {
    let (done, started) = oneshot::channel();
    thread.spawn(async move {
        // Whoever starts the node may be gone.
        let _ = done.send(start_here(starting).await);
    });
    started.await.unwrap_or_else(|_| Err(MetadataError::Stopped("the controller's thread has ended".to_owned())))
}
