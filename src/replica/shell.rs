//! A replica in its role, and how it changes from one into another.
//!
//! ```text
//!                     assign(Lead)                             events ──► engine ──► Effect
//!   Follower ──────────────────────────────► Leader
//!      ▲    ◄──────────────────────────────    │      between the two: everybody is told, and what was
//!      └── assign(Lead, a higher epoch) ◄──────┘      commanded to the log comes to an end first
//! ```

mod commands;
mod damage;
mod events;
#[cfg(test)]
mod tests;

use crate::engine::assignment::Assignment;
use crate::engine::follower::{self, FollowerEngine, FollowerSettings, Following};
use crate::engine::leader::{self, LeaderEngine, LeaderSettings, Proposal, ReadRange};
use crate::engine::replication::{LeaderState, ReplicaFetch, ReplicaState, ReplicaVerdict};
use crate::protocol::messages::{FetchedPartition, ListedOffset, OffsetAt, ProducedBatch};
use crate::protocol::{ApiError, ErrorCode};
use crate::storage::LogConfig;
use crate::storage::queue::LogWork;
use crate::types::{LeaderEpoch, MonoTime, Mutant, NodeId, Offset, TopicConfig};

use super::ProducerReplay;
use damage::Part;

/// What a replica is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaSettings {
    /// As a leader.
    pub leader: LeaderSettings,
    /// As a follower.
    pub follower: FollowerSettings,
}

/// An answer without records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A batch is as safe as was asked for.
    Produced(ProducedBatch),
    /// There is nothing to read.
    Fetched(FetchedPartition),
    /// An offset was looked up.
    Listed(ListedOffset),
    /// Records are gone; the log starts there.
    RecordsDeleted(Offset),
    /// A follower is told what to do.
    ReplicaFetched(ReplicaVerdict, LeaderState),
}

/// Who reads, and the state that goes with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadState {
    /// A consumer.
    Consumer(FetchedPartition),
    /// A follower.
    Follower(LeaderState),
    /// A follower whose own records are damaged there.
    Repair(LeaderState),
}

/// What is to be done outside.
#[derive(Debug)]
pub enum Effect<R, X> {
    /// Put this into the log's queue.
    Write(LogWork<X, ProducerReplay>),
    /// Answer.
    Answer(R, Result<Answer, ApiError>),
    /// Read records, and answer with them.
    Read(R, ReadRange, ReadState),
    /// Look up an offset by time among the records below this one, and answer.
    LookUp(R, OffsetAt, Offset),
    /// Send this to the leader.
    Fetch {
        /// The leader.
        leader: NodeId,
        /// What to ask.
        fetch: ReplicaFetch,
        /// Whether it may wait for news.
        may_wait: bool,
    },
    /// Send this to the controller.
    Propose(Proposal),
    /// Tell the controller that this replica is damaged, in this leader epoch. Said again until it is no member any more, or whole.
    Damaged(LeaderEpoch),
    /// Tell the controller, and people: this replica takes no more.
    Offline(ApiError),
}

#[derive(Debug)]
enum Role<R> {
    Leader(Box<LeaderEngine<R>>),
    Follower(Box<FollowerEngine<R>>),
}

/// See the module page. `R` is how to answer, `X` goes with an append and is dropped when it was written.
#[derive(Debug)]
pub struct Replica<R, X> {
    node: NodeId,
    role: Option<Role<R>>,
    /// What to become, once the log is at rest.
    next: Option<Assignment>,
    config: TopicConfig,
    settings: ReplicaSettings,
    /// The metadata has no part for it any more: it serves nobody.
    is_retired: bool,
    lease_until: MonoTime,
    newest_fetch: u64,
    part: Part,
    /// Why appends are refused, whatever the role, if they are: there is no space, or the node stops.
    refusing: Option<ApiError>,
    effects: Vec<Effect<R, X>>,
    /// Emptied and kept, so that a steady stream of events allocates nothing.
    leader_out: leader::Output<R>,
}

type Effects<R, X> = Vec<Effect<R, X>>;

impl<R, X> Replica<R, X> {
    /// A replica whose log is as `state` says. It does nothing before [`Replica::assign`].
    #[must_use]
    pub fn new(node: NodeId, state: ReplicaState, config: TopicConfig, settings: ReplicaSettings) -> Self {
        let follower = FollowerEngine::new(node, Following::nobody(), state, 0, settings.follower);
        Self {
            node,
            role: Some(Role::Follower(Box::new(follower))),
            next: None,
            config,
            settings,
            is_retired: false,
            lease_until: MonoTime::default(),
            newest_fetch: 0,
            part: Part::default(),
            refusing: None,
            effects: Vec::new(),
            leader_out: leader::Output::default(),
        }
    }

    /// What the events so far have led to, in order.
    pub fn take_effects(&mut self) -> Effects<R, X> {
        std::mem::take(&mut self.effects)
    }

    /// The same, for whoever keeps an empty vector to exchange for them.
    pub fn swap_effects(&mut self, empty: &mut Effects<R, X>) {
        std::mem::swap(&mut self.effects, empty);
    }

    /// How the topic is set.
    #[must_use]
    pub fn config(&self) -> &TopicConfig {
        &self.config
    }

    /// Why this replica takes no more appends, if it does not.
    #[must_use]
    pub fn failure(&self) -> Option<&ApiError> {
        match self.role.as_ref()? {
            Role::Leader(engine) => engine.failure(),
            Role::Follower(engine) => engine.failure(),
        }
    }

    /// The leader's engine, while this replica leads.
    #[must_use]
    pub fn leader(&self) -> Option<&LeaderEngine<R>> {
        match self.role.as_ref()? {
            Role::Leader(engine) if self.next.is_none() => Some(engine),
            _ => None,
        }
    }

