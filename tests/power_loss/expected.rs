//! What must be found after a restart: the test's own idea of each partition.

use callboard::types::record_batch::RecordBatch;

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
    /// The log start of which the node was told.
    pub log_start: u64,
    /// The furthest log start that a trim under way may leave.
    pub log_start_at_most: u64,
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
}

impl Expected {
    pub fn absent() -> Self {
        Self {
            presence: Presence::Absent,
            batches: Vec::new(),
            written_end: 0,
            durable_end: 0,
            truncating_to: None,
            log_start: 0,
            log_start_at_most: 0,
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

    /// The batches from `end` on are given up for good.
    pub fn truncated_to(&mut self, end: u64) {
        self.batches.retain(|batch| batch.header.end_offset_exclusive().0 <= end);
        self.written_end = self.written_end.min(end);
        self.durable_end = self.durable_end.min(end);
        self.truncating_to = None;
    }

    /// Compares what was found with what must or may be there.
    pub fn check(&self, found: &Found, everything_written_survives: bool) -> Result<(), String> {
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
        let epochs = epochs_of(found);
        // An epoch without a record in the log is harmless, if it is the newest and starts at the end.
        let cached: Vec<_> = found.epochs.iter().copied().filter(|(_, start)| *start < found.end).collect();
        if cached != epochs {
            return Err(format!("the leader epochs are {cached:?}, by the batches they are {epochs:?}"));
        }
        Ok(())
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
        self.batches.retain(|batch| batch.header.end_offset_exclusive().0 <= found.end);
        (self.written_end, self.durable_end) = (found.end, found.end);
        (self.log_start, self.log_start_at_most) = (found.log_start, found.log_start);
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
