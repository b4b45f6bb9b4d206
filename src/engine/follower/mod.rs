//! A follower of one partition: what it asks its leader for, what it cuts from its log, and what may be read from it.
//!
//! ```text
//!                         ┌────────────────── Fetch ◄─────────────┐
//!   on_metadata ──► follows a leader ──► on_fetched ──► Append ──► on_written, on_synced   (each is an acknowledgement)
//!                         │                  ├──► Truncate, StartAt ──► on_truncated ──┐
//!                         │                  ├──► SnapshotProducers (of records that are damaged or gone)
//!                         │                  └──► Repair ──► on_repaired ─────────────┐ │   (what was damaged: repair.rs)
//!                         └◄─────────────────────────────────────────────────────────┴─┘
//!   on_fetch (consumers) ──► Read | parked until this replica's watermark comes, or the deadline
//! ```
//!
//! Safety in one paragraph: a fetch says where this log ends and which epoch its last record has, so the leader can tell whether
//! it is the beginning of its own; only then are its records appended here. What is not is cut, by epochs and never by
//! the watermark, and never below the watermark: a follower that would have to give up what is committed goes offline with all
//! it has, unless an unclean election is on record (or the cut lies within damage, and nobody counts on it: it gets the rest again).
//! A fetch is an acknowledgement of what is written and, apart, of what is synced.

mod events;
mod producers;
mod queries;
mod reads;
mod repair;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::protocol::{ApiError, ErrorCode};
use crate::types::record_batch::BatchHeader;
use crate::types::{EpochHistory, LeaderEpoch, MonoTime, Mutant, NodeId, Offset};

use super::cursors::Cursors;
use super::damage::Damage;
use super::producer_state::ProducerTable;
use super::replication::{FetchId, LeaderState, ReplicaFetch, ReplicaState, ReplicaVerdict};
use super::waiters::{OwnerId, WaiterQueue};
pub use events::{Command, Following, Output, ReplicaFetched, Truncated};
use reads::ParkedFetch;
use repair::Mending;

/// How a follower asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerSettings {
    /// Idempotent producers that have not written for this long, by the time in the log, are forgotten.
    pub producer_expiry_ms: i64,
    /// About how many bytes to ask for.
    pub fetch_bytes: usize,
    /// A fetch without an answer is sent again after this long: longer than the leader lets one wait.
    pub fetch_timeout: Duration,
    /// After a refusal the next fetch waits for this long.
    pub fetch_backoff: Duration,
}

impl Default for FollowerSettings {
    fn default() -> Self {
        Self {
            producer_expiry_ms: 86_400_000,
            // Kafka's replica.fetch.max.bytes and a few times its replica.fetch.wait.max.ms.
            fetch_bytes: 1 << 20,
            fetch_timeout: Duration::from_secs(2),
            fetch_backoff: Duration::from_millis(100),
        }
    }
}

/// What the follower is about to do with its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Fetching from the leader, if there is one.
    Fetching,
    /// The log is being cut or started anew: nothing is asked for until it is.
    Cutting,
    /// Damaged records are being replaced: nothing is asked for until they are.
    Repairing,
    /// It would have to give up what is committed.
    Offline,
}

/// The state of a follower. `R` is whatever the shell answers consumers with.
#[derive(Debug)]
pub struct FollowerEngine<R> {
    me: NodeId,
    following: Following,
    settings: FollowerSettings,
    phase: Phase,
    cursors: Cursors,
    epochs: EpochHistory,
    producers: ProducerTable,
    damage: Damage,
    mending: Mending,
    /// The leader, by its epoch, that has said what it knows of producers: it is asked once.
    asked_for_producers: Option<LeaderEpoch>,
    /// The newest fetch, and the oldest whose answer still counts: the log was not cut since.
    newest_fetch: u64,
    oldest_valid: u64,
    /// What the newest fetch said was synced.
    reported: Option<Offset>,
    /// When to fetch, if no answer comes before.
    fetch_at: Option<MonoTime>,
    /// What the leader said last, and to which fetch.
    leader: Option<(u64, LeaderState)>,
    parked: WaiterQueue<ParkedFetch<R>>,
    failed: Option<ApiError>,
}