    /// The follower's engine, while this replica follows.
    #[must_use]
    pub fn follower(&self) -> Option<&FollowerEngine<R>> {
        match self.role.as_ref()? {
            Role::Follower(engine) => Some(engine),
            Role::Leader(_) => None,
        }
    }

    /// Where the replica stands.
    #[must_use]
    pub fn cursors(&self) -> Option<&crate::engine::cursors::Cursors> {
        match self.role.as_ref()? {
            Role::Leader(engine) => Some(engine.cursors()),
            Role::Follower(engine) => Some(engine.cursors()),
        }
    }

    /// Its role and where it stands, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.role {
            Some(Role::Leader(engine)) => format!("leads in epoch {}, {:?}", engine.epoch(), engine.cursors()),
            Some(Role::Follower(engine)) => format!("follows, {engine}"),
            None => "has no role".to_owned(),
        }
    }

    /// The producers at the log's end, for a snapshot.
    #[must_use]
    pub fn producers_snapshot(&self) -> Vec<u8> {
        match &self.role {
            Some(Role::Leader(engine)) => engine.producers().to_snapshot(),
            Some(Role::Follower(engine)) => engine.producers().to_snapshot(),
            None => Vec::new(),
        }
    }

    /// The metadata says what this replica is to be, and how its topic is set. Both from one state of the metadata.
    pub fn assign(&mut self, now: MonoTime, assignment: Assignment, config: TopicConfig) {
        self.is_retired = assignment == Assignment::None && !Mutant::ServesWithoutAPart.is_on();
        self.part.follow(&assignment);
        self.take_part(now, assignment, config);
        self.report_damage(now);
    }

    fn take_part(&mut self, now: MonoTime, assignment: Assignment, config: TopicConfig) {
        let config_changed = self.take_config(config);
        if self.next.is_some() {
            self.next = Some(assignment);
            self.change_if_settled(now);
            return;
        }
        match (&mut self.role, assignment) {
            (Some(Role::Leader(engine)), Assignment::Lead(leadership)) if engine.epoch() == leadership.epoch => {
                let mut out = leader::Output::default();
                if config_changed {
                    engine.on_config(now, self.config.clone(), &mut out);
                }
                engine.on_leadership(now, leadership, &mut out);
                self.run_leader(out, None);
            }
            (Some(Role::Follower(engine)), Assignment::Follow(following)) => {
                let mut out = follower::Output::default();
                engine.on_metadata(now, following, &mut out);
                self.run_follower(out, Vec::new());
            }
            (_, assignment) => {
                self.dismiss(&not_here());
                self.next = Some(assignment);
                self.change_if_settled(now);
            }
        }
    }

    fn take_config(&mut self, config: TopicConfig) -> bool {
        let is_another = config != self.config;
        if is_another {
            self.effects.push(Effect::Write(LogWork::Reconfigure(LogConfig::from(&config), config.flush)));
            self.config = config;
        }
        is_another
    }

    /// It goes away: everybody who waits is told `cause`.
    pub fn on_stop(&mut self, cause: &ApiError) {
        self.dismiss(cause);
    }

    /// Whoever waits is told that this replica leads, or follows, no more.
    fn dismiss(&mut self, cause: &ApiError) {
        match &mut self.role {
            Some(Role::Leader(engine)) => {
                let mut out = leader::Output::default();
                engine.on_stop(cause, &mut out);
                self.run_leader(out, None);
            }
            Some(Role::Follower(engine)) => {
                let mut out = follower::Output::default();
                engine.on_stop(cause, &mut out);
                self.run_follower(out, Vec::new());
            }
            None => {}
        }
    }

    fn is_settled(&self) -> bool {
        match &self.role {
            Some(Role::Leader(engine)) => engine.is_settled(),
            Some(Role::Follower(engine)) => engine.is_settled(),
            None => true,
        }
    }

    fn change_if_settled(&mut self, now: MonoTime) {
        if self.next.is_none() || !self.is_settled() {
            return;
        }
        let (Some(next), Some(role)) = (self.next.take(), self.role.take()) else { return };
        let (state, failure) = match role {
            Role::Leader(engine) => (*engine).into_state(),
            Role::Follower(engine) => {
                self.newest_fetch = engine.newest_fetch();
                (*engine).into_state()
            }
        };
        match next {
            Assignment::Lead(leadership) if failure.is_none() => {
                let (config, settings) = (self.config.clone(), self.settings.leader);
                let mut engine = LeaderEngine::new(now, self.node, leadership, config, state, settings);
                let mut out = leader::Output::default();
                engine.on_disk_space(self.refusing.clone());
                engine.on_lease(now, self.lease_until, &mut out);
                self.role = Some(Role::Leader(Box::new(engine)));
                self.run_leader(out, None);
            }
            assignment => {
                let following = match assignment {
                    Assignment::Follow(following) => Some(following),
                    _ => None,
                };
                let (first, settings) = (self.newest_fetch, self.settings.follower);
                let mut engine =
                    FollowerEngine::new(self.node, following.unwrap_or_else(Following::nobody), state, first, settings);
                let mut out = follower::Output::default();
                if let Some(cause) = failure {
                    engine.on_failed(cause);
                }
                if let Some(following) = following {
                    engine.on_metadata(now, following, &mut out);
                }
                self.role = Some(Role::Follower(Box::new(engine)));
                self.run_follower(out, Vec::new());
            }
        }
    }
}

fn not_here() -> ApiError {
    ApiError::new(ErrorCode::NotLeader, "this broker does not lead the partition: refresh the metadata and try again")
}
