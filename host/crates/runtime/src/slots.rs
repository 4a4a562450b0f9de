//! Instance slots: as many permits as the pool has room for, so that the pool itself is never full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits to have an instance, and a queue in front of them that is bounded in length and in time. Who came
/// first is served first.
pub(crate) struct Slots {
    permits: Arc<Semaphore>,
    waiting: AtomicU32,
    queue_length: u32,
    queue_timeout: Duration,
}

/// Every slot is taken and the queue is full, or too slow.
#[derive(Debug)]
pub(crate) struct Busy;

impl Slots {
    pub(crate) fn new(slots: u32, queue_length: u32, queue_timeout: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(slots as usize)),
            waiting: AtomicU32::new(0),
            queue_length,
            queue_timeout,
        }
    }

    /// A slot, now or after waiting in the queue. It is free again when the permit is dropped.
    pub(crate) async fn take(&self) -> Result<OwnedSemaphorePermit, Busy> {
        // Succeeds only if nobody is waiting, so it overtakes no one.
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(&self.waiting, self.queue_length)?;
        let permit = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(self.queue_timeout, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    pub(crate) fn free(&self) -> usize {
        self.permits.available_permits()
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// A place in the queue, given back when the caller gets its slot or leaves.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicU32, queue_length: u32) -> Result<Self, Busy> {
        waiting
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < queue_length).then_some(waiting + 1)
            })
            .map(|_| Self(waiting))
            .map_err(|_| Busy)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
