//! Until when a call may take, and whose time that is.

use tokio::time::Instant;

use super::Timeout;
use crate::error::{Error, Kind};

/// When a call's time is up: the policy's `timeout`, or its caller's own deadline if that is earlier.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    /// The policy's, if it is the one that counts.
    timeout: Option<Timeout>,
}

impl Deadline {
    /// Of a call that started then.
    pub fn new(started: Instant, timeout: Timeout, callers: Option<Instant>) -> Self {
        let limit = started + timeout.get();
        match callers.filter(|callers| *callers < limit) {
            Some(at) => Self { at, timeout: None },
            None => Self { at: limit, timeout: Some(timeout) },
        }
    }

    /// When the time is up.
    pub fn at(self) -> Instant {
        self.at
    }

    /// Whether the call has all the time that its policy gives.
    pub fn is_whole(self) -> bool {
        self.timeout.is_some()
    }

    /// Why a call ends whose time was up before something.
    pub fn passed(self, before: &str) -> Error {
        let whose = match self.timeout {
            Some(timeout) => format!("the policy's `timeout` of {}", humantime::format_duration(timeout.get())),
            None => "the caller's deadline".to_owned(),
        };
        Error::new(Kind::Timeout, format!("{whose} passed before {before}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earlier_one_counts_and_is_named() {
        let (now, timeout) = (Instant::now(), Timeout::new(Duration::from_millis(1500)).unwrap());
        let policys = "the policy's `timeout` of 1s 500ms passed before it came";
        for (callers, whole, ms, said) in [
            (None, true, 1500, policys),
            (Some(1500), true, 1500, policys),
            (Some(9000), true, 1500, policys),
            (Some(1499), false, 1499, "the caller's deadline passed before it came"),
        ] {
            let deadline = Deadline::new(now, timeout, callers.map(|ms| now + Duration::from_millis(ms)));
            assert_eq!((deadline.is_whole(), deadline.at() - now), (whole, Duration::from_millis(ms)), "{callers:?}");
            let error = deadline.passed("it came");
            assert_eq!((error.kind(), error.message()), (Kind::Timeout, said));
        }
    }
}
