//! Brokers of the stage: how they come and go, and what happens to their disks.

use std::path::{Path, PathBuf};

use callboard::engine::broker::{Answer, Finding, Request};
use callboard::engine::controller as engine;
use callboard::engine::metadata::{BrokerRegistration, MetadataRecord};
use callboard::protocol::ErrorCode;
use callboard::storage::disk::virtual_disk::{DiskSnapshot, FaultyOperation};
use callboard::storage::disk::{Disk, OpenMode};
use callboard::storage::queue::LogWork;
use callboard::types::{BrokerEpoch, MonoTime, NodeId, TopicName};

use super::{Broker, Stage};

impl Stage {
    /// The broker renews its lease no more.
    pub fn silence(&mut self, node: u32) {
        self.silent.insert(node);
    }

    /// A renewal is sent, and answered at once.
    pub fn renew(&mut self, node: u32) {
        let sent = self.now;
        self.renew_as_sent(node, sent);
    }

    /// A renewal that the broker sent at `sent` is answered now.
    pub fn renew_as_sent(&mut self, node: u32, sent: MonoTime) {
        let Some(process) = self.brokers.get(&node).and_then(|broker| broker.process.as_ref()) else { return };
        let (epoch, applied) = (process.epoch(), process.engine.caught_up_to());
        let renewal = self.leases.on_renewal(self.now, &self.image, (NodeId(node), epoch), applied);
        let engine::Renewal::Granted { duration, .. } = renewal else { return };
        self.answer_broker(node, Answer::Renewed { epoch, sent, duration });
    }

    /// The controller's answer reaches the broker.
    fn answer_broker(&mut self, node: u32, answer: Answer) {
        let (now, defaults) = (self.now, self.defaults.clone());
        let Some(process) = self.process(node) else { return };
        process.with_engine((now, NodeId(node), &defaults), |engine, _, out| engine.on_answer(now, answer, out));
        self.with(node, |_, _| {});
    }

    /// What the broker has to ask and to say by now.
    fn asked(&mut self, node: u32) -> Vec<Request> {
        let (now, defaults) = (self.now, self.defaults.clone());
        let process = self.process(node).expect("started");
        process.with_engine((now, NodeId(node), &defaults), |engine, _, out| engine.on_tick(now, out));
        std::mem::take(&mut process.asked)
    }

    /// The broker learns everything that was decided.
    pub fn metadata(&mut self, node: u32) {
        let (now, defaults, entries) = (self.now, self.defaults.clone(), self.entries.clone());
        let Some(process) = self.process(node) else { return };
        if process.applied == entries.len() {
            return;
        }
        for entry in &entries[process.applied..] {
            process.image.apply_entry(entry).expect("as the controller applied it");
        }
        process.applied = entries.len();
        process.follow(now, NodeId(node), &defaults);
        self.with(node, |_, _| {});
    }

    /// The process ends, whatever it was doing; what was written is in the page cache.
    pub fn kill(&mut self, node: u32) {
        let broker = self.brokers.get_mut(&node).expect("on the stage");
        broker.process = None;
        broker.disk.kill();
        self.forget_mail(node);
    }

    /// The machine loses its power, and with it all that was not synced.
    pub fn power_loss(&mut self, node: u32) {
        let broker = self.brokers.get_mut(&node).expect("on the stage");
        broker.process = None;
        broker.disk.power_loss_keeping_nothing();
        self.forget_mail(node);
    }

    fn forget_mail(&mut self, node: u32) {
        drop(self.take_mail(|mail| mail.follower().0 == node));
        self.proposals.retain(|(leader, _)| leader.0 != node);
    }

    /// The disk is replaced by an empty one, the process gone.
    pub fn wipe(&mut self, node: u32) {
        self.kill(node);
        self.broker(node).disk.wipe();
    }

    pub fn roll_back(&mut self, node: u32, snapshot: &DiskSnapshot) {
        self.kill(node);
        self.broker(node).disk.roll_back(snapshot);
    }

    /// One bit of the broker's only segment turns over.
    pub fn flip_bit(&mut self, node: u32, position: u64) {
        self.broker(node).disk.flip_bit(&segment(), position, 3).expect("there is a segment");
    }

