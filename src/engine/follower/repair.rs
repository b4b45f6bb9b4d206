//! Damage: what the follower asks its leader for again, and when it counts as whole.
//!
//! A fetch names the first damaged range beside the position; the leader, which has found that this log is the beginning of its own,
//! answers with whole batches from the one that holds the range's start on. So the range grows to the edges of the leader's batches,
//! which are this log's, too: a range that a scan has found may begin or end anywhere. What does not fit in one answer is
//! asked for by the next fetch. Between two fetches for a range that cannot be had, one asks for what comes next, so that a leader that has
//! damage of its own, or has deleted the records, can still say so.

use super::{Command, FollowerEngine, Output, Phase};
use crate::engine::damage::Damage;
use crate::types::record_batch::BatchHeader;
use crate::types::{MonoTime, Offset};

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Mending {
    /// The range that the newest fetch asked for.
    asked: Option<(Offset, Offset)>,
    /// The last answer was of no use: the next fetch asks for what comes next.
    is_put_off: bool,
    is_scrubbing: bool,
}

impl<R> FollowerEngine<R> {
    /// What is known to be damaged of its log.
    #[must_use]
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// These ranges of the log are known to be damaged now. Returns whether one of them is news: then the leader is told at once.
    pub fn on_damage(&mut self, now: MonoTime, known: &[(Offset, Offset)], out: &mut Output<R>) -> bool {
        let is_news = self.damage.note(known, self.cursors.log_start(), self.cursors.written_end());
        if is_news {
            self.fetch(now, true, out);
        }
        is_news
    }

    /// The segment that holds `from` was looked through, up to `next`; damage was told before.
    pub fn on_scrubbed(&mut self, now: MonoTime, from: Offset, next: Offset, out: &mut Output<R>) {
        let was_whole = self.damage.is_whole();
        self.mending.is_scrubbing = false;
        self.damage.scrubbed(from, next);
        if was_whole {
            return;
        }
        if self.damage.is_whole() {
            // The leader hears of it by this.
            self.fetch(now, true, out);
        } else {
            self.look_through(out);
        }
    }

    /// It was not: it is tried again by and by.
    pub fn on_not_scrubbed(&mut self) {
        self.mending.is_scrubbing = false;
    }

    /// Looks the log through, once nothing of it is known to be damaged.
    pub(super) fn look_through(&mut self, out: &mut Output<R>) {
        let may_look = !self.mending.is_scrubbing && self.phase == Phase::Fetching && self.failed.is_none();
        if let Some(from) = self.damage.next_to_verify().filter(|_| may_look) {
            self.mending.is_scrubbing = true;
            out.0.push(Command::Scrub { from });
        }
    }

    /// The range that the next fetch asks for.
    pub(super) fn next_repair(&mut self) -> Option<(Offset, Offset)> {
        let is_put_off = std::mem::take(&mut self.mending.is_put_off);
        self.mending.asked = self.damage.first().filter(|_| !is_put_off);
        self.mending.asked
    }

    /// A fetch was refused. If it asked for a damaged range, the next one does not.
    pub(super) fn on_refused_repair(&mut self) {
        self.mending.is_put_off = self.mending.asked.take().is_some();
    }

    /// The leader has sent batches for the range that the newest fetch asked for.
    pub(super) fn repair(&mut self, now: MonoTime, headers: &[BatchHeader], out: &mut Output<R>) {
        let asked = self.mending.asked.take();
        let found = asked.and_then(|asked| covered(asked, headers)).filter(|(_, to)| *to <= self.cursors.written_end());
        match found {
            Some((from, to)) => {
                self.phase = Phase::Repairing;
                self.fetch_at = None;
                out.0.push(Command::Repair { from, to });
            }
            None => self.repair_later(now),
        }
    }

    fn repair_later(&mut self, now: MonoTime) {
        self.mending.is_put_off = true;
        self.fetch_at = Some(now.plus(self.settings.fetch_backoff));
    }

    /// The batches are in their place, or, where they did not fit there, nothing has changed. What is damaged now was told before.
    pub fn on_repaired(&mut self, now: MonoTime, is_done: bool, out: &mut Output<R>) {
        if self.phase != Phase::Repairing {
            return;
        }
        self.phase = Phase::Fetching;
        if is_done {
            self.fetch(now, true, out);
        } else {
            self.repair_later(now);
        }
    }
}

/// Which part of the log the batches fill without a gap, of those that reach into `asked`: from its start on, or from before it.
fn covered(asked: (Offset, Offset), headers: &[BatchHeader]) -> Option<(Offset, Offset)> {
    let first = headers.first()?.base_offset;
    let mut end = first;
    for header in headers.iter().take_while(|header| header.base_offset < asked.1) {
        if header.base_offset != end {
            return None;
        }
        end = header.end_offset_exclusive();
    }
    (first <= asked.0 && asked.0 < end).then_some((first, end))
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
