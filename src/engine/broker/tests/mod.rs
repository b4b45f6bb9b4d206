//! The broker's story, told by its commands, over a controller that decides with the real engine.

mod lease;
mod registration;
mod reports;
mod stopping;

use super::*;
use crate::engine::controller::test_support::{Cluster, P0, Return, nodes};
use crate::engine::controller::{register, report_lost};
use crate::engine::metadata::LastStop;
use crate::protocol::ErrorCode;
use crate::types::{IncarnationId, Offset};

const CLEAN: Return = Return::After(LastStop::Clean);

const SETTINGS: BrokerSettings = BrokerSettings {
    retry: Duration::from_millis(100),
    renewal_interval: Duration::from_millis(300),
    report_interval: Duration::from_millis(200),
    hand_over_timeout: Duration::from_millis(50),
    stop_timeout: Duration::from_millis(1_000),
    farewell: Duration::from_millis(500),
};

const LEASE: Duration = Duration::from_millis(1_000);

fn ms(at: u64) -> MonoTime {
    MonoTime(Duration::from_millis(at))
}

/// Three brokers, and [`P0`] on the first two, of which both have to be in sync: whoever leaves stays eligible.
fn strict() -> Cluster {
    Cluster::with_partition(3, &nodes([1, 2]), &[("min_insync_replicas", "2")])
}

/// A broker and the cluster that it comes to.
struct Story {
    cluster: Cluster,
    engine: BrokerEngine,
    now: u64,
}

impl Story {
    /// Broker `node` of the cluster comes back, and asks at 0 ms.
    fn of(mut cluster: Cluster, node: u32, how: Return) -> Self {
        let registration = cluster.returning(node, how);
        Self { cluster, engine: BrokerEngine::new(ms(0), registration, SETTINGS), now: 0 }
    }

    /// Broker 1, which leads [`P0`] with broker 2, has restarted and is registered. Its replica is not open yet.
    fn registered() -> Self {
        Self::registered_as(strict(), 1)
    }

    fn registered_as(cluster: Cluster, node: u32) -> Self {
        let mut story = Self::of(cluster, node, CLEAN);
        story.at(0);
        let answer = story.decides();
        story.answered(answer);
        story.stored();
        story
    }

    /// The same, its replica open and on record, and counted on.
    fn live() -> Self {
        let mut story = Self::registered();
        story.opened(Opened::default());
        story.counted_on();
        story.at(0);
        let opened = crate::engine::metadata::MetadataRecord::TopicOpened {
            topic: P0.topic,
            node: story.engine.node(),
            partitions: Some(vec![P0.partition]),
        };
        story.cluster.apply(&[opened]);
        story.image();
        story.at(1);
        story
    }

    /// The same, and broker 1 leads, both in sync, with a lease up to 1,000 ms.
    fn leading() -> Self {
        let mut story = Self::live();
        story.cluster.fenced(2);
        story.cluster.start(2);
        story.cluster.in_sync(&[1, 2]);
        assert_eq!(story.cluster.sets(), (Some(1), vec![1, 2], vec![]));
        story.image();
        let epoch = story.epoch();
        story.answered(Answer::Renewed { epoch, sent: ms(0), duration: LEASE });
        assert_eq!(story.at(1), [""; 0]);
        story
    }

    fn epoch(&self) -> BrokerEpoch {
        self.engine.epoch().expect("registered")
    }

    fn run(&mut self, event: impl FnOnce(&mut BrokerEngine, MonoTime, &mut Output)) -> Vec<String> {
        let mut out = Output::default();
        event(&mut self.engine, ms(self.now), &mut out);
        out.0.iter().map(text).collect()
    }

    /// It is so late: whatever is due is done.
    fn at(&mut self, at: u64) -> Vec<String> {
        assert!(at >= self.now, "time goes forward");
        self.now = at;
        self.run(|engine, now, out| engine.on_tick(now, out))
    }

    /// The controller decides on the registration, and would answer this.
    fn decides(&mut self) -> Answer {
        let registration = self.engine.registration.clone();
        let incarnation = registration.incarnation;
        let decision = register(&self.cluster.image, registration, &self.cluster.defaults);
        match decision {
            Ok(decision) => Answer::Registered { incarnation, epoch: self.cluster.take(Ok(decision)) },
            Err(cause) => Answer::NotRegistered { incarnation, cause },
        }
    }