    /// The next sync of the broker's records fails.
    pub fn break_sync(&mut self, node: u32) {
        self.broker(node).disk.fail_nth(FaultyOperation::Sync, 1, ".log");
    }

    /// Bytes that are no record stand at the end of the broker's only segment: a write that was torn.
    pub fn tear(&mut self, node: u32) {
        let disk = &self.broker(node).disk;
        let file = disk.open(&segment(), OpenMode::Write).expect("there is a segment");
        let end = file.len().expect("readable");
        file.write_vectored_at(&[std::io::IoSlice::new(b"torn")], end).expect("written");
    }

    /// A process starts, and sends what its directory says.
    pub fn sends_registration(&mut self, node: u32) -> BrokerRegistration {
        let (cluster, now) = (self.image.cluster_id, self.now);
        self.brokers.get_mut(&node).expect("on the stage").start(cluster, now);
        match self.asked(node).pop() {
            Some(Request::Register(registration)) => registration,
            other => panic!("a process that starts asks for {other:?}"),
        }
    }

    /// What the controller decides on a new process of the broker: it is not in the metadata log yet.
    pub fn decides_registration(&mut self, node: u32) -> Vec<MetadataRecord> {
        let registration = self.sends_registration(node);
        engine::register(&self.image, registration, &self.defaults).expect("accepted").records
    }

    /// Whether a decision fits the newest metadata.
    pub fn fits(&self, records: &[MetadataRecord]) -> bool {
        self.image.clone().apply_entry(records).is_ok()
    }

    /// A registration comes to the controller, and its answer to the process.
    pub fn register(&mut self, registration: BrokerRegistration) -> BrokerEpoch {
        let (node, incarnation) = (registration.node.0, registration.incarnation);
        let decision = engine::register(&self.image, registration, &self.defaults).expect("accepted");
        let epoch = if decision.records.is_empty() { decision.answer } else { self.decide(Ok(decision)) };
        self.answer_broker(node, Answer::Registered { incarnation, epoch });
        epoch
    }

    /// A process starts and registers.
    pub fn registers(&mut self, node: u32) -> Result<(), ErrorCode> {
        let registration = self.sends_registration(node);
        engine::register(&self.image, registration.clone(), &self.defaults).map_err(|error| error.code)?;
        self.register(registration);
        Ok(())
    }

    /// A registered broker opens its replicas, and is counted on.
    pub fn unfence(&mut self, node: u32) {
        self.metadata(node);
        let mut doubtful = Vec::new();
        for request in self.asked(node) {
            match request {
                Request::Renew(renewal) => doubtful = renewal.doubtful,
                Request::Report(report) => {
                    for finding in report.findings {
                        let Finding::Lost(partition) = finding else { continue };
                        let decision = engine::report_lost(&self.image, partition, NodeId(node), report.epoch);
                        self.decide(decision);
                    }
                }
                _ => {}
            }
        }
        let decision = engine::unfence(&self.image, NodeId(node), self.epoch_of(node), &doubtful);
        self.decide(decision);
        self.silent.remove(&node);
        self.renew(node);
        self.metadata(node);
    }

    pub fn restart(&mut self, node: u32) {
        self.registers(node).expect("accepted");
        self.unfence(node);
    }

    /// The broker closes its log, notes that it stopped cleanly if it did, and ends.
    pub fn close(&mut self, node: u32) {
        self.with(node, |hosted, _| {
            let high_watermark = hosted.replica.cursors().expect("a role").high_watermark();
            let producers = hosted.replica.producers_snapshot();
            hosted.push(LogWork::Close { high_watermark, producers });
        });
        self.write(node);
        let closed_well = self.hosted(node).is_none_or(|hosted| hosted.closed_well);
        let process = self.process(node).expect("running");
        if closed_well {
            process.directory.mark_clean_stop(process.epoch()).expect("marked");
        }
        assert_eq!(process.directory.root(), Path::new("/data"));
        self.brokers.get_mut(&node).expect("on the stage").process = None;
        self.broker(node).disk.kill();
        self.forget_mail(node);
    }
}

fn segment() -> PathBuf {
    let dir = Broker::partition_dir(&TopicName::new("rides").expect("legal"));
    dir.join(format!("{:020}.log", 0))
}
