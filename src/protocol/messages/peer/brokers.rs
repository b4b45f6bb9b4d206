//! What brokers ask of the controller that decides: to be registered and counted on, and to know the metadata.

use serde::{Deserialize, Serialize};

use super::PeerRequest;
use crate::protocol::peer_api::PeerApi;
use crate::types::{BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, NodeId, Offset, TopicId, TopicPartition};

/// Registers a process of a broker. A process registers once: asked again, it is given the epoch that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterBroker {
    /// The broker.
    pub node: NodeId,
    /// The run of its process.
    pub incarnation: IncarnationId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// The host that clients are told.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// The host where other nodes reach it; nil where there are no others.
    pub peer_host: Option<String>,
    /// The port there; nil with the host.
    pub peer_port: Option<u16>,
    /// Its rack, if it has one.
    pub rack: Option<String>,
    /// Its software version.
    pub software: String,
    /// The newest registration that its data directory holds; 0 in a new one.
    pub held_epoch: BrokerEpoch,
    /// How its last process ended: 0 cleanly, 1 the process alone, 2 the machine went down.
    pub last_stop: u8,
}

/// The answer to [`RegisterBroker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRegistered {
    /// The registration.
    pub epoch: BrokerEpoch,
    /// The index of the metadata that knows it.
    pub index: u64,
}

impl PeerRequest for RegisterBroker {
    const API: PeerApi = PeerApi::RegisterBroker;
    type Reply = BrokerRegistered;
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewLease {
    /// The broker.
    pub node: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// The metadata of which it has opened all replicas, and said of each what is wrong with it.
    pub applied: u64,
    /// Replicas that may be members only where nobody else is, while it is fenced.
    pub doubtful: Vec<TopicPartition>,
}

/// The answer to [`RenewLease`]. On the wire an array of three: a number (0 renewed, 1 fenced, 2 lapsed, 3 stale), the duration in
/// milliseconds for 0 or nil, the current registration for 3 or nil.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Renewed", into = "Renewed")]
pub enum RenewLeaseReply {
    /// The lease runs for so many milliseconds from when the renewal was sent.
    Renewed {
        /// See above.
        duration_ms: u64,
    },
    /// The broker is fenced, and has not caught up on metadata.
    Fenced,
    /// The renewal came too late: the broker is about to be fenced.
    Lapsed,
    /// There is another registration of this broker, or none.
    Stale {
        /// Which there is.
        current: Option<BrokerEpoch>,
    },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Renewed(u8, Option<u64>, Option<BrokerEpoch>);

impl From<RenewLeaseReply> for Renewed {
    fn from(reply: RenewLeaseReply) -> Self {
        match reply {
            RenewLeaseReply::Renewed { duration_ms } => Self(0, Some(duration_ms), None),
            RenewLeaseReply::Fenced => Self(1, None, None),
            RenewLeaseReply::Lapsed => Self(2, None, None),
            RenewLeaseReply::Stale { current } => Self(3, None, current),
        }
    }
}

impl TryFrom<Renewed> for RenewLeaseReply {
    type Error = String;
    fn try_from(reply: Renewed) -> Result<Self, String> {
        match reply {
            Renewed(0, Some(duration_ms), None) => Ok(Self::Renewed { duration_ms }),
            Renewed(1, None, None) => Ok(Self::Fenced),
            Renewed(2, None, None) => Ok(Self::Lapsed),
            Renewed(3, None, current) => Ok(Self::Stale { current }),
            Renewed(kind, ..) => Err(format!("{kind} with these fields answers no RenewLease")),
        }
    }
}

impl PeerRequest for RenewLease {
    const API: PeerApi = PeerApi::RenewLease;
    type Reply = RenewLeaseReply;
}

/// An answer that says nothing but that the request came. What comes of it the metadata shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {}

/// What became of replicas of a broker: at most 1,000 findings in all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportReplicas {
    /// The broker.
    pub node: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// Replicas whose directories should be there, and are not.
    pub lost: Vec<TopicPartition>,
    /// Replicas of which records cannot be read, or that take no more, each with the leader epoch in which that was found.
    pub damaged: Vec<(TopicPartition, LeaderEpoch)>,
    /// Replicas that are on disk: from here on a directory that is missing was lost.
    pub opened: Vec<TopicPartition>,
    /// Of partitions that only their last members can lead: the leader epoch of the last record, and the offset after it.
    pub ends: Vec<(TopicPartition, LeaderEpoch, Offset)>,
    /// Deleted topics of which nothing is left.
    pub files_gone: Vec<TopicId>,
}

impl PeerRequest for ReportReplicas {
    const API: PeerApi = PeerApi::ReportReplicas;
    type Reply = Heard;
}

/// Leaders of a broker propose other in-sync sets, or other leaders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposeInSync {
    /// The broker.
    pub node: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// At most 1,000.
    pub proposals: Vec<ProposedInSync>,
}

/// What a leader proposes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposedInSync {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch of its leader.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch that the proposal was made in.
    pub partition_epoch: u32,
    /// The members, each with the registration that is meant.
    pub members: Vec<(NodeId, BrokerEpoch)>,
    /// Who is to lead; nil for whoever does.
    pub new_leader: Option<NodeId>,
}

/// The answer to [`ProposeInSync`]: those that changed nothing. The metadata shows the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposeInSyncReply {
    /// See above.
    pub refused: Vec<RefusedInSync>,
}

/// A proposal that changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedInSync {
    /// Of which partition.
    pub partition: TopicPartition,
    /// The partition epoch that it was made in.
    pub partition_epoch: u32,
    /// Why, for people.
    pub why: String,
}

impl PeerRequest for ProposeInSync {
    const API: PeerApi = PeerApi::ProposeInSync;
    type Reply = ProposeInSyncReply;
}

/// A broker is about to stop, or has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopBroker {
    /// The broker.
    pub node: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// It answers nobody any more, and is to be fenced.
    pub has_stopped: bool,
}

impl PeerRequest for StopBroker {
    const API: PeerApi = PeerApi::StopBroker;
    type Reply = Heard;
}

/// Asks for what was decided since an index. Waits until there is something, or a leadership is to be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchMetadata {
    /// Who asks.
    pub node: NodeId,
    /// The registration under which it may be asked to hand over; 0 before there is one.
    pub epoch: BrokerEpoch,
    /// The index of the metadata that it has; 0 for none.
    pub index: u64,
    /// How long it may wait, in milliseconds.
    pub max_wait_ms: u32,
}

/// The answer to [`FetchMetadata`]. Attachments: one image, encoded, or one for each entry after the index that was asked from, by
/// index: a MessagePack array of records, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchMetadataReply {
    /// The index of the metadata with what is attached.
    pub index: u64,
    /// The attachment is the image as of that index.
    pub is_image: bool,
    /// Leaderships of the broker that asks which are to go to another, once it knows the metadata of that index.
    pub hand_overs: Vec<(TopicPartition, NodeId)>,
}

impl PeerRequest for FetchMetadata {
    const API: PeerApi = PeerApi::FetchMetadata;
    type Reply = FetchMetadataReply;
}