impl<R> FollowerEngine<R> {
    /// The follower on `me`, over a log that is as `state` says. `first_fetch` lies above every number that this registration
    /// has used. It asks for nothing before [`FollowerEngine::on_metadata`].
    #[must_use]
    pub fn new(
        me: NodeId,
        following: Following,
        state: ReplicaState,
        first_fetch: u64,
        settings: FollowerSettings,
    ) -> Self {
        let ReplicaState { log_start, durable_end, written_end, high_watermark, epochs, producers, damage } = state;
        Self {
            me,
            following: Following { leader: None, ..following },
            settings,
            phase: Phase::Fetching,
            cursors: Cursors::resumed(log_start, high_watermark, durable_end, written_end),
            epochs,
            producers,
            damage,
            mending: Mending::default(),
            asked_for_producers: None,
            newest_fetch: first_fetch,
            oldest_valid: first_fetch + 1,
            reported: None,
            fetch_at: None,
            leader: None,
            parked: WaiterQueue::default(),
            failed: None,
        }
    }

    /// The metadata names a leader, another one, or none.
    pub fn on_metadata(&mut self, now: MonoTime, following: Following, out: &mut Output<R>) {
        if following == self.following {
            return;
        }
        let is_same_leader = (following.leader, following.leader_epoch, following.broker_epoch)
            == (self.following.leader, self.following.leader_epoch, self.following.broker_epoch);
        self.following = following;
        if !is_same_leader {
            // Answers of the leader before say nothing about the log of this one.
            self.oldest_valid = self.newest_fetch + 1;
            self.leader = None;
            self.fetch(now, true, out);
        }
    }

    /// Asks the leader for what comes next, and tells it what there is.
    fn fetch(&mut self, now: MonoTime, may_wait: bool, out: &mut Output<R>) {
        self.fetch_at = None;
        self.look_through(out);
        // Appends on their way to the log would be asked for again.
        let is_settled = self.cursors.next_offset() == self.cursors.written_end();
        let Some(leader) = self.following.leader.filter(|_| self.phase == Phase::Fetching && self.failed.is_none())
        else {
            return;
        };
        if !is_settled {
            return;
        }
        self.newest_fetch += 1;
        self.fetch_at = Some(now.plus(self.settings.fetch_timeout));
        let (position, synced) = (self.cursors.written_end(), self.cursors.durable_end());
        let durable_end = if Mutant::ReportsWhatIsNotSynced.is_on() { position } else { synced };
        self.reported = Some(durable_end);
        let repair = self.next_repair();
        let fetch = ReplicaFetch {
            replica: self.me,
            broker_epoch: self.following.broker_epoch,
            leader_epoch: self.following.leader_epoch,
            number: self.newest_fetch,
            position,
            last_epoch: self.epochs.epoch_before(position).filter(|_| position > self.cursors.log_start()),
            lacks_producers: self.lacks_producers(),
            durable_end,
            high_watermark: self.cursors.high_watermark(),
            max_bytes: self.settings.fetch_bytes,
            is_damaged: !self.damage.is_whole(),
            repair,
        };
        // What is damaged is asked for again at once.
        let may_wait = may_wait && self.damage.first().is_none();
        out.0.push(Command::Fetch { leader, fetch, may_wait });
    }

