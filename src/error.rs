//! The one error of a call: what happened, whose fault it is, whether the function may have run.
//!
//! An [`Error`] has two messages. The caller's names no secret, no host and nothing of the account
//! beyond the policy's function. The operator's (`detail`) goes to the log only.

mod kind;
mod unread;

use std::{fmt, time::Duration};

pub use self::{
    kind::{Fault, Kind, Ran},
    unread::unread,
};

/// A field of the call that is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the request, for example `lambda.region`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

/// The policy that an error is about, for `ErrorInfo.metadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The policy's name; `inline` for one that the call brought.
    pub policy: String,
    /// The function as the policy names it.
    pub function: String,
    /// The region it is invoked in.
    pub region: String,
}

/// How far a call came until it failed: where its time went, and how large its event was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Waiting for admission, once it asked for that.
    pub queue: Option<Duration>,
    /// Waiting for credentials, once it was admitted.
    pub credentials: Option<Duration>,
    /// Invoking, once there were credentials.
    pub lambda: Option<Duration>,
    /// The event's size in bytes.
    pub event_bytes: usize,
}

/// The longest message, and the longest field and description of each of the violations that are told: an error is told
/// in headers, of which clients take 16 KiB in all, and what is wrong may be as long as a message.
const MAX_MESSAGE: usize = 1024;
const MAX_FIELD: usize = 96;
const MAX_DESCRIPTION: usize = 256;
const MAX_VIOLATIONS: usize = 16;
/// The longest detail: most of them have the words of somebody else.
const MAX_DETAIL: usize = 500;

/// A call's failure.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    message: String,
    detail: Option<String>,
    ran: Ran,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    own_stop: bool,
    about: Option<About>,
    aws_request_id: Option<String>,
    spent: Option<Spent>,
    is_broken_off: bool,
}

impl Error {
    /// An error with the message for the caller.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: short(message.into(), MAX_MESSAGE),
            detail: None,
            ran: kind.ran(),
            violations: Vec::new(),
            retry_after: kind.default_retry_after(),
            own_stop: false,
            about: None,
            aws_request_id: None,
            spent: None,
            is_broken_off: false,
        }))
    }

    /// An [`Kind::InvalidRequest`] with the fields that are wrong.
    pub fn invalid(mut violations: Vec<Violation>) -> Self {
        violations.truncate(MAX_VIOLATIONS);
        for Violation { field, description } in &mut violations {
            *field = short(std::mem::take(field), MAX_FIELD);
            *description = short(std::mem::take(description), MAX_DESCRIPTION);
        }
        let message =
            violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect::<Vec<_>>().join("; ");
        let mut error = Self::new(Kind::InvalidRequest, message);
        error.0.violations = violations;
        error
    }

    /// An [`Kind::InvalidRequest`] about one field.
    pub fn field(field: &str, description: impl Into<String>) -> Self {
        Self::invalid(vec![Violation { field: field.to_owned(), description: description.into() }])
    }

    /// The error of a request that its caller broke off, so that nobody is left to be told: the call is cancelled.
    pub fn broken_off() -> Self {
        let mut error = Self::field("request", "broke off before its end");
        error.0.is_broken_off = true;
        error
    }

    /// Adds what only the operator may read.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(short(detail.into(), MAX_DETAIL));
        self
    }

    /// Says whether the function may have run, where that is known better than by the kind.
    #[must_use]
    pub fn with_ran(mut self, ran: Ran) -> Self {
        self.0.ran = ran;
        self
    }

    /// Says when to try again, if the kind asks for that: another attempt of what may have run would run it twice.
    #[must_use]
    pub fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        if self.0.kind.asks_for_retry() {
            self.0.retry_after = after.or(self.0.retry_after);
        }
        self
    }

    /// Says that this service ended the call, as it stops.
    #[must_use]
    pub fn with_own_stop(mut self) -> Self {
        self.0.own_stop = true;
        self
    }

    /// Adds AWS's id of the request.
    #[must_use]
    pub fn with_aws_request_id(mut self, id: Option<&str>) -> Self {
        self.0.aws_request_id = id.map(str::to_owned);
        self
    }

    /// Says which policy the error is about.
    #[must_use]
    pub fn with_about(mut self, about: About) -> Self {
        self.0.about = Some(about);
        self
    }

    /// The service's own error among the causes of another one.
    pub fn among<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }

    /// Says how far the call came.
    #[must_use]
    pub fn with_spent(mut self, spent: Spent) -> Self {
        self.0.spent = Some(spent);
        self
    }

    /// Whether its caller has gone away.
    pub fn is_broken_off(&self) -> bool {
        self.0.is_broken_off
    }

    /// What happened.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The message for the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The message for the operator, if there is more to say than the caller may read.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// Whether the function may have run.
    pub fn ran(&self) -> Ran {
        self.0.ran
    }

    /// The fields that are wrong, for [`Kind::InvalidRequest`].
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// When to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether this service ended the call, as it stops: nobody else is to blame for it.
    pub fn is_own_stop(&self) -> bool {
        self.0.own_stop
    }

    /// The policy that the error is about, once it is known.
    pub fn about(&self) -> Option<&About> {
        self.0.about.as_ref()
    }

    /// AWS's id of the request, if AWS gave one.
    pub fn aws_request_id(&self) -> Option<&str> {
        self.0.aws_request_id.as_deref()
    }

    /// How far the call came, if it had an event.
    pub fn spent(&self) -> Option<Spent> {
        self.0.spent
    }
}

/// The text, cut off where it is longer than so many bytes.
fn short(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('\u{2026}');
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, self.0.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_asks_for_a_retry_says_when() {
        for kind in Kind::ALL {
            let error = Error::new(kind, "x");
            assert_eq!(error.retry_after().is_some(), kind.asks_for_retry(), "{kind}");
            let told = error.with_retry_after(Some(Duration::from_secs(5)));
            assert_eq!(told.retry_after().is_some(), kind.asks_for_retry(), "{kind}, though lambda named a time");
        }
    }

    #[test]
    fn a_request_with_several_faults_names_each() {
        let error = Error::invalid(vec![
            Violation { field: "policy".into(), description: "is missing".into() },
            Violation { field: "json".into(), description: "is not JSON".into() },
        ]);
        assert_eq!(error.message(), "policy: is missing; json: is not JSON");
        assert_eq!(error.violations().len(), 2);
    }

    #[test]
    fn what_is_too_long_for_headers_is_cut_off() {
        let long = "ä".repeat(1 << 20);
        let violation = Violation { field: long.clone(), description: long.clone() };
        for error in [Error::new(Kind::LambdaFailed, long.clone()), Error::invalid(vec![violation; 1000])] {
            let told: usize = error.violations().iter().map(|v| v.field.len() + v.description.len()).sum();
            assert!(error.message().len() < 1100 && told < 6000, "{} {told}", error.message().len());
            assert!(error.message().ends_with('\u{2026}'));
        }
        let told = Error::new(Kind::LambdaFailed, "x").with_detail(long);
        assert!(told.detail().is_some_and(|detail| detail.len() <= 512));
    }
}
