//! Lambda's refusals as the contract's kinds.
//!
//! Source: Lambda API reference, `Invoke`, Errors; and the common errors of AWS services for signatures.

use std::time::Duration;

use aws_sdk_lambda::{
    error::{ProvideErrorMetadata, SdkError},
    operation::{RequestId, invoke::InvokeError},
};

use super::{connector::NotConnected, identity::chain_of, refresh};
use crate::error::{Error, Kind, Ran};

/// What Lambda means by an HTTP status and an error code.
fn kind(status: u16, code: &str) -> Kind {
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
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException",
        ) => Kind::CredentialsRejected,
        (
            _,
            "EC2ThrottledException"
            | "EFSMountConnectivityException"
            | "EFSMountTimeoutException"
            | "ENILimitReachedException"
            | "ResourceConflictException"
            | "ResourceNotReadyException"
            | "SnapStartNotReadyException"
            | "SnapStartTimeoutException"
            | "SubnetIPAddressLimitReachedException",
        ) => Kind::FunctionNotReady,
        (
            _,
            "DurableExecutionAlreadyStartedException"
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
            | "S3FilesMountConnectivityException"
            | "S3FilesMountFailureException"
            | "S3FilesMountTimeoutException"
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

/// The error of a kind, in the words for the caller.
pub(super) fn error(kind: Kind) -> Error {
    Error::new(kind, message(kind))
}

/// Why there are no credentials, as the contract says it.
pub(super) fn credentials(reason: &refresh::Error) -> Error {
    let kind = if reason.rejected { Kind::CredentialsRejected } else { Kind::CredentialsUnavailable };
    error(kind).with_detail(reason.detail.clone())
}

/// Why an invocation has no answer, as the contract says it.
pub(super) fn invocation(failure: &SdkError<InvokeError>) -> Error {
    match failure {
        SdkError::ServiceError(refused) => {
            let raw = refused.raw();
            let status = raw.status().as_u16();
            let code = failure.code().unwrap_or_default();
            let retry_after = raw.headers().get("retry-after").and_then(|value| value.trim().parse().ok());
            error(kind(status, code))
                .with_retry_after(retry_after.map(Duration::from_secs))
                .with_aws_request_id(failure.request_id())
                .with_detail(format!("lambda answered {status} {code}: {}", failure.message().unwrap_or_default()))
        }
        SdkError::DispatchFailure(_) if find::<NotConnected>(failure).is_some() => {
            error(Kind::LambdaUnreachable).with_detail(chain_of(failure))
        }
        // Between the moment they were asked for and the signature, the credentials were lost.
        _ if let Some(reason) = find::<refresh::Error>(failure) => credentials(reason),
        SdkError::ConstructionFailure(_) => {
            error(Kind::FunctionMisconfigured).with_detail(chain_of(failure)).with_ran(Ran::No)
        }
        _ => error(Kind::LambdaFailed).with_aws_request_id(failure.request_id()).with_detail(chain_of(failure)),
    }
}

/// Whether AWS refused a token that had expired: new credentials may be accepted.
pub(super) fn is_expired(failure: &SdkError<InvokeError>) -> bool {
    matches!(failure.code(), Some("ExpiredTokenException" | "ExpiredToken" | "RequestExpired"))
}

fn find<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    let mut source = Some(error);
    while let Some(current) = source {
        if let Some(found) = current.downcast_ref::<E>() {
            return Some(found);
        }
        source = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

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
