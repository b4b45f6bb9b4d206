//! How the controllers of a new cluster come together: the first that is listed invites the others, each of which was never part of one.
//! One that is added later is invited by the controller that decides.
//!
//! ```text
//!   first listed                                               each other one
//!   cluster id, storage on disk ── FormController ──────────►  lists the same controllers? has no cluster? storage on disk
//!   asks until all have answered ◄── its directory ──────────  serves Raft, and waits to hear of its members
//!   initialize: all of them, by node and directory
//!
//!   the one that decides         a node that was never part of one, or has seen this very cluster
//!   JoinController ───────────►  storage on disk, as another member for each directory
//! ```
//!
//! Whoever dies meanwhile goes on after a restart: what was asked for twice is answered alike. A directory that was part of a cluster
//! takes part in no other one, and one that was wiped is not invited again, since its cluster has begun: it may have forgotten a
//! vote (ADR 21).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::metadata_files::MetadataError;
use crate::actors::peer::{PeerError, PeerLinks};
use crate::actors::peer_session::{AnswerTo, PeerCall, PeerReplyBody, PeerRequestBody};
use crate::config::ControllerAddress;
use crate::protocol::messages::peer::{
    FormController, FormControllerReply, FormedController, JoinControllerReply, PeerConnection,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::{ControllerNode, Raft, RaftId};
use crate::types::{ClusterId, DirectoryId, NodeId};

/// How long a controller gets for its answer: it creates files and syncs them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said for whom a node waits.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Answers invitations.
pub struct Seat {
    configured: BTreeSet<NodeId>,
    taken: Option<TakeSeat>,
    /// Once it runs.
    raft: Option<Raft>,
    invitations: mpsc::Sender<Invitation>,
}

/// What a node is invited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A cluster is formed.
    Forming,
    /// A cluster that has begun gets another controller.
    Joining,
}

/// A node is to become a controller of this cluster.
#[derive(Debug)]
pub struct Invitation {
    /// The cluster.
    pub cluster: ClusterId,
    /// What for.
    pub occasion: Occasion,
    answer: AnswerTo,
}

impl Invitation {
    /// The storage for that cluster is on disk; or why it is not.
    pub fn answer(self, result: Result<TakeSeat, ApiError>) {
        let Self { occasion, answer, .. } = self;
        answer.send(result.map(|TakeSeat { directory, member, .. }| match occasion {
            Occasion::Forming => PeerReplyBody::FormController(FormControllerReply { directory }),
            Occasion::Joining => PeerReplyBody::JoinController(JoinControllerReply { directory, member: member.0 }),
        }));
    }
}

/// The node has a storage.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct TakeSeat {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// In which directory.
    pub directory: DirectoryId,
    /// Of which member.
    pub member: RaftId,
}

/// Raft runs on that storage.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SeatRaft(pub Raft);

impl Seat {
    /// The seat of a node that lists these controllers, and where invitations come until it is taken.
    #[must_use]
    pub fn free(controllers: &[ControllerAddress]) -> (Self, mpsc::Receiver<Invitation>) {
        let (invitations, invited) = mpsc::channel(1);
        (Self { configured: nodes(controllers), taken: None, raft: None, invitations }, invited)
    }

    /// The storage that there is for an invitation to join.
    fn check_joining(&self, cluster: ClusterId) -> Result<Option<TakeSeat>, ApiError> {
        match self.taken {
            Some(taken) if taken.cluster != cluster => Err(ApiError::new(
                ErrorCode::WrongNode,
                format!(
                    "this node is a controller of cluster {} already, and not of {cluster}: if the former is not needed any more, \
                     give this node an empty node.data_dir and start it again",
                    taken.cluster
                ),
            )),
            taken => Ok(taken),
        }
    }

    /// The storage that there is for an invitation to form a cluster.
    fn check_forming(&self, asked: &FormController) -> Result<Option<TakeSeat>, ApiError> {
        let theirs = asked.controllers.iter().map(|one| one.node).collect::<BTreeSet<_>>();
        match self.taken {
            Some(TakeSeat { cluster, .. }) if cluster != asked.cluster || self.has_begun() => Err(ApiError::new(
                ErrorCode::WrongNode,
                format!(
                    "this node is a controller of cluster {cluster} already. If the data directory of the node that asks was \
                     lost, give it an empty node.data_dir and start it again: it comes back to its cluster under a new id \
                     (callboard cluster reset-controller); if cluster {cluster} is not needed any more, give this node an empty \
                     node.data_dir"
                ),
            )),
            Some(taken) => Ok(Some(taken)),
            None if theirs != self.configured => Err(ApiError::new(
                ErrorCode::InvalidConfig,
                format!(
                    "cluster.controllers names the nodes {} here and {} at the node that forms the cluster: set it alike",
                    listed(&self.configured),
                    listed(&theirs)
                ),
            )),
            None => Ok(None),
        }
    }

    /// Whether the cluster of this storage was formed: its log has an entry.
    fn has_begun(&self) -> bool {
        self.raft.as_ref().is_some_and(|raft| raft.metrics().borrow().last_log_index.is_some())
    }
}

