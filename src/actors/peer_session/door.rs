//! A door to an actor that does not exist yet: a node serves others before all of it is there.

use actix::{Actor, Context, Handler, Message, Recipient};

use super::messages::{PeerCall, PeerGone};
use crate::actors::send::post_to;
use crate::protocol::{ApiError, ErrorCode};

/// Passes requests on once there is somebody who serves them. Until then others are told to come back.
#[derive(Debug)]
pub struct Door {
    what: &'static str,
    calls: Option<Recipient<PeerCall>>,
    gone: Option<Recipient<PeerGone>>,
}

impl Door {
    /// A door that is shut. `what` is behind it, for whoever is told to come back.
    #[must_use]
    pub fn shut(what: &'static str) -> Self {
        Self { what, calls: None, gone: None }
    }
}

/// Somebody is there from here on.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct OpenDoor {
    /// Who serves.
    pub calls: Recipient<PeerCall>,
    /// Who wants to know of connections that are gone.
    pub gone: Option<Recipient<PeerGone>>,
}

impl Actor for Door {
    type Context = Context<Self>;
}

impl Handler<OpenDoor> for Door {
    type Result = ();
    fn handle(&mut self, OpenDoor { calls, gone }: OpenDoor, _: &mut Context<Self>) {
        self.calls = Some(calls);
        self.gone = gone;
    }
}

impl Handler<PeerCall> for Door {
    type Result = ();
    fn handle(&mut self, call: PeerCall, _: &mut Context<Self>) {
        match &self.calls {
            Some(calls) => post_to(calls, call),
            None => {
                let text = format!("this {} is still starting: try again", self.what);
                call.answer.send(Err(ApiError::new(ErrorCode::Overloaded, text)));
            }
        }
    }
}

impl Handler<PeerGone> for Door {
    type Result = ();
    fn handle(&mut self, gone: PeerGone, _: &mut Context<Self>) {
        if let Some(to) = &self.gone {
            post_to(to, gone);
        }
    }
}
