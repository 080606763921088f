//! What went wrong inside a function, read from the error that Lambda hands on.
//!
//! Lambda's header tells only whether the runtime caught the error; that a function ran out of time or
//! memory stands in the payload.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::text;

/// How a function failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The function reported an error.
    Handled,
    /// The function threw, crashed or could not start.
    Unhandled,
    /// The function took longer than its own timeout.
    Timeout,
    /// The function needed more memory than it has.
    OutOfMemory,
}

/// A function's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How it failed.
    pub kind: Kind,
    /// The error's type as the function names it, such as `ValueError`; empty if it names none.
    pub error_type: String,
    /// The error's message; empty if there is none.
    pub message: String,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Handled, Self::Unhandled, Self::Timeout, Self::OutOfMemory];

    /// The name in configuration and telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Unhandled => "unhandled",
            Self::Timeout => "timeout",
            Self::OutOfMemory => "out-of-memory",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no kind of failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind(String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Kind::ALL.map(Kind::as_str).join(", ");
        write!(f, "`{}` is no kind of function error; the kinds are {names}", self.0)
    }
}

impl std::error::Error for UnknownKind {}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// An error's payload as every runtime sends it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Payload<'a> {
    #[serde(borrow)]
    error_type: Option<&'a RawValue>,
    #[serde(borrow)]
    error_message: Option<&'a RawValue>,
}

impl Fault {
    /// Reads the value of `X-Amz-Function-Error` and the payload that came with it. A payload that is
    /// no error object has neither type nor message.
    pub fn new(function_error: &str, payload: &[u8]) -> Self {
        let payload: Payload<'_> = serde_json::from_slice(payload).unwrap_or_default();
        let read = |json: Option<&RawValue>| json.and_then(text).map(Cow::into_owned).unwrap_or_default();
        let error_type = read(payload.error_type);
        let message = read(payload.error_message);
        Self { kind: kind(function_error, &error_type, &message), error_type, message }
    }
}

fn kind(function_error: &str, error_type: &str, message: &str) -> Kind {
    // What the function reports itself is its own, whatever words it chooses.
    if function_error.eq_ignore_ascii_case("handled") {
        Kind::Handled
    } else if error_type == "Sandbox.Timedout" || is_timeout(message) {
        Kind::Timeout
    } else if error_type == "Runtime.OutOfMemory"
        || (error_type == "Runtime.ExitError" && message.contains("signal: killed"))
    {
        Kind::OutOfMemory
    } else {
        Kind::Unhandled
    }
}

/// Whether the message is Lambda's own: `… Task timed out after 3.00 seconds`.
fn is_timeout(message: &str) -> bool {
    message
        .rsplit_once("Task timed out after ")
        .and_then(|(_, rest)| rest.trim_end().strip_suffix(" seconds"))
        .is_some_and(|seconds| seconds.parse::<f64>().is_ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        for (header, payload, kind, error_type, why) in [
            (
                "Unhandled",
                r#"{"errorMessage":"boom","errorType":"ValueError","stackTrace":["x"]}"#,
                Kind::Unhandled,
                "ValueError",
                "a function throws",
            ),
            ("Handled", r#"{"errorMessage":"boom","errorType":"Oops"}"#, Kind::Handled, "Oops", "a function reports"),
            (
                "Unhandled",
                r#"{"errorMessage":"2024-04-08T16:57:23.121Z 6bc1 Task timed out after 1.00 seconds"}"#,
                Kind::Timeout,
                "",
                "a timeout as it was",
            ),
            (
                "Unhandled",
                r#"{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 6bc1 Error: Task timed out after 3.00 seconds"}"#,
                Kind::Timeout,
                "Sandbox.Timedout",
                "a timeout as it is",
            ),
            (
                "Unhandled",
                r#"{"errorType":"Sandbox.Timedout"}"#,
                Kind::Timeout,
                "Sandbox.Timedout",
                "by its type alone",
            ),
            (
                "Unhandled",
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 6bc1 Error: Runtime exited with error: signal: killed"}"#,
                Kind::OutOfMemory,
                "Runtime.ExitError",
                "killed for its memory",
            ),
            (
                "Unhandled",
                r#"{"errorType":"Runtime.OutOfMemory","errorMessage":"x"}"#,
                Kind::OutOfMemory,
                "Runtime.OutOfMemory",
                "by its type",
            ),
            (
                "Unhandled",
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 6bc1 Error: Runtime exited with error: exit status 1"}"#,
                Kind::Unhandled,
                "Runtime.ExitError",
                "a crash of another kind",
            ),
            (
                "Handled",
                r#"{"errorMessage":"Task timed out after 3.00 seconds"}"#,
                Kind::Handled,
                "",
                "the function's own words",
            ),
            ("Unhandled", r#"{"errorMessage":"Task timed out after some seconds"}"#, Kind::Unhandled, "", "no time"),
            ("Unhandled", "boom", Kind::Unhandled, "", "no JSON"),
            ("Unhandled", "null", Kind::Unhandled, "", "null"),
            ("Unhandled", r#"{"errorType":3,"errorMessage":["x"]}"#, Kind::Unhandled, "", "other types"),
            ("", "", Kind::Unhandled, "", "nothing"),
        ] {
            let fault = Fault::new(header, payload.as_bytes());
            assert_eq!((fault.kind, fault.error_type.as_str()), (kind, error_type), "{why}");
        }
        assert_eq!(Fault::new("Unhandled", br#"{"errorMessage":"a\"b"}"#).message, "a\"b");
    }

    #[test]
    fn kinds_are_read_by_their_names() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        let error = "oom".parse::<Kind>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`oom` is no kind of function error; the kinds are handled, unhandled, timeout, out-of-memory"
        );
    }
}
