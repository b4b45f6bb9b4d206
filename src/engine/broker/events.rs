//! What a broker asks controllers, what these answer, and what the engine has done by its shell.

use std::time::Duration;

use crate::engine::controller::InSyncProposal;
use crate::engine::metadata::BrokerRegistration;
use crate::protocol::ApiError;
use crate::types::{BrokerEpoch, IncarnationId, LeaderEpoch, MonoTime, NodeId, Offset, TopicId, TopicPartition};

/// A request to the active controller. Each may be lost, or come twice; none expects an answer that does not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Counts on this process from here on: [`Answer::Registered`] or [`Answer::NotRegistered`].
    Register(BrokerRegistration),
    /// Prolongs the lease: [`Answer::Renewed`], [`Answer::Lapsed`], [`Answer::StaleEpoch`], or no answer while the broker is fenced.
    Renew(Renewal),
    /// Says what has become of replicas. No answer: the metadata shows it.
    Report(ReplicaReport),
    /// What leaders here want: [`Answer::ProposalsRefused`] for those that are refused; the metadata shows the others.
    Propose(Vec<InSyncProposal>),
    /// The broker is about to stop. No answer: the metadata shows it.
    Stopping {
        /// The broker.
        node: NodeId,
        /// Its registration.
        epoch: BrokerEpoch,
    },
    /// The broker leads nothing any more and answers nobody: it is to be fenced. No answer: the metadata shows it.
    Stopped {
        /// The broker.
        node: NodeId,
        /// Its registration.
        epoch: BrokerEpoch,
    },
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The broker.
    pub node: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// The index of the metadata up to which it has opened all replicas that this called for, and said of each what is wrong with it.
    pub applied: u64,
    /// When it was sent, by the broker's own clock: the answer gives it back.
    pub sent: MonoTime,
    /// Replicas that may be members only where nobody else is (rule 16): what matters when the broker is counted on again. Nothing while
    /// the metadata says that it is. At most as many as the broker has replicas.
    pub doubtful: Vec<TopicPartition>,
}

/// What became of replicas of a broker: at most [`ReplicaReport::MOST`] findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// The broker.
    pub node: NodeId,
    /// Its registration: a report of an earlier one says nothing.
    pub epoch: BrokerEpoch,
    /// In no order that means anything.
    pub findings: Vec<Finding>,
}

impl ReplicaReport {
    /// How many findings one report has at most: about 40 kB, and a decision that a controller makes in a moment.
    pub const MOST: usize = 1_000;
}

/// What became of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Its directory should be here, and is not.
    Lost(TopicPartition),
    /// Some of its records cannot be read, or it takes no more.
    Damaged {
        /// The partition.
        partition: TopicPartition,
        /// The leader epoch that this was found in: the replica may have been repaired since.
        leader_epoch: LeaderEpoch,
    },
    /// It is on this disk: from here on a directory that is missing was lost.
    Opened(TopicPartition),
    /// Of a partition that only its last members can lead: how much this one kept.
    End {
        /// The partition.
        partition: TopicPartition,
        /// The leader epoch of its last record.
        leader_epoch: LeaderEpoch,
        /// The offset after its last record.
        end_offset: Offset,
    },
    /// Nothing of a deleted topic is left here.
    FilesGone(TopicId),
}

/// An answer of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The process is registered.
    Registered {
        /// Which process.
        incarnation: IncarnationId,
        /// Under which epoch.
        epoch: BrokerEpoch,
    },
    /// The process is not registered.
    NotRegistered {
        /// Which process.
        incarnation: IncarnationId,
        /// Why not. [`crate::protocol::ErrorCode::BrokerSuperseded`] is final; whatever else may be otherwise the next time.
        cause: ApiError,
    },
    /// The lease runs on.
    Renewed {
        /// Of which registration.
        epoch: BrokerEpoch,
        /// When that renewal was sent.
        sent: MonoTime,
        /// For how long, from then on.
        duration: Duration,
    },
    /// The renewal came too late: the broker is about to be fenced.
    Lapsed {
        /// Of which registration.
        epoch: BrokerEpoch,
    },
    /// The controller has another registration of this broker, or none.
    StaleEpoch {
        /// Under which it had asked.
        epoch: BrokerEpoch,
        /// Which there is.
        current: Option<BrokerEpoch>,
    },
    /// Proposals that changed nothing.
    ProposalsRefused(Vec<RefusedProposal>),
}

/// A proposal that changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedProposal {
    /// Of which partition.
    pub partition: TopicPartition,
    /// The partition epoch that it was made in.
    pub partition_epoch: u32,
    /// Why, for people.
    pub why: String,
}

/// Why a process is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// It was told to stop, and has. `is_clean`: everything is on the disk, and the marker says so.
    Stopped {
        /// Whether everything was written.
        is_clean: bool,
    },
    /// A newer process of this broker has registered: end at once, and write nothing.
    Superseded,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send this to the active controller, if one is known.
    Ask(Request),
    /// Keep this epoch in the data directory, durably, then tell ([`super::BrokerEngine::on_epoch_stored`], or
    /// [`super::BrokerEngine::on_epoch_not_stored`]).
    StoreEpoch(BrokerEpoch),
    /// The leaders here may answer until then.
    SetLease(MonoTime),
    /// The leaders here answer nothing any more that a lease is needed for. When all of them know, tell
    /// ([`super::BrokerEngine::on_lease_given_up`]).
    GiveUpLease,
    /// Open this replica, or create it if it may be new, then tell ([`super::BrokerEngine::on_opened`],
    /// [`super::BrokerEngine::on_lost`], [`super::BrokerEngine::on_cannot_open`], or [`super::BrokerEngine::on_gone`] if its topic is
    /// gone meanwhile).
    Open(TopicPartition),
    /// The replica was doubtful and counts as whole from here on: its log notes that.
    MarkVerified(TopicPartition),
    /// See how far the logs of these replicas reach, then tell ([`super::BrokerEngine::on_ends`]).
    ReadEnds(Vec<TopicPartition>),
    /// Tell the leader of that partition, if it is still in that partition epoch.
    ProposalRefused(RefusedProposal),
    /// Let the leader here hand over.
    HandOver {
        /// The partition.
        partition: TopicPartition,
        /// To whom.
        to: NodeId,
        /// Until when appends may stand still for it.
        until: MonoTime,
    },
    /// Close all logs, then tell ([`super::BrokerEngine::on_closed`]).
    Close,
    /// Leave the marker of a clean stop, of this registration.
    MarkCleanStop(BrokerEpoch),
    /// End the process.
    End(EndReason),
}

/// The commands of one event, in the order in which they are to be carried out.
#[derive(Debug, Default)]
pub struct Output(pub Vec<Command>);
