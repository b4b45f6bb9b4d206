//! What other nodes ask of this controller, over their links: the same messages as in this process, in another form.

use actix::{AsyncContext, Handler};

use super::actor::Controller;
use crate::actors::controllers::{self, LocalController};
use crate::actors::peer_session::PeerCall;

impl Handler<PeerCall> for Controller {
    type Result = ();
    fn handle(&mut self, call: PeerCall, ctx: &mut Self::Context) {
        let here = LocalController::from(ctx.address());
        // Beside the actor: most of it waits for a decision.
        actix_rt::spawn(async move { controllers::answer(&here, call).await });
    }
}
