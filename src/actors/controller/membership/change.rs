//! One change of the controllers, from what is asked to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::time::{Instant, timeout_at};

use super::{describe, reach, stored, target};
use crate::actors::controller::actor::not_controller;
use crate::actors::peer::{PeerAddress, PeerLinks, PeerTarget};
use crate::protocol::messages::peer::{JoinController, PeerConnection};
use crate::protocol::messages::{self, ControllerAction, ControllerDescription};
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::{ControllerNode, Raft, RaftId, cause_of};
use crate::types::{ClusterId, NodeId};

/// The most controllers: each more is one more that a majority waits for.
const MOST: usize = 7;
/// How long a node gets to create its storage.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// A change that is under way.
pub(super) struct Change {
    pub raft: Raft,
    pub links: Arc<PeerLinks>,
    /// Who decides, this one.
    pub me: ControllerNode,
    pub cluster: ClusterId,
    /// When it is given up.
    pub deadline: Instant,
}

pub(super) fn refused(text: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

fn listed<'a>(members: impl IntoIterator<Item = &'a ControllerNode>) -> String {
    let nodes: BTreeSet<NodeId> = members.into_iter().map(|member| member.node).collect();
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}

fn failed(error: RaftError<RaftId, ClientWriteError<RaftId, ControllerNode>>) -> ApiError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => not_controller(),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))) => {
            under_way()
        }
        RaftError::APIError(error) => refused(error.to_string()),
        RaftError::Fatal(fatal) => ApiError::new(ErrorCode::StorageFailed, cause_of(&fatal)),
    }
}

pub(super) fn under_way() -> ApiError {
    let text = "another change of the controllers is under way: look at callboard cluster describe, then try again";
    ApiError::new(ErrorCode::Overloaded, text)
}

impl Change {
    /// Does what is wanted, and says who the controllers are then.
    pub async fn carry_out(self, wanted: messages::ChangeControllers) -> Result<Vec<ControllerDescription>, ApiError> {
        self.correct_own_address().await?;
        let node = wanted.node_id;
        let address = match (wanted.host, wanted.port) {
            (Some(host), Some(port)) if !host.is_empty() && port != 0 => Some(PeerAddress { host, port }),
            (None, None) => None,
            _ => return Err(refused("a controller's address is a host and a port: give both".to_owned())),
        };
        match wanted.action {
            ControllerAction::Add => {
                let address =
                    address.ok_or_else(|| refused("a controller that is added needs an address".to_owned()))?;
                self.add(node, address).await?;
            }
            ControllerAction::Remove => self.remove(node).await?,
            ControllerAction::Reset => self.reset(node, address).await?,
        }
        Ok(describe(&self.raft, Some(&self.links)).await)
    }

    fn members_of(&self, node: NodeId) -> BTreeMap<RaftId, ControllerNode> {
        let stored = stored(&self.raft);
        let members = stored.nodes().filter(|(_, member)| member.node == node);
        members.map(|(id, member)| (*id, member.clone())).collect()
    }

    fn voters(&self) -> BTreeSet<RaftId> {
        stored(&self.raft).voter_ids().collect()
    }

    /// What this node is configured with is where others are to find it.
    async fn correct_own_address(&self) -> Result<(), ApiError> {
        let id = self.raft.metrics().borrow().id;
        let is_right = stored(&self.raft).membership().get_node(&id).is_none_or(|known| *known == self.me);
        if is_right { Ok(()) } else { self.set_address(id, self.me.clone()).await }
    }

