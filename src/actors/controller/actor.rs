//! The controller's handlers: every request becomes a question of the next round.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture};
use openraft::ServerState;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::deciding::{Answered, Question, Sitting, question};
use super::following::Followers;
use super::membership::Membership;
use super::messages::*;
use super::office::{TICK, Tenure};
use super::renewals::Renewals;
use super::rounds::Round;
use super::settings::ControllerSettings;
use crate::actors::send::post;
use crate::engine::controller::Decision;
use crate::engine::metadata::{ClusterImage, FEATURE_LEVEL, MetadataRecord};
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::{AppliedImage, Raft, RecentEntries, cause_of};
use crate::types::NodeId;

/// Requests that may wait for the next round. Each connection has a limit of its own for what it asks; this one keeps a crowd of
/// them from filling memory while the disk, or the other controllers, are slow.
const MAX_WAITING: usize = 10_000;
/// How long a controller that stops waits for what it is deciding: with a majority that takes as long as a sync of a disk.
const LAST_ROUND: Duration = Duration::from_secs(1);

/// Whether this controller decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Office {
    /// Another leads, or nobody.
    Elsewhere,
    /// It was elected in this term. Before it decides, a majority confirms that, and all that was decided before is applied.
    Entering(u64),
    /// It decides, in this term.
    Held(u64),
    /// The node stops.
    Closed,
}

/// See the module page.
pub struct Controller {
    pub(super) raft: Raft,
    pub(super) images: watch::Receiver<AppliedImage>,
    pub(super) entries: RecentEntries,
    pub(super) settings: ControllerSettings,
    pub(super) office: Office,
    pub(super) tenure: Option<Tenure>,
    /// `None` where no other controller can be.
    pub(super) membership: Option<Membership>,
    pub(super) renewals: Renewals,
    pub(super) followers: Followers,
    /// Brokers that are being dialled.
    pub(super) dialing: BTreeSet<NodeId>,
    pub(super) waiting: Vec<Box<dyn Question>>,
    pub(super) round: Option<Round>,
    pub(super) producer_ids: std::ops::Range<i64>,
    published: Option<u64>,
    pub(super) failure: Option<ApiError>,
    pub(super) on_rest: Option<oneshot::Sender<()>>,
}

impl Controller {
    /// A controller over a Raft that runs on the same thread, the images that it applies, and the entries that led to them.
    #[must_use]
    pub(super) fn new(
        raft: Raft,
        images: watch::Receiver<AppliedImage>,
        entries: RecentEntries,
        settings: ControllerSettings,
        membership: Option<Membership>,
    ) -> Self {
        Self {
            raft,
            images,
            entries,
            settings,
            office: Office::Elsewhere,
            tenure: None,
            membership,
            renewals: Renewals::default(),
            followers: Followers::default(),
            dialing: BTreeSet::new(),
            waiting: Vec::new(),
            round: None,
            producer_ids: 0..0,
            published: None,
            failure: None,
            on_rest: None,
        }
    }

