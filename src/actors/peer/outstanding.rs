//! Requests that are not answered yet, as data.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::PeerError;
use super::messages::Room;
use crate::net::ReceivedFrame;
use crate::protocol::frame::OutFrame;
use crate::types::CorrelationId;

pub(super) type Answered = Result<ReceivedFrame, PeerError>;

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub deadline: Instant,
    /// The time the request had, for the error.
    pub patience: Duration,
    answer: oneshot::Sender<Answered>,
    _room: Room,
}

impl Waiting {
    pub fn new(deadline: Instant, patience: Duration, answer: oneshot::Sender<Answered>, room: Room) -> Self {
        Self { deadline, patience, answer, _room: room }
    }

    pub fn answer(self, answered: Answered) {
        // Whoever asked may have given up.
        let _ = self.answer.send(answered);
    }
}

/// All who wait, by correlation id and by deadline, and the frames that wait for a connection.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    waiting: HashMap<CorrelationId, Waiting>,
    deadlines: BTreeSet<(Instant, u32)>,
    parked: VecDeque<OutFrame>,
    last_id: u32,
}

impl Outstanding {
    /// An id that nobody waits for. 0 is none: it marks what concerns the connection as a whole.
    pub fn next_id(&mut self) -> CorrelationId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let id = CorrelationId(self.last_id);
            if id.0 != 0 && !self.waiting.contains_key(&id) {
                return id;
            }
        }
    }

    pub fn insert(&mut self, id: CorrelationId, waiting: Waiting) {
        self.deadlines.insert((waiting.deadline, id.0));
        self.waiting.insert(id, waiting);
    }

    /// Keeps a frame until there is a connection.
    pub fn park(&mut self, frame: OutFrame) {
        self.parked.push_back(frame);
    }

    /// The next frame that waited for a connection and that somebody still waits for.
    pub fn unpark(&mut self) -> Option<OutFrame> {
        while let Some(frame) = self.parked.pop_front() {
            if self.waiting.contains_key(&frame.head().correlation_id) {
                return Some(frame);
            }
        }
        None
    }

    pub fn take(&mut self, id: CorrelationId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.deadlines.remove(&(waiting.deadline, id.0));
        Some(waiting)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes those whose time is over, oldest first.
    pub fn expire(&mut self, now: Instant) -> Vec<Waiting> {
        let mut expired = Vec::new();
        while let Some((deadline, id)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, id));
            expired.extend(self.waiting.remove(&CorrelationId(id)));
        }
        if !expired.is_empty() {
            // Their room is given back: their frames must not stay behind.
            self.parked.retain(|frame| self.waiting.contains_key(&frame.head().correlation_id));
        }
        expired
    }

    /// Takes everybody.
    pub fn take_all(&mut self) -> Vec<Waiting> {
        self.deadlines.clear();
        self.parked.clear();
        self.waiting.drain().map(|(_, waiting)| waiting).collect()
    }
}
