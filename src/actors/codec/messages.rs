//! Between the codec and its session: typed requests one way, typed replies the other.

use actix::Message;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::net::{FramePermit, FrameRoom, ReadEnd, ReceivedFrame, WriteEnd};
use crate::protocol::frame::{Attachment, Frame, FrameHead, OutFrame, encode_reply};
use crate::protocol::messages::{self, Request};
use crate::protocol::{Api, ApiError};

macro_rules! bodies {
    ($($name:ident),* $(,)?) => {
        /// A decoded request body. One variant for each [`Api`].
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum RequestBody {
            $(#[doc = concat!("See [`messages::", stringify!($name), "`].")] $name(messages::$name),)*
        }

        /// A reply body that is not encoded yet. One variant for each [`Api`].
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum ReplyBody {
            $(#[doc = concat!("Answers [`messages::", stringify!($name), "`].")]
              $name(<messages::$name as Request>::Reply),)*
        }

        impl RequestBody {
            /// Decodes the body of a frame of this kind.
            pub(super) fn decode(api: Api, frame: &Frame) -> Result<Self, ApiError> {
                match api {
                    $(Api::$name => frame.decode_body().map(Self::$name),)*
                }
            }
        }

        impl ReplyBody {
            /// Encodes it as the answer to the request with this head.
            pub(super) fn encode(self, head: FrameHead, attachments: Vec<Attachment>) -> OutFrame {
                match self {
                    $(Self::$name(reply) => encode_reply::<messages::$name>(head, Ok(reply), attachments),)*
                }
            }
        }
    };
}

bodies!(
    Hello,
    Metadata,
    Produce,
    Fetch,
    ListOffsets,
    InitProducer,
    CreateTopics,
    DeleteTopics,
    AlterTopics,
    DescribeTopics,
    DescribeLogs,
    DescribeCluster,
    DeleteRecords,
    DescribeNode,
    AddPartitions,
    ReassignPartitions,
    ElectLeaders,
    ChangeControllers,
);

/// What a request holds until its reply is queued: the room of its frame, and one of the connection's requests in flight.
#[derive(Debug)]
pub struct RequestPermit {
    pub(super) frame: FramePermit,
    pub(super) _in_flight: Option<OwnedSemaphorePermit>,
}

impl RequestPermit {
    /// Takes the room of the frame out, for the batches that came in it.
    pub fn take_room(&mut self) -> Option<FrameRoom> {
        self.frame.take_room()
    }

    /// Gives the room of the frame back: its bytes have been dropped, while the request still waits.
    pub fn release_bytes(&mut self) {
        self.frame.release_bytes();
    }
}

/// A request of a client. Goes to the session.
pub type ClientRequest = Incoming<RequestBody>;

/// A request of whoever is at the other end. Goes to the session.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Incoming<B> {
    /// The head of its frame, for the reply.
    pub head: FrameHead,
    /// What is asked.
    pub body: B,
    /// The attachments, shared with the frame.
    pub attachments: Vec<Bytes>,
    /// To be kept until the reply is sent.
    pub permit: RequestPermit,
}

/// The connection has ended. Goes to the session.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Disconnected;

/// A reply of the session, to a client if nothing else is said.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reply<B = ReplyBody> {
    /// The head of the request.
    pub head: FrameHead,
    /// The answer, or what went wrong with the whole request.
    pub result: Result<B, ApiError>,
    /// Records that go with it.
    pub attachments: Vec<Attachment>,
    /// Dropped once the reply is queued for writing: the request's permit, and whatever else counts until then.
    pub held: Held,
}

/// What is kept until a reply is queued for writing.
#[derive(Debug, Default)]
pub struct Held {
    /// The request's permit.
    pub permit: Option<RequestPermit>,
    /// The room that a fetch has among the replies of its connection.
    pub room: Option<super::ReplyRoom>,
}

/// Close the connection once everything before this is written.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct CloseConnection;

/// The reader has a frame.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct FrameArrived {
    pub received: ReceivedFrame,
    pub in_flight: Option<OwnedSemaphorePermit>,
}

/// The reader has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ReaderEnded(pub ReadEnd);

/// The writer has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct WriterEnded(pub WriteEnd);