    /// The leader answers.
    pub fn on_fetched(&mut self, now: MonoTime, event: ReplicaFetched, out: &mut Output<R>) {
        let ReplicaFetched { id: FetchId { broker_epoch, number }, result, headers } = event;
        let is_mine = broker_epoch == self.following.broker_epoch || Mutant::TakesAnswersToEarlierProcesses.is_on();
        let is_valid = is_mine && (self.oldest_valid..=self.newest_fetch).contains(&number);
        if !is_valid || self.phase != Phase::Fetching || self.failed.is_some() {
            return;
        }
        let (verdict, leader) = match result {
            Ok((_, leader)) if leader.leader_epoch != self.following.leader_epoch => return,
            Ok(answer) => answer,
            Err(_) => {
                if number == self.newest_fetch {
                    self.on_refused_repair();
                    self.fetch_at = Some(now.plus(self.settings.fetch_backoff));
                }
                return;
            }
        };
        match verdict {
            ReplicaVerdict::Continues => {
                self.go_on(number, leader, &headers, out);
                // With records, their being written leads to the next fetch. An overtaken fetch has a successor under way.
                if number == self.newest_fetch && self.cursors.next_offset() == self.cursors.written_end() {
                    self.fetch(now, true, out);
                }
            }
            // What an overtaken fetch said may not be so any more.
            _ if number != self.newest_fetch => {}
            ReplicaVerdict::Repairs => {
                self.go_on(number, leader, &[], out);
                self.repair(now, &headers, out);
            }
            ReplicaVerdict::Producers { at, producers } => {
                self.take_producers(at, &producers, out);
                self.go_on(number, leader, &[], out);
                self.fetch(now, true, out);
            }
            ReplicaVerdict::Diverged(theirs) => {
                let (start, end) = (self.cursors.log_start(), self.cursors.next_offset());
                let agreed = self.epochs.agreement(start, end, theirs);
                let to = if Mutant::TruncatesToTheWatermark.is_on() { self.cursors.high_watermark() } else { agreed };
                // Whoever counts on this replica would count on what goes beside the damage.
                let back_to_damage = !self.following.is_member || Mutant::CutsBackToDamage.is_on();
                self.cut(to, |unclean_epoch| Command::Truncate { to, unclean_epoch, back_to_damage }, out);
            }
            ReplicaVerdict::StartsAt { offset, producers } => {
                self.cut(offset, |unclean_epoch| Command::StartAt { offset, unclean_epoch, producers }, out);
            }
        }
    }

    /// This log is the beginning of the leader's, up to where the fetch began.
    fn go_on(&mut self, number: u64, leader: LeaderState, headers: &[BatchHeader], out: &mut Output<R>) {
        self.leader = Some((number, leader));
        let next = self.cursors.next_offset();
        let end = headers.last().map_or(next, |last| last.end_offset_exclusive());
        // Records are deleted up to any offset, and the leader's log starts with the whole batch that holds it.
        let began_before = |first: &BatchHeader| {
            self.cursors.log_start() == next && first.base_offset < next && next < first.end_offset_exclusive()
        };
        if let Some(first) = headers.first().filter(|first| first.base_offset == next || began_before(first)) {
            for header in headers {
                self.epochs.note(header.leader_epoch, header.base_offset);
                self.producers.record(header);
            }
            self.cursors.assign(end.distance_from(next));
            out.0.push(Command::Append { base_offset: first.base_offset });
        }
        self.follow_watermark(out);
        self.refuse_beyond(out);
        if leader.log_start > self.cursors.log_start() {
            let to = leader.log_start.min(self.cursors.written_end());
            // What the records to go say of producers must be written down before they go.
            let payload = self.producers.as_of(to).to_snapshot();
            out.0.push(Command::SnapshotProducers { at: to, payload });
            out.0.push(Command::AdvanceLogStart { to });
        }
    }

    /// What the leader says is committed is so here, as far as this log goes: it was the beginning of the leader's.
    fn follow_watermark(&mut self, out: &mut Output<R>) {
        let Some((_, leader)) = self.leader else { return };
        if self.cursors.commit(leader.high_watermark.min(self.cursors.written_end())) {
            self.answer_parked(out);
        }
    }

    /// Cuts the log to `to`, unless that would give up what is committed.
    fn cut(&mut self, to: Offset, command: impl FnOnce(Option<LeaderEpoch>) -> Command<R>, out: &mut Output<R>) {
        let latest = self.epochs.latest();
        let unclean_epoch =
            self.following.unclean_epoch.filter(|unclean| latest.is_none_or(|latest| *unclean > latest));
        let may_lose = unclean_epoch.is_some() || Mutant::CutsBelowTheWatermark.is_on();
        if to < self.cursors.high_watermark() && !may_lose {
            let cause = self.would_lose(to);
            self.phase = Phase::Offline;
            self.failed = Some(cause.clone());
            self.refuse_readers(&cause, out);
            out.0.push(Command::GoOffline { cause });
            return;
        }
        self.phase = Phase::Cutting;
        self.oldest_valid = self.newest_fetch + 1;
        self.fetch_at = None;
        out.0.push(command(unclean_epoch));
    }

