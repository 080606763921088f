//! How many calls are in flight at once, and what becomes of the rest: a short wait, then a clear no.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::error::{Error, Kind};

/// How long a call waits for its turn at the most: a burst passes, an overload does not.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// The gate that every call passes.
#[derive(Debug)]
pub struct Admission {
    permits: Arc<Semaphore>,
    limit: usize,
    waiting: AtomicUsize,
    closed: AtomicBool,
}

/// The right to be in flight; it ends when it is dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Admission {
    /// A gate for `limit` calls at once, and as many that wait.
    pub fn new(limit: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limit)),
            limit,
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Waits for a place, in the order of arrival.
    ///
    /// # Errors
    /// [`Kind::ShuttingDown`] once the gate is closed; [`Kind::Overloaded`] if there is no place in time, or too many
    /// wait for one.
    pub async fn admit(&self, deadline: Instant) -> Result<Permit, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Kind::ShuttingDown, "the service is stopping: call another replica"));
        }
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(Permit(permit));
        }
        let _waiting = Waiting::join(&self.waiting, self.limit).ok_or_else(overloaded)?;
        let until = deadline.min(Instant::now() + MAX_WAIT);
        match timeout_at(until, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Permit(permit)),
            Ok(Err(_)) | Err(_) => Err(overloaded()),
        }
    }

    /// Lets nobody in any more; who is in stays in.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// How many calls are in flight.
    pub fn in_flight(&self) -> usize {
        self.limit.saturating_sub(self.permits.available_permits())
    }
}

fn overloaded() -> Error {
    Error::new(Kind::Overloaded, "the service has as many calls in flight as `server.max_in_flight` allows")
}

/// A place among those who wait, given back when the wait ends, however it ends.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::AcqRel) < limit).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_comes_free_in_time_is_given_to_who_waits() {
        let gate = Arc::new(Admission::new(1));
        let first = gate.admit(soon()).await.unwrap();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.admit(soon()).await }
        });
        tokio::time::sleep(MAX_WAIT / 2).await;
        drop(first);
        assert!(waiting.await.unwrap().is_ok());
        assert_eq!(gate.in_flight(), 0, "every permit came back");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_bound_or_the_deadline() {
        let gate = Admission::new(1);
        let _held = gate.admit(soon()).await.unwrap();
        let asked = Instant::now();
        assert_eq!(gate.admit(soon()).await.unwrap_err().kind(), Kind::Overloaded);
        assert!(asked.elapsed() <= MAX_WAIT + Duration::from_millis(1));
        let asked = Instant::now();
        let deadline = asked + Duration::from_millis(20);
        assert_eq!(gate.admit(deadline).await.unwrap_err().kind(), Kind::Overloaded);
        assert!(asked.elapsed() < MAX_WAIT / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn when_too_many_wait_the_next_one_is_told_at_once() {
        let gate = Arc::new(Admission::new(1));
        let _held = gate.admit(soon()).await.unwrap();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.admit(soon()).await }
        });
        tokio::task::yield_now().await;
        let asked = Instant::now();
        assert_eq!(gate.admit(soon()).await.unwrap_err().kind(), Kind::Overloaded);
        assert_eq!(asked.elapsed(), Duration::ZERO);
        assert!(waiting.await.unwrap().is_err());
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 0, "every place was given back");
    }

    #[tokio::test]
    async fn a_closed_gate_keeps_who_is_in() {
        let gate = Admission::new(2);
        let held = gate.admit(soon()).await.unwrap();
        gate.close();
        assert_eq!(gate.admit(soon()).await.unwrap_err().kind(), Kind::ShuttingDown);
        assert_eq!(gate.in_flight(), 1);
        drop(held);
        assert_eq!(gate.in_flight(), 0);
    }
}
