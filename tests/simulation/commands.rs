//! What the engine of a broker has done by its shell: the part of the actors that run it.

use callboard::engine::broker::{Command, EndReason, Output, RefusedProposal};
use callboard::engine::leader::Proposal;
use callboard::storage::queue::{LogNews, LogWork};
use callboard::types::{BrokerEpoch, LeaderEpoch, MonoTime, NodeId, Offset, TopicPartition};

use crate::broker::{Process, wall};
use crate::net::Message;
use crate::world::{Event, World};

impl World {
    /// Lets the engine of a broker do something, and does what it wants done.
    pub fn with_engine(&mut self, number: usize, event: impl FnOnce(&mut Process, MonoTime, &mut Output)) {
        let now = self.local_time(number);
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let incarnation = process.incarnation;
        let mut out = Output::default();
        event(process, now, &mut out);
        for command in out.0 {
            if self.brokers[number].process.as_ref().is_none_or(|process| process.incarnation != incarnation) {
                return;
            }
            self.obey(number, command);
        }
        self.arm_engine(number);
    }

    pub fn tick_broker(&mut self, number: usize, life: u64) {
        if self.brokers[number].life != life {
            return;
        }
        if self.unless_paused(number, Event::TickBroker { broker: number, life }).is_none() {
            return;
        }
        self.with_engine(number, |process, now, out| {
            process.wake_at = None;
            process.engine.on_tick(now, out);
        });
    }

    fn arm_engine(&mut self, number: usize) {
        let (clock, life, now) = (self.brokers[number].clock, self.brokers[number].life, self.now);
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let Some(deadline) = process.engine.next_deadline() else { return };
        let when = clock.true_us(deadline).max(now + 1);
        if process.wake_at.is_none_or(|armed| armed > when) {
            process.wake_at = Some(when);
            self.at(when, Event::TickBroker { broker: number, life });
        }
    }

    fn obey(&mut self, number: usize, command: Command) {
        let now = self.local_time(number);
        match command {
            Command::Ask(request) => self.send_to_controllers(number, Message::Ask(request)),
            Command::StoreEpoch(epoch) => {
                let (life, delay) = (self.brokers[number].life, self.rng.u64(100..8_000));
                self.after(delay, Event::StoreEpoch { broker: number, life, epoch });
            }
            Command::SetLease(until) => self.set_lease(number, until),
            Command::GiveUpLease => self.give_up_lease(number),
            Command::Open(partition) => {
                let (life, delay) = (self.brokers[number].life, self.rng.u64(100..20_000));
                self.after(delay, Event::Open { broker: number, life, partition });
            }
            Command::MarkVerified(partition) => {
                let Some(process) = self.brokers[number].process.as_mut() else { return };
                process.doubtful.retain(|doubtful| *doubtful != partition);
                let Some(hosted) = process.replicas.get_mut(&partition) else { return };
                hosted.queue.push(LogWork::MarkVerified);
                self.pump(number, partition);
            }
            Command::ReadEnds(partitions) => self.read_ends(number, &partitions),
            Command::ProposalRefused(RefusedProposal { partition, partition_epoch, .. }) => {
                let Some(hosted) = self.hosted(number, partition) else { return };
                let leadership = hosted.replica.leader().map(|leader| leader.leadership().partition_epoch);
                if leadership == Some(partition_epoch) {
                    hosted.replica.on_proposal_refused(now);
                    hosted.duties.is_refused();
                }
                self.pump(number, partition);
            }
            Command::HandOver { partition, to, until } => self.hand_over(number, partition, to, until),
            Command::Close => self.close(number),
            Command::MarkCleanStop(epoch) => {
                let Some(process) = self.brokers[number].process.as_ref() else { return };
                let is_marked = process.directory.mark_clean_stop(epoch).is_ok();
                if !self.has_crashed_now(number) {
                    self.coverage.count_if(is_marked, "a clean stop is marked");
                }
            }
            Command::End(why) => self.end_process(number, why),
        }
    }

    pub fn store_epoch(&mut self, number: usize, life: u64, epoch: BrokerEpoch) {
        if self.brokers[number].life != life {
            return;
        }
        if self.unless_paused(number, Event::StoreEpoch { broker: number, life, epoch }).is_none() {
            return;
        }
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let is_stored = process.directory.store_broker_epoch(epoch).is_ok();
        if self.has_crashed_now(number) {
            return;
        }
        if !is_stored {
            self.coverage.count("an epoch cannot be written down");
            return self.with_engine(number, |process, now, _| process.engine.on_epoch_not_stored(now));
        }
        let broker = &mut self.brokers[number];
        broker.robbed.clear();
        broker.is_wiped = false;
        broker.is_without_power = false;
        let node = broker.node;
        self.tell(format_args!("broker {node} is registered under epoch {epoch}"));
        self.with_engine(number, |process, now, out| process.engine.on_epoch_stored(now, &process.image, out));
        self.follow_image(number);
    }

