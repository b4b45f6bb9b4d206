//! What may be asked on a connection, and how it is answered: what tells one kind of session from another for the codec.

use std::fmt::Debug;

use super::messages::{ReplyBody, RequestBody};
use crate::metrics::Metrics;
use crate::protocol::api::ApiVersions;
use crate::protocol::frame::{Attachment, Frame, FrameHead, OutFrame};
use crate::protocol::{Api, ApiError, ErrorCode};

/// One set of requests and replies, in frames of the native form. The requests of another set do not exist on its connections.
pub trait Dialect: Sized + Unpin + 'static {
    /// The kinds of requests.
    type Api: Copy + Debug + 'static;
    /// A decoded request body.
    type Request: Debug + Send + 'static;
    /// A reply body that is not encoded yet.
    type Reply: Debug + Send + 'static;
    /// Whether a request of no known kind ends the connection: whoever sends one does not belong here.
    const STRANGERS_ARE_CLOSED: bool;

    /// The kind of request with this number.
    fn api(number: u16) -> Option<Self::Api>;
    /// The versions of it that are served.
    fn versions(api: Self::Api) -> ApiVersions;
    /// What is said to a number that is no request here.
    fn unknown(number: u16) -> String;
    /// Decodes the body of a frame of this kind.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRequest`] says what is wrong with it.
    fn decode(api: Self::Api, frame: &Frame) -> Result<Self::Request, ApiError>;
    /// Encodes the answer to the request with this head.
    fn encode(reply: Self::Reply, head: FrameHead, attachments: Vec<Attachment>) -> OutFrame;
    /// Whether this reply opens the connection, so that full-sized frames may come from here on.
    fn opens(reply: &Self::Reply) -> bool;
    /// Counts a request.
    fn asked(metrics: &Metrics, api: Self::Api);
    /// Counts an error that answers a whole request; `None` for what was no known request, or not even a frame.
    fn failed(metrics: &Metrics, api: Option<Self::Api>, code: ErrorCode);
    /// Counts the errors of single items inside a reply to a request of this kind.
    fn failed_inside(metrics: &Metrics, api: Option<Self::Api>, reply: &Self::Reply);
}

/// What clients ask.
#[derive(Clone, Copy, Debug)]
pub struct Native;

impl Dialect for Native {
    type Api = Api;
    type Request = RequestBody;
    type Reply = ReplyBody;
    const STRANGERS_ARE_CLOSED: bool = false;

    fn api(number: u16) -> Option<Api> {
        Api::from_number(number)
    }

    fn versions(api: Api) -> ApiVersions {
        api.versions()
    }

    fn unknown(number: u16) -> String {
        format!("there is no request {number}: the answer to Hello lists those there are")
    }

    fn decode(api: Api, frame: &Frame) -> Result<RequestBody, ApiError> {
        RequestBody::decode(api, frame)
    }

    fn encode(reply: ReplyBody, head: FrameHead, attachments: Vec<Attachment>) -> OutFrame {
        reply.encode(head, attachments)
    }

    fn opens(reply: &ReplyBody) -> bool {
        matches!(reply, ReplyBody::Hello(_))
    }

    fn asked(metrics: &Metrics, api: Api) {
        metrics.requests.asked(api);
    }

    fn failed(metrics: &Metrics, api: Option<Api>, code: ErrorCode) {
        metrics.requests.failed(api, code);
    }

    fn failed_inside(metrics: &Metrics, api: Option<Api>, reply: &ReplyBody) {
        reply.count_errors(|code| metrics.requests.failed(api, code));
    }
}
