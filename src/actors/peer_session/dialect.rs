//! What nodes ask each other, for the codec.

use crate::actors::codec::Dialect;
use crate::metrics::Metrics;
use crate::protocol::api::ApiVersions;
use crate::protocol::frame::{Attachment, Frame, FrameHead, OutFrame, encode_outcome};
use crate::protocol::messages::peer::{self, PeerRequest};
use crate::protocol::peer_api::FIRST_PEER_API;
use crate::protocol::{ApiError, ErrorCode, PeerApi};

macro_rules! bodies {
    ($($name:ident),* $(,)?) => {
        /// A decoded request of another node. One variant for each [`PeerApi`].
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum PeerRequestBody {
            $(#[doc = concat!("See [`peer::", stringify!($name), "`].")] $name(peer::$name),)*
        }

        /// A reply to another node that is not encoded yet. One variant for each [`PeerApi`].
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum PeerReplyBody {
            $(#[doc = concat!("Answers [`peer::", stringify!($name), "`].")]
              $name(<peer::$name as PeerRequest>::Reply),)*
        }

        fn decode(api: PeerApi, frame: &Frame) -> Result<PeerRequestBody, ApiError> {
            match api {
                $(PeerApi::$name => frame.decode_body().map(PeerRequestBody::$name),)*
            }
        }

        fn encode(reply: PeerReplyBody, head: FrameHead, attachments: Vec<Attachment>) -> OutFrame {
            match reply {
                $(PeerReplyBody::$name(reply) => encode_outcome(head, Ok(reply), attachments),)*
            }
        }
    };
}

bodies!(
    PeerHello,
    Ping,
    FormController,
    FindController,
    JoinController,
    DescribeControllers,
    RaftAppend,
    RaftVote,
    RaftSnapshot,
    RegisterBroker,
    RenewLease,
    ReportReplicas,
    ProposeInSync,
    StopBroker,
    FetchMetadata,
    ForwardCreateTopics,
    ForwardDeleteTopics,
    ForwardAlterTopics,
    ForwardInitProducer,
    ForwardAddPartitions,
    ForwardReassign,
    ForwardElectLeaders,
    ForwardChangeControllers,
    FetchReplicas,
);

/// What nodes ask each other.
#[derive(Clone, Copy, Debug)]
pub struct BetweenNodes;

impl Dialect for BetweenNodes {
    type Api = PeerApi;
    type Request = PeerRequestBody;
    type Reply = PeerReplyBody;
    // A node knows what the other one serves from its hello. A number that is unknown here comes from a client, or worse.
    const STRANGERS_ARE_CLOSED: bool = true;

    fn api(number: u16) -> Option<PeerApi> {
        PeerApi::from_number(number)
    }

    fn versions(api: PeerApi) -> ApiVersions {
        api.versions()
    }

    fn unknown(number: u16) -> String {
        if number < FIRST_PEER_API {
            format!(
                "request {number} is one of clients, and this is the listener for other nodes: connect to the address of \
                 listener.native"
            )
        } else {
            format!("there is no request {number} between nodes in this release: upgrade the older of the two")
        }
    }

    fn decode(api: PeerApi, frame: &Frame) -> Result<PeerRequestBody, ApiError> {
        decode(api, frame)
    }

    fn encode(reply: PeerReplyBody, head: FrameHead, attachments: Vec<Attachment>) -> OutFrame {
        encode(reply, head, attachments)
    }

    fn opens(reply: &PeerReplyBody) -> bool {
        matches!(reply, PeerReplyBody::PeerHello(_))
    }

    // The counters of requests are those of clients.
    fn asked(_: &Metrics, _: PeerApi) {}
    fn failed(_: &Metrics, _: Option<PeerApi>, _: ErrorCode) {}
    fn failed_inside(_: &Metrics, _: Option<PeerApi>, _: &PeerReplyBody) {}
}
