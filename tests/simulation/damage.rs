//! Bits that flip on disks: where they may, who finds them, and when a replica is whole again.
//!
//! A bit flips only in what is committed, and only where another member holds all of it. From then on the replica is *flipped*: it is
//! not counted on to hold anything, until a look at its files, which nobody else learns of, finds all batches there, unharmed, and the
//! replica itself knows of no damage.

use std::path::{Path, PathBuf};

use callboard::storage::data_dir::partition_dir_name;
use callboard::storage::disk::{DirEntry, Disk, OpenMode};

use callboard::storage::queue::{LogNews, LogWork};
use callboard::storage::{BatchAt, inspect};
use callboard::types::record_batch::{HEADER_BYTES, RecordBatch};
use callboard::types::{FlushPolicy, NodeId, Offset, TopicPartition};

use crate::broker::{Hosted, ROOT};
use crate::oracle::{Content, batches_of};
use crate::world::World;

/// The leader epoch within a batch's header: under no checksum but that of a closed segment.
const EPOCH_BYTES: std::ops::Range<u64> = 12..16;

impl World {
    fn partition_dir(&self, partition: TopicPartition) -> Option<PathBuf> {
        let topic = self.plan.newest.as_ref()?.topics.get(&partition.topic)?;
        Some(Path::new(ROOT).join(partition_dir_name(&topic.name, partition)))
    }

    /// Whether a replica has lost nothing that the controllers do not know of.
    pub fn is_intact(&self, node: NodeId, partition: TopicPartition) -> bool {
        let broker = &self.brokers[self.broker_of(node)];
        !broker.robbed.contains(&partition) && !broker.flipped.contains(&partition)
    }

    /// Flips a bit of a partition on this broker's disk, whether it is up or down.
    pub fn flip_bit(&mut self, number: usize) {
        let node = self.brokers[number].node;
        let here: Vec<_> = self.partitions_on(number).filter(|partition| self.may_flip(node, *partition)).collect();
        let Some(partition) = here.get(self.rng.usize(0..here.len().max(1))).copied() else { return };
        let Some(dir) = self.partition_dir(partition) else { return };
        let committed = self.oracle.committed_end(partition);
        let disk = self.brokers[number].disk.clone();
        let mut batches = Vec::new();
        let report = inspect(&disk, &dir, None, &mut |batch: BatchAt| {
            batches.push(batch);
            true
        });
        let Some(state) = report.ok().and_then(|report| report.state) else { return };
        batches.retain(|batch| {
            batch.header.base_offset >= state.log_start && batch.header.end_offset_exclusive() <= committed
        });
        if batches.is_empty() {
            return;
        }
        let batch = batches.swap_remove(self.rng.usize(0..batches.len()));
        let at = self.rng.u64(0..batch.header.total_bytes() as u64);
        // Before the recovery point the list of epochs vouches for it, and in closed segments their checksum.
        if EPOCH_BYTES.contains(&at) && batch.header.base_offset >= state.recovery.offset {
            return;
        }
        let (path, bit) = (dir.join(&batch.file), self.rng.u8(0..8));
        if disk.flip_bit(&path, batch.position + at, bit).is_err() {
            return;
        }
        let part = if at < HEADER_BYTES as u64 { "head" } else { "body" };
        self.coverage.count("a bit flips");
        self.tell(format_args!(
            "on broker {node} bit {bit} of byte {at} in the {part} of the batch at {} of {partition} flips",
            batch.header.base_offset
        ));
        self.brokers[number].flipped.insert(partition);
    }

    /// One at a time in a partition, and only where another member holds all that is committed.
    fn may_flip(&self, node: NodeId, partition: TopicPartition) -> bool {
        let Some(state) = self.plan.newest_state(partition) else { return false };
        let is_alone = self.brokers.iter().all(|broker| !broker.flipped.contains(&partition));
        let is_held = |other: &NodeId| *other != node && self.is_intact(*other, partition);
        is_alone && self.is_intact(node, partition) && state.in_sync.iter().chain(&state.eligible).any(is_held)
    }

