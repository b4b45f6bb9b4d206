//! What must be found after a restart: the test's own idea of each partition.

use callboard::storage::Replay;
use callboard::types::Offset;
use callboard::types::record_batch::{BatchHeader, RecordBatch};

/// Whether a partition must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Absent,
    /// Its creation or deletion was under way.
    Either,
    Present,
}

/// One partition as it should be.
#[derive(Clone, Debug)]
pub struct Expected {
    pub presence: Presence,
    /// All that was handed to the log and not given up since, those below the log's start too.
    pub batches: Vec<RecordBatch>,
    /// The log end of which the node was told that it is written, exclusive.
    pub written_end: u64,
    /// The log end of which the node was told that it is durable, exclusive.
    pub durable_end: u64,
    /// A truncation to this offset is under way.
    pub truncating_to: Option<u64>,
    /// The log is being emptied, to start here.
    pub starting_anew_at: Option<u64>,
    /// The log start of which the node was told.
    pub log_start: u64,
    /// The furthest log start that a trim under way may leave.
    pub log_start_at_most: u64,
    /// The high watermark of which the node was told that it is written down.
    pub high_watermark: u64,
    pub leader_epoch: u32,
}

/// What was read from a log that was just opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub log_start: u64,
    pub end: u64,
    pub durable_end: u64,
    pub batches: Vec<RecordBatch>,
    /// Leader epochs, each with its first offset.
    pub epochs: Vec<(u32, u64)>,
    pub damaged: Vec<(u64, u64)>,
    pub high_watermark: u64,
    pub producers: Producers,
}

/// What opening a log told about its producers: a snapshot, and the batches after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// Base offset and checksum of each batch.
    pub batches: Vec<(u64, u32)>,
}

impl Replay for Producers {
    fn snapshot(&mut self, at: Offset, payload: &[u8]) -> bool {
        self.snapshot = Some((at.0, payload.to_vec()));
        true
    }

    fn batch(&mut self, header: &BatchHeader) {
        self.batches.push((header.base_offset.0, header.crc));
    }
}

impl Expected {
    pub fn absent() -> Self {
        Self {
            presence: Presence::Absent,
            batches: Vec::new(),
            written_end: 0,
            durable_end: 0,
            truncating_to: None,
            starting_anew_at: None,
            log_start: 0,
            log_start_at_most: 0,
            high_watermark: 0,
            leader_epoch: 1,
        }
    }

    /// Where the batch starts that is `back` from the end, not before `log_start`.
    pub fn start_of_batch_from_end(&self, back: usize) -> u64 {
        let from_start = self.batches.len().saturating_sub(back);
        let start = self.batches.get(from_start).map_or(self.written_end, |batch| batch.header.base_offset.0);
        start.max(self.log_start)
    }

    /// The start of the batch that is `ahead` behind the log's start, not past what is durable.
    pub fn start_of_batch_from_start(&self, ahead: usize) -> u64 {
        let first = self.batches.partition_point(|batch| batch.header.end_offset_exclusive().0 <= self.log_start);
        let start = self.batches.get(first + ahead).map_or(self.durable_end, |batch| batch.header.base_offset.0);
        start.min(self.durable_end).max(self.log_start)
    }

    /// The start of the batch that is `ahead` behind the log's start, not past what is written.
    pub fn start_of_written_batch(&self, ahead: usize) -> u64 {
        let first = self.batches.partition_point(|batch| batch.header.end_offset_exclusive().0 <= self.log_start);
        let start = self.batches.get(first + ahead).map_or(self.written_end, |batch| batch.header.base_offset.0);
        start.min(self.written_end).max(self.log_start)
    }

    /// The batches from `end` on are given up for good.
    pub fn truncated_to(&mut self, end: u64) {
        self.batches.retain(|batch| batch.header.end_offset_exclusive().0 <= end);
        self.written_end = self.written_end.min(end);
        self.durable_end = self.durable_end.min(end);
        self.high_watermark = self.high_watermark.min(end);
        self.truncating_to = None;
    }

    /// All is given up; the log is empty and starts at `start`.
    pub fn started_anew(&mut self, start: u64) {
        self.batches.clear();
        (self.written_end, self.durable_end, self.high_watermark) = (start, start, start);
        (self.log_start, self.log_start_at_most) = (start, start);
        (self.truncating_to, self.starting_anew_at) = (None, None);
    }

    /// The producer state at `offset`: here, what tells one history of batches from another.
    pub fn producer_snapshot(&self, offset: u64) -> Vec<u8> {
        let before = self.batches.iter().filter(|batch| batch.header.base_offset.0 < offset);
        before.flat_map(|batch| batch.header.crc.to_be_bytes()).collect()
    }