    fn answered(&mut self, answer: Answer) -> Vec<String> {
        self.run(|engine, now, out| engine.on_answer(now, answer, out))
    }

    fn stored(&mut self) -> Vec<String> {
        let image = self.cluster.image.clone();
        self.run(|engine, now, out| engine.on_epoch_stored(now, &image, out))
    }

    /// The broker learns all that was decided.
    fn image(&mut self) -> Vec<String> {
        let image = self.cluster.image.clone();
        self.run(|engine, now, out| engine.on_image(now, &image, out))
    }

    fn opened(&mut self, opened: Opened) {
        self.engine.on_opened(ms(self.now), P0, opened);
    }

    /// The controller counts on it, and it knows.
    fn counted_on(&mut self) -> Vec<String> {
        let node = self.engine.node().0;
        self.cluster.unfenced(node, &[]);
        self.image()
    }

    fn stop(&mut self) -> Vec<String> {
        self.run(|engine, now, out| engine.on_stop(now, out))
    }

    /// When the next tick is due.
    fn next(&self) -> Option<u64> {
        self.engine.next_deadline().map(|at| at.0.as_millis() as u64)
    }
}

fn place(partition: &TopicPartition) -> String {
    if partition.topic == P0.topic { format!("p{}", partition.partition) } else { partition.to_string() }
}

fn places(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(place).collect::<Vec<_>>().join(" ")
}

fn millis(at: &MonoTime) -> u128 {
    at.0.as_millis()
}

fn finding(finding: &Finding) -> String {
    match finding {
        Finding::Lost(partition) => format!("{} lost", place(partition)),
        Finding::Damaged { partition, leader_epoch } => format!("{} damaged in {leader_epoch}", place(partition)),
        Finding::Opened(partition) => format!("{} opened", place(partition)),
        Finding::End { partition, leader_epoch, end_offset } => {
            format!("{} ends at {end_offset} in {leader_epoch}", place(partition))
        }
        Finding::FilesGone(_) => "files gone".to_owned(),
    }
}

/// A command in a few words. Registrations have no numbers that a story could know.
fn text(command: &Command) -> String {
    match command {
        Command::Ask(Request::Register(_)) => "register".to_owned(),
        Command::Ask(Request::Renew(renewal)) => {
            format!("renew at {}, doubts [{}]", millis(&renewal.sent), places(&renewal.doubtful))
        }
        Command::Ask(Request::Report(report)) => {
            format!("report {}", report.findings.iter().map(finding).collect::<Vec<_>>().join(", "))
        }
        Command::Ask(Request::Propose(proposals)) => {
            let partitions: Vec<_> = proposals.iter().map(|proposal| proposal.partition).collect();
            format!("propose {}", places(&partitions))
        }
        Command::Ask(Request::Stopping { .. }) => "stopping".to_owned(),
        Command::Ask(Request::Stopped { .. }) => "stopped".to_owned(),
        Command::StoreEpoch(_) => "store".to_owned(),
        Command::SetLease(until) => format!("lease until {}", millis(until)),
        Command::GiveUpLease => "give up the lease".to_owned(),
        Command::Open(partition) => format!("open {}", place(partition)),
        Command::MarkVerified(partition) => format!("{} is whole", place(partition)),
        Command::ReadEnds(partitions) => format!("read the ends of {}", places(partitions)),
        Command::ProposalRefused(refused) => format!("{} is refused: {}", place(&refused.partition), refused.why),
        Command::HandOver { partition, to, until } => {
            format!("hand {} over to {to} until {}", place(partition), millis(until))
        }
        Command::Close => "close".to_owned(),
        Command::MarkCleanStop(_) => "mark".to_owned(),
        Command::End(EndReason::Superseded) => "end: superseded".to_owned(),
        Command::End(EndReason::Stopped { is_clean: true }) => "end: clean".to_owned(),
        Command::End(EndReason::Stopped { is_clean: false }) => "end: not clean".to_owned(),
    }
}