    /// Has a replica look through a segment, one after the other.
    pub fn scrub(&mut self, number: usize, partition: TopicPartition) {
        let Some(hosted) = self.hosted(number, partition) else { return };
        hosted.queue.push(LogWork::Scrub(hosted.scrub_from));
        self.pump(number, partition);
    }

    /// Now and then one of a broker's replicas is looked through.
    pub fn scrub_sometimes(&mut self, number: usize) {
        let hosted: Vec<_> =
            self.brokers[number].process.iter().flat_map(|process| process.replicas.keys().copied()).collect();
        if hosted.is_empty() || self.rng.u64(0..40) > 0 {
            return;
        }
        let partition = hosted[self.rng.usize(0..hosted.len())];
        self.scrub(number, partition);
    }

    /// Everybody looks through everything, at the end.
    pub fn scrub_all(&mut self) {
        for number in 0..self.brokers.len() {
            let hosted: Vec<_> =
                self.brokers[number].process.iter().flat_map(|process| process.replicas.keys().copied()).collect();
            hosted.into_iter().for_each(|partition| self.scrub(number, partition));
        }
    }

    /// What the log of a replica says of damage.
    pub fn follow_damage<P>(&mut self, number: usize, partition: TopicPartition, news: &LogNews<P>) {
        let node = self.brokers[number].node;
        let Some(hosted) = self.hosted(number, partition) else { return };
        let was_damaged = hosted.replica.is_damaged();
        let (start, end) = (hosted.reader.log_start(), hosted.reader.written_end());
        match news {
            LogNews::Damage(ranges) if ranges.iter().any(|(_, to)| *to > start) && !was_damaged => {
                self.coverage.count("damage is found by a scrub");
                self.tell(format_args!("broker {node} finds that {ranges:?} of {partition} is damaged"));
            }
            LogNews::Scrubbed(_, next) => hosted.scrub_from = if *next < end { *next } else { Offset::ZERO },
            LogNews::Repaired => {
                self.coverage.count("damaged records are replaced");
                self.tell(format_args!("broker {node} has replaced damaged records of {partition}"));
            }
            LogNews::NotRepaired(error) => {
                self.coverage.count("a repair is refused");
                self.tell(format_args!("broker {node} cannot repair {partition}: {error}"));
            }
            LogNews::NotScrubbed(_, error) => {
                self.tell(format_args!("broker {node} cannot look through {partition}: {error}"));
            }
            _ => {}
        }
    }

    /// The one intact member was dropped, by a reassignment say, before anybody knew of the damage: the leader has a hole that no other
    /// replica can fill, since their logs end before it or are damaged there, too. That is for people.
    pub fn give_up_holes(&mut self) {
        for partition in self.partitions.clone() {
            let Some(state) = self.plan.newest_state(partition).cloned() else { continue };
            let Some(leader) = state.leader else { continue };
            let number = self.broker_of(leader);
            let hole = self.hosted(number, partition).and_then(|hosted| hosted.replica.leader()?.damage().first());
            let Some((from, _)) = hole else { continue };
            let others: Vec<_> = state.replicas.iter().filter(|node| **node != leader).copied().collect();
            let lacks_it = |world: &mut Self, node| {
                let number = world.broker_of(node);
                let Some(hosted) = world.hosted(number, partition) else { return false };
                let is_short = hosted.replica.cursors().is_some_and(|cursors| cursors.written_end() <= from);
                is_short || hosted.reader.damaged_ranges().iter().any(|(start, end)| *start <= from && from < *end)
            };
            if others.into_iter().all(|node| lacks_it(self, node)) && !self.oracle.history(partition).is_given_up {
                self.coverage.count("a hole that nobody can fill");
                self.tell(format_args!("nobody has what was at {from} of {partition}"));
                self.oracle.history(partition).is_given_up = true;
            }
        }
    }

