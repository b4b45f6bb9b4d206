//! A replica in its role, and how it changes from one into another.
//!
//! ```text
//!                     assign(Lead)                             events ──► engine ──► Effect
//!   Follower ──────────────────────────────► Leader
//!      ▲    ◄──────────────────────────────    │      between the two: everybody is told, and what was
//!      └── assign(Lead, a higher epoch) ◄──────┘      commanded to the log comes to an end first
//! ```

use crate::engine::assignment::Assignment;
use crate::engine::follower::{self, FollowerEngine, FollowerSettings, ReplicaFetched};
use crate::engine::leader::{
    self, DeleteRecordsEvent, FetchEvent, LeaderEngine, LeaderSettings, ListOffsetsEvent, ProduceEvent, Proposal,
    ReadRange, ReplicaFetchEvent,
};
use crate::engine::replication::{LeaderState, ReplicaFetch, ReplicaState, ReplicaVerdict};
use crate::protocol::messages::{FetchedPartition, ListedOffset, OffsetAt, ProducedBatch};
use crate::protocol::{ApiError, ErrorCode};
use crate::storage::TruncateLeave;
use crate::storage::queue::{LogNews, LogWork};
use crate::types::record_batch::RecordBatch;
use crate::types::{LeaderEpoch, MonoTime, NodeId, Offset, TopicConfig};

use super::ProducerReplay;

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
    /// Tell the controller, and people: this replica takes no more.
    Offline(ApiError),
}

#[derive(Debug)]
enum Role<R> {
    Leader(LeaderEngine<R>),
    Follower(FollowerEngine<R>),
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
    effects: Vec<Effect<R, X>>,
}

type Effects<R, X> = Vec<Effect<R, X>>;

impl<R, X> Replica<R, X> {
    /// A replica whose log is as `state` says. It does nothing before [`Replica::assign`].
    #[must_use]
    pub fn new(node: NodeId, state: ReplicaState, config: TopicConfig, settings: ReplicaSettings) -> Self {
        let nobody = follower::Following {
            leader: None,
            leader_epoch: LeaderEpoch::default(),
            broker_epoch: Default::default(),
            unclean_epoch: None,
        };
        let follower = FollowerEngine::new(node, nobody, state, 0, settings.follower);
        Self {
            node,
            role: Some(Role::Follower(follower)),
            next: None,
            config,
            settings,
            is_retired: false,
            lease_until: MonoTime::default(),
            newest_fetch: 0,
            effects: Vec::new(),
        }
    }

