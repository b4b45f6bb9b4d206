//! A node's data directory, opened or created, and the metadata in it where the node is a controller.
//!
//! ```text
//!   alone          a new directory is a new cluster
//!   in a cluster   there is a directory ──────────────────────────────────────────► its cluster
//!                  new: the first controller that is listed, and no other one has a cluster
//!                                              ── makes one ──────────────────────► has the others take their seats
//!                       any other controller ─ waits to be invited ───────────────► the cluster of the invitation
//!                       a broker ── asks the controllers which cluster they are of
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::NodeError;
use super::peers::PeerSide;
use crate::actors::controller::{self, Invitation, MetadataError, MetadataFiles, Occasion, TakeSeat};
use crate::actors::peer::PeerError;
use crate::actors::send::post;
use crate::config::{ControllerAddress, NodeConfig, Role};
use crate::engine::metadata::{LastStop, PeerEndpoint};
use crate::protocol::messages::peer::{FindController, PeerConnection};
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::{ControllerNode, RaftId, RaftWork};
use crate::replica;
use crate::storage::data_dir::DataDir;
use crate::storage::disk::Disk;
use crate::storage::file_cache::FileCache;
use crate::types::{ClusterId, DirectoryId};

/// How long a controller gets to say which cluster it is of.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said for whom a node waits.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What a node has on disk.
pub(super) struct Opened {
    pub directory: Arc<DataDir>,
    pub last_stop: LastStop,
    /// What a controller has there.
    pub metadata: Option<OpenedMetadata>,
}

/// The files of a controller, and who it is to others.
pub(super) struct OpenedMetadata {
    pub files: MetadataFiles,
    pub me: ControllerNode,
    /// The members of a cluster that begins with this start.
    pub first_members: Option<BTreeMap<RaftId, ControllerNode>>,
}

impl Opened {
    /// The storage of a controller.
    fn seat(&self) -> Option<TakeSeat> {
        let (metadata, meta) = (self.metadata.as_ref()?, self.directory.meta());
        Some(TakeSeat { cluster: meta.cluster, directory: meta.directory, member: metadata.files.id })
    }
}

fn look_at(directory: DataDir) -> Result<(Arc<DataDir>, LastStop), NodeError> {
    let last_stop = replica::last_stop(&directory)?;
    tracing::debug!(?last_stop, "the data directory is open");
    Ok((Arc::new(directory), last_stop))
}

fn open_metadata(
    directory: &DataDir,
    files: &Arc<FileCache>,
    endpoint: Option<PeerEndpoint>,
    occasion: Occasion,
) -> Result<OpenedMetadata, NodeError> {
    let meta = directory.meta();
    // The only controller of a cluster may be reached by nobody.
    let (host, port) = endpoint.map_or_else(Default::default, |PeerEndpoint { host, port }| (host, port));
    let me = ControllerNode { node: meta.node, directory: meta.directory, host, port };
    let work = RaftWork::threads().map_err(MetadataError::from)?;
    let new = match occasion {
        Occasion::Forming => RaftId::first_of(me.node),
        Occasion::Joining => RaftId::of(me.directory),
    };
    let files = MetadataFiles::open(directory, files, (&me, new), &work)?;
    Ok(OpenedMetadata { files, me, first_members: None })
}

/// Opens the directory of a node that is the only controller of its cluster. It is reached at `endpoint`, or by nobody.
pub(super) fn open_alone(
    disk: &Arc<dyn Disk>,
    files: &Arc<FileCache>,
    config: &NodeConfig,
    directory: DirectoryId,
    endpoint: Option<PeerEndpoint>,
) -> Result<Opened, NodeError> {
    let node = &config.node;
    let directory = DataDir::open_as(Arc::clone(disk), &node.data_dir, node.id, node.cluster_id, directory)?;
    let (directory, last_stop) = look_at(directory)?;
    let mut metadata = open_metadata(&directory, files, endpoint, Occasion::Forming)?;
    metadata.first_members = metadata.files.only_member(&metadata.me);
    Ok(Opened { directory, last_stop, metadata: Some(metadata) })
}

