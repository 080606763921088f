//! Room for answers: how many bytes of large ones there are at once, from before they are read until they are passed on.
//!
//! The function has run by then, so that an answer is never refused: it waits its turn, in its socket. Nobody who has
//! room waits for anything but Lambda, so that all of them get on.

use std::sync::Arc;

use hyper::body::SizeHint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connector::MAX_ANSWER;

/// Up to this size an answer needs no room: as many as there are calls hold little.
const SMALL: usize = 64 * 1024;
/// What room is counted in.
const UNIT: usize = 1024;

/// The room that all answers share.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

/// The room of one answer, given back when it is dropped.
#[derive(Debug)]
pub struct Taken(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Room {
    /// For so many bytes; the largest answer has room in any case.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.max(MAX_ANSWER).div_ceil(UNIT))))
    }

    /// Waits for room for an answer, in the order in which answers come. One that does not say how long it is may be
    /// of any length.
    pub(super) async fn take(&self, length: &SizeHint) -> Option<Taken> {
        let most = MAX_ANSWER as u64;
        let bytes = usize::try_from(length.upper().unwrap_or(most).min(most)).unwrap_or(MAX_ANSWER);
        if bytes <= SMALL {
            return None;
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        // It is never closed.
        Arc::clone(&self.0).acquire_many_owned(units).await.ok().map(Taken)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_answers_wait_for_each_other_and_small_ones_for_nobody() {
        let room = Room::new(10 << 20);
        let large = SizeHint::with_exact(6 << 20);
        let first = room.take(&large).await.unwrap();
        let second = tokio::spawn({
            let room = room.clone();
            async move { room.take(&SizeHint::default()).await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        assert!(room.take(&SizeHint::with_exact(SMALL as u64)).await.is_none());
        drop(first);
        assert!(second.await.unwrap(), "one without a length is taken for the largest");
    }
}
