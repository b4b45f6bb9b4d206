//! The handle: each request goes to the member that decides, within its time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::local::LocalController;
use super::member::{Failed, Member};
use super::search::{Office, PAUSE, Search};
use crate::actors::controller::{
    AddPartitions, AlterTopics, ChangeControllers, Committed, CreateTopics, DeleteTopics, ElectLeaders, FollowMetadata,
    InitProducer, MetadataNews, Reassign,
};
use crate::actors::peer::{PeerLinks, PeerTarget};
use crate::engine::broker::{Answer, Request};
use crate::engine::metadata::ClusterImage;
use crate::protocol::messages::peer::DescribeControllersReply;
use crate::protocol::messages::{ControllerDescription, CreatedTopic, InitProducerReply};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{NodeId, TopicId};

/// How long a client waits until its request is decided. Clients wait for 30 s; by then an election is long over.
const DECISION_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client waits until the controllers have changed: one that is added catches up first.
const CHANGE_PATIENCE: Duration = Duration::from_secs(25);
/// How long a client waits for what only the controller that decides can say.
const DESCRIBE_PATIENCE: Duration = Duration::from_secs(2);
/// How long one member may take before another is looked for, where asking twice is harmless.
const ONE_ATTEMPT: Duration = Duration::from_secs(1);
/// How much longer than it may wait for news whoever is asked for metadata may take to answer.
const FOLLOW_MARGIN: Duration = Duration::from_secs(2);

/// Whether a request of which nobody knows what became of it is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// Twice is as good as once. Each attempt has so much time.
    Freely(Duration),
    /// The second would say something else than the first: whoever asked looks.
    Never,
}

/// Whichever controller decides. Clones share what is known of that.
#[derive(Clone)]
pub struct Controllers(Arc<Search>);

impl Controllers {
    /// The only controller, which is `node` and runs in this process.
    #[must_use]
    pub fn alone(node: NodeId, local: impl Into<LocalController>) -> Self {
        Self(Arc::new(Search::new(vec![Member::here(node, local.into())], None)))
    }

    /// One of several, reached over the control links; `local` is the one in this process, if there is one. It need not be left out of
    /// `members`.
    #[must_use]
    pub fn among<L: Into<LocalController>>(
        members: Vec<PeerTarget>,
        links: &Arc<PeerLinks>,
        local: Option<(NodeId, L)>,
    ) -> Self {
        let here = local.as_ref().map(|(node, _)| *node);
        let others = members.into_iter().filter(|member| here.is_none() || member.node != here);
        let others = others.map(|target| Member::there(target, Arc::clone(links)));
        let local = local.map(|(node, local)| Member::here(node, local.into()));
        Self(Arc::new(Search::new(local.into_iter().chain(others).collect(), Some(Arc::clone(links)))))
    }

    /// Asks what a broker has to ask, for at most `patience`; `None`: heard, and the metadata will show what comes of it.
    ///
    /// # Errors
    /// What the controller says; what was tried, if none decided in time.
    pub async fn ask(&self, request: Request, patience: Duration) -> Result<Option<Answer>, ApiError> {
        let attempt = async |member: &Member, patience| member.ask(&request, patience).await;
        self.decided(patience, Repeat::Freely(ONE_ATTEMPT), attempt).await
    }

    /// What was decided since `known`, which is of the index of the request. Waits for news as long as the request says.
    ///
    /// # Errors
    /// As [`Controllers::ask`]; one with [`ErrorCode::UnsupportedVersion`] when this software is too old for what was decided.
    pub async fn follow(&self, request: FollowMetadata, known: &Arc<ClusterImage>) -> Result<MetadataNews, ApiError> {
        let one = request.patience.saturating_add(FOLLOW_MARGIN);
        let patience = one.saturating_add(FOLLOW_MARGIN);
        let attempt = async |member: &Member, patience| member.follow(request, known, patience).await;
        self.decided(patience, Repeat::Freely(one), attempt).await
    }

    /// Creates topics.
    ///
    /// # Errors
    /// As [`Controllers::ask`]; one with [`ErrorCode::TimedOut`] when nobody knows whether it was done.
    pub async fn create_topics(
        &self,
        request: CreateTopics,
    ) -> Result<Committed<Vec<Result<CreatedTopic, ApiError>>>, ApiError> {
        let attempt = async |member: &Member, patience| member.create_topics(&request, patience).await;
        self.decided(DECISION_PATIENCE, Repeat::Never, attempt).await
    }

    /// Deletes topics.
    ///
    /// # Errors
    /// As [`Controllers::create_topics`].
    pub async fn delete_topics(
        &self,
        request: DeleteTopics,
    ) -> Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError> {
        let attempt = async |member: &Member, patience| member.delete_topics(&request, patience).await;
        self.decided(DECISION_PATIENCE, Repeat::Never, attempt).await
    }

    /// Changes topics.
    ///
    /// # Errors
    /// As [`Controllers::create_topics`].
    pub async fn alter_topics(
        &self,
        request: AlterTopics,
    ) -> Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError> {
        let attempt = async |member: &Member, patience| member.alter_topics(&request, patience).await;
        self.decided(DECISION_PATIENCE, Repeat::Never, attempt).await
    }