fn nodes(controllers: &[ControllerAddress]) -> BTreeSet<NodeId> {
    controllers.iter().map(|one| one.node).collect()
}

fn listed<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
    nodes.into_iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}

impl Actor for Seat {
    type Context = Context<Self>;
}

impl Handler<TakeSeat> for Seat {
    type Result = ();
    fn handle(&mut self, taken: TakeSeat, _: &mut Context<Self>) {
        self.taken = Some(taken);
    }
}

impl Handler<SeatRaft> for Seat {
    type Result = ();
    fn handle(&mut self, SeatRaft(raft): SeatRaft, _: &mut Context<Self>) {
        self.raft = Some(raft);
    }
}

impl Handler<PeerCall> for Seat {
    type Result = ();
    fn handle(&mut self, PeerCall { body, answer, .. }: PeerCall, _: &mut Context<Self>) {
        let (cluster, occasion, checked) = match body {
            PeerRequestBody::FormController(asked) => (asked.cluster, Occasion::Forming, self.check_forming(&asked)),
            PeerRequestBody::JoinController(asked) => {
                (asked.cluster, Occasion::Joining, self.check_joining(asked.cluster))
            }
            _ => return answer.send(Err(ApiError::new(ErrorCode::Unknown, "this is no invitation: please report it"))),
        };
        let invitation = Invitation { cluster, occasion, answer };
        match checked {
            Ok(Some(taken)) => invitation.answer(Ok(taken)),
            Err(error) => invitation.answer(Err(error)),
            Ok(None) => {
                if let Err(undelivered) = self.invitations.try_send(invitation) {
                    let text = "this node is still starting: try again";
                    undelivered.into_inner().answer(Err(ApiError::new(ErrorCode::Overloaded, text)));
                }
            }
        }
    }
}

/// Waits until the first of `controllers` invites this node.
///
/// # Errors
/// [`MetadataError::Stopped`]: the node stops.
pub async fn wait_for_invitation(
    invited: &mut mpsc::Receiver<Invitation>,
    controllers: &[ControllerAddress],
) -> Result<Invitation, MetadataError> {
    let first = controllers.first().map(|first| String::from(first.clone())).unwrap_or_default();
    loop {
        tokio::select! {
            invitation = invited.recv() => {
                return invitation.ok_or_else(|| MetadataError::Stopped("the node stops".to_owned()));
            }
            () = sleep(SAY_EVERY) => tracing::info!(
                %first,
                "this node has no metadata and waits to be invited: by the first of cluster.controllers, which forms a new cluster, or \
                 by callboard cluster add-controller; if it was part of the cluster and its directory was lost, by callboard \
                 cluster reset-controller"
            ),
        }
    }
}

/// Has all other `controllers` create their storage for `cluster`, and returns the members that it begins with. Waits for as long as
/// it takes.
///
/// # Errors
/// [`MetadataError::Forming`]: one of them will not.
pub async fn form(
    links: &PeerLinks,
    cluster: ClusterId,
    controllers: &[ControllerAddress],
    me: &ControllerNode,
) -> Result<BTreeMap<RaftId, ControllerNode>, MetadataError> {
    let invite = FormController {
        cluster,
        controllers: controllers
            .iter()
            .map(|one| FormedController { node: one.node, host: one.host.clone(), port: one.port })
            .collect(),
    };
    let mut members = BTreeMap::from([(RaftId::first_of(me.node), me.clone())]);
    let mut say_at = Instant::now() + SAY_EVERY;
    loop {
        let missing = || controllers.iter().filter(|one| !members.contains_key(&RaftId::first_of(one.node)));
        let asked = futures_util::future::join_all(missing().map(|one| ask(links, one, &invite))).await;
        let mut reasons = Vec::new();
        for answer in asked {
            match answer {
                Ok(member) => drop(members.insert(RaftId::first_of(member.node), member)),
                Err(error) if error.is_refusal() || is_final(&error) => {
                    return Err(MetadataError::Forming(error.to_string()));
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        if members.len() == controllers.len() {
            tracing::info!(%cluster, controllers = %listed(members.values().map(|one| &one.node)), "the cluster is formed");
            return Ok(members);
        }
        if Instant::now() >= say_at {
            say_at = Instant::now() + SAY_EVERY;
            tracing::info!(
                reasons = reasons.join("; "),
                "the cluster is not formed yet: all of cluster.controllers are needed for that"
            );
        }
        sleep(PAUSE).await;
    }
}

async fn ask(links: &PeerLinks, one: &ControllerAddress, invite: &FormController) -> Result<ControllerNode, PeerError> {
    let answer = links.link(&one.into(), PeerConnection::Control).ask(invite, Vec::new(), PATIENCE).await?;
    let directory = answer.reply.directory;
    Ok(ControllerNode { node: one.node, directory, host: one.host.clone(), port: one.port })
}

/// Whether asking again cannot help before somebody has corrected something.
fn is_final(error: &PeerError) -> bool {
    match error {
        PeerError::Answered { error, .. } => matches!(error.code, ErrorCode::InvalidConfig | ErrorCode::NotController),
        _ => false,
    }
}

#[cfg(test)]
#[path = "forming_tests.rs"]
mod tests;