    /// Rule 16: what a replica shows when it has opened its log is on the platter, also what a failed sync had left in the page cache.
    pub fn check_on_platter(&mut self, number: usize, partition: TopicPartition) {
        let Some(dir) = self.partition_dir(partition) else { return };
        let disk = &self.brokers[number].disk;
        let files = disk.read_dir(&dir).unwrap_or_default();
        for file in files.iter().filter(|file| file.name.ends_with(".log")) {
            if let Ok(Some(at)) = disk.first_undurable(&dir.join(&file.name)) {
                let (node, name) = (number + 1, &file.name);
                self.oracle
                    .fail(format!("broker {node} opens {partition}, and byte {at} of {name} is not on the platter"));
                return;
            }
        }
    }

    /// Rule 18: what deleted records said of producers is written down at or after their end.
    pub fn check_producers_kept(&mut self, number: usize, partition: TopicPartition, start: Offset) {
        // One that lost that, with what a power loss took, say, knows that it did.
        let knows_all = |hosted: &mut Hosted| {
            let leader = hosted.replica.leader().map(|leader| leader.producers().has_gaps());
            let follower = hosted.replica.follower().map(|follower| follower.producers().has_gaps());
            leader.or(follower) == Some(false)
        };
        // Every look for what is too old says where the log starts, also if nothing went.
        let has_moved = |hosted: &mut Hosted| start > std::mem::replace(&mut hosted.log_start_seen, start);
        if !self.hosted(number, partition).is_some_and(has_moved) {
            return;
        }
        let is_told = self.hosted(number, partition).is_some_and(knows_all);
        let Some(dir) = self.partition_dir(partition).filter(|_| is_told) else { return };
        let files = self.brokers[number].disk.read_dir(&dir).unwrap_or_default();
        let ends = |file: &DirEntry| file.name.strip_suffix(".snapshot").and_then(|at| at.parse().ok());
        if !files.iter().filter_map(ends).any(|at: u64| at >= start.0) {
            let text =
                format!("broker {} has deleted {partition} up to {start}, and not kept the producers", number + 1);
            self.oracle.fail(text);
        }
    }

    /// Looks at the files of a flipped replica: perhaps it is whole again.
    pub fn look_again(&mut self, number: usize, partition: TopicPartition) {
        let node = self.brokers[number].node;
        if !self.brokers[number].flipped.contains(&partition) || !self.is_whole(number, partition) {
            return;
        }
        let committed = self.oracle.committed_end(partition);
        let (durable, written) = self.brokers[number].last_seen.get(&partition).copied().unwrap_or_default();
        let holds = if self.plan.flush_of(partition) == FlushPolicy::Always { durable } else { written };
        let is_member = self.plan.newest_state(partition).is_some_and(|state| state.is_member(node));
        if holds >= committed || !is_member {
            self.coverage.count("a flipped replica is whole again");
            self.tell(format_args!("the files of {partition} on broker {node} are whole again"));
            self.brokers[number].flipped.remove(&partition);
            self.brokers[number].robbed.remove(&partition);
        }
    }

    fn is_whole(&mut self, number: usize, partition: TopicPartition) -> bool {
        let Some(dir) = self.partition_dir(partition) else { return false };
        let Some(hosted) = self.hosted(number, partition) else { return false };
        if hosted.replica.is_damaged() || hosted.is_cutting {
            return false;
        }
        let (mut next, end) = (hosted.reader.log_start(), hosted.reader.written_end());
        let disk = self.brokers[number].disk.clone();
        let history = self.oracle.history(partition);
        let report = inspect(&disk, &dir, None, &mut |batch: BatchAt| {
            let header = &batch.header;
            let known = history.written_at(header.leader_epoch, header.base_offset);
            let file = disk.open(&dir.join(&batch.file), OpenMode::Read);
            let mut bytes = vec![0; header.total_bytes()];
            let read = file.and_then(|file| file.read_at(&mut bytes, batch.position));
            let mut bytes = bytes::Bytes::from(bytes);
            let same = read.is_ok()
                && RecordBatch::split_from(&mut bytes)
                    .is_ok_and(|batch| known.is_some_and(|known| known.content == Content::of(&batch)));
            if same && header.base_offset <= next && next < header.end_offset_exclusive() {
                next = header.end_offset_exclusive();
            }
            true
        });
        report.is_ok() && next >= end
    }

