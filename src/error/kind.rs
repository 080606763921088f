//! The reasons why a call has no answer of its function, and all that follows of each: its codes, whose fault it is, whether
//! the function may have run, whether it is worth another try.

use std::{fmt, time::Duration};

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
    pub(super) fn default_retry_after(self) -> Option<Duration> {
        self.asks_for_retry().then_some(Duration::from_secs(1))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

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
}
