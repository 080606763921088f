//! Failures on demand, for tests and for people who try them out.

use std::{fmt, str::FromStr, time::Duration};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429, with the seconds of `Retry-After`.
    Throttle(u64),
    /// 403: the caller may not invoke the function.
    Deny,
    /// 403: the token that the call is signed with has expired.
    Expired,
    /// 500.
    Error,
    /// 502: the function is not ready.
    NotReady,
    /// The function runs late.
    Slow(Duration),
    /// The function runs, and its answer is late.
    SlowAnswer(Duration),
    /// The connection is cut before the function runs.
    Cut,
    /// The function runs, and the connection is cut instead of an answer.
    CutAfter,
    /// The function runs, and the connection is cut in the middle of the answer; of a stream, of its first event.
    CutMid,
    /// The connection is cut after so many bytes of a stream's body, frames and all.
    CutStream(usize),
    /// A stream is silent for a while after its first event.
    Stall(Duration),
    /// The second event of a stream has a wrong checksum.
    Garbage,
    /// After the first event of a stream there is an exception, and nothing more.
    Exception,
    /// A stream ends without InvokeComplete.
    NoComplete,
}

/// A fault of one function, or of all (`*`), for some calls or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// The function's name, or `*`.
    pub function: String,
    /// What goes wrong.
    pub fault: Fault,
    /// For how many calls; for all if there is no number.
    pub times: Option<u32>,
}

/// The text is no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultError(String);

impl Fault {
    /// Whether only a stream can have it.
    fn is_of_streams(self) -> bool {
        matches!(self, Self::CutStream(_) | Self::Stall(_) | Self::Garbage | Self::Exception | Self::NoComplete)
    }
}

impl FaultRule {
    /// Whether the rule is for this call of a function; a rule with a number counts it.
    pub(super) fn takes(&mut self, function: &str, streaming: bool) -> bool {
        if (self.function != "*" && self.function != function) || (self.fault.is_of_streams() && !streaming) {
            return false;
        }
        match &mut self.times {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

impl FromStr for FaultRule {
    type Err = FaultError;

    /// `FUNCTION=FAULT[:VALUE][*TIMES]`, for example `orders=throttle:2*3`.
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let wrong = || {
            FaultError(format!(
                "`{text}` is no fault: expected FUNCTION=FAULT[:VALUE][*TIMES], where FAULT is throttle[:SECONDS], deny, \
                 expired, error, not-ready, slow:TIME, slow-answer:TIME, cut, cut-after, cut-mid or, of a stream, \
                 cut-stream:BYTES, stall:TIME, garbage, exception or no-complete"
            ))
        };
        let (function, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (rest, times) = match rest.split_once('*') {
            None => (rest, None),
            Some((rest, times)) => (rest, Some(times.parse().map_err(|_| wrong())?)),
        };
        let (name, value) = match rest.split_once(':') {
            None => (rest, None),
            Some((name, value)) => (name, Some(value)),
        };
        let time = || value.and_then(|value| humantime::parse_duration(value).ok()).ok_or_else(wrong);
        let fault = match (name, value) {
            ("throttle", None) => Fault::Throttle(1),
            ("throttle", Some(seconds)) => Fault::Throttle(seconds.parse().map_err(|_| wrong())?),
            ("deny", None) => Fault::Deny,
            ("expired", None) => Fault::Expired,
            ("error", None) => Fault::Error,
            ("not-ready", None) => Fault::NotReady,
            ("slow", _) => Fault::Slow(time()?),
            ("slow-answer", _) => Fault::SlowAnswer(time()?),
            ("cut", None) => Fault::Cut,
            ("cut-after", None) => Fault::CutAfter,
            ("cut-mid", None) => Fault::CutMid,
            ("cut-stream", Some(bytes)) => Fault::CutStream(bytes.parse().map_err(|_| wrong())?),
            ("stall", _) => Fault::Stall(time()?),
            ("garbage", None) => Fault::Garbage,
            ("exception", None) => Fault::Exception,
            ("no-complete", None) => Fault::NoComplete,
            _ => return Err(wrong()),
        };
        if function.is_empty() {
            return Err(wrong());
        }
        Ok(Self { function: function.to_owned(), fault, times })
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FaultError {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_a_few_words() {
        for (text, fault, times) in [
            ("orders=throttle", Fault::Throttle(1), None),
            ("orders=throttle:7", Fault::Throttle(7), None),
            ("orders=cut*3", Fault::Cut, Some(3)),
            ("orders=slow:500ms", Fault::Slow(Duration::from_millis(500)), None),
            ("orders=slow-answer:1s*2", Fault::SlowAnswer(Duration::from_secs(1)), Some(2)),
            ("*=deny", Fault::Deny, None),
            ("*=cut-stream:100*1", Fault::CutStream(100), Some(1)),
            ("orders=stall:2s", Fault::Stall(Duration::from_secs(2)), None),
            ("orders=no-complete", Fault::NoComplete, None),
        ] {
            let rule: FaultRule = text.parse().unwrap();
            assert_eq!((rule.fault, rule.times), (fault, times), "{text}");
        }
        for wrong in [
            "",
            "orders",
            "=cut",
            "orders=melt",
            "orders=slow",
            "orders=cut:1",
            "orders=cut*x",
            "orders=cut-stream",
            "orders=stall",
        ] {
            assert!(wrong.parse::<FaultRule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_with_a_number_ends() {
        let mut rule: FaultRule = "orders=cut*2".parse().unwrap();
        assert!(!rule.takes("other", false));
        assert_eq!([(); 3].map(|()| rule.takes("orders", false)), [true, true, false]);
    }

    #[test]
    fn what_only_a_stream_can_have_leaves_other_calls_alone() {
        let mut rule: FaultRule = "orders=garbage*1".parse().unwrap();
        assert!(!rule.takes("orders", false));
        assert!(rule.takes("orders", true), "the call before did not count");
    }
}
