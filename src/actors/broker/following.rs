//! Following the metadata: it is asked for again and again, and worked off.
//!
//! ```text
//!   FollowMetadata ─► Controllers ─► MetadataArrived ─┬─► the next FollowMetadata
//!                                                     └─► newest ─► engine, topics here, parts ─► view
//!                                                             waits for replicas that are being opened, a while
//! ```

use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};

use super::actor::{Broker, TopicReplicas};
use super::messages::{MetadataArrived, Replica};
use crate::actors::controller::{FollowMetadata, MetadataNews};
use crate::actors::send::post;
use crate::engine::metadata::{ClusterImage, TopicImage};

/// How long a controller may let a request for metadata wait for news.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(5);
/// After an error the metadata is asked for again so much later.
const FOLLOW_PAUSE: Duration = Duration::from_millis(100);
/// Metadata waits at most so long for replicas that are being opened: what a session is shown is whole then. Beyond that, what the
/// others are told is worth more.
const OPENING_PATIENCE: Duration = Duration::from_millis(500);

impl Broker {
    pub(super) fn ask_for_metadata(&self, ctx: &Context<Self>) {
        let (controllers, home, known) = (self.settings.controllers.clone(), ctx.address(), Arc::clone(&self.newest));
        let (node, epoch, index) = (self.node(), self.engine.epoch(), known.index);
        let request = FollowMetadata { node, epoch, index, patience: FOLLOW_PATIENCE };
        actix_rt::spawn(async move { post(&home, MetadataArrived(controllers.follow(request, &known).await)) });
    }

    /// Applies the newest metadata, unless replicas are being opened for what came before.
    pub(super) fn work_off(&mut self, ctx: &mut Context<Self>) {
        if self.engine.is_leaving() {
            // Its replicas are told nothing any more; it still learns that its stop was heard.
            self.image = Arc::clone(&self.newest);
            let image = Arc::clone(&self.image);
            return self.step(ctx, |engine, now, out| engine.on_image(now, &image, out));
        }
        let is_news = self.newest.index > self.image.index;
        let is_free = self.opening.is_empty() || self.is_first_opening || self.is_overdue;
        if is_news && is_free {
            self.is_overdue = false;
            let image = Arc::clone(&self.newest);
            let before = std::mem::replace(&mut self.image, Arc::clone(&image));
            self.enter_topics(&before);
            self.step(ctx, |engine, now, out| engine.on_image(now, &image, out));
            self.follow_topics(&before, ctx);
        } else if self.engine.follows_metadata() && !self.has_parts {
            // The registration was written down after the metadata that knows it had been applied.
            let before = ClusterImage::empty(self.image.cluster_id);
            self.follow_topics(&before, ctx);
        } else {
            return;
        }
        self.hand_over_what_is_wanted(ctx);
        if self.opening.is_empty() {
            self.publish();
        } else {
            self.show_soon(ctx);
        }
    }

    /// Deletes what is gone, and tells the replicas of topics that differ from `before` what they are to be.
    fn follow_topics(&mut self, before: &ClusterImage, ctx: &mut Context<Self>) {
        if !self.engine.follows_metadata() {
            return;
        }
        self.drop_deleted(ctx);
        let image = Arc::clone(&self.image);
        // Who may join, and under which registration, is part of leading.
        let all = !std::mem::replace(&mut self.has_parts, true) || before.brokers != image.brokers;
        for (id, topic) in &image.topics {
            let known = before.topics.get(id);
            if all || !known.is_some_and(|known| Arc::ptr_eq(known, topic)) {
                let is_set_otherwise = known.is_some_and(|known| known.config != topic.config);
                self.give_parts(topic, is_set_otherwise);
            }
        }
        self.list_directory(ctx);
        self.tell_files_gone(ctx);
    }

    /// Makes room for the replicas of topics that are new or have grown.
    fn enter_topics(&mut self, before: &ClusterImage) {
        let image = Arc::clone(&self.image);
        let is_news = |topic: &&Arc<TopicImage>| !before.topics.get(&topic.id).is_some_and(|t| Arc::ptr_eq(t, topic));
        for topic in image.topics.values().filter(is_news) {
            let name = || TopicReplicas { name: topic.name.clone(), replicas: Vec::new(), assigned: Vec::new() };
            let held = self.replicas.entry(topic.id).or_insert_with(name);
            held.replicas.resize(topic.partitions.len(), Replica::Elsewhere);
            held.assigned.resize(topic.partitions.len(), None);
        }
    }

    fn hand_over_what_is_wanted(&mut self, ctx: &mut Context<Self>) {
        let index = self.image.index;
        let due: Vec<_> = self.hand_overs.extract_if(.., |(at, ..)| *at <= index).collect();
        for (_, partition, to) in due {
            self.step(ctx, |engine, now, out| engine.on_hand_over_wanted(now, partition, to, out));
        }
    }

    fn take_news(&mut self, news: MetadataNews, ctx: &mut Context<Self>) {
        let MetadataNews { image, hand_overs, .. } = news;
        self.hand_overs.extend(hand_overs.into_iter().map(|(partition, to)| (image.index, partition, to)));
        if image.index > self.newest.index {
            self.newest = image;
        }
        self.work_off(ctx);
        // What was known before may be what a hand-over waited for.
        self.hand_over_what_is_wanted(ctx);
        let waits = self.newest.index;
        if waits > self.image.index {
            ctx.run_later(OPENING_PATIENCE, move |broker, ctx| {
                if waits > broker.image.index {
                    broker.is_overdue = true;
                    broker.work_off(ctx);
                }
            });
        }
    }
}

impl Handler<MetadataArrived> for Broker {
    type Result = ();
    fn handle(&mut self, MetadataArrived(result): MetadataArrived, ctx: &mut Self::Context) {
        if self.stopping.is_over() {
            return;
        }
        match result {
            Ok(news) => {
                if std::mem::take(&mut self.is_cut_off) {
                    tracing::info!(index = news.image.index, "the metadata can be followed again");
                }
                self.take_news(news, ctx);
                self.ask_for_metadata(ctx);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_cut_off, true) {
                    tracing::warn!(%error, index = self.newest.index, "the metadata cannot be followed; trying on");
                }
                ctx.run_later(FOLLOW_PAUSE, |broker, ctx| broker.ask_for_metadata(ctx));
            }
        }
    }
}