    /// Gives topics more partitions.
    ///
    /// # Errors
    /// As [`Controllers::create_topics`].
    pub async fn add_partitions(
        &self,
        request: AddPartitions,
    ) -> Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError> {
        let attempt = async |member: &Member, patience| member.add_partitions(&request, patience).await;
        self.decided(DECISION_PATIENCE, Repeat::Never, attempt).await
    }

    /// Moves partitions to other replicas, or ends such a move. Asking twice is asking once.
    ///
    /// # Errors
    /// As [`Controllers::ask`].
    pub async fn reassign(&self, request: Reassign) -> Result<Committed<Vec<Result<Vec<NodeId>, ApiError>>>, ApiError> {
        let attempt = async |member: &Member, patience| member.reassign(&request, patience).await;
        self.decided(DECISION_PATIENCE, Repeat::Freely(DECISION_PATIENCE), attempt).await
    }

    /// Gives leaderships back to the preferred replicas. Asking twice is asking once.
    ///
    /// # Errors
    /// As [`Controllers::ask`].
    pub async fn elect_leaders(
        &self,
        request: ElectLeaders,
    ) -> Result<Committed<Vec<Result<NodeId, ApiError>>>, ApiError> {
        let attempt = async |member: &Member, patience| member.elect_leaders(&request, patience).await;
        self.decided(DECISION_PATIENCE, Repeat::Freely(DECISION_PATIENCE), attempt).await
    }

    /// Adds, removes or resets a controller. Answered with the controllers from then on.
    ///
    /// # Errors
    /// As [`Controllers::create_topics`].
    pub async fn change_controllers(&self, request: ChangeControllers) -> Result<Vec<ControllerDescription>, ApiError> {
        let attempt = async |member: &Member, patience| member.change_controllers(&request, patience).await;
        self.decided(CHANGE_PATIENCE, Repeat::Never, attempt).await
    }

    /// How the controllers are, and which leases run.
    ///
    /// # Errors
    /// As [`Controllers::ask`].
    pub async fn describe_controllers(&self) -> Result<DescribeControllersReply, ApiError> {
        let attempt = async |member: &Member, patience| member.describe_controllers(patience).await;
        self.decided(DESCRIBE_PATIENCE, Repeat::Freely(DESCRIBE_PATIENCE), attempt).await
    }

    /// Hands out a producer id, or the next epoch of one. An id that nobody heard of is never used: asking again costs nothing else.
    ///
    /// # Errors
    /// As [`Controllers::ask`].
    pub async fn init_producer(&self, request: InitProducer) -> Result<InitProducerReply, ApiError> {
        let attempt = async |member: &Member, patience| member.init_producer(request, patience).await;
        self.decided(DECISION_PATIENCE, Repeat::Freely(DECISION_PATIENCE), attempt).await
    }

    /// Who decides, as far as is known.
    #[must_use]
    pub fn decides(&self) -> Option<NodeId> {
        self.0.office()?.node
    }

    /// Makes attempts until one is answered, at whoever decides then.
    async fn decided<T>(
        &self,
        patience: Duration,
        repeat: Repeat,
        attempt: impl AsyncFn(&Member, Duration) -> Result<T, Failed>,
    ) -> Result<T, ApiError> {
        let deadline = Instant::now() + patience;
        let mut before: Option<Office> = None;
        loop {
            let Some(office) = self.0.find(deadline).await else { return Err(self.nobody(patience)) };
            // It says that it decides, and just did not.
            if before.is_some_and(|before| before.member == office.member) {
                sleep_until(deadline.min(Instant::now() + PAUSE)).await;
            }
            before = Some(office);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.nobody(patience));
            }
            let member = &*self.0.member(office.member);
            let failed = match repeat {
                Repeat::Never => attempt(member, left).await,
                Repeat::Freely(one) => tokio::select! {
                    answer = attempt(member, left.min(one)) => answer,
                    () = self.0.replaced(office) => Err(Failed::NotTaken("does not decide any more".to_owned())),
                },
            };
            match failed {
                Ok(answer) => return Ok(answer),
                Err(Failed::Refused(error)) => return Err(error),
                Err(Failed::Unknown(error)) if repeat == Repeat::Never => return Err(self.unknown(error)),
                // Nobody else can be asked.
                Err(Failed::Unknown(error)) if self.is_alone() => return Err(error),
                Err(Failed::Unknown(error)) => self.0.lost(office, error.message),
                Err(Failed::NotTaken(why)) => self.0.lost(office, why),
            }
        }
    }

    fn is_alone(&self) -> bool {
        self.0.is_alone()
    }

    fn nobody(&self, patience: Duration) -> ApiError {
        let text = format!(
            "no controller decided within {} ms ({}): see that a majority of them runs and can be reached, then try again",
            patience.as_millis(),
            self.0.told()
        );
        ApiError::new(ErrorCode::NotController, text)
    }

    /// What the sole controller says itself is not made more uncertain than it is.
    fn unknown(&self, error: ApiError) -> ApiError {
        if self.is_alone() && error.code != ErrorCode::TimedOut {
            return error;
        }
        let text = format!("{}: whether it was done is not known, look before you ask again", error.message);
        ApiError::new(ErrorCode::TimedOut, text)
    }
}

impl std::fmt::Debug for Controllers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Controllers({:?}: {})", self.0.office(), self.0.told())
    }
}

#[cfg(test)]
impl Controllers {
    /// Over whatever members a test has.
    pub(super) fn over(search: Search) -> Self {
        Self(Arc::new(search))
    }
}
