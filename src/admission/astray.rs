//! Requests at whose path nothing is served: how many there were, and when the last one was.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use super::seldom::Seldom;

/// The requests of both protocols that went astray.
#[derive(Debug, Default)]
pub struct Astray {
    /// RPCs of methods that there are not.
    pub grpc: Strays,
    /// Requests by plain HTTP.
    pub http: Strays,
}

/// Those of one protocol. Anybody can send them, and as many as they like.
#[derive(Debug, Default)]
pub struct Strays {
    seldom: Seldom,
    /// Milliseconds since 1970; 0 is never.
    last: AtomicU64,
}

impl Strays {
    /// Counts one. Tells how many there were since the log spoke of them, if it is to do so again.
    pub fn add(&self) -> Option<u64> {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.last.store(u64::try_from(now.as_millis()).unwrap_or_default(), Ordering::Relaxed);
        self.seldom.add()
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.seldom.count()
    }

    /// When the last one was, if there was one.
    pub fn last(&self) -> Option<SystemTime> {
        let last = Some(self.last.load(Ordering::Relaxed)).filter(|last| *last > 0);
        last.map(|last| SystemTime::UNIX_EPOCH + Duration::from_millis(last))
    }
}
