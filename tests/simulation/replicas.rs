//! Replicas at work: their effects, the jobs of their logs, and what is checked after each step.

use bytes::Bytes;
use callboard::engine::follower::ReplicaFetched;
use callboard::engine::leader::{
    DeleteRecordsEvent, FetchEvent, LeaderEngine, ListOffsetsEvent, ProduceEvent, ReadRange, ReplicaFetchEvent,
};
use callboard::engine::replication::{FetchId, ReplicaVerdict};
use callboard::engine::waiters::OwnerId;
use callboard::protocol::messages::{DeleteBefore, OffsetAt};
use callboard::protocol::{ApiError, ErrorCode};
use callboard::replica::{Answer, Effect, ProducerReplay, ReadState};
use callboard::storage::LogError;
use callboard::storage::queue::{Job, LogNews, LogWork};
use callboard::types::record_batch::RecordBatch;
use callboard::types::{FlushPolicy, MonoTime, NodeId, Offset, TopicPartition};
use std::time::Duration;

use crate::broker::{FETCH_WAIT, wall};
use crate::net::{Kind, Message, Place, ReplyTo};
use crate::oracle::batches_of;
use crate::world::{Event, World};

const CLIENT_WAIT: Duration = Duration::from_millis(300);

impl World {
    /// Does whatever the replica and its log have come to.
    pub fn pump(&mut self, number: usize, partition: TopicPartition) {
        loop {
            let now_us = self.now;
            let now = self.local_time(number);
            let Some(hosted) = self.hosted(number, partition) else { return };
            let effects = hosted.replica.take_effects();
            let mut news = Vec::new();
            let is_idle = effects.is_empty();
            for effect in effects {
                self.carry_out(number, partition, effect);
            }
            let mut jobs = Vec::new();
            let Some(hosted) = self.hosted(number, partition) else { return };
            while let Some(job) = hosted.queue.next(wall(now_us), &mut news) {
                jobs.push(job);
            }
            if is_idle && jobs.is_empty() && news.is_empty() {
                break;
            }
            for job in jobs {
                self.send_away(number, partition, job);
            }
            self.take_news(number, partition, now, news);
        }
        self.observe(number, partition);
        self.arm(number, partition);
        if let Some(process) = self.brokers[number].process.as_mut()
            && let Some(hosted) = process.replicas.get(&partition)
        {
            process.engine.on_damage(partition, hosted.replica.is_damaged());
        }
    }

    fn take_news(
        &mut self,
        number: usize,
        partition: TopicPartition,
        now: MonoTime,
        news: Vec<LogNews<ProducerReplay>>,
    ) {
        for item in news {
            self.follow_damage(number, partition, &item);
            match &item {
                LogNews::Truncated { .. } => {
                    self.coverage.count("a log is cut");
                    self.hosted(number, partition).into_iter().for_each(|hosted| hosted.is_cutting = false);
                }
                LogNews::Failed(_) => self.coverage.count("a log fails"),
                LogNews::LogStart(start) => {
                    let known = self.hosted(number, partition).and_then(|hosted| hosted.replica.cursors().copied());
                    if known.is_some_and(|cursors| *start > cursors.log_start()) {
                        self.check_producers_kept(number, partition, *start);
                    }
                }
                LogNews::Closed(_) => self.on_log_closed(number, partition),
                LogNews::NotTruncated(LogError::Damaged { .. }) => {
                    self.coverage.count("a cut within damage is put off");
                    self.hosted(number, partition).into_iter().for_each(|hosted| hosted.is_cutting = false);
                }
                LogNews::NotTruncated(_) => self.coverage.count("a cut below the watermark is refused"),
                LogNews::NotReplicated(_) => self.coverage.count("batches are refused"),
                _ => {}
            }
            if let LogNews::Failed(error) | LogNews::NotTruncated(error) | LogNews::NotReplicated(error) = &item {
                let node = self.brokers[number].node;
                self.tell(format_args!("broker {node}, {partition}: {error}"));
            }
            let may_be_whole = matches!(
                item,
                LogNews::Repaired | LogNews::Scrubbed(..) | LogNews::Truncated { .. } | LogNews::LogStart(_)
            );
            if let Some(hosted) = self.hosted(number, partition) {
                hosted.replica.on_log_news(now, item);
            }
            if may_be_whole {
                self.look_again(number, partition);
            }
        }
    }

