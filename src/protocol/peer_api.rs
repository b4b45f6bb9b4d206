//! The requests between nodes and the versions served, in one table. Their numbers start at 200. They are served on the listener
//! for nodes and nowhere else, and nothing else is served there.

use super::api::ApiVersions;

/// The version of the traffic between nodes that this code speaks, `PeerHello` included.
pub const PEER_PROTOCOL_VERSION: u16 = 1;
/// The first number of a request between nodes.
pub const FIRST_PEER_API: u16 = 200;

/// One kind of request between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerApi {
    /// The first request of every connection between nodes.
    PeerHello,
    /// Are you there?
    Ping,
    /// Become a controller of a new cluster.
    FormController,
    /// Which controller decides?
    FindController,
    /// Become a controller of this cluster.
    JoinController,
    /// How are the controllers, and which leases run?
    DescribeControllers,
    /// Entries of the Raft log, or a heartbeat.
    RaftAppend,
    /// A vote in the Raft group.
    RaftVote,
    /// One chunk of a snapshot of the metadata.
    RaftSnapshot,
    /// A process of a broker registers.
    RegisterBroker,
    /// A sign of life of a broker.
    RenewLease,
    /// What became of replicas.
    ReportReplicas,
    /// Other in-sync sets and leaders are wanted.
    ProposeInSync,
    /// A broker stops.
    StopBroker,
    /// What was decided since an index.
    FetchMetadata,
    /// A client of another node creates topics.
    ForwardCreateTopics,
    /// A client of another node deletes topics.
    ForwardDeleteTopics,
    /// A client of another node changes topics.
    ForwardAlterTopics,
    /// A client of another node wants a producer id.
    ForwardInitProducer,
    /// A client of another node gives topics more partitions.
    ForwardAddPartitions,
    /// A client of another node moves partitions.
    ForwardReassign,
    /// A client of another node gives leaderships back.
    ForwardElectLeaders,
    /// A client of another node adds, removes or resets a controller.
    ForwardChangeControllers,
    /// What followers hold, and want next.
    FetchReplicas,
}

impl PeerApi {
    /// Every request kind.
    pub const ALL: [Self; 24] = [
        Self::PeerHello,
        Self::Ping,
        Self::FormController,
        Self::FindController,
        Self::JoinController,
        Self::DescribeControllers,
        Self::RaftAppend,
        Self::RaftVote,
        Self::RaftSnapshot,
        Self::RegisterBroker,
        Self::RenewLease,
        Self::ReportReplicas,
        Self::ProposeInSync,
        Self::StopBroker,
        Self::FetchMetadata,
        Self::ForwardCreateTopics,
        Self::ForwardDeleteTopics,
        Self::ForwardAlterTopics,
        Self::ForwardInitProducer,
        Self::ForwardAddPartitions,
        Self::ForwardReassign,
        Self::ForwardElectLeaders,
        Self::ForwardChangeControllers,
        Self::FetchReplicas,
    ];

    /// Its number in a frame.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::PeerHello => FIRST_PEER_API,
            Self::Ping => 201,
            Self::FormController => 202,
            Self::FindController => 203,
            Self::JoinController => 204,
            Self::DescribeControllers => 205,
            Self::RaftAppend => 210,
            Self::RaftVote => 211,
            Self::RaftSnapshot => 212,
            Self::RegisterBroker => 220,
            Self::RenewLease => 221,
            Self::ReportReplicas => 222,
            Self::ProposeInSync => 223,
            Self::StopBroker => 224,
            Self::FetchMetadata => 225,
            Self::ForwardCreateTopics => 230,
            Self::ForwardDeleteTopics => 231,
            Self::ForwardAlterTopics => 232,
            Self::ForwardInitProducer => 233,
            Self::ForwardAddPartitions => 234,
            Self::ForwardReassign => 235,
            Self::ForwardElectLeaders => 236,
            Self::ForwardChangeControllers => 237,
            Self::FetchReplicas => 240,
        }
    }

    /// The request kind with this number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|api| api.number() == number)
    }

    /// The versions of it that are served.
    #[must_use]
    pub fn versions(self) -> ApiVersions {
        ApiVersions { api: self.number(), min_version: 1, max_version: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Api;

    #[test]
    fn requests_of_clients_and_of_nodes_share_no_number() {
        for api in PeerApi::ALL {
            assert_eq!(PeerApi::from_number(api.number()), Some(api));
            assert!(api.number() >= FIRST_PEER_API);
            assert_eq!(Api::from_number(api.number()), None, "a client must not reach {api:?}");
        }
        for api in Api::ALL {
            assert!(api.number() < FIRST_PEER_API);
            assert_eq!(PeerApi::from_number(api.number()), None, "a node must not serve {api:?} to another");
        }
    }
}
