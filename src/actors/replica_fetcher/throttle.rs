//! What replicas of throttled topics may fetch that are not in sync, and when the fetches that wait for that are looked at again: when the
//! budget is there, and when the metadata changes, which may say that nobody need wait any more.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, SpawnHandle, WrapFuture};
use tokio::sync::watch;

use super::actor::ReplicaFetcher;
use crate::actors::broker::BrokerView;
use crate::engine::catch_up_budget::CatchUpBudget;
use crate::types::{Clock, MonoTime, NodeId, TopicConfig, TopicId, TopicPartition};

/// The budgets of a node's topics.
pub(super) struct Throttle {
    node: NodeId,
    topic_defaults: TopicConfig,
    clock: Arc<dyn Clock>,
    view: watch::Receiver<Arc<BrokerView>>,
    /// Of topics that were throttled when somebody fetched.
    budgets: HashMap<TopicId, CatchUpBudget>,
}

impl Throttle {
    pub fn new(
        node: NodeId,
        topic_defaults: TopicConfig,
        clock: Arc<dyn Clock>,
        view: watch::Receiver<Arc<BrokerView>>,
    ) -> Self {
        Self { node, topic_defaults, clock, view, budgets: HashMap::new() }
    }

    /// Whether the replica here is not in sync, and its topic is throttled.
    pub fn applies_to(&self, partition: TopicPartition) -> bool {
        let image = Arc::clone(&self.view.borrow().image);
        let is_out = image.partition(partition).is_some_and(|state| !state.in_sync.contains(&self.node));
        is_out && self.limit(partition.topic).is_some()
    }

    /// Bytes a second; `None` for a topic that is not throttled.
    fn limit(&self, topic: TopicId) -> Option<u64> {
        let view = self.view.borrow();
        view.image.topics.get(&topic)?.config.catch_up_limit(&self.topic_defaults)
    }

    /// Takes what a fetch may bring that wants so many bytes, or says when there will be enough.
    pub fn take(&mut self, topic: TopicId, wanted: usize) -> Result<usize, MonoTime> {
        // The limit was lifted a moment ago.
        let Some(limit) = self.limit(topic) else { return Ok(wanted) };
        let now = self.clock.now();
        if !self.budgets.contains_key(&topic) {
            let image = Arc::clone(&self.view.borrow().image);
            self.budgets.retain(|topic, _| image.topics.contains_key(topic));
        }
        self.budgets.entry(topic).or_insert_with(|| CatchUpBudget::new(now)).take(now, limit, wanted)
    }

    /// A fetch has ended for which so much was taken, and so many bytes came.
    pub fn settle(&mut self, partition: TopicPartition, taken: usize, fetched: usize) {
        // Who keeps up takes nothing before, and costs what it brings all the same, until it is in sync.
        let counts = self.budgets.contains_key(&partition.topic) && (taken > 0 || self.applies_to(partition));
        if let Some(budget) = self.budgets.get_mut(&partition.topic).filter(|_| counts) {
            budget.settle(taken, fetched);
        }
    }
}

/// When the fetches that wait for a budget are looked at again.
#[derive(Default)]
pub(super) struct Alarm {
    set: Option<(MonoTime, SpawnHandle)>,
    is_watching: bool,
    /// Leaders take turns to be the first.
    turn: usize,
}

impl ReplicaFetcher {
    /// Looks again at that moment, or earlier.
    pub(super) fn wake_at(&mut self, at: MonoTime, ctx: &mut Context<Self>) {
        match self.alarm.set {
            Some((earlier, _)) if earlier <= at => return,
            Some((_, later)) => drop(ctx.cancel_future(later)),
            None => {}
        }
        let wait = at.since(self.throttle.clock.now());
        let handle = ctx.run_later(wait, |fetcher, ctx| {
            fetcher.alarm.set = None;
            fetcher.flush_waiting(ctx);
        });
        self.alarm.set = Some((at, handle));
    }

    /// Sends what may be sent now of the fetches that waited for their budget.
    fn flush_waiting(&mut self, ctx: &mut Context<Self>) {
        let waiting = self.leaders.iter().filter(|(_, known)| known.lane.waits_for_budget());
        let mut waiting: Vec<NodeId> = waiting.map(|(leader, _)| *leader).collect();
        waiting.sort_unstable();
        self.alarm.turn = self.alarm.turn.wrapping_add(1);
        let first = self.alarm.turn.checked_rem(waiting.len()).unwrap_or_default();
        waiting.rotate_left(first);
        for leader in waiting {
            self.flush(leader, false, ctx);
        }
    }

    /// Looks again when the metadata changes: a replica may be in sync then, or a limit another one.
    pub(super) fn watch_metadata(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.alarm.is_watching, true) {
            return;
        }
        // What has changed since the last look tells it at once.
        let mut view = self.throttle.view.clone();
        let change = async move { view.changed().await.is_ok() };
        let look = change.into_actor(self).map(|is_there, fetcher, ctx| {
            fetcher.alarm.is_watching = false;
            if is_there {
                fetcher.look_again(ctx);
            }
        });
        ctx.spawn(look);
    }

    fn look_again(&mut self, ctx: &mut Context<Self>) {
        self.throttle.view.mark_unchanged();
        let leaders: Vec<NodeId> = self.leaders.keys().copied().collect();
        for leader in leaders {
            let throttle = &self.throttle;
            if let Some(known) = self.leaders.get_mut(&leader).filter(|known| known.lane.waits_for_budget()) {
                known.lane.queue_anew(|partition| throttle.applies_to(partition));
                self.flush(leader, false, ctx);
            }
        }
    }
}
