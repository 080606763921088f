//! The one error of a call: what happened, whose fault it is, whether the function may have run.
//!
//! An [`Error`] has two messages. The caller's names no secret, no host and nothing of the account
//! beyond the policy's function. The operator's (`detail`) goes to the log only.

mod unread;

use std::{fmt, time::Duration};

pub use self::unread::unread;

/// Why there is no answer of the function. The names are the contract's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The call itself is wrong; the violations say where.
    InvalidRequest,
    /// The event is larger than Lambda takes.
    PayloadTooLarge,
    /// The caller did not say who it is.
    CallerUnauthenticated,
    /// The caller may not do this.
    CallerDenied,
    /// No policy has that name.
    PolicyNotFound,
    /// Lambda has no such function or qualifier.
    FunctionNotFound,
    /// The policy's credentials may not invoke the function.
    FunctionAccessDenied,
    /// Lambda, or the function's concurrency limit, takes no more calls now.
    FunctionThrottled,
    /// The function exists but cannot run yet.
    FunctionNotReady,
    /// The function cannot run until somebody changes it.
    FunctionMisconfigured,
    /// No credentials can be had at the moment.
    CredentialsUnavailable,
    /// AWS refuses the credentials or the role.
    CredentialsRejected,
    /// No connection to Lambda could be made.
    LambdaUnreachable,
    /// Lambda failed, or the connection broke after the request was sent.
    LambdaFailed,
    /// The deadline of the caller or the policy's timeout passed.
    Timeout,
    /// The service has as many calls in flight as it takes.
    Overloaded,
    /// The function's breaker is open.
    BreakerOpen,
    /// The service is about to stop.
    ShuttingDown,
}

/// Who has to act for the call to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever made the call.
    Caller,
    /// Whoever wrote the policy or owns the function.
    Policy,
    /// AWS, or the way there.
    Aws,
    /// Whoever runs this service.
    Service,
}

/// Whether the function may have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It did not: the call may be made again.
    No,
    /// It cannot be told.
    Maybe,
}

impl Ran {
    /// `no` or `maybe`, as `ErrorInfo.metadata` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Maybe => "maybe",
        }
    }
}

impl Kind {
    /// Every kind, in the order of the contract's table.
    pub const ALL: [Self; 18] = [
        Self::InvalidRequest,
        Self::PayloadTooLarge,
        Self::CallerUnauthenticated,
        Self::CallerDenied,
        Self::PolicyNotFound,
        Self::FunctionNotFound,
        Self::FunctionAccessDenied,
        Self::FunctionThrottled,
        Self::FunctionNotReady,
        Self::FunctionMisconfigured,
        Self::CredentialsUnavailable,
        Self::CredentialsRejected,
        Self::LambdaUnreachable,
        Self::LambdaFailed,
        Self::Timeout,
        Self::Overloaded,
        Self::BreakerOpen,
        Self::ShuttingDown,
    ];

