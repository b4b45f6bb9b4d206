//! The one place that posts messages without waiting for room in a mailbox.
//!
//! `do_send` ignores a mailbox's capacity. That is right here because what may be under way is bounded before it becomes
//! a message: each frame holds a byte permit from the moment it is read until its reply is handed to the writer, and a
//! connection has a limited number of requests in flight. A second bound in the mailboxes could only drop replies.

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message, Recipient};

/// Posts `message` to an actor of this node. An actor that has stopped takes no notice.
#[allow(clippy::disallowed_methods, reason = "see the module page: the bound is the byte permit of the frame")]
pub fn post<A, M>(address: &Addr<A>, message: M)
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    address.do_send(message);
}

/// Posts `message` to whoever receives such messages.
#[allow(clippy::disallowed_methods, reason = "see the module page: the bound is the byte permit of the frame")]
pub fn post_to<M>(recipient: &Recipient<M>, message: M)
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    recipient.do_send(message);
}
