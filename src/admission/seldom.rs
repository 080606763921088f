//! What may happen a thousand times a second: it is counted, and the log speaks of it once a minute.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// How often the log speaks of it.
const PAUSE: Duration = Duration::from_secs(60);

/// What happens, and what the log has told of it.
#[derive(Debug)]
pub(super) struct Seldom {
    began: Instant,
    count: AtomicU64,
    /// As many as the log has told of.
    told: AtomicU64,
    /// When it did, in milliseconds.
    at: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self { began: Instant::now(), count: AtomicU64::new(0), told: AtomicU64::new(0), at: AtomicU64::new(0) }
    }
}

impl Seldom {
    /// Counts one. Tells how many there were since the log spoke of them, if it is to do so again.
    pub(super) fn add(&self) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        // From one pause on, so that zero is "never".
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(pause);
        let due = |told: u64| (now >= told.saturating_add(pause)).then_some(now);
        self.at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).ok()?;
        Some(count.saturating_sub(self.told.swap(count, Ordering::Relaxed)))
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}
