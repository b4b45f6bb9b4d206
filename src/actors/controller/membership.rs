//! Who the controllers are, and changing that: openraft's membership change, and what has to be so before it.
//!
//! ```text
//!   add      JoinController ─► its directory ─► learner ─► has the log ─► voter
//!   remove   ──────────────────────────────► a majority of the others answers ─► a voter no longer
//!   reset    JoinController ─► another directory ─► learner ─► has the log ─► takes the place of the lost one, in one change
//! ```
//!
//! Each change of the voters goes through a joint configuration, in which both majorities are needed (Ongaro's thesis, 4.3): at no
//! instant can two decide. Whoever takes office while there is one finishes it. A member is a node with its directory, so that
//! a directory that was lost, and its votes with it, never votes again under the same number.
//!
//! Reading order: this file, `change`.

mod change;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture, ResponseFuture, WrapFuture};
use futures_util::future::join_all;
use openraft::ChangeMembers;
use tokio::time::Instant;

use self::change::{Change, refused, under_way};
use super::actor::{Controller, Office, not_controller};
use crate::actors::peer::{PeerAddress, PeerError, PeerLinks, PeerTarget};
use crate::actors::send::post;
use crate::protocol::ApiError;
use crate::protocol::messages::peer::{DescribeControllersReply, FindController, KnownController, PeerConnection};
use crate::protocol::messages::{self, ControllerDescription, ControllerRole};
use crate::raft::{ControllerNode, LogId, Raft, RaftId, StoredMembership};
use crate::types::{MonoTime, NodeId};

/// How long a change may take, catching up included.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a controller gets to say that it is there.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// A controller that hears of no leader for so long asks the others whether it is one still.
const LONELY: Duration = Duration::from_secs(2);

/// Add, remove or reset a controller. Answered when it is done, with the controllers from then on.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<ControllerDescription>, ApiError>")]
pub struct ChangeControllers(pub messages::ChangeControllers);

/// How are the controllers, and which leases run?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<DescribeControllersReply, ApiError>")]
pub struct DescribeControllers;

/// What the others said of this controller.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Heard {
    /// Whoever decides, if it does not count this one among the controllers.
    removed_by: Option<NodeId>,
}

/// What a controller that others can reach remembers of them.
pub(super) struct Membership {
    me: ControllerNode,
    links: Arc<PeerLinks>,
    is_changing: bool,
    /// Since when it hears of no leader, or is no member by its own log.
    lonely_since: Option<MonoTime>,
    is_asking: bool,
    is_removed: bool,
    /// The members that were last looked at.
    seen: Option<LogId>,
}

impl Membership {
    pub fn new(me: ControllerNode, links: Arc<PeerLinks>) -> Self {
        Self { me, links, is_changing: false, lonely_since: None, is_asking: false, is_removed: false, seen: None }
    }
}

/// The members that Raft knows of: the newest ones in its log.
fn stored(raft: &Raft) -> Arc<StoredMembership> {
    Arc::clone(&raft.metrics().borrow().membership_config)
}

/// The controllers that Raft knows of.
pub(super) fn known(raft: &Raft) -> Vec<KnownController> {
    let known = |(_, member): (&RaftId, &ControllerNode)| {
        let ControllerNode { node, directory, host, port } = member.clone();
        KnownController { node, directory, host, port }
    };
    stored(raft).nodes().map(known).collect()
}

fn target(member: &ControllerNode) -> PeerTarget {
    let address = PeerAddress { host: member.host.clone(), port: member.port };
    PeerTarget { node: Some(member.node), directory: Some(member.directory), address }
}

