//! What is damaged of a replica's log, and what makes it whole again.
//!
//! ```text
//!   whole ── on_damage ──► ranges ── each fetched, put in place ──► nothing known ── looked through, segment by segment ──► whole
//!                            ▲                                                            │
//!                            └──────────────────────── more is found ─────────────────────┘
//! ```
//!
//! Damage seldom comes alone, so a replica that was repaired counts again only when all of it was read once.

use crate::types::Offset;

/// The damage of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Damaged ranges within the log, end exclusive, in order and apart from each other.
    ranges: Vec<(Offset, Offset)>,
    /// What is still to be looked through, end exclusive; `None` for a log that counts as whole.
    unverified: Option<(Offset, Offset)>,
}

impl Damage {
    /// The damage of a log `[log_start, end)` of which these ranges are known.
    #[must_use]
    pub fn found(known: &[(Offset, Offset)], log_start: Offset, end: Offset) -> Self {
        let mut damage = Self::default();
        damage.note(known, log_start, end);
        damage
    }

    /// Whether nothing is known against the log.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unverified.is_none()
    }

    /// The first damaged range (start, end exclusive).
    #[must_use]
    pub fn first(&self) -> Option<(Offset, Offset)> {
        self.ranges.first().copied()
    }

    /// These ranges are known to be damaged now, of a log `[log_start, end)`. Returns whether one of them is news.
    pub fn note(&mut self, known: &[(Offset, Offset)], log_start: Offset, end: Offset) -> bool {
        let before = std::mem::take(&mut self.ranges);
        self.ranges = known.to_vec();
        self.clip(log_start, end);
        if !self.ranges.is_empty() {
            self.unverified = Some((log_start, end));
        }
        let was_known =
            |range: &(Offset, Offset)| before.iter().any(|(start, end)| *start <= range.0 && range.1 <= *end);
        !self.ranges.iter().all(was_known)
    }

    /// The log is `[log_start, end)` now: what was damaged outside is gone.
    pub fn clip(&mut self, log_start: Offset, end: Offset) {
        for (start, stop) in &mut self.ranges {
            (*start, *stop) = ((*start).max(log_start), (*stop).min(end));
        }
        self.ranges.retain(|(start, stop)| start < stop);
        if let Some((from, to)) = self.unverified {
            self.verify((from.max(log_start), to.min(end)));
        }
    }

    /// What lies between `from` and `next` was looked through. While some of the log is known to be damaged that says nothing: all of it
    /// is looked through after the repair.
    pub fn scrubbed(&mut self, from: Offset, next: Offset) {
        let counts = |(verified, _): &(Offset, Offset)| from <= *verified && self.ranges.is_empty();
        if let Some((verified, to)) = self.unverified.filter(counts) {
            self.verify((verified.max(next), to));
        }
    }

    fn verify(&mut self, rest: (Offset, Offset)) {
        self.unverified = Some(rest).filter(|(from, to)| from < to || !self.ranges.is_empty());
    }

    /// Where to look the log through from, once no damage of it is known.
    #[must_use]
    pub fn next_to_verify(&self) -> Option<Offset> {
        self.unverified.filter(|_| self.ranges.is_empty()).map(|(from, _)| from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[(u64, u64)]) -> Vec<(Offset, Offset)> {
        pairs.iter().map(|(start, end)| (Offset(*start), Offset(*end))).collect()
    }

    #[test]
    fn a_log_is_whole_again_once_nothing_is_damaged_and_all_of_it_was_read() {
        let (start, end) = (Offset(5), Offset(30));
        let mut damage = Damage::found(&ranges(&[(2, 8), (20, 22)]), start, end);
        assert_eq!(damage.first(), Some((Offset(5), Offset(8))), "what lies before the log is gone");
        assert_eq!(damage.next_to_verify(), None);
        assert!(!damage.note(&ranges(&[(20, 22)]), start, end), "less than before is no news");
        damage.scrubbed(start, end);
        assert!(!damage.note(&[], start, end));
        assert_eq!((damage.is_whole(), damage.next_to_verify()), (false, Some(Offset(5))));
        damage.scrubbed(Offset(16), Offset(30));
        assert_eq!(damage.next_to_verify(), Some(Offset(5)), "that was another part");
        damage.scrubbed(Offset(0), Offset(16));
        assert_eq!(damage.next_to_verify(), Some(Offset(16)));
        assert!(damage.note(&ranges(&[(18, 19)]), start, end), "more was found");
        damage.note(&[], start, end);
        damage.scrubbed(Offset(5), Offset(30));
        assert!(damage.is_whole());
    }

    #[test]
    fn damage_goes_with_the_records_that_go() {
        let mut damage = Damage::found(&ranges(&[(10, 12), (20, 22)]), Offset(0), Offset(30));
        damage.clip(Offset(11), Offset(20));
        assert_eq!(damage.ranges, ranges(&[(11, 12)]));
        damage.clip(Offset(12), Offset(20));
        assert_eq!(damage.next_to_verify(), Some(Offset(12)));
        damage.clip(Offset(40), Offset(40));
        assert!(damage.is_whole(), "a log that starts anew holds nothing that could be damaged");
    }
}