    /// A replica's watermark has passed these: they are committed, also those of them that it cannot read any more.
    pub fn note_committed(&mut self, number: usize, partition: TopicPartition, from: Offset, watermark: Offset) {
        let node = self.brokers[number].node;
        let Some(hosted) = self.hosted(number, partition) else { return };
        let reader = hosted.reader.clone();
        let mut next = from;
        while next < watermark {
            match reader.read(next, watermark, 1 << 20) {
                Ok(slice) if slice.next > next => {
                    self.oracle.on_committed(partition, node, &batches_of(slice.bytes));
                    next = slice.next;
                }
                Ok(_) => break,
                Err(_) => {
                    let history = self.oracle.history(partition);
                    let known = history.committed.get(&next).copied();
                    let written = || reader.epoch_of(next).and_then(|epoch| history.written_at(epoch, next));
                    if let Some(placed) = known.or_else(written) {
                        history.committed.entry(next).or_insert(placed);
                        next = placed.end;
                        continue;
                    }
                    let holes = reader.damaged_ranges();
                    let hole = holes.into_iter().find(|(start, end)| *start <= next && next < *end);
                    let Some((_, end)) = hole else { break };
                    self.coverage.count("committed records cannot be told");
                    next = end;
                }
            }
        }
    }

    /// Replicas that are flipped and should have been found and mended by now.
    pub fn still_flipped(&self, partition: TopicPartition) -> Option<NodeId> {
        let state = self.plan.newest_state(partition)?;
        let is_flipped = |node: &&NodeId| self.brokers[self.broker_of(**node)].flipped.contains(&partition);
        state.replicas.iter().find(is_flipped).copied()
    }

    /// At the end every replica holds what is committed, nothing else, and the same as the others.
    pub fn compare_replicas(&mut self) {
        for partition in self.partitions.clone() {
            let Some(state) = self.plan.newest_state(partition) else { continue };
            if self.oracle.history(partition).is_given_up {
                continue;
            }
            let (replicas, committed) = (state.replicas.clone(), self.oracle.committed_end(partition));
            let mut digests = Vec::new();
            for node in replicas {
                let number = self.broker_of(node);
                let Some(hosted) = self.hosted(number, partition) else { continue };
                let reader = hosted.reader.clone();
                let mut next = reader.log_start();
                while next < committed {
                    let slice = match reader.read(next, committed, 1 << 20) {
                        Ok(slice) if slice.next > next => slice,
                        other => {
                            let text =
                                format!("broker {node} does not show {next} of {partition} at the end: {other:?}");
                            return self.oracle.fail(text);
                        }
                    };
                    self.oracle.on_read(
                        partition,
                        &format!("the last look at broker {node}"),
                        &batches_of(slice.bytes),
                    );
                    next = slice.next;
                }
                digests.push((node, reader));
            }
            let from = digests.iter().map(|(_, reader)| reader.log_start()).max().unwrap_or_default();
            let digests: Vec<_> =
                digests.iter().map(|(node, reader)| (*node, reader.digest(from, committed).ok())).collect();
            if digests.iter().any(|(_, digest)| *digest != digests[0].1) {
                self.oracle.fail(format!("the replicas of {partition} differ at the end: {digests:?}"));
            }
        }
    }
}