/// Whether a member is there.
async fn reach(links: &PeerLinks, member: &ControllerNode) -> Result<(), PeerError> {
    let link = links.link(&target(member), PeerConnection::Control);
    match link.ask(&FindController {}, Vec::new(), ANSWER_PATIENCE).await {
        // It is there, and is still starting or stops.
        Ok(_) | Err(PeerError::Answered { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn describe(raft: &Raft, links: Option<&PeerLinks>) -> Vec<ControllerDescription> {
    let metrics = raft.metrics().borrow().clone();
    let voters: BTreeSet<RaftId> = metrics.membership_config.voter_ids().collect();
    let last = metrics.last_log_index.unwrap_or_default();
    let matched = |id: &RaftId| metrics.replication.as_ref()?.get(id).map(|at| at.map_or(0, |at| at.index));
    let described = metrics.membership_config.nodes().map(async |(id, member)| {
        let is_here = *id == metrics.id;
        let trouble = match links {
            Some(links) if !is_here => reach(links, member).await.err().map(|error| error.to_string()),
            _ => None,
        };
        ControllerDescription {
            node_id: member.node,
            directory: member.directory,
            host: member.host.clone(),
            port: member.port,
            role: match () {
                () if metrics.current_leader == Some(*id) => ControllerRole::Leader,
                () if voters.contains(id) => ControllerRole::Voter,
                () => ControllerRole::Learner,
            },
            behind: if is_here { 0 } else { matched(id).map_or(0, |matched| last.saturating_sub(matched)) },
            trouble,
        }
    });
    join_all(described).await
}

impl Controller {
    /// Why the controllers cannot be changed or described here, if that is so.
    fn check_office(&self) -> Result<(), ApiError> {
        match (self.refusal(), self.office) {
            (Some(cause), _) => Err(cause),
            (None, Office::Held(_)) => Ok(()),
            (None, _) => Err(not_controller()),
        }
    }

    /// Finishes a change of the voters that its leader did not.
    pub(super) fn finish_change(&self) {
        let stored = stored(&self.raft);
        if let [_, .., last] = stored.membership().get_joint_config().as_slice() {
            let (raft, voters) = (self.raft.clone(), last.clone());
            // When this fails there is another leader, who tries it, too.
            actix_rt::spawn(async move {
                drop(raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), false).await)
            });
        }
    }

    /// Nobody asks a member that is none any more: its link would dial for ever.
    pub(super) fn close_old_links(&mut self) {
        let stored = stored(&self.raft);
        let Some(membership) = self.membership.as_mut().filter(|membership| membership.seen != *stored.log_id()) else {
            return;
        };
        membership.seen = *stored.log_id();
        let members: BTreeSet<_> = stored.nodes().map(|(_, member)| member.directory).collect();
        membership.links.retain_members(&members);
    }

    /// One that was removed while it was away is not told of it by Raft: it asks.
    pub(super) fn ask_whether_removed(&mut self, ctx: &mut Context<Self>) {
        let now = self.settings.clock.now();
        let (leader, id) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.current_leader, metrics.id)
        };
        let stored = stored(&self.raft);
        let is_member = stored.membership().get_node(&id).is_some();
        let Some(membership) = &mut self.membership else { return };
        // One that was never a member waits to be told of its cluster.
        let is_lonely =
            self.office == Office::Elsewhere && stored.log_id().is_some() && (leader.is_none() || !is_member);
        if !is_lonely {
            membership.lonely_since = None;
            if std::mem::take(&mut membership.is_removed) {
                self.raft.runtime_config().elect(true);
            }
            return;
        }
        let since = *membership.lonely_since.get_or_insert(now);
        if membership.is_asking || now.since(since) < LONELY {
            return;
        }
        membership.lonely_since = Some(now);
        membership.is_asking = true;
        let (links, me, home) = (Arc::clone(&membership.links), membership.me.clone(), ctx.address());
        actix_rt::spawn(async move {
            let others = stored.nodes().filter(|(other, _)| **other != id);
            let asked = others.map(async |(_, member)| {
                let link = links.link(&target(member), PeerConnection::Control);
                let answer = link.ask(&FindController {}, Vec::new(), ANSWER_PATIENCE).await.ok()?;
                let counts_on_me = answer.reply.controllers.iter().any(|known| known.directory == me.directory);
                (answer.reply.decides && !counts_on_me).then_some(member.node)
            });
            let removed_by = join_all(asked).await.into_iter().flatten().next();
            post(&home, Heard { removed_by });
        });
    }
}

impl Handler<Heard> for Controller {
    type Result = ();
    fn handle(&mut self, Heard { removed_by }: Heard, _: &mut Context<Self>) {
        let Some(membership) = &mut self.membership else { return };
        membership.is_asking = false;
        let was_removed = std::mem::replace(&mut membership.is_removed, removed_by.is_some());
        if was_removed != membership.is_removed {
            // It would stand for election for ever, and never be elected.
            self.raft.runtime_config().elect(was_removed);
        }
        if let Some(leader) = removed_by.filter(|_| !was_removed) {
            tracing::warn!(
                %leader,
                "this node is no controller of its cluster any more: take it out of cluster.controllers on all nodes and stop it, or \
                 take it back with callboard cluster add-controller"
            );
        }
    }
}

type Changed = ResponseActFuture<Controller, Result<Vec<ControllerDescription>, ApiError>>;

fn refuse(error: ApiError) -> Changed {
    Box::pin(actix::fut::ready(Err(error)))
}

impl Handler<ChangeControllers> for Controller {
    type Result = Changed;
    fn handle(&mut self, ChangeControllers(wanted): ChangeControllers, _: &mut Context<Self>) -> Self::Result {
        if let Err(error) = self.check_office() {
            return refuse(error);
        }
        let (raft, cluster, deadline) = (self.raft.clone(), self.image().cluster_id, Instant::now() + PATIENCE);
        let Some(membership) = &mut self.membership else {
            return refuse(refused(
                "this node runs alone: set listener.peer.bind, where other nodes reach it, and cluster.controllers, which names it \
                 and the others, and start it again"
                    .to_owned(),
            ));
        };
        if std::mem::replace(&mut membership.is_changing, true) {
            return refuse(under_way());
        }
        let change =
            Change { raft, links: Arc::clone(&membership.links), me: membership.me.clone(), cluster, deadline };
        let done = change.carry_out(wanted).into_actor(self).map(|done, this, _| {
            this.membership.iter_mut().for_each(|membership| membership.is_changing = false);
            done
        });
        Box::pin(done)
    }
}

impl Handler<DescribeControllers> for Controller {
    type Result = ResponseFuture<Result<DescribeControllersReply, ApiError>>;
    fn handle(&mut self, _: DescribeControllers, _: &mut Context<Self>) -> Self::Result {
        if let Err(error) = self.check_office() {
            return Box::pin(async move { Err(error) });
        }
        let (now, image) = (self.settings.clock.now(), self.image());
        let milliseconds = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let leases = self.leases(now, &image).into_iter().map(|(node, left)| (node, milliseconds(left))).collect();
        let (raft, links) =
            (self.raft.clone(), self.membership.as_ref().map(|membership| Arc::clone(&membership.links)));
        Box::pin(async move {
            let controllers = describe(&raft, links.as_deref()).await;
            Ok(DescribeControllersReply { controllers, leases })
        })
    }
}