    /// The reason in `ErrorInfo` (AIP-193: at most 63 of `[A-Z0-9_]`).
    pub fn reason(self) -> &'static str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::CallerUnauthenticated => "CALLER_UNAUTHENTICATED",
            Self::CallerDenied => "CALLER_DENIED",
            Self::PolicyNotFound => "POLICY_NOT_FOUND",
            Self::FunctionNotFound => "FUNCTION_NOT_FOUND",
            Self::FunctionAccessDenied => "FUNCTION_ACCESS_DENIED",
            Self::FunctionThrottled => "FUNCTION_THROTTLED",
            Self::FunctionNotReady => "FUNCTION_NOT_READY",
            Self::FunctionMisconfigured => "FUNCTION_MISCONFIGURED",
            Self::CredentialsUnavailable => "CREDENTIALS_UNAVAILABLE",
            Self::CredentialsRejected => "CREDENTIALS_REJECTED",
            Self::LambdaUnreachable => "LAMBDA_UNREACHABLE",
            Self::LambdaFailed => "LAMBDA_FAILED",
            Self::Timeout => "TIMEOUT",
            Self::Overloaded => "OVERLOADED",
            Self::BreakerOpen => "BREAKER_OPEN",
            Self::ShuttingDown => "SHUTTING_DOWN",
        }
    }

    /// The HTTP status for fronts that speak HTTP.
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::CallerUnauthenticated => 401,
            Self::CallerDenied => 403,
            Self::PolicyNotFound => 404,
            Self::PayloadTooLarge => 413,
            Self::FunctionThrottled => 429,
            Self::FunctionNotFound
            | Self::FunctionAccessDenied
            | Self::FunctionMisconfigured
            | Self::CredentialsRejected
            | Self::LambdaFailed => 502,
            Self::FunctionNotReady
            | Self::CredentialsUnavailable
            | Self::LambdaUnreachable
            | Self::Overloaded
            | Self::BreakerOpen
            | Self::ShuttingDown => 503,
            Self::Timeout => 504,
        }
    }

    /// The number of gRPC's code for fronts that speak it.
    pub fn grpc_code(self) -> usize {
        match self {
            Self::InvalidRequest | Self::PayloadTooLarge => 3,
            Self::Timeout => 4,
            Self::PolicyNotFound | Self::FunctionNotFound => 5,
            Self::CallerDenied | Self::FunctionAccessDenied => 7,
            Self::FunctionThrottled => 8,
            Self::FunctionMisconfigured | Self::CredentialsRejected => 9,
            Self::LambdaFailed => 13,
            Self::FunctionNotReady
            | Self::CredentialsUnavailable
            | Self::LambdaUnreachable
            | Self::Overloaded
            | Self::BreakerOpen
            | Self::ShuttingDown => 14,
            Self::CallerUnauthenticated => 16,
        }
    }

    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        match self {
            Self::InvalidRequest
            | Self::PayloadTooLarge
            | Self::CallerUnauthenticated
            | Self::CallerDenied
            | Self::PolicyNotFound => Fault::Caller,
            Self::FunctionNotFound
            | Self::FunctionAccessDenied
            | Self::FunctionThrottled
            | Self::FunctionNotReady
            | Self::FunctionMisconfigured
            | Self::CredentialsRejected => Fault::Policy,
            Self::CredentialsUnavailable | Self::LambdaUnreachable | Self::LambdaFailed | Self::Timeout => Fault::Aws,
            Self::Overloaded | Self::BreakerOpen | Self::ShuttingDown => Fault::Service,
        }
    }

    /// Whether the function may have run, unless the error itself knows better.
    pub fn ran(self) -> Ran {
        match self {
            Self::LambdaFailed | Self::Timeout => Ran::Maybe,
            _ => Ran::No,
        }
    }

    /// Whether the answer tells when to try again.
    pub fn asks_for_retry(self) -> bool {
        matches!(self, Self::FunctionThrottled | Self::Overloaded | Self::BreakerOpen | Self::ShuttingDown)
    }

    /// How long to wait where nobody said so: long enough for a slot to come free.
    fn default_retry_after(self) -> Option<Duration> {
        self.asks_for_retry().then_some(Duration::from_secs(1))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

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
    /// Waiting for admission.
    pub queue: Duration,
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
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
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

    /// The same to say to another caller; what is known of the one call is left out.
    #[must_use]
    pub fn again(&self) -> Self {
        let mut again =
            Self::new(self.kind(), self.message()).with_ran(self.ran()).with_retry_after(self.retry_after());
        again.0.is_broken_off = self.is_broken_off();
        again
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
    fn every_reason_is_one_that_aip_193_allows() {
        for kind in Kind::ALL {
            let reason = kind.reason();
            assert!(reason.len() <= 63, "{reason} is too long");
            assert!(
                reason.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit()),
                "{reason} has a character that is not allowed"
            );
        }
    }

    #[test]
    fn only_what_left_for_lambda_may_have_run() {
        let maybe: Vec<_> = Kind::ALL.into_iter().filter(|k| k.ran() == Ran::Maybe).collect();
        assert_eq!(maybe, [Kind::LambdaFailed, Kind::Timeout]);
    }

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