    fn send_away(&mut self, number: usize, partition: TopicPartition, job: Job<(), ProducerReplay>) {
        let life = self.brokers[number].life;
        let delay = match self.rng.u64(0..20) {
            0 => self.rng.u64(10_000..60_000),
            1..4 => self.rng.u64(1_000..8_000),
            _ => self.rng.u64(20..900),
        };
        self.after(delay, Event::Job { broker: number, life, partition, job });
    }

    pub fn run_job(&mut self, number: usize, life: u64, partition: TopicPartition, job: Job<(), ProducerReplay>) {
        if self.brokers[number].life != life {
            return;
        }
        let event = Event::Job { broker: number, life, partition, job };
        let Some(Event::Job { job, .. }) = self.unless_paused(number, event) else { return };
        let done = job.run();
        if self.has_crashed_now(number) {
            return;
        }
        let now = self.local_time(number);
        let Some(hosted) = self.hosted(number, partition) else { return };
        let mut news = Vec::new();
        hosted.queue.finish(done, &mut news);
        self.take_news(number, partition, now, news);
        self.pump(number, partition);
    }

    fn carry_out(&mut self, number: usize, partition: TopicPartition, effect: Effect<ReplyTo, ()>) {
        let node = self.brokers[number].node;
        match effect {
            Effect::Write(work) => {
                match &work {
                    LogWork::Append(batch, ()) => {
                        self.check_append(number, partition);
                        self.oracle.on_append(partition, node, batch);
                    }
                    LogWork::AppendReplicated(batches, ()) => {
                        batches.iter().for_each(|batch| self.oracle.on_append(partition, node, batch));
                    }
                    LogWork::Repair { batches, .. } => {
                        batches.iter().for_each(|batch| self.oracle.on_append(partition, node, batch));
                    }
                    LogWork::Truncate { to, leave, .. } => {
                        self.tell(format_args!("broker {node} cuts {partition} at {to}"));
                        let may_go_back = leave.back_to_damage && self.brokers[number].flipped.contains(&partition);
                        self.forget_after(number, partition, if may_go_back { Offset::ZERO } else { *to });
                    }
                    LogWork::StartAt { offset, .. } => {
                        self.coverage.count("a log is started anew");
                        self.tell(format_args!("broker {node} starts {partition} anew at {offset}"));
                        self.forget_after(number, partition, *offset);
                    }
                    _ => {}
                }
                if let Some(hosted) = self.hosted(number, partition) {
                    hosted.queue.push(work);
                }
            }
            Effect::Answer(reply, result) => self.answer(number, reply, result, Bytes::new()),
            Effect::Read(reply, range, state) => self.read(number, partition, reply, range, state),
            Effect::LookUp(reply, ..) => {
                let error = ApiError::new(ErrorCode::InvalidRequest, "times are not looked up here");
                self.answer(number, reply, Err(error), Bytes::new());
            }
            Effect::Fetch { leader, fetch, may_wait } => {
                let to = Place::Broker(self.broker_of(leader));
                self.send(Place::Broker(number), to, Message::ReplicaFetch { partition, fetch, may_wait });
            }
            Effect::Propose(proposal) => self.send_proposal(number, partition, proposal),
            Effect::Damaged(leader_epoch) => {
                self.coverage.count("a replica says that it is damaged");
                self.with_engine(number, |process, now, _| {
                    process.engine.on_damage_to_report(now, partition, leader_epoch);
                });
            }
            Effect::Offline(cause) => {
                self.coverage.count("a replica goes offline");
                self.tell(format_args!("broker {node}, {partition} is offline: {cause}"));
                if let Some(hosted) = self.hosted(number, partition) {
                    hosted.is_offline = true;
                }
                self.with_engine(number, |process, now, _| process.engine.on_offline(now, partition));
            }
        }
    }

    /// What is cut off on purpose is not missed.
    fn forget_after(&mut self, number: usize, partition: TopicPartition, end: Offset) {
        self.hosted(number, partition).into_iter().for_each(|hosted| hosted.is_cutting = true);
        if let Some((durable, written)) = self.brokers[number].last_seen.get_mut(&partition) {
            *durable = (*durable).min(end);
            *written = (*written).min(end);
        }
    }

