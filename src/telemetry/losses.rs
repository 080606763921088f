//! What is lost on its way to whoever reads it: how much, and when last.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

/// Counts what is lost of one kind.
#[derive(Debug, Default)]
pub(super) struct Losses {
    count: AtomicU64,
    /// Milliseconds since 1970; 0 is never.
    last: AtomicU64,
}

/// What was lost so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How much.
    pub count: u64,
    /// When last, if ever.
    pub last: Option<SystemTime>,
}

impl Losses {
    pub(super) fn add(&self, count: u64) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.last.store(u64::try_from(now.as_millis()).unwrap_or_default(), Ordering::Relaxed);
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self) -> Loss {
        let last = Some(self.last.load(Ordering::Relaxed)).filter(|last| *last > 0);
        let last = last.map(|last| SystemTime::UNIX_EPOCH + Duration::from_millis(last));
        Loss { count: self.count(), last }
    }
}

impl Loss {
    /// Both together.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, last: self.last.max(other.last) }
    }
}
