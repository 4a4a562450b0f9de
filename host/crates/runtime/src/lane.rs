//! Who computes: short calls at once, long ones in turns.
//!
//! The async runtime serves its tasks in their order, whosever they are: behind thirty guests that spin, a guest of
//! someone else would wait for a slice of each of them. So a guest that has shown to be long needs a permit for each
//! further slice, and these are shared out fairly between tenants ([`Slots`]); while it waits for one it is no task that
//! could be run. One tenant has at most one permit less than there are worker threads.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::slots::{Asked, Busy, Slots, Waiting};

/// The processor time after which a guest is a long one. The epoch ends its first slice soon after.
const SHORT: Duration = Duration::from_millis(2);

/// Polls a guest when it may compute, and adds up the processor time that it takes. A guest may move to another thread
/// between polls, never during one.
pub(crate) struct Lane<'a, F> {
    guest: Pin<&'a mut F>,
    permits: &'a Slots,
    tenant: &'a Arc<str>,
    /// Whether the guest holds enough memory to keep a thread for long with a single instruction.
    heavy: &'a AtomicBool,
    spent: &'a mut Duration,
    polled: bool,
    waiting: Option<Waiting>,
}

impl<'a, F: Future> Lane<'a, F> {
    pub(crate) fn new(
        guest: Pin<&'a mut F>,
        permits: &'a Slots,
        tenant: &'a Arc<str>,
        heavy: &'a AtomicBool,
        spent: &'a mut Duration,
    ) -> Self {
        Self { guest, permits, tenant, heavy, spent, polled: false, waiting: None }
    }

    /// Asking for a thread's time is a system call, which would be a tenth of a short call. The first poll, which
    /// the epoch ends after some milliseconds and in which most calls are done, is measured by the clock instead; that
    /// is the same unless the system took the thread away meanwhile.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polled = true;
        let before = Instant::now();
        let poll = self.guest.as_mut().poll(cx);
        *self.spent += before.elapsed();
        poll
    }

    fn poll_again(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = thread_time();
        let poll = self.guest.as_mut().poll(cx);
        *self.spent += thread_time().saturating_sub(before);
        poll
    }
}

impl<F: Future> Future for Lane<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.polled {
            return self.poll_first(cx);
        }
        if *self.spent < SHORT && !self.heavy.load(Ordering::Relaxed) {
            return self.poll_again(cx);
        }
        let asked = match self.waiting.take() {
            Some(waiting) => Ok(Asked::Wait(waiting)),
            None => self.permits.ask(self.tenant),
        };
        let permit = match asked {
            Ok(Asked::Have(permit)) => Some(permit),
            Ok(Asked::Wait(mut waiting)) => match Pin::new(&mut waiting).poll(cx) {
                Poll::Ready(permit) => permit.ok(),
                Poll::Pending => {
                    self.waiting = Some(waiting);
                    return Poll::Pending;
                }
            },
            // The queue has a place for every instance that there can be: it is never full.
            Err(Busy) => None,
        };
        let poll = self.poll_again(cx);
        drop(permit);
        poll
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