    /// What the events so far have led to, in order.
    pub fn take_effects(&mut self) -> Effects<R, X> {
        std::mem::take(&mut self.effects)
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
        self.is_retired = assignment == Assignment::None;
        let config_changed = config != self.config;
        self.config = config;
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
                self.dismiss();
                self.next = Some(assignment);
                self.change_if_settled(now);
            }
        }
    }

    /// Whoever waits is told that this replica leads, or follows, no more.
    fn dismiss(&mut self) {
        let cause = not_here();
        match &mut self.role {
            Some(Role::Leader(engine)) => {
                let mut out = leader::Output::default();
                engine.on_stop(&cause, &mut out);
                self.run_leader(out, None);
            }
            Some(Role::Follower(engine)) => {
                let mut out = follower::Output::default();
                engine.on_stop(&cause, &mut out);
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
            Role::Leader(engine) => engine.into_state(),
            Role::Follower(engine) => {
                self.newest_fetch = engine.newest_fetch();
                engine.into_state()
            }
        };
        match next {
            Assignment::Lead(leadership) if failure.is_none() => {
                let (config, settings) = (self.config.clone(), self.settings.leader);
                let mut engine = LeaderEngine::new(now, self.node, leadership, config, state, settings);
                let mut out = leader::Output::default();
                engine.on_lease(now, self.lease_until, &mut out);
                self.role = Some(Role::Leader(engine));
                self.run_leader(out, None);
            }
            assignment => {
                let following = match assignment {
                    Assignment::Follow(following) => Some(following),
                    _ => None,
                };
                let nobody = follower::Following {
                    leader: None,
                    leader_epoch: LeaderEpoch::default(),
                    broker_epoch: Default::default(),
                    unclean_epoch: None,
                };
                let (first, settings) = (self.newest_fetch, self.settings.follower);
                let mut engine = FollowerEngine::new(self.node, following.unwrap_or(nobody), state, first, settings);
                let mut out = follower::Output::default();
                if let Some(cause) = failure {
                    engine.on_failed(cause);
                }
                if let Some(following) = following {
                    engine.on_metadata(now, following, &mut out);
                }
                self.role = Some(Role::Follower(engine));
                self.run_follower(out, Vec::new());
            }
        }
    }

    fn run_leader(&mut self, out: leader::Output<R>, batch: Option<(RecordBatch, X)>) {
        let mut batch = batch;
        for command in out.0 {
            let effect = match command {
                leader::Command::Append { base_offset, leader_epoch, append_time } => {
                    let (batch, token) = batch.take().expect("the engine appends only the batch of the event at hand");
                    Effect::Write(LogWork::Append(batch.stamped(base_offset, leader_epoch, append_time), token))
                }
                leader::Command::Produced { reply, result } => Effect::Answer(reply, result.map(Answer::Produced)),
                leader::Command::Fetched { reply, result } => Effect::Answer(reply, result.map(Answer::Fetched)),
                leader::Command::Read { reply, range, state } => Effect::Read(reply, range, ReadState::Consumer(state)),
                leader::Command::ReadForFollower { reply, range, state } => {
                    Effect::Read(reply, range, ReadState::Follower(state))
                }
                leader::Command::ReplicaFetched { reply, result } => {
                    Effect::Answer(reply, result.map(|(verdict, state)| Answer::ReplicaFetched(verdict, state)))
                }
                leader::Command::Listed { reply, result } => Effect::Answer(reply, result.map(Answer::Listed)),
                leader::Command::LookUp { reply, at, upper_exclusive } => Effect::LookUp(reply, at, upper_exclusive),
                leader::Command::Propose(proposal) => Effect::Propose(proposal),
                leader::Command::DeleteRecords { before } => Effect::Write(LogWork::DeleteRecords(before)),
                leader::Command::RecordsDeleted { reply, result } => {
                    Effect::Answer(reply, result.map(Answer::RecordsDeleted))
                }
                leader::Command::SnapshotProducers { at, payload } => Effect::Write(LogWork::Snapshot(at, payload)),
            };
            self.effects.push(effect);
        }
    }

    fn run_follower(&mut self, out: follower::Output<R>, batches: Vec<(RecordBatch, X)>) {
        let mut batches = batches;
        for command in out.0 {
            let leave = |unclean_epoch: Option<LeaderEpoch>| match unclean_epoch {
                None => TruncateLeave::Uncommitted,
                Some(leader_epoch) => TruncateLeave::UncleanElection { leader_epoch },
            };
            let effect = match command {
                follower::Command::Fetch { leader, fetch, may_wait } => Effect::Fetch { leader, fetch, may_wait },
                follower::Command::Append { .. } => {
                    for (batch, token) in batches.drain(..) {
                        self.effects.push(Effect::Write(LogWork::AppendReplicated(vec![batch], token)));
                    }
                    continue;
                }
                follower::Command::Truncate { to, unclean_epoch } => {
                    let (leave, replay) = (leave(unclean_epoch), ProducerReplay::default());
                    Effect::Write(LogWork::Truncate { to, leave, replay })
                }
                follower::Command::StartAt { offset, unclean_epoch, producers } => {
                    let (leave, replay) = (leave(unclean_epoch), ProducerReplay::default());
                    Effect::Write(LogWork::StartAt { offset, leave, producers, replay })
                }
                follower::Command::AdvanceLogStart { to } => Effect::Write(LogWork::DeleteRecords(to)),
                follower::Command::GoOffline { cause } => Effect::Offline(cause),
                follower::Command::Read { reply, range, state } => {
                    Effect::Read(reply, range, ReadState::Consumer(state))
                }
                follower::Command::Fetched { reply, result } => Effect::Answer(reply, result.map(Answer::Fetched)),
                follower::Command::Listed { reply, result } => Effect::Answer(reply, result.map(Answer::Listed)),
                follower::Command::SnapshotProducers { at, payload } => Effect::Write(LogWork::Snapshot(at, payload)),
            };
            self.effects.push(effect);
        }
    }

    /// Lets the leader's engine do something; whoever is no leader says so to `refuse`.
    fn with_leader(
        &mut self,
        batch: Option<(RecordBatch, X)>,
        event: impl FnOnce(&mut LeaderEngine<R>, &mut leader::Output<R>),
    ) -> bool {
        let Some(Role::Leader(engine)) = self.role.as_mut().filter(|_| self.next.is_none()) else { return false };
        let mut out = leader::Output::default();
        event(engine, &mut out);
        self.run_leader(out, batch);
        true
    }

    fn leads(&self) -> bool {
        matches!(self.role, Some(Role::Leader(_))) && self.next.is_none()
    }

    /// A batch wants to be appended.
    pub fn on_produce(&mut self, now: MonoTime, batch: RecordBatch, token: X, event: ProduceEvent<R>) {
        if self.leads() {
            self.with_leader(Some((batch, token)), |engine, out| engine.on_produce(now, event, out));
        } else {
            self.effects.push(Effect::Answer(event.reply, Err(not_here())));
        }
    }

    /// A consumer wants to read.
    pub fn on_fetch(&mut self, now: MonoTime, event: FetchEvent<R>) {
        match &mut self.role {
            Some(Role::Leader(_)) if self.next.is_none() => {
                self.with_leader(None, |engine, out| engine.on_fetch(now, event, out));
            }
            Some(Role::Follower(engine)) if self.next.is_none() && !self.is_retired => {
                let mut out = follower::Output::default();
                engine.on_fetch(now, event, &mut out);
                self.run_follower(out, Vec::new());
            }
            _ => self.effects.push(Effect::Answer(event.reply, Err(not_here()))),
        }
    }

    /// Somebody asks for an offset.
    pub fn on_list_offsets(&mut self, now: MonoTime, event: ListOffsetsEvent<R>) {
        if self.leads() {
            self.with_leader(None, |engine, out| engine.on_list_offsets(now, event, out));
        } else {
            self.effects.push(Effect::Answer(event.reply, Err(not_here())));
        }
    }

    /// Somebody wants the first records gone.
    pub fn on_delete_records(&mut self, event: DeleteRecordsEvent<R>) {
        if self.leads() {
            self.with_leader(None, |engine, out| engine.on_delete_records(event, out));
        } else {
            self.effects.push(Effect::Answer(event.reply, Err(not_here())));
        }
    }

    /// A follower wants what comes next.
    pub fn on_replica_fetch(&mut self, now: MonoTime, event: ReplicaFetchEvent<R>) {
        if self.leads() {
            self.with_leader(None, |engine, out| engine.on_replica_fetch(now, event, out));
        } else {
            self.effects.push(Effect::Answer(event.reply, Err(not_here())));
        }
    }

    /// The leader answers; `batches` came with it, checksums verified.
    pub fn on_fetched(&mut self, now: MonoTime, event: ReplicaFetched, batches: Vec<(RecordBatch, X)>) {
        if let Some(Role::Follower(engine)) = self.role.as_mut().filter(|_| self.next.is_none()) {
            let mut out = follower::Output::default();
            engine.on_fetched(now, event, &mut out);
            self.run_follower(out, batches);
        }
    }

    /// The broker's lease was renewed.
    pub fn on_lease(&mut self, now: MonoTime, until: MonoTime) {
        self.lease_until = self.lease_until.max(until);
        self.with_leader(None, |engine, out| engine.on_lease(now, until, out));
    }

    /// The controller has refused what was proposed.
    pub fn on_proposal_refused(&mut self, now: MonoTime) {
        self.with_leader(None, |engine, _| engine.on_proposal_refused(now));
    }

    /// The leadership is to be handed over.
    ///
    /// # Errors
    /// [`ErrorCode::NotLeader`], or as [`LeaderEngine::on_hand_over`].
    pub fn on_hand_over(&mut self, now: MonoTime, target: NodeId, deadline: MonoTime) -> Result<(), ApiError> {
        let mut result = Err(not_here());
        self.with_leader(None, |engine, out| result = engine.on_hand_over(now, target, deadline, out));
        result
    }

    /// Time passed.
    pub fn on_tick(&mut self, now: MonoTime) {
        match &mut self.role {
            Some(Role::Leader(engine)) if self.next.is_none() => {
                let mut out = leader::Output::default();
                engine.on_tick(now, &mut out);
                self.run_leader(out, None);
            }
            Some(Role::Follower(engine)) if self.next.is_none() => {
                let mut out = follower::Output::default();
                engine.on_tick(now, &mut out);
                self.run_follower(out, Vec::new());
            }
            _ => {}
        }
    }

    /// When [`Replica::on_tick`] is next needed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        match self.role.as_ref().filter(|_| self.next.is_none())? {
            Role::Leader(engine) => engine.next_deadline(),
            Role::Follower(engine) => engine.next_deadline(),
        }
    }

    /// The log's queue has news.
    pub fn on_log_news(&mut self, now: MonoTime, news: LogNews<ProducerReplay>) {
        match &mut self.role {
            Some(Role::Leader(engine)) => {
                let mut out = leader::Output::default();
                match news {
                    LogNews::Written(end) => engine.on_written(now, end, &mut out),
                    LogNews::Synced(end) => engine.on_synced(now, end, &mut out),
                    LogNews::Rolled => engine.on_rolled(&mut out),
                    LogNews::LogStart(start) => engine.on_log_start(start, &mut out),
                    LogNews::NotDeleted(before, error) => {
                        engine.on_delete_failed(before, &storage_failed(&error.to_string()), &mut out);
                    }
                    LogNews::Failed(error) => {
                        let cause = storage_failed(&error.to_string());
                        engine.on_failed(cause.clone(), &mut out);
                        self.effects.push(Effect::Offline(cause));
                    }
                    LogNews::Truncated { .. }
                    | LogNews::NotTruncated(_)
                    | LogNews::NotReplicated(_)
                    | LogNews::PutOff(_)
                    | LogNews::Trouble(..)
                    | LogNews::Closed(_) => {}
                }
                self.run_leader(out, None);
            }
            Some(Role::Follower(_)) => self.on_follower_news(now, news),
            None => {}
        }
        self.change_if_settled(now);
    }

    fn on_follower_news(&mut self, now: MonoTime, news: LogNews<ProducerReplay>) {
        let Some(Role::Follower(engine)) = &mut self.role else { return };
        let mut out = follower::Output::default();
        match news {
            LogNews::Written(end) => engine.on_written(now, end, &mut out),
            LogNews::Synced(end) => engine.on_synced(now, end, &mut out),
            LogNews::Rolled => engine.on_rolled(&mut out),
            LogNews::LogStart(start) => engine.on_log_start(start, &mut out),
            LogNews::Truncated { log_start, end, replay } => {
                engine.on_truncated(now, follower::Truncated { log_start, end, producers: replay.0 }, &mut out);
            }
            LogNews::NotTruncated(error) | LogNews::NotReplicated(error) | LogNews::Failed(error) => {
                let cause = storage_failed(&error.to_string());
                engine.on_failed(cause.clone());
                self.effects.push(Effect::Offline(cause));
            }
            LogNews::NotDeleted(..) | LogNews::PutOff(_) | LogNews::Trouble(..) | LogNews::Closed(_) => {}
        }
        self.run_follower(out, Vec::new());
    }
}

fn not_here() -> ApiError {
    ApiError::new(ErrorCode::NotLeader, "this broker does not lead the partition: refresh the metadata and try again")
}

fn storage_failed(cause: &str) -> ApiError {
    ApiError::new(ErrorCode::StorageFailed, format!("{cause}; the other replicas go on"))
}