    fn read(&mut self, number: usize, partition: TopicPartition, reply: ReplyTo, range: ReadRange, state: ReadState) {
        let Some(hosted) = self.hosted(number, partition) else { return };
        let read = hosted.reader.read(range.from, range.upper_exclusive, range.max_bytes);
        let (result, bytes) = match read {
            Ok(slice) => (Ok(slice.next), slice.bytes),
            // Records were deleted while the read was under way. That is this log's word, whatever its leader knows.
            Err(error @ LogError::OffsetOutOfRange { .. }) => {
                hosted.duties.is_unsure = false;
                (Err(ApiError::new(ErrorCode::OffsetOutOfRange, error.to_string())), Bytes::new())
            }
            Err(error) => (Err(ApiError::new(ErrorCode::DamagedLog, error.to_string())), Bytes::new()),
        };
        let result = result.map(|_| match state {
            ReadState::Consumer(state) => Answer::Fetched(state),
            ReadState::Follower(state) => Answer::ReplicaFetched(ReplicaVerdict::Continues, state),
            ReadState::Repair(state) => Answer::ReplicaFetched(ReplicaVerdict::Repairs, state),
        });
        if let Err(error) = &result
            && error.code == ErrorCode::DamagedLog
        {
            let node = self.brokers[number].node;
            self.coverage.count("damage is met by a read");
            self.tell(format_args!("broker {node}, {partition}: {error}"));
        }
        let is_refused = result.is_err();
        self.answer(number, reply, result, bytes);
        let now = self.local_time(number);
        let Some(hosted) = self.hosted(number, partition).filter(|_| is_refused) else { return };
        let (leads, was_damaged) = (hosted.replica.leader().is_some(), hosted.replica.is_damaged());
        hosted.replica.on_damage(now, &hosted.reader.damaged_ranges());
        if !was_damaged {
            self.coverage.count("damage is found by a read");
        } else if leads {
            self.coverage.count("a leader that stays as the last refuses the hole");
        }
    }

    fn answer(&mut self, number: usize, reply: ReplyTo, result: Result<Answer, ApiError>, records: Bytes) {
        self.check_answer(number, reply, &result);
        let request = reply.request;
        let wrong = || ApiError::new(ErrorCode::Unknown, "another answer than was asked for");
        let message = match reply.kind {
            Kind::Produce => Message::Produced {
                request,
                result: result.and_then(|answer| match answer {
                    Answer::Produced(batch) => Ok(batch),
                    _ => Err(wrong()),
                }),
            },
            Kind::Fetch => Message::Fetched {
                request,
                result: result.and_then(|answer| match answer {
                    Answer::Fetched(state) => Ok((state, records)),
                    _ => Err(wrong()),
                }),
            },
            Kind::List => Message::Listed {
                request,
                result: result.and_then(|answer| match answer {
                    Answer::Listed(listed) => listed.offset.ok_or_else(wrong),
                    _ => Err(wrong()),
                }),
            },
            Kind::Delete => Message::Deleted {
                request,
                result: result.and_then(|answer| match answer {
                    Answer::RecordsDeleted(start) => Ok(start),
                    _ => Err(wrong()),
                }),
            },
            Kind::Replica(broker_epoch) => Message::ReplicaFetched {
                partition: reply.partition,
                id: FetchId { broker_epoch, number: request },
                result: result.and_then(|answer| match answer {
                    Answer::ReplicaFetched(verdict, state) => Ok((verdict, state)),
                    _ => Err(wrong()),
                }),
                records,
            },
        };
        self.send(Place::Broker(number), reply.place, message);
    }