    pub(super) fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.images.borrow().image)
    }

    /// Tells whoever follows of the newest image, once.
    pub(super) fn publish(&mut self) {
        let image = self.image();
        if self.published.replace(image.index) == Some(image.index) {
            return;
        }
        if let Some(tenure) = &mut self.tenure {
            tenure.follow(self.settings.clock.now(), &image);
        }
        self.measure();
        self.answer_followers();
    }

    /// Asks for a decision. The answer comes when its records are applied, or at once when there can be none.
    pub(super) fn ask<T: 'static, F: FnMut(&mut Sitting<'_>) -> Result<T, ApiError> + 'static>(
        &mut self,
        ctx: &mut Context<Self>,
        decide: F,
    ) -> impl Future<Output = Result<Committed<T>, ApiError>> + use<T, F> {
        let (asked, answered): (_, Answered<T>) = question(decide);
        match self.refusal() {
            Some(cause) => asked.answer(Err(cause)),
            None => {
                self.waiting.push(asked);
                self.begin_round(ctx);
            }
        }
        async move { answered.await.unwrap_or_else(|_| Err(stopping())) }
    }

    /// Why a broker has to look for another controller, if that is so. Whoever waits for one that is about to take office waits here.
    pub(super) fn absence(&self) -> Option<ApiError> {
        if self.failure.is_some() {
            return self.failure.clone();
        }
        let leads = self.raft.metrics().borrow().state == ServerState::Leader;
        match self.office {
            Office::Closed => Some(stopping()),
            Office::Elsewhere if !leads => Some(not_controller()),
            Office::Elsewhere | Office::Entering(_) | Office::Held(_) => None,
        }
    }

    /// Why nothing can be decided, if that is so.
    pub(super) fn refusal(&self) -> Option<ApiError> {
        if let Some(cause) = &self.failure {
            return Some(cause.clone());
        }
        if self.office == Office::Closed {
            return Some(stopping());
        }
        if self.waiting.len() >= MAX_WAITING {
            let text = format!("{MAX_WAITING} changes of the metadata wait already: try again a little later");
            return Some(ApiError::new(ErrorCode::Overloaded, text));
        }
        let leader = self.raft.metrics().borrow().current_leader;
        match self.office {
            Office::Elsewhere if leader.is_some_and(|leader| leader != self.raft.metrics().borrow().id) => {
                Some(not_controller())
            }
            // Nobody leads yet: whoever is elected decides.
            _ => None,
        }
    }

    /// Looks where Raft stands, and takes or leaves office accordingly.
    fn follow_raft(&mut self, ctx: &mut Context<Self>) {
        self.publish();
        let (running, state, term) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.running_state.clone(), metrics.state, metrics.current_term)
        };
        if let Err(fatal) = running
            && self.office != Office::Closed
        {
            self.fail(&cause_of(&fatal));
            return;
        }
        let leads = state == ServerState::Leader;
        match self.office {
            Office::Closed => {}
            Office::Entering(known) | Office::Held(known) if leads && known == term => {}
            Office::Elsewhere if !leads => self.turn_away_if_led_elsewhere(),
            _ if leads => {
                if self.tenure.is_some() {
                    // In an earlier term: what it knew of that is over.
                    self.end_tenure(&not_controller());
                }
                self.office = Office::Entering(term);
                let (raft, home) = (self.raft.clone(), ctx.address());
                actix_rt::spawn(async move {
                    let confirmed = raft.ensure_linearizable().await.is_ok();
                    post(&home, Confirmed { term, confirmed });
                });
            }
            _ => self.leave_office(),
        }
    }

    fn turn_away_if_led_elsewhere(&mut self) {
        if !self.waiting.is_empty()
            && let Some(cause) = self.refusal()
        {
            self.waiting.drain(..).for_each(|question| question.answer(Err(cause.clone())));
        }
    }

    pub(super) fn leave_office(&mut self) {
        self.office = Office::Elsewhere;
        self.end_tenure(&not_controller());
        self.turn_away_if_led_elsewhere();
    }

    /// Nothing is decided any more: what the disk holds is unknown until it is opened again.
    pub(super) fn fail(&mut self, cause: &str) {
        if self.failure.is_some() {
            return;
        }
        tracing::error!(%cause, "the metadata cannot be kept: no more changes of topics until this node restarts");
        let text = format!("{cause}: check the disk and restart the controller");
        let failure = ApiError::new(ErrorCode::StorageFailed, text);
        self.waiting.drain(..).for_each(|question| question.answer(Err(failure.clone())));
        self.end_tenure(&failure);
        self.failure = Some(failure);
    }
}

pub(super) fn stopping() -> ApiError {
    ApiError::new(ErrorCode::ShuttingDown, "the controller is stopping: try again a little later")
}

pub(super) fn not_controller() -> ApiError {
    ApiError::new(ErrorCode::NotController, "another controller decides: refresh the metadata and ask that one")
}

impl Actor for Controller {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, Self::tick);
        let (mut metrics, mut images, home) = (self.raft.metrics(), self.images.clone(), ctx.address());
        actix_rt::spawn(async move {
            loop {
                post(&home, RaftMoved);
                let moved = tokio::select! {
                    moved = metrics.changed() => moved,
                    moved = images.changed() => moved,
                };
                // Whoever sends the one or the other is gone when Raft has ended.
                if moved.is_err() || !home.connected() {
                    return post(&home, RaftMoved);
                }
            }
        });
    }
}

impl Handler<RaftMoved> for Controller {
    type Result = ();
    fn handle(&mut self, _: RaftMoved, ctx: &mut Self::Context) {
        self.follow_raft(ctx);
    }
}

impl Handler<Confirmed> for Controller {
    type Result = ();
    fn handle(&mut self, Confirmed { term, confirmed }: Confirmed, ctx: &mut Self::Context) {
        if self.office != Office::Entering(term) {
            return;
        }
        if !confirmed {
            return self.leave_office();
        }
        self.office = Office::Held(term);
        self.take_office(ctx);
        let image = self.image();
        tracing::debug!(term, index = image.index, "this controller decides");
        if image.feature_level < FEATURE_LEVEL {
            // From here on older software would misread what follows. Before everything else that waits.
            let record = MetadataRecord::FeatureLevel { level: FEATURE_LEVEL };
            let raise =
                move |sitting: &mut Sitting<'_>| sitting.take(Decision { records: vec![record.clone()], answer: () });
            self.waiting.insert(0, question(raise).0);
        }
        self.begin_round(ctx);
    }
}

impl Handler<CloseController> for Controller {
    type Result = ResponseFuture<Result<(), String>>;
    fn handle(&mut self, _: CloseController, _: &mut Self::Context) -> Self::Result {
        self.office = Office::Closed;
        self.end_tenure(&stopping());
        self.waiting.drain(..).for_each(|question| question.answer(Err(stopping())));
        let (rested, rest) = oneshot::channel();
        if self.round.is_some() {
            self.on_rest = Some(rested);
        }
        let raft = self.raft.clone();
        Box::pin(async move {
            // Answered, or dropped when there is no round: at rest in either case. Without a majority no round ends.
            let _ = timeout(LAST_ROUND, rest).await;
            raft.shutdown().await.map_err(|error| format!("Raft could not be stopped: {error}"))
        })
    }
}