    fn set_lease(&mut self, number: usize, until: MonoTime) {
        let (node, now) = (self.brokers[number].node, self.local_time(number));
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        process.lease_until = until;
        let (epoch, knows) = (process.epoch(), process.image.index);
        let partitions: Vec<_> = process.replicas.keys().copied().collect();
        // With a lease it may answer: so it must know by then that it leads no more.
        if let Some((fenced, index)) = self.plan.fenced_at.get(&node)
            && (Some(*fenced), until > now) == (epoch, true)
            && knows < *index
        {
            self.oracle.fail(format!("broker {node} is given a lease, and does not know that it was fenced"));
        }
        for partition in partitions {
            if let Some(hosted) = self.hosted(number, partition) {
                hosted.replica.on_lease(now, until);
            }
            self.pump(number, partition);
        }
    }

    fn give_up_lease(&mut self, number: usize) {
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        process.lease_until = MonoTime::default();
        let partitions: Vec<_> = process.replicas.keys().copied().collect();
        for partition in partitions {
            if let Some(hosted) = self.hosted(number, partition) {
                hosted.replica.on_lease_given_up();
            }
            self.pump(number, partition);
        }
        self.with_engine(number, |process, now, out| process.engine.on_lease_given_up(now, out));
    }

    fn read_ends(&mut self, number: usize, partitions: &[TopicPartition]) {
        let Some(process) = self.brokers[number].process.as_ref() else { return };
        let end_of = |partition: &TopicPartition| -> Option<(TopicPartition, LeaderEpoch, Offset)> {
            let hosted = process.replicas.get(partition)?;
            let end = hosted.replica.cursors()?.written_end();
            let leader_epoch = hosted.reader.epoch_of(Offset(end.0.checked_sub(1)?)).unwrap_or_default();
            Some((*partition, leader_epoch, end))
        };
        let ends: Vec<_> = partitions.iter().filter_map(end_of).collect();
        self.with_engine(number, |process, _, out| process.engine.on_ends(&ends, out));
    }

    fn hand_over(&mut self, number: usize, partition: TopicPartition, to: NodeId, until: MonoTime) {
        let now = self.local_time(number);
        let Some(hosted) = self.hosted(number, partition) else { return };
        if hosted.hand_over(now, to, until) {
            self.coverage.count("a hand-over begins");
            self.tell(format_args!("{partition} is to be handed over to broker {to}"));
        }
        self.pump(number, partition);
    }

    /// A proposal of a leader here goes to the controllers.
    pub fn send_proposal(&mut self, number: usize, partition: TopicPartition, proposal: Proposal) {
        self.check_proposal(number, partition, &proposal);
        self.coverage.count(if proposal.new_leader.is_some() {
            "a hand-over is proposed"
        } else {
            "a set is proposed"
        });
        self.with_engine(number, |process, now, _| process.engine.on_proposal(now, partition, proposal));
    }

    /// Begins a planned stop: what is led here is handed over first.
    pub fn begin_stopping(&mut self, number: usize) {
        let node = self.brokers[number].node;
        if self.brokers[number].process.as_ref().is_some_and(|process| !process.engine.is_leaving()) {
            self.tell(format_args!("broker {node} is told to stop"));
            self.with_engine(number, |process, now, out| process.engine.on_stop(now, out));
        }
    }

    /// Closes all logs. What they were doing comes to nothing.
    fn close(&mut self, number: usize) {
        let now_us = self.now;
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let mut is_clean = true;
        for (partition, mut hosted) in std::mem::take(&mut process.replicas) {
            let settled =
                hosted.replica.cursors().is_some_and(|cursors| cursors.written_end() == cursors.next_offset());
            let Some(cursors) = hosted.replica.cursors() else { continue };
            let (high_watermark, producers) = (cursors.high_watermark(), hosted.replica.producers_snapshot());
            hosted.queue.push(LogWork::Close { high_watermark, producers });
            let mut news = Vec::new();
            while let Some(job) = hosted.queue.next(wall(now_us), &mut news) {
                hosted.queue.finish(job.run(), &mut news);
            }
            let closed = news.iter().any(|news| matches!(news, LogNews::Closed(Ok(()))));
            is_clean &= closed && settled && !hosted.is_offline;
            if let Some((durable, written)) = self.brokers[number].last_seen.get_mut(&partition).filter(|_| closed) {
                *durable = *written;
            }
        }
        if self.has_crashed_now(number) {
            return;
        }
        // Nobody waits any more for what the logs were doing. The process stays until the controllers know.
        self.brokers[number].life += 1;
        let life = self.brokers[number].life;
        if let Some(process) = self.brokers[number].process.as_mut() {
            process.wake_at = None;
        }
        self.after(1_000, Event::WakeBroker { broker: number, life });
        self.with_engine(number, |process, now, out| process.engine.on_closed(now, is_clean, out));
    }

    fn end_process(&mut self, number: usize, why: EndReason) {
        let node = self.brokers[number].node;
        let delay = match why {
            EndReason::Stopped { is_clean } => {
                let how = if is_clean { "cleanly" } else { "not cleanly" };
                self.tell(format_args!("broker {node} has stopped, {how}"));
                self.coverage.count("a planned stop");
                self.rng.u64(100_000..1_000_000)
            }
            EndReason::Superseded => {
                self.tell(format_args!("broker {node} was taken over from"));
                self.coverage.count("a broker is taken over from");
                100_000
            }
        };
        self.stop_process(number);
        self.brokers[number].disk.kill();
        self.after(delay, Event::StartBroker { broker: number });
    }
}