    /// Requests of clients and followers, and the leader's answers.
    pub fn serve(&mut self, number: usize, from: Place, message: Message) {
        let now = self.local_time(number);
        let owner = OwnerId(1);
        let deadline = now.plus(CLIENT_WAIT);
        let reply = |partition, request, kind| ReplyTo { place: from, request, partition, kind };
        let partition = match &message {
            Message::Produce { partition, .. }
            | Message::Fetch { partition, .. }
            | Message::List { partition, .. }
            | Message::Delete { partition, .. }
            | Message::ReplicaFetch { partition, .. }
            | Message::ReplicaFetched { partition, .. } => *partition,
            Message::WhoLeads { partition, request } => {
                let image = self.brokers[number].process.as_ref().map(|process| &process.image);
                let state = image.and_then(|image| image.partition(*partition));
                let leader = state.and_then(|state| state.leader);
                let replicas = state.map(|state| state.replicas.clone()).unwrap_or_default();
                let answer = Message::Leads { request: *request, leader, replicas };
                return self.send(Place::Broker(number), from, answer);
            }
            _ => return,
        };
        let (now_us, wall) = (self.now, wall(self.now));
        let Some(hosted) = self.hosted(number, partition) else {
            return self.refuse_unhosted(number, from, &message);
        };
        match message {
            Message::Produce { request, batch, acks, .. } => {
                let Ok(batch) = RecordBatch::from_client(batch) else { return };
                let is_early_retry = crate::rules::is_early_retry(hosted, &batch);
                let event = ProduceEvent {
                    header: batch.header,
                    batch_bytes: batch.total_bytes(),
                    leader_epoch: None,
                    acks,
                    deadline,
                    wall,
                    owner,
                    reply: reply(partition, request, Kind::Produce),
                };
                hosted.replica.on_produce(now, batch, (), event);
                self.coverage.count_if(is_early_retry, "a retry comes before the original is committed");
            }
            Message::Fetch { request, offset, waits, .. } => {
                let wait_until = waits.then_some(deadline);
                let is_beyond = hosted.replica.cursors().is_some_and(|cursors| offset > cursors.high_watermark());
                let reply = reply(partition, request, Kind::Fetch);
                let event = FetchEvent { offset, max_bytes: 500, leader_epoch: None, wait_until, owner, reply };
                let next = hosted.replica.cursors().map(|cursors| cursors.next_offset());
                hosted.duties.asks_beyond = next.is_some_and(|next| offset > next);
                hosted.replica.on_fetch(now, event);
                self.coverage.count_if(is_beyond, "a replica is asked for more than it knows");
            }
            Message::List { request, .. } => {
                let reply = reply(partition, request, Kind::List);
                let is_new = |leader: &LeaderEngine<_>| leader.cursors().high_watermark() < leader.epoch_start();
                let is_early = hosted.replica.leader().is_some_and(is_new);
                self.coverage.count_if(is_early, "the end is asked of a leader that does not know it");
                let Some(hosted) = self.hosted(number, partition) else { return };
                hosted.replica.on_list_offsets(now, ListOffsetsEvent { at: OffsetAt::Latest, deadline, owner, reply });
            }
            Message::Delete { request, before, .. } => {
                let reply = reply(partition, request, Kind::Delete);
                let before = DeleteBefore::Offset(before);
                hosted.replica.on_delete_records(DeleteRecordsEvent { before, deadline, owner, reply });
            }
            Message::ReplicaFetch { fetch, may_wait, .. } => {
                let wait_until = may_wait.then(|| now.plus(FETCH_WAIT));
                let leader = hosted.replica.leader().map(|leader| (leader.epoch(), leader.leadership()));
                let void = hosted.duties.asked(&fetch, leader, now_us);
                let reply = reply(partition, fetch.number, Kind::Replica(fetch.broker_epoch));
                hosted.replica.on_replica_fetch(now, ReplicaFetchEvent { fetch, wait_until, reply });
                void.into_iter().for_each(|why| self.coverage.count(why));
            }
            Message::ReplicaFetched { id, result, records, .. } => {
                let batches = batches_of(records);
                if batches.iter().all(|batch| batch.verify_checksum().is_ok()) {
                    let headers = batches.iter().map(|batch| batch.header).collect();
                    let batches = batches.into_iter().map(|batch| (batch, ())).collect();
                    let is_unsure = matches!(&result, Ok((ReplicaVerdict::Continues, leader)) if !leader.knows_all);
                    hosted.duties.is_unsure = is_unsure;
                    let before = hosted.heard();
                    hosted.replica.on_fetched(now, ReplicaFetched { id, result, headers }, batches);
                    let is_taken = hosted.heard() != before;
                    self.check_taken(number, partition, id.broker_epoch, is_taken);
                }
            }
            _ => {}
        }
        self.pump(number, partition);
        self.hosted(number, partition).into_iter().for_each(|hosted| hosted.duties.is_at_rest());
    }

    fn refuse_unhosted(&mut self, number: usize, from: Place, message: &Message) {
        let error = ApiError::new(ErrorCode::NotLeader, "not here");
        let answer = match message {
            Message::Produce { request, .. } => Message::Produced { request: *request, result: Err(error) },
            Message::Fetch { request, .. } => Message::Fetched { request: *request, result: Err(error) },
            Message::List { request, .. } => Message::Listed { request: *request, result: Err(error) },
            Message::Delete { request, .. } => Message::Deleted { request: *request, result: Err(error) },
            _ => return,
        };
        self.send(Place::Broker(number), from, answer);
    }

