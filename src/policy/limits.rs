//! How much of a policy may be in flight, and when its function is left alone for a while.

use std::{fmt, num::NonZeroUsize, time::Duration};

/// When a function is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// After how many failures in a row.
    pub failures: u32,
    /// For how long, unless Lambda names a time itself.
    pub open: OpenTime,
}

/// How long a breaker stays open, 100 ms to 5 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTime(Duration);

/// The time is too short or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error;

/// What a policy is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many of its calls may be in flight; without it, as many as the service and its other policies leave.
    pub max_in_flight: Option<NonZeroUsize>,
    /// When its function is left alone; `None` never.
    pub breaker: Option<Breaker>,
}

impl OpenTime {
    /// A time of 100 ms to 5 minutes.
    ///
    /// # Errors
    /// If it is shorter or longer.
    pub fn new(duration: Duration) -> Result<Self, Error> {
        let possible = Duration::from_millis(100)..=Duration::from_secs(300);
        possible.contains(&duration).then_some(Self(duration)).ok_or(Error)
    }

    /// The time.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, open: OpenTime(Duration::from_secs(5)) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_in_flight: None, breaker: Some(Breaker::default()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is no time for a breaker to be open: expected 100ms to 5m")
    }
}

impl std::error::Error for Error {}
