//! One seed, one cluster: the queue of everything that is about to happen, and what happens next.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use callboard::engine::broker::Renewal;
use callboard::replica::ProducerReplay;
use callboard::storage::queue::Job;
use callboard::types::{BrokerEpoch, ClusterId, NodeId, TopicConfig, TopicPartition};

use crate::broker::Broker;
use crate::clients::Client;
use crate::coverage::Coverage;
use crate::faults::{Fault, Plan};
use crate::metadata::{Controller, RaftLog};
use crate::net::{Message, Network, Place};
use crate::oracle::Oracle;

/// Something that is about to happen.
pub enum Event {
    Deliver {
        from: Place,
        to: Place,
        message: Message,
    },
    /// A job of a log is done, on some thread.
    Job {
        broker: usize,
        life: u64,
        partition: TopicPartition,
        job: Job<(), ProducerReplay>,
    },
    Open {
        broker: usize,
        life: u64,
        partition: TopicPartition,
    },
    /// Files of a deleted topic are removed, on some thread.
    RemoveFiles {
        broker: usize,
        life: u64,
        partition: TopicPartition,
    },
    WakeReplica {
        broker: usize,
        life: u64,
        partition: TopicPartition,
    },
    /// The broker asks for metadata, and looks after its files.
    WakeBroker {
        broker: usize,
        life: u64,
    },
    /// The broker's engine has something to ask, to say or to repeat.
    TickBroker {
        broker: usize,
        life: u64,
    },
    /// The broker's epoch is written down, on some thread.
    StoreEpoch {
        broker: usize,
        life: u64,
        epoch: BrokerEpoch,
    },
    StartBroker {
        broker: usize,
    },
    WakeController {
        controller: usize,
        life: u64,
    },
    StartController {
        controller: usize,
    },
    /// An entry that a controller proposed in a term is decided now, or refused.
    Decide {
        controller: usize,
        life: u64,
        term: u64,
        decision: Decision,
    },
    /// Whether a quorum still follows the controller, so that a renewal may be answered.
    Confirm {
        controller: usize,
        life: u64,
        term: u64,
        renewal: Renewal,
    },
    WakeClient {
        client: usize,
    },
    Fault(Fault),
}

/// Records that a controller wants decided, and whom to tell.
pub struct Decision {
    pub records: Vec<callboard::engine::metadata::MetadataRecord>,
    pub then: Then,
}

/// What is told when a decision is in the log.
pub enum Then {
    Nothing,
    Tell(Place, Message),
}

pub struct World {
    pub seed: u64,
    pub rng: fastrand::Rng,
    pub now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub cluster: ClusterId,
    pub defaults: TopicConfig,
    pub network: Network,
    pub raft: RaftLog,
    pub controllers: Vec<Controller>,
    pub brokers: Vec<Broker>,
    pub clients: Vec<Client>,
    pub partitions: Vec<TopicPartition>,
    pub oracle: Oracle,
    pub coverage: Coverage,
    pub plan: Plan,
    pub story: Story,
    pub steps: u64,
}

/// Who did what, when: kept for whoever wants to read it, and a hash of it always.
#[derive(Default)]
pub struct Story {
    pub is_told: bool,
    pub lines: Vec<String>,
    pub hash: u64,
}

impl Story {
    fn note(&mut self, line: std::fmt::Arguments<'_>, now: u64) {
        let mut text = String::new();
        let _ = write!(text, "{:>10.3} ms  {line}", now as f64 / 1_000.0);
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.is_told {
            self.lines.push(text);
        }
    }
}

/// Many times what happens in a seed.
const MAX_STEPS: u64 = 1_000_000;

impl World {
    pub fn empty(seed: u64, is_told: bool) -> Self {
        Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            cluster: ClusterId(uuid::Uuid::from_u128(1)),
            defaults: TopicConfig::default(),
            network: Network { cut: Default::default(), drops: 0, doubles: 0, delay_us: 1_000 },
            raft: RaftLog::new(),
            controllers: Vec::new(),
            brokers: Vec::new(),
            clients: Vec::new(),
            partitions: Vec::new(),
            oracle: Oracle::default(),
            coverage: Coverage::default(),
            plan: Plan::default(),
            story: Story { is_told, lines: Vec::new(), hash: 0xcbf2_9ce4_8422_2325 },
            steps: 0,
        }
    }

    pub fn tell(&mut self, line: std::fmt::Arguments<'_>) {
        self.story.note(line, self.now);
    }

    pub fn at(&mut self, when: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((when.max(self.now), self.sequence), event);
    }

    pub fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now + delay_us, event);
    }

    pub fn send(&mut self, from: Place, to: Place, message: Message) {
        for delay in self.network.carry(from, to, &mut self.rng) {
            self.after(delay, Event::Deliver { from, to, message: message.clone() });
        }
    }

    pub fn broker_of(&self, node: NodeId) -> usize {
        node.0 as usize - 1
    }

    /// Lets everything happen until `until`, or until something is violated.
    pub fn run_until(&mut self, until: u64) {
        while self.oracle.violation.is_none() {
            let Some(entry) = self.queue.first_entry() else { break };
            if entry.key().0 > until {
                break;
            }
            let ((when, _), event) = entry.remove_entry();
            self.now = when;
            self.steps += 1;
            self.step(event);
            if self.steps > MAX_STEPS {
                self.oracle
                    .fail("something is done over and over again, and the cluster never comes to rest".to_owned());
            }
        }
        self.now = self.now.max(until);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message } => match to {
                Place::Broker(broker) => self.deliver_to_broker(broker, from, message),
                Place::Controller(controller) => self.deliver_to_controller(controller, from, message),
                Place::Client(client) => self.deliver_to_client(client, message),
            },
            Event::Job { broker, life, partition, job } => self.run_job(broker, life, partition, job),
            Event::Open { broker, life, partition } => self.open_replica(broker, life, partition),
            Event::RemoveFiles { broker, life, partition } => self.remove_files(broker, life, partition),
            Event::WakeReplica { broker, life, partition } => self.wake_replica(broker, life, partition),
            Event::WakeBroker { broker, life } => self.wake_broker(broker, life),
            Event::TickBroker { broker, life } => self.tick_broker(broker, life),
            Event::StoreEpoch { broker, life, epoch } => self.store_epoch(broker, life, epoch),
            Event::StartBroker { broker } => self.start_broker(broker),
            Event::WakeController { controller, life } => self.wake_controller(controller, life),
            Event::StartController { controller } => self.start_controller(controller),
            Event::Decide { controller, life, term, decision } => self.decide(controller, life, term, decision),
            Event::Confirm { controller, life, term, renewal } => self.confirm(controller, life, term, renewal),
            Event::WakeClient { client } => self.wake_client(client),
            Event::Fault(fault) => self.strike(fault),
        }
    }

    /// Puts an event off until the broker goes on, if it stands still. Gives it back if not.
    pub fn unless_paused(&mut self, broker: usize, event: Event) -> Option<Event> {
        let until = self.brokers[broker].paused_until;
        if until > self.now {
            self.at(until, event);
            return None;
        }
        Some(event)
    }
}