    fn would_lose(&self, to: Offset) -> ApiError {
        let (watermark, epoch) = (self.cursors.high_watermark(), self.following.leader_epoch);
        ApiError::new(
            ErrorCode::StorageFailed,
            format!(
                "the leader of epoch {epoch} has other records from offset {to} on, and what is committed here goes to {watermark}: \
                 this replica keeps its records and stays offline; bring back the replica that has them, or delete this one's directory"
            ),
        )
    }

    /// The log was cut, or started anew.
    pub fn on_truncated(&mut self, now: MonoTime, event: Truncated, out: &mut Output<R>) {
        let Truncated { log_start, end, producers } = event;
        let watermark = self.cursors.high_watermark().min(end);
        self.cursors = Cursors::resumed(log_start, watermark, end, end);
        // The newest epoch of a log that was emptied need not be that of the last record before its start.
        let kept = if log_start == end { Offset::ZERO } else { end };
        self.epochs.truncate_to(if Mutant::KeepsTheEpochsOfACut.is_on() { Offset::MAX } else { kept });
        self.epochs.advance_start(log_start);
        self.producers = if Mutant::KeepsProducersOfACut.is_on() { self.producers.clone() } else { producers };
        self.damage.clip(log_start, end);
        self.asked_for_producers = None;
        if self.phase == Phase::Cutting {
            self.phase = Phase::Fetching;
            self.fetch(now, true, out);
        }
    }

    /// It was not, because the cut lies within damage: that is tried again by and by, when nobody may count on this replica any more.
    pub fn on_not_truncated(&mut self, now: MonoTime) {
        if self.phase == Phase::Cutting {
            self.phase = Phase::Fetching;
            self.fetch_at = Some(now.plus(self.settings.fetch_backoff));
        }
    }

    /// The log writer has written up to `end`.
    pub fn on_written(&mut self, now: MonoTime, end: Offset, out: &mut Output<R>) {
        self.cursors.wrote(end);
        self.follow_watermark(out);
        self.fetch(now, true, out);
    }

    /// The log writer has synced up to `end`. The leader is told at once, whatever else it was asked: somebody may wait for it.
    pub fn on_synced(&mut self, now: MonoTime, end: Offset, out: &mut Output<R>) {
        self.cursors.synced(end);
        if self.reported.is_none_or(|durable| durable < self.cursors.durable_end()) {
            self.fetch(now, true, out);
        }
    }

    /// A segment was closed: the moment for a producer snapshot.
    pub fn on_rolled(&mut self, out: &mut Output<R>) {
        self.producers.expire(self.settings.producer_expiry_ms);
        let (at, payload) = (self.cursors.next_offset(), self.producers.to_snapshot());
        out.0.push(Command::SnapshotProducers { at, payload });
    }

    /// Records below `to` are gone.
    pub fn on_log_start(&mut self, to: Offset, out: &mut Output<R>) {
        if self.cursors.drop_before(to) {
            self.epochs.advance_start(to);
            self.damage.clip(to, self.cursors.written_end());
            self.answer_below(to, out);
        }
    }

    /// A write or sync failed: this replica takes no more. What is committed stays readable.
    pub fn on_failed(&mut self, cause: ApiError) {
        self.failed = Some(cause);
        self.fetch_at = None;
    }

    /// The replica leads from here on, or goes away: everybody who waits is told `cause`.
    pub fn on_stop(&mut self, cause: &ApiError, out: &mut Output<R>) {
        self.refuse_readers(cause, out);
    }

    /// Time passed.
    pub fn on_tick(&mut self, now: MonoTime, out: &mut Output<R>) {
        if self.fetch_at.is_some_and(|at| at <= now) {
            self.fetch(now, true, out);
        }
        self.expire_readers(now, out);
    }

    /// When [`FollowerEngine::on_tick`] is next needed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        self.fetch_at.into_iter().chain(self.parked.next_deadline()).min()
    }

    /// A connection is gone: nothing of it needs an answer any more.
    pub fn on_owner_gone(&mut self, owner: OwnerId) {
        self.parked.take_where(|waiter| waiter.owner == owner);
    }
}
