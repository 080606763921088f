//! Lambda's refusals as the contract's kinds.
//!
//! Source: Lambda API reference, `Invoke`, Errors; and the common errors of AWS services for signatures.

use http::HeaderMap;

use super::{answer::request_id, refresh};
use crate::error::{Error, Kind, Ran};

/// What Lambda means by an HTTP status and an error code.
pub(super) fn kind(status: u16, code: &str) -> Kind {
    match (status, code) {
        (_, "InvalidRequestContentException" | "UnsupportedMediaTypeException" | "SerializationException") => {
            Kind::InvalidRequest
        }
        (413, _) | (_, "RequestTooLargeException" | "RequestEntityTooLargeException") => Kind::PayloadTooLarge,
        (
            _,
            "ExpiredTokenException"
            | "ExpiredToken"
            | "IncompleteSignatureException"
            | "IncompleteSignature"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException"
            | "MissingAuthenticationToken"
            | "NotAuthorized"
            | "OptInRequired"
            | "RequestExpired"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException",
        ) => Kind::CredentialsRejected,
        (
            _,
            "CodeArtifactUserPendingException"
            | "EC2ThrottledException"
            | "EFSMountConnectivityException"
            | "EFSMountTimeoutException"
            | "ENILimitReachedException"
            | "ENINotReadyException"
            | "ResourceConflictException"
            | "ResourceNotReadyException"
            | "S3FilesMountConnectivityException"
            | "S3FilesMountTimeoutException"
            | "SnapStartNotReadyException"
            | "SnapStartTimeoutException"
            | "SubnetIPAddressLimitReachedException",
        ) => Kind::FunctionNotReady,
        (
            _,
            "CodeArtifactUserDeletedException"
            | "CodeArtifactUserFailedException"
            | "DurableExecutionAlreadyStartedException"
            | "EC2AccessDeniedException"
            | "EC2UnexpectedException"
            | "EFSIOException"
            | "EFSMountFailureException"
            | "InvalidParameterValueException"
            | "InvalidRuntimeException"
            | "InvalidSecurityGroupIDException"
            | "InvalidSubnetIDException"
            | "InvalidZipFileException"
            | "KMSAccessDeniedException"
            | "KMSDisabledException"
            | "KMSInvalidStateException"
            | "KMSNotFoundException"
            | "NoPublishedVersionException"
            | "RecursiveInvocationException"
            | "RuntimeAliasDeletedException"
            | "RuntimeVersionDeletedException"
            | "S3FilesMountFailureException"
            | "SerializedRequestEntityTooLargeException"
            | "SnapStartException"
            | "ValidationException"
            | "ValidationError",
        ) => Kind::FunctionMisconfigured,
        (429, _) | (_, "TooManyRequestsException" | "ThrottlingException" | "Throttling") => Kind::FunctionThrottled,
        (404, _) => Kind::FunctionNotFound,
        (401 | 403, _) => Kind::FunctionAccessDenied,
        (409, _) => Kind::FunctionNotReady,
        (415, _) => Kind::InvalidRequest,
        (400..=499, _) => Kind::FunctionMisconfigured,
        // A 2xx that is no answer, and every 5xx: the function may have run.
        _ => Kind::LambdaFailed,
    }
}

/// What the caller reads. The operator's log has AWS's own words.
fn message(kind: Kind) -> &'static str {
    match kind {
        Kind::InvalidRequest => "lambda cannot read the payload: send JSON",
        Kind::PayloadTooLarge => "the payload is larger than lambda takes",
        Kind::CredentialsRejected => {
            "aws refuses the policy's credentials: check the keys, the role and its trust policy"
        }
        Kind::CredentialsUnavailable => "no credentials can be had for the policy at the moment",
        Kind::FunctionNotReady => "the function cannot run yet: try again",
        Kind::FunctionMisconfigured => "the function cannot run as it is configured",
        Kind::FunctionThrottled => "the function takes no more calls at the moment",
        Kind::FunctionNotFound => "there is no such function, version or alias in the region",
        Kind::FunctionAccessDenied => {
            "the policy's credentials may not invoke the function: allow lambda:InvokeFunction"
        }
        Kind::LambdaUnreachable => "no connection to lambda could be made",
        _ => "lambda failed: the function may have run",
    }
}

/// What AWS says of a signature whose keys may be right, but not its time.
const WRONG_TIME: [&str; 4] =
    ["RequestExpired", "RequestTimeTooSkewed", "Signature expired", "Signature not yet current"];

/// The error of a refusal, of which AWS's own words are the detail.
pub(super) fn refusal(kind: Kind, detail: String) -> Error {
    let error = match kind {
        Kind::CredentialsRejected if WRONG_TIME.iter().any(|words| detail.contains(words)) => {
            Error::new(kind, "aws refuses the signature for its time: set the clock of this service's machine")
        }
        _ => error(kind),
    };
    error.with_detail(detail)
}

