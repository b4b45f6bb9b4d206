//! Findings, told again and again until the metadata shows that they were heard.
//!
//! ```text
//!   what is known of the replicas ─┐
//!   what the metadata says ────────┴─► findings that it does not show ─► of these, what was not told for an interval ─► Report
//! ```

use std::collections::BTreeSet;

use super::{BrokerEngine, Command, Finding, Held, Output, ReplicaReport, Request};
use crate::types::{BrokerEpoch, MonoTime, TopicPartition};

impl BrokerEngine {
    /// There may be something new to tell.
    pub(super) fn report_by(&mut self, at: MonoTime) {
        self.report_at = Some(self.report_at.map_or(at, |known| known.min(at)));
    }

    pub(super) fn report_if_due(&mut self, now: MonoTime, epoch: BrokerEpoch, out: &mut Output) {
        if self.report_at.is_none_or(|at| at > now) {
            return;
        }
        let interval = self.settings.report_interval;
        let is_due = |told: Option<&MonoTime>| told.is_none_or(|told| now.since(*told) >= interval);
        let wanted = self.wanted();
        self.told.retain(|finding, _| wanted.contains(finding));
        let due: Vec<_> = wanted.into_iter().filter(|finding| is_due(self.told.get(finding))).collect();
        self.told.extend(due.iter().map(|finding| (*finding, now)));
        let once = std::mem::take(&mut self.damage);
        let once = once.into_iter().map(|(partition, leader_epoch)| Finding::Damaged { partition, leader_epoch });
        let all: BTreeSet<_> = due.into_iter().chain(once).collect();
        self.report(epoch, &all.into_iter().collect::<Vec<_>>(), out);
        self.ask_for_ends(now, out);
        let next = self.told.values().chain(self.asked_ends.values()).min();
        self.report_at = next.map(|told| told.plus(interval));
    }

    /// What the metadata does not show yet.
    fn wanted(&self) -> BTreeSet<Finding> {
        let of_replicas = self.held.iter().filter_map(|(partition, held)| held.finding(*partition));
        let gone = self.tombstones.iter().filter(|(_, is_gone)| **is_gone);
        of_replicas.chain(gone.map(|(topic, _)| Finding::FilesGone(*topic))).collect()
    }

    /// Last members are asked how far they reach whenever that is to be told.
    fn ask_for_ends(&mut self, now: MonoTime, out: &mut Output) {
        let is_wanted = |held: &Held| held.is_open() && held.part.is_last;
        let wanted: BTreeSet<TopicPartition> =
            self.held.iter().filter(|(_, held)| is_wanted(held)).map(|(partition, _)| *partition).collect();
        self.asked_ends.retain(|partition, _| wanted.contains(partition));
        let interval = self.settings.report_interval;
        let is_due = |asked: Option<&MonoTime>| asked.is_none_or(|asked| now.since(*asked) >= interval);
        let due: Vec<_> = wanted.into_iter().filter(|partition| is_due(self.asked_ends.get(partition))).collect();
        self.asked_ends.extend(due.iter().map(|partition| (*partition, now)));
        if !due.is_empty() {
            out.0.push(Command::ReadEnds(due));
        }
    }

    pub(super) fn report(&self, epoch: BrokerEpoch, findings: &[Finding], out: &mut Output) {
        let node = self.node();
        out.0.extend(
            findings.chunks(ReplicaReport::MOST).map(|findings| {
                Command::Ask(Request::Report(ReplicaReport { node, epoch, findings: findings.to_vec() }))
            }),
        );
    }
}