    /// What is known about a replica after a step, and what must hold for it.
    fn observe(&mut self, number: usize, partition: TopicPartition) {
        let node = self.brokers[number].node;
        let Some(hosted) = self.hosted(number, partition) else { return };
        let Some(cursors) = hosted.replica.cursors().copied() else { return };
        let (seen, log_start) = (hosted.watermark_seen, cursors.log_start());
        let (watermark, reader) = (cursors.high_watermark(), hosted.reader.clone());
        let leadership = hosted.replica.leader().map(|leader| leader.leadership().clone());
        hosted.watermark_seen = seen.max(watermark);
        let is_cutting = hosted.is_cutting;
        let ends = (cursors.durable_end(), cursors.written_end());
        if !is_cutting {
            self.brokers[number].last_seen.insert(partition, ends);
        }
        if watermark > seen {
            let from = seen.max(reader.log_start());
            self.note_committed(number, partition, from, watermark);
            self.check_members(partition);
        }
        self.check_log_start(partition, node, log_start);
        if let Some(leadership) = leadership {
            self.check_leader(number, partition, leadership.epoch);
            self.check_duties(number, partition);
        }
    }

    /// Whatever is deleted was committed. Consumers that are behind it go on where the log starts.
    fn check_log_start(&mut self, partition: TopicPartition, node: NodeId, log_start: Offset) {
        let committed = self.oracle.committed_end(partition);
        if log_start > committed {
            let text = format!("broker {node} has deleted {partition} up to {log_start}, {committed} is committed");
            self.oracle.fail(text);
        }
        let history = self.oracle.history(partition);
        if log_start > history.deleted_before {
            history.deleted_before = log_start;
            self.coverage.count("records are deleted by retention");
        }
    }

    /// The leader's idea of the set contains the controller's.
    fn check_leader(&mut self, number: usize, partition: TopicPartition, epoch: callboard::types::LeaderEpoch) {
        let node = self.brokers[number].node;
        let Some(state) = self.plan.newest_state(partition) else { return };
        if state.leader != Some(node) || state.leader_epoch != epoch {
            return;
        }
        let in_sync = state.in_sync.clone();
        let Some(hosted) = self.hosted(number, partition) else { return };
        let Some(leader) = hosted.replica.leader() else { return };
        if let Some(missing) = in_sync.iter().find(|member| !leader.counts(**member)) {
            let text =
                format!("the leader of {partition}, broker {node}, does not count broker {missing}, which is in sync");
            self.oracle.fail(text);
        }
    }

    /// Intact members of both sets hold all that is committed.
    pub fn check_members(&mut self, partition: TopicPartition) {
        let committed = self.oracle.committed_end(partition);
        let Some(state) = self.plan.newest_state(partition) else { return };
        let flush = self.plan.flush_of(partition);
        let members: Vec<NodeId> = state.in_sync.iter().chain(&state.eligible).copied().collect();
        let is_robbed = |node: &NodeId| self.brokers[self.broker_of(*node)].robbed.contains(&partition);
        let has_intact = members.iter().any(|node| self.is_intact(*node, partition));
        if members.iter().any(is_robbed) && !has_intact && !self.oracle.history(partition).is_given_up {
            self.coverage.count("all members of a partition lost their records");
            self.oracle.history(partition).is_given_up = true;
        }
        for node in members {
            let broker = &self.brokers[self.broker_of(node)];
            if !self.is_intact(node, partition) {
                continue;
            }
            let (durable, written) = broker.last_seen.get(&partition).copied().unwrap_or_default();
            let holds = if flush == FlushPolicy::Always { durable } else { written };
            if holds < committed {
                let text = format!(
                    "broker {node} is a member of {partition} and holds {holds} of {committed} committed records"
                );
                self.oracle.fail_in(partition, text);
            }
        }
    }

    fn arm(&mut self, number: usize, partition: TopicPartition) {
        let clock = self.brokers[number].clock;
        let (life, now) = (self.brokers[number].life, self.now);
        let Some(hosted) = self.hosted(number, partition) else { return };
        let Some(deadline) = hosted.replica.next_deadline() else { return };
        let when = clock.true_us(deadline).max(now + 1);
        if hosted.wake_at.is_none_or(|armed| armed > when) {
            hosted.wake_at = Some(when);
            self.at(when, Event::WakeReplica { broker: number, life, partition });
        }
    }
}