    /// Compares what was found with what must or may be there.
    pub fn check(&self, found: &Found, everything_written_survives: bool) -> Result<(), String> {
        if self.is_anew(found) {
            return Ok(());
        }
        let promised = if everything_written_survives { self.written_end } else { self.durable_end };
        let promised = promised.min(self.truncating_to.unwrap_or(u64::MAX));
        if found.end < promised {
            return Err(format!("the log ends at {}, promised were the records up to {promised}", found.end));
        }
        if found.durable_end != found.end {
            return Err(format!("{} of {} count as durable after opening", found.durable_end, found.end));
        }
        if !(self.log_start..=self.log_start_at_most).contains(&found.log_start) {
            let (least, most) = (self.log_start, self.log_start_at_most);
            return Err(format!("the log starts at {}, not between {least} and {most}", found.log_start));
        }
        if !found.damaged.is_empty() {
            return Err(format!("{:?} count as damaged, though the disk damaged nothing", found.damaged));
        }
        self.check_content(found)?;
        self.check_producers(found)?;
        let least = self.high_watermark.min(self.truncating_to.unwrap_or(u64::MAX));
        if !(least..=found.end).contains(&found.high_watermark) {
            let (saved, end) = (found.high_watermark, found.end);
            return Err(format!("the saved high watermark is {saved}, not between {least} and the end {end}"));
        }
        let epochs = epochs_of(found);
        // An epoch without a record in the log is harmless, if it is the newest and starts at the end.
        let cached: Vec<_> = found.epochs.iter().copied().filter(|(_, start)| *start < found.end).collect();
        if cached != epochs {
            return Err(format!("the leader epochs are {cached:?}, by the batches they are {epochs:?}"));
        }
        Ok(())
    }

    /// Whether the log has started anew: nothing of the old one is left.
    fn is_anew(&self, found: &Found) -> bool {
        let due = self.starting_anew_at.map(|start| Found {
            log_start: start,
            end: start,
            durable_end: start,
            batches: Vec::new(),
            epochs: Vec::new(),
            damaged: Vec::new(),
            high_watermark: start,
            producers: Producers::default(),
        });
        due.is_some_and(|due| due == *found)
    }

    fn check_producers(&self, found: &Found) -> Result<(), String> {
        let from = found.producers.snapshot.as_ref().map_or(found.log_start, |(at, _)| *at);
        if let Some((at, payload)) = &found.producers.snapshot
            && (*at > found.end || *payload != self.producer_snapshot(*at))
        {
            return Err(format!("the producer snapshot at {at} is of another history, the log ends at {}", found.end));
        }
        let after = found.batches.iter().filter(|batch| batch.header.end_offset_exclusive().0 > from);
        let due: Vec<_> = after.map(|batch| (batch.header.base_offset.0, batch.header.crc)).collect();
        // Batches before the log's start that are still in its first segment may be told too.
        let (before, rest) = found.producers.batches.split_at(found.producers.batches.len().saturating_sub(due.len()));
        let deleted = self.batches.iter().take_while(|batch| batch.header.end_offset_exclusive().0 <= found.log_start);
        let deleted: Vec<_> = deleted.map(|batch| (batch.header.base_offset.0, batch.header.crc)).collect();
        if rest == due && deleted.ends_with(before) {
            Ok(())
        } else {
            Err(format!("replayed were {:?} from {from} on, due are {due:?}", found.producers.batches))
        }
    }

    fn check_content(&self, found: &Found) -> Result<(), String> {
        let mut due = found.log_start;
        for batch in &found.batches {
            let (base, end) = (batch.header.base_offset.0, batch.header.end_offset_exclusive().0);
            let follows = base == due || (due == found.log_start && (base..end).contains(&due));
            if !follows {
                return Err(format!("a batch at {base} where {due} is due"));
            }
            let written = self.batches.iter().find(|written| written.header.base_offset.0 == base);
            match written {
                None => return Err(format!("the batch at {base} was never written, or was truncated")),
                Some(written) if written != batch => return Err(format!("the batch at {base} is not the one written")),
                Some(_) => due = end,
            }
        }
        if due == found.end { Ok(()) } else { Err(format!("the log ends at {}, its batches at {due}", found.end)) }
    }

    /// From here on what was found is what must be there: opening has made it durable.
    pub fn adopt(&mut self, found: &Found) {
        self.presence = Presence::Present;
        if self.is_anew(found) {
            self.started_anew(found.log_start);
        }
        self.starting_anew_at = None;
        self.batches.retain(|batch| batch.header.end_offset_exclusive().0 <= found.end);
        (self.written_end, self.durable_end) = (found.end, found.end);
        (self.log_start, self.log_start_at_most) = (found.log_start, found.log_start);
        self.high_watermark = found.high_watermark;
        self.truncating_to = None;
    }
}

fn epochs_of(found: &Found) -> Vec<(u32, u64)> {
    let mut epochs: Vec<(u32, u64)> = Vec::new();
    for batch in &found.batches {
        let (epoch, start) = (batch.header.leader_epoch.0, batch.header.base_offset.0.max(found.log_start));
        if epochs.last().is_none_or(|(last, _)| *last < epoch) {
            epochs.push((epoch, start));
        }
    }
    epochs
}
