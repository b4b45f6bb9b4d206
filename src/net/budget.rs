//! Permits for bytes: memory that frames in work may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of this many, so that a semaphore can count any budget and a tiny frame is not free.
const UNIT_BYTES: usize = 1_024;

/// A budget of bytes that permits are taken from. Clones share it. Waiting for it is first come, first served, so that
/// a large frame is not starved by small ones.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    units: Arc<Semaphore>,
    total_units: u32,
}

impl ByteBudget {
    /// A budget of `bytes`, rounded up to a kibibyte.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let total_units = bytes.div_ceil(UNIT_BYTES).clamp(1, most) as u32;
        Self { units: Arc::new(Semaphore::new(total_units as usize)), total_units }
    }

    /// Bytes that are free now.
    #[must_use]
    pub fn available_bytes(&self) -> usize {
        self.units.available_permits() * UNIT_BYTES
    }

    /// Bytes there are in all.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_units as usize * UNIT_BYTES
    }

    /// Waits for room for `bytes`. What is larger than the whole budget gets the whole budget: it passes alone.
    pub async fn acquire(&self, bytes: usize) -> BytePermit {
        let units = self.units_for(bytes);
        let permit = Arc::clone(&self.units).acquire_many_owned(units).await;
        BytePermit(permit.expect("a budget's semaphore is private to it and never closed"))
    }

    /// Takes room for `bytes` if there is some now.
    #[must_use]
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        Arc::clone(&self.units).try_acquire_many_owned(self.units_for(bytes)).ok().map(BytePermit)
    }

    fn units_for(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.total_units)
    }
}

/// Room in a [`ByteBudget`], given back when dropped.
#[derive(Debug)]
pub struct BytePermit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// What a connection has in work, so that its reader can tell idle from waiting.
#[derive(Debug, Default)]
pub(super) struct Activity {
    outstanding: AtomicU64,
    finished: AtomicU64,
}

impl Activity {
    /// Requests that were read and are not answered yet.
    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding.load(Ordering::Acquire)
    }

    /// Requests that were answered so far.
    pub(super) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Acquire)
    }
}

/// Travels with a frame: its room in the budgets of connection and node, and the fact that a request is outstanding.
/// Keep it until the reply is queued; a request that waits long without its bytes calls [`FramePermit::release_bytes`].
#[derive(Debug)]
pub struct FramePermit {
    bytes: Option<[BytePermit; 2]>,
    activity: Arc<Activity>,
}

impl FramePermit {
    pub(super) fn new(connection: BytePermit, node: BytePermit, activity: Arc<Activity>) -> Self {
        activity.outstanding.fetch_add(1, Ordering::AcqRel);
        Self { bytes: Some([connection, node]), activity }
    }

    /// Takes the room out, to be shared by the parts of the frame that live on after the request.
    #[must_use]
    pub fn take_room(&mut self) -> Option<FrameRoom> {
        self.bytes.take().map(FrameRoom)
    }

    /// Gives the room in the budgets back. To be called once the frame's bytes are dropped while the request still waits,
    /// as a parked fetch does. The connection is not idle until the permit itself is dropped.
    pub fn release_bytes(&mut self) {
        self.bytes = None;
    }
}

/// The room of a frame in the budgets of its connection and of the node, given back when dropped.
#[derive(Debug)]
pub struct FrameRoom(#[expect(dead_code, reason = "held for its drop")] [BytePermit; 2]);

impl Drop for FramePermit {
    fn drop(&mut self) {
        // In this order, so that a reader that sees nothing outstanding also sees that something has just finished.
        self.activity.finished.fetch_add(1, Ordering::AcqRel);
        self.activity.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}
