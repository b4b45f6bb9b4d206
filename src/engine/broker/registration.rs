//! How a process registers: it asks until it is answered, and counts only when the epoch that it was given is in its data directory.

use super::{BrokerEngine, Command, EndReason, Output, Phase, Request};
use crate::engine::metadata::ClusterImage;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{BrokerEpoch, IncarnationId, MonoTime};

impl BrokerEngine {
    pub(super) fn ask_to_register(&mut self, now: MonoTime, out: &mut Output) {
        self.phase = Phase::Registering { ask_at: now.plus(self.settings.retry) };
        out.0.push(Command::Ask(Request::Register(self.registration.clone())));
    }

    pub(super) fn store(&mut self, epoch: BrokerEpoch, out: &mut Output) {
        self.phase = Phase::Storing { epoch, again_at: None };
        out.0.push(Command::StoreEpoch(epoch));
    }

    pub(super) fn on_registered(&mut self, incarnation: IncarnationId, epoch: BrokerEpoch, out: &mut Output) {
        // A process registers once: whatever comes later is a copy.
        if incarnation == self.registration.incarnation && matches!(self.phase, Phase::Registering { .. }) {
            self.refusal = None;
            self.store(epoch, out);
        }
    }

    /// Whatever else stands against it may be over soon (a lease of the broker that has the id, a decision that was overtaken), so it
    /// goes on asking, and says why it waits.
    pub(super) fn on_not_registered(&mut self, incarnation: IncarnationId, cause: ApiError, out: &mut Output) {
        if incarnation != self.registration.incarnation {
            return;
        }
        if cause.code == ErrorCode::BrokerSuperseded {
            self.end(EndReason::Superseded, out);
        } else if matches!(self.phase, Phase::Registering { .. }) {
            self.refusal = Some(cause);
        }
    }

    /// The epoch is in the data directory. `image` is the metadata that is applied here.
    pub fn on_epoch_stored(&mut self, now: MonoTime, image: &ClusterImage, out: &mut Output) {
        let Phase::Storing { epoch, .. } = self.phase else { return };
        self.phase = Phase::Serving { epoch };
        self.lease.renew_by(now);
        self.on_image(now, image, out);
    }

    /// The epoch could not be written down: it is tried again. The broker is not counted on meanwhile.
    pub fn on_epoch_not_stored(&mut self, now: MonoTime) {
        if let Phase::Storing { again_at, .. } = &mut self.phase {
            *again_at = Some(now.plus(self.settings.retry));
        }
    }

    /// Only a newer registration ends this process. A controller that has an older one, or none, does not know what was decided: the
    /// lease is not renewed, and the next renewal finds another.
    pub(super) fn on_stale_epoch(&mut self, epoch: BrokerEpoch, current: Option<BrokerEpoch>, out: &mut Output) {
        if self.epoch() == Some(epoch) && current.is_some_and(|current| current > epoch) {
            self.end(EndReason::Superseded, out);
        }
    }
}