/// Opens the directory of a node of a cluster. Waits for others where it has to learn which cluster that is.
pub(super) async fn open_in_cluster(
    disk: &Arc<dyn Disk>,
    files: &Arc<FileCache>,
    config: &NodeConfig,
    controllers: &[ControllerAddress],
    peers: &PeerSide,
    invited: &mut mpsc::Receiver<Invitation>,
) -> Result<Opened, NodeError> {
    let node = &config.node;
    let decides = node.roles.contains(&Role::Controller);
    let is_first = controllers.first().is_some_and(|first| first.node == node.id);
    let found = DataDir::identity(disk.as_ref(), &node.data_dir)?;
    let mut invitation = None;
    let cluster = match found {
        Some(meta) => meta.cluster,
        None if is_first && !has_begun(peers, controllers).await => node.cluster_id.unwrap_or_else(ClusterId::random),
        None if decides => {
            let came = controller::wait_for_invitation(invited, controllers).await?;
            invitation.insert(came).cluster
        }
        None => find_cluster(peers, controllers).await,
    };
    let occasion = invitation.as_ref().map_or(Occasion::Forming, |invitation| invitation.occasion);
    let opened = open_of_cluster(disk, files, config, (cluster, decides.then_some(occasion)), peers);
    if let Some(invitation) = invitation {
        let failed = |error: &NodeError| ApiError::new(ErrorCode::StorageFailed, error.to_string());
        let seat =
            |opened: &Opened| opened.seat().ok_or_else(|| ApiError::new(ErrorCode::Unknown, "it has no storage"));
        invitation.answer(opened.as_ref().map_err(failed).and_then(seat));
    }
    let mut opened = opened?;
    // One that joined is told by the others, whoever is listed first.
    let forms = |metadata: &&mut OpenedMetadata| {
        is_first && !metadata.files.are_begun() && metadata.files.id == RaftId::first_of(node.id)
    };
    if let Some(metadata) = opened.metadata.as_mut().filter(forms) {
        metadata.first_members = Some(controller::form(&peers.links, cluster, controllers, &metadata.me).await?);
    }
    // What was asked of nodes whose directories were not known.
    peers.links.retain(|_, directory| directory.is_some());
    Ok(opened)
}

fn open_of_cluster(
    disk: &Arc<dyn Disk>,
    files: &Arc<FileCache>,
    config: &NodeConfig,
    (cluster, decides): (ClusterId, Option<Occasion>),
    peers: &PeerSide,
) -> Result<Opened, NodeError> {
    let (node, directory) = (&config.node, peers.myself.directory);
    let opened = DataDir::open_as(Arc::clone(disk), &node.data_dir, node.id, Some(cluster), directory)?;
    if let Some(expected) = node.cluster_id.filter(|expected| *expected != cluster) {
        let root = node.data_dir.clone();
        return Err(crate::storage::data_dir::DataDirError::OtherCluster { root, found: cluster, expected }.into());
    }
    let (directory, last_stop) = look_at(opened)?;
    peers.myself.cluster.learn(cluster);
    let mut opened = Opened { directory, last_stop, metadata: None };
    if let Some(occasion) = decides {
        let endpoint = Some(peers.endpoint.clone());
        opened.metadata = Some(open_metadata(&opened.directory, files, endpoint, occasion)?);
        opened.directory.note_votes()?;
        opened.seat().into_iter().for_each(|seat| post(&peers.seat, seat));
    }
    Ok(opened)
}

/// Whether another controller has a cluster: then this one, whose directory is empty, had a part in it, or is to get one.
async fn has_begun(peers: &PeerSide, controllers: &[ControllerAddress]) -> bool {
    let others = controllers.iter().filter(|one| one.node != peers.myself.node);
    let Some(cluster) = ask_for_cluster(peers, others).await.into_iter().flatten().flatten().next() else {
        return false;
    };
    tracing::info!(
        %cluster,
        "another controller is of a cluster already, and the data directory here is empty: this node forms no other one. If its directory \
         was lost, take it back with callboard cluster reset-controller; if that cluster was never formed, empty node.data_dir \
         on all controllers"
    );
    true
}

/// Asks each of them once of which cluster it is.
async fn ask_for_cluster<'a>(
    peers: &PeerSide,
    controllers: impl Iterator<Item = &'a ControllerAddress>,
) -> Vec<Result<Option<ClusterId>, PeerError>> {
    let ask = |one: &ControllerAddress| {
        let link = peers.links.link(&one.into(), PeerConnection::Control);
        async move { Ok(link.ask(&FindController {}, Vec::new(), PATIENCE).await?.reply.cluster) }
    };
    futures_util::future::join_all(controllers.map(ask)).await
}

/// Asks the controllers which cluster they are of, until one of them knows.
async fn find_cluster(peers: &PeerSide, controllers: &[ControllerAddress]) -> ClusterId {
    let mut say_at = Instant::now() + SAY_EVERY;
    loop {
        let mut reasons = Vec::new();
        for answer in ask_for_cluster(peers, controllers.iter()).await {
            match answer {
                Ok(Some(cluster)) => return cluster,
                Ok(None) => {}
                Err(error) => reasons.push(error.to_string()),
            }
        }
        if Instant::now() >= say_at {
            say_at = Instant::now() + SAY_EVERY;
            let reasons = reasons.join("; ");
            tracing::info!(reasons, "no controller says which cluster this is: this broker waits for one");
        }
        sleep(PAUSE).await;
    }
}