    async fn set_address(&self, id: RaftId, member: ControllerNode) -> Result<(), ApiError> {
        tracing::info!(node = %member.node, address = %target(&member).address, "a controller is reached at another address");
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, member)])), true).await
    }

    async fn change(&self, change: ChangeMembers<RaftId, ControllerNode>, retain: bool) -> Result<(), ApiError> {
        let changed = timeout_at(self.deadline, self.raft.change_membership(change, retain)).await;
        let late = |_| {
            let text = "a majority of the controllers did not agree in time: whether the change was made is not known, look at \
                        callboard cluster describe before you ask again";
            ApiError::new(ErrorCode::TimedOut, text)
        };
        changed.map_err(late)?.map(|_| ()).map_err(failed)
    }

    async fn add(&self, node: NodeId, address: PeerAddress) -> Result<(), ApiError> {
        let known = self.members_of(node);
        let voters = self.voters();
        if let Some((id, member)) = known.iter().find(|(id, _)| voters.contains(id)) {
            let moved = ControllerNode { host: address.host, port: address.port, ..member.clone() };
            if moved == *member {
                return Ok(());
            }
            let found = reach(&self.links, &moved).await;
            found.map_err(|error| refused(format!("node {node} was not moved: {error}")))?;
            return self.set_address(*id, moved).await;
        }
        if voters.len() >= MOST {
            return Err(refused(format!(
                "there are {} controllers already: remove one first (callboard cluster remove-controller); more than five \
                 make every decision slower and survive more losses than clusters have",
                voters.len()
            )));
        }
        let (id, member) = self.join(node, address).await?;
        self.check_majority(voters.iter().copied().chain([id]).collect(), &member).await?;
        self.learn(id, &member).await?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await?;
        tracing::info!(%node, directory = %member.directory, "a controller was added");
        self.forget_learners(node).await
    }

    /// Removes what is left of attempts to add this node with directories that were lost since.
    async fn forget_learners(&self, node: NodeId) -> Result<(), ApiError> {
        let voters = self.voters();
        let learners: BTreeSet<RaftId> = self.members_of(node).into_keys().filter(|id| !voters.contains(id)).collect();
        if learners.is_empty() { Ok(()) } else { self.change(ChangeMembers::RemoveNodes(learners), false).await }
    }

    async fn remove(&self, node: NodeId) -> Result<(), ApiError> {
        let known = self.members_of(node);
        let voters = self.voters();
        if known.is_empty() {
            let stored = stored(&self.raft);
            let controllers = listed(stored.nodes().map(|(_, member)| member));
            return Err(refused(format!("node {node} is no controller: they are {controllers}")));
        }
        self.forget_learners(node).await?;
        let going: BTreeSet<RaftId> = known.keys().filter(|id| voters.contains(id)).copied().collect();
        if !going.is_empty() {
            let staying: BTreeSet<RaftId> = voters.difference(&going).copied().collect();
            if staying.is_empty() {
                return Err(refused(format!("node {node} is the last controller: add another one first")));
            }
            self.check_majority(staying, &self.me).await?;
            self.change(ChangeMembers::RemoveVoters(going), false).await?;
        }
        tracing::info!(%node, "a controller was removed");
        Ok(())
    }

    async fn reset(&self, node: NodeId, address: Option<PeerAddress>) -> Result<(), ApiError> {
        let voters = self.voters();
        let Some((lost, before)) = self.members_of(node).into_iter().find(|(id, _)| voters.contains(id)) else {
            let text = format!("node {node} is no controller with a vote: add it (callboard cluster add-controller)");
            return Err(refused(text));
        };
        let address = address.unwrap_or(PeerAddress { host: before.host, port: before.port });
        let (id, member) = self.join(node, address).await?;
        if id == lost {
            let text = format!(
                "node {node} has the data directory that it is known by, {}: nothing is lost",
                before.directory
            );
            return Err(refused(text));
        }
        let after: BTreeSet<RaftId> = voters.iter().copied().filter(|voter| *voter != lost).chain([id]).collect();
        self.check_majority(after.clone(), &member).await?;
        self.learn(id, &member).await?;
        self.change(ChangeMembers::ReplaceAllVoters(after), false).await?;
        tracing::info!(%node, lost = %before.directory, directory = %member.directory, "a controller came back with another directory");
        self.forget_learners(node).await
    }

    /// Has a node create a storage for this cluster, unless it has one.
    async fn join(&self, node: NodeId, address: PeerAddress) -> Result<(RaftId, ControllerNode), ApiError> {
        let target = PeerTarget { node: Some(node), directory: None, address };
        let link = self.links.link(&target, PeerConnection::Control);
        let asked = link.ask(&JoinController { cluster: self.cluster }, Vec::new(), JOIN_PATIENCE).await;
        let PeerAddress { host, port } = target.address;
        let answer = asked.map_err(|error| {
            refused(format!(
                "node {node} did not become a controller: {error}. It has to run with \"controller\" in node.roles, name itself in \
                 cluster.controllers, and have an empty node.data_dir"
            ))
        })?;
        let directory = answer.reply.directory;
        Ok((RaftId(answer.reply.member), ControllerNode { node, directory, host, port }))
    }

    /// Whoever takes part has to be there, or nothing would be decided any more. `new` may not be among the members yet.
    async fn check_majority(&self, voters: BTreeSet<RaftId>, new: &ControllerNode) -> Result<(), ApiError> {
        let here = self.raft.metrics().borrow().id;
        let stored = stored(&self.raft);
        let asked = voters.iter().map(async |id| {
            let member = stored.membership().get_node(id).unwrap_or(new);
            if *id == here { Ok(()) } else { reach(&self.links, member).await }
        });
        let answers = join_all(asked).await;
        let missing: Vec<String> =
            answers.iter().filter_map(|answer| Some(answer.as_ref().err()?.to_string())).collect();
        if missing.len() * 2 < voters.len() {
            return Ok(());
        }
        Err(refused(format!(
            "of the {} controllers that there would be, {} can be reached, and nothing is decided without a majority: start the others \
             first ({})",
            voters.len(),
            voters.len() - missing.len(),
            missing.join("; ")
        )))
    }

    /// Has a node follow the log without a vote, until it has all of it.
    async fn learn(&self, id: RaftId, member: &ControllerNode) -> Result<(), ApiError> {
        if stored(&self.raft).membership().get_node(&id).is_some_and(|known| known != member) {
            self.set_address(id, member.clone()).await?;
        }
        let learnt = timeout_at(self.deadline, self.raft.add_learner(id, member.clone(), true)).await;
        let late = |_| {
            let text = format!(
                "node {} follows the metadata log and has not caught up yet: it has no vote. See that it runs and can be reached, \
                 and ask again",
                member.node
            );
            ApiError::new(ErrorCode::TimedOut, text)
        };
        learnt.map_err(late)?.map(|_| ()).map_err(failed)
    }
}