/// The error of a kind, in the words for the caller.
pub(super) fn error(kind: Kind) -> Error {
    Error::new(kind, message(kind))
}

/// The answer began, and broke off or made no sense: the function has run, at least in part.
pub(super) fn broken(headers: &HeaderMap, why: &dyn std::fmt::Display) -> Error {
    error(Kind::LambdaFailed)
        .with_aws_request_id(request_id(headers))
        .with_detail(format!("the answer broke off: {why}"))
}

/// The service stops, and the call did not end by itself.
pub(super) fn stopped(ran: Ran) -> Error {
    match ran {
        Ran::No => Error::new(Kind::ShuttingDown, "the service is stopping: call another replica"),
        Ran::Maybe => {
            Error::new(Kind::LambdaFailed, "the service stopped before lambda answered: the function may have run")
                .with_own_stop()
        }
    }
}

/// Why there are no credentials, as the contract says it.
pub(super) fn credentials(reason: &refresh::Error) -> Error {
    let kind = if reason.rejected { Kind::CredentialsRejected } else { Kind::CredentialsUnavailable };
    refusal(kind, reason.detail.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_not_blamed_on_the_keys() {
        let expired = "SignatureDoesNotMatch: Signature expired: 20250101T000000Z is now earlier than 20250101T001000Z";
        for (detail, clock) in [
            (expired, true),
            ("InvalidSignatureException: Signature not yet current: 20250101T010000Z is still later than", true),
            ("RequestExpired: ", true),
            ("InvalidSignatureException: The request signature we calculated does not match", false),
            ("ExpiredTokenException: The security token included in the request is expired", false),
        ] {
            for error in [
                refusal(Kind::CredentialsRejected, format!("lambda answered 403 {detail}")),
                credentials(&refresh::Error { rejected: true, detail: format!("assuming r failed: {detail}") }),
            ] {
                assert_eq!(error.to_string().contains("clock"), clock, "{detail}: {error}");
            }
        }
        assert!(!refusal(Kind::FunctionThrottled, expired.to_owned()).to_string().contains("clock"));
    }

    #[test]
    fn lambdas_refusals_keep_their_meaning() {
        for (status, code, expected) in [
            (400, "InvalidRequestContentException", Kind::InvalidRequest),
            (400, "InvalidParameterValueException", Kind::FunctionMisconfigured),
            (400, "SnapStartException", Kind::FunctionMisconfigured),
            (400, "UnknownNewException", Kind::FunctionMisconfigured),
            (400, "ExpiredTokenException", Kind::CredentialsRejected),
            (403, "AccessDeniedException", Kind::FunctionAccessDenied),
            (403, "", Kind::FunctionAccessDenied),
            (403, "UnrecognizedClientException", Kind::CredentialsRejected),
            (403, "InvalidSignatureException", Kind::CredentialsRejected),
            (403, "EFSMountFailureException", Kind::FunctionMisconfigured),
            (404, "ResourceNotFoundException", Kind::FunctionNotFound),
            (408, "EFSMountTimeoutException", Kind::FunctionNotReady),
            (408, "SnapStartTimeoutException", Kind::FunctionNotReady),
            (409, "ResourceConflictException", Kind::FunctionNotReady),
            (410, "EFSIOException", Kind::FunctionMisconfigured),
            (413, "RequestTooLargeException", Kind::PayloadTooLarge),
            (415, "UnsupportedMediaTypeException", Kind::InvalidRequest),
            (429, "TooManyRequestsException", Kind::FunctionThrottled),
            (429, "", Kind::FunctionThrottled),
            (500, "ServiceException", Kind::LambdaFailed),
            (206, "", Kind::LambdaFailed),
            (301, "", Kind::LambdaFailed),
            (408, "S3FilesMountTimeoutException", Kind::FunctionNotReady),
            (408, "S3FilesMountConnectivityException", Kind::FunctionNotReady),
            (403, "S3FilesMountFailureException", Kind::FunctionMisconfigured),
            (409, "RuntimeVersionDeletedException", Kind::FunctionMisconfigured),
            (409, "RuntimeAliasDeletedException", Kind::FunctionMisconfigured),
            (409, "CodeArtifactUserDeletedException", Kind::FunctionMisconfigured),
            (409, "CodeArtifactUserFailedException", Kind::FunctionMisconfigured),
            (409, "CodeArtifactUserPendingException", Kind::FunctionNotReady),
            (502, "ENINotReadyException", Kind::FunctionNotReady),
            (502, "ResourceNotReadyException", Kind::FunctionNotReady),
            (502, "EC2ThrottledException", Kind::FunctionNotReady),
            (502, "ENILimitReachedException", Kind::FunctionNotReady),
            (502, "KMSAccessDeniedException", Kind::FunctionMisconfigured),
            (502, "InvalidRuntimeException", Kind::FunctionMisconfigured),
            (503, "", Kind::LambdaFailed),
            (504, "", Kind::LambdaFailed),
        ] {
            assert_eq!(kind(status, code), expected, "{status} {code}");
        }
    }
}
