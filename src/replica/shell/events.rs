//! What happens to a replica, passed to the engine of its role.

use super::{Effect, Replica, Role, not_here};
use crate::engine::follower::{self, ReplicaFetched};
use crate::engine::leader::{
    self, DeleteRecordsEvent, FetchEvent, LeaderEngine, ListOffsetsEvent, ProduceEvent, ReplicaFetchEvent,
};
use crate::engine::waiters::OwnerId;
use crate::protocol::ApiError;
use crate::replica::{ProducerReplay, storage_error};
use crate::storage::LogError;
use crate::storage::queue::LogNews;
use crate::types::record_batch::RecordBatch;
use crate::types::{MonoTime, NodeId};

impl<R, X> Replica<R, X> {
    /// Lets the leader's engine do something; whoever is no leader says so to `refuse`.
    pub(super) fn with_leader(
        &mut self,
        batch: Option<(RecordBatch, X)>,
        event: impl FnOnce(&mut LeaderEngine<R>, &mut leader::Output<R>),
    ) -> bool {
        let Some(Role::Leader(engine)) = self.role.as_mut().filter(|_| self.next.is_none()) else { return false };
        let mut out = std::mem::take(&mut self.leader_out);
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

    /// A connection is gone: nothing of it needs an answer any more.
    pub fn on_owner_gone(&mut self, owner: OwnerId) {
        match &mut self.role {
            Some(Role::Leader(engine)) => engine.on_owner_gone(owner),
            Some(Role::Follower(engine)) => engine.on_owner_gone(owner),
            None => {}
        }
    }

    /// Takes back parked fetches of `owner` that `matches`.
    pub fn on_cancel_fetch(&mut self, owner: OwnerId, matches: impl FnMut(&R) -> bool) {
        match &mut self.role {
            Some(Role::Leader(engine)) => engine.on_cancel_fetch(owner, matches),
            Some(Role::Follower(engine)) => engine.on_cancel_fetch(owner, matches),
            None => {}
        }
    }

    /// Appends are refused (`Some`, with what to say) for want of space or because the node stops, or no longer.
    pub fn on_disk_space(&mut self, refusing: Option<ApiError>) {
        self.refusing.clone_from(&refusing);
        self.with_leader(None, |engine, _| engine.on_disk_space(refusing));
    }

    /// The broker's lease was renewed.
    pub fn on_lease(&mut self, now: MonoTime, until: MonoTime) {
        self.lease_until = self.lease_until.max(until);
        self.with_leader(None, |engine, out| engine.on_lease(now, until, out));
    }

    /// The broker gives its lease up, since it stops.
    pub fn on_lease_given_up(&mut self) {
        self.lease_until = MonoTime::default();
        self.with_leader(None, |engine, _| engine.on_lease_given_up());
    }

    /// The controller has refused what was proposed.
    pub fn on_proposal_refused(&mut self, now: MonoTime) {
        self.with_leader(None, |engine, _| engine.on_proposal_refused(now));
    }

    /// The leadership is to be handed over.
    ///
    /// # Errors
    /// `not-leader`, or as [`LeaderEngine::on_hand_over`].
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
        self.report_damage(now);
    }

    /// When [`Replica::on_tick`] is next needed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        let engine = match self.role.as_ref().filter(|_| self.next.is_none()) {
            Some(Role::Leader(engine)) => engine.next_deadline(),
            Some(Role::Follower(engine)) => engine.next_deadline(),
            None => None,
        };
        engine.into_iter().chain(self.next_report()).min()
    }

    /// The log's queue has news.
    pub fn on_log_news(&mut self, now: MonoTime, news: LogNews<ProducerReplay>) {
        if let LogNews::Damage(known) = &news {
            self.on_damage(now, known);
        }
        match &mut self.role {
            Some(Role::Leader(engine)) => {
                let mut out = std::mem::take(&mut self.leader_out);
                match news {
                    LogNews::Written(end) => engine.on_written(now, end, &mut out),
                    LogNews::Synced(end) => engine.on_synced(now, end, &mut out),
                    LogNews::Rolled => engine.on_rolled(&mut out),
                    LogNews::LogStart(start) => engine.on_log_start(start, &mut out),
                    LogNews::NotDeleted(before, error) => {
                        engine.on_delete_failed(before, &storage_error(&error), &mut out);
                    }
                    LogNews::Failed(error) => {
                        let cause = storage_error(&error);
                        engine.on_failed(cause.clone(), &mut out);
                        self.effects.push(Effect::Offline(cause));
                    }
                    LogNews::Damage(_)
                    | LogNews::Repaired
                    | LogNews::NotRepaired(_)
                    | LogNews::Scrubbed(..)
                    | LogNews::NotScrubbed(..)
                    | LogNews::Truncated { .. }
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
            LogNews::Repaired => engine.on_repaired(now, true, &mut out),
            LogNews::NotRepaired(_) => engine.on_repaired(now, false, &mut out),
            LogNews::Scrubbed(from, next) => engine.on_scrubbed(now, from, next, &mut out),
            LogNews::NotScrubbed(..) => engine.on_not_scrubbed(),
            LogNews::NotTruncated(LogError::Damaged { .. }) => engine.on_not_truncated(now),
            LogNews::NotTruncated(error) | LogNews::NotReplicated(error) | LogNews::Failed(error) => {
                let cause = storage_error(&error);
                engine.on_failed(cause.clone());
                self.effects.push(Effect::Offline(cause));
            }
            LogNews::Damage(_)
            | LogNews::NotDeleted(..)
            | LogNews::PutOff(_)
            | LogNews::Trouble(..)
            | LogNews::Closed(_) => {}
        }
        self.run_follower(out, Vec::new());
    }
}
