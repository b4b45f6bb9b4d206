//! Which situations a seed has been in: counters, so that a rule that is never put to the test is noticed.

use std::collections::BTreeMap;

/// The situations that each rule of replication is for. In many seeds each rule's are met: `scripts/simulate` looks.
const OF_RULES: &[(u8, &[&str])] = &[
    (1, &["a set is proposed", "the minimum holds the watermark back", "a proposal is refused"]),
    (
        2,
        &[
            "an answer to an earlier process comes",
            "a fetch of an earlier registration comes",
            "a fetch for another epoch comes",
            "a fetch is overtaken",
        ],
    ),
    (
        3,
        &[
            "a leader is asked after its lease",
            "a broker is fenced for its silence",
            "a renewal comes too late",
            "a renewal is not answered for want of a quorum",
            "a controller is elected",
        ],
    ),
    (4, &["a retry comes before the original is committed"]),
    (5, &["a leader is elected", "a broker is elected again"]),
    (6, &["a log is cut"]),
    (7, &["the end is asked of a leader that does not know it", "a replica is asked for more than it knows"]),
    (8, &["a hand-over begins", "a hand-over is proposed", "a planned stop"]),
    (9, &["a replica comes into the in-sync set", "a member that lags is proposed to leave"]),
    (10, &["a decision did not fit what came before it"]),
    (11, &["a replica is eligible beside the in-sync set", "an eligible replica is elected", "a setting is changed"]),
    (12, &["a reassignment begins", "a reassignment is complete"]),
    (13, &["a follower waits when only the watermark moves"]),
    (14, &["a disk is wiped", "a disk is rolled back", "a registration is refused"]),
    (15, &["a broker loses its power", "a replica leaves for what was not synced"]),
    (16, &["a log fails", "a damaged replica is reported", "a doubtful replica is counted on again"]),
    (17, &["a topic is deleted", "files of a deleted topic are removed", "files that nobody knows are put aside"]),
    (
        18,
        &[
            "a log is cut",
            "a log is started anew",
            "records are deleted on request",
            "records are deleted by retention",
        ],
    ),
    (19, &["a broker is fenced", "a topic cannot be placed for want of live brokers"]),
];

#[derive(Default, Clone)]
pub struct Coverage(pub BTreeMap<&'static str, u64>);

impl Coverage {
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn count_if(&mut self, is_met: bool, what: &'static str) {
        if is_met {
            self.count(what);
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// How often each situation was met: those of the rules in their order, whether met or not, then all others.
    pub fn lines(&self) -> Vec<String> {
        let of_rules = OF_RULES.iter().flat_map(|(rule, all)| all.iter().map(move |what| (rule, *what)));
        let count = |what: &str| self.0.get(what).copied().unwrap_or_default();
        let mut lines: Vec<_> =
            of_rules.map(|(rule, what)| format!("{:>10}  rule {rule:02}: {what}", count(what))).collect();
        let is_of_a_rule = |what: &str| OF_RULES.iter().any(|(_, all)| all.contains(&what));
        let others = self.0.iter().filter(|(what, _)| !is_of_a_rule(what));
        lines.extend(others.map(|(what, count)| format!("{count:>10}  {what}")));
        lines
    }
}
