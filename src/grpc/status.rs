//! The contract's error as a gRPC status with its details (AIP-193).

use std::{collections::HashMap, time::Duration};

use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::error::{Error, Kind};

/// The longest `grpc-retry-pushback-ms` that clients read (gRFC A6).
const MAX_PUSHBACK: Duration = Duration::from_millis(i32::MAX as u64);
/// The domain of every `ErrorInfo`.
const DOMAIN: &str = "lambda-policy";

/// The gRPC code of a kind.
pub(super) fn code(kind: Kind) -> Code {
    i32::try_from(kind.grpc_code()).map_or(Code::Unknown, Code::from_i32)
}

/// The status of an error. It says nothing that only the operator may read.
pub(super) fn status(error: &Error) -> Status {
    let mut info = HashMap::from([("ran".to_owned(), error.ran().as_str().to_owned())]);
    if let Some(about) = error.about() {
        for (key, value) in [("policy", &about.policy), ("function", &about.function), ("region", &about.region)] {
            if !value.is_empty() {
                info.insert(key.to_owned(), value.clone());
            }
        }
    }
    if let Some(id) = error.aws_request_id() {
        info.insert("aws_request_id".to_owned(), id.to_owned());
    }

    let mut details = ErrorDetails::with_error_info(error.kind().reason(), DOMAIN, info);
    if !error.violations().is_empty() {
        let violations = error.violations().iter();
        details.set_bad_request(violations.map(|v| FieldViolation::new(&v.field, &v.description)).collect::<Vec<_>>());
    }
    let mut metadata = MetadataMap::new();
    if let Some(after) = error.retry_after() {
        // Clients read milliseconds of 32 bits, and take what is no number for "never".
        let after = after.min(MAX_PUSHBACK);
        details.set_retry_info(Some(after));
        if let Ok(pushback) = MetadataValue::try_from(after.as_millis().to_string()) {
            metadata.insert("grpc-retry-pushback-ms", pushback);
        }
    }
    Status::with_error_details_and_metadata(code(error.kind()), error.message(), details, metadata)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::About;

    #[test]
    fn codes_are_those_of_the_contract() {
        use Code::{
            DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, NotFound, PermissionDenied,
            ResourceExhausted, Unauthenticated, Unavailable,
        };
        let expected = [
            InvalidArgument,
            InvalidArgument,
            Unauthenticated,
            PermissionDenied,
            NotFound,
            NotFound,
            PermissionDenied,
            ResourceExhausted,
            Unavailable,
            FailedPrecondition,
            Unavailable,
            FailedPrecondition,
            Unavailable,
            Internal,
            DeadlineExceeded,
            Unavailable,
            Unavailable,
            Unavailable,
        ];
        assert_eq!(Kind::ALL.map(code), expected);
    }

    #[test]
    fn gateways_may_send_again_whatever_is_unavailable() {
        for kind in Kind::ALL.into_iter().filter(|kind| code(*kind) == Code::Unavailable) {
            assert_eq!(kind.ran(), crate::error::Ran::No, "{kind}");
        }
    }

    #[test]
    fn a_throttled_call_says_when_to_try_again_in_both_ways() {
        let about = About { policy: "orders".into(), function: "f".into(), region: "us-east-1".into() };
        let error = Error::new(Kind::FunctionThrottled, "busy")
            .with_retry_after(Some(Duration::from_secs(2)))
            .with_aws_request_id(Some("r-1"))
            .with_about(about)
            .with_detail("the operator's");
        let status = status(&error);
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "2000");
        let details = status.get_error_details();
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(2)));
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("FUNCTION_THROTTLED", "lambda-policy"));
        for (key, value) in
            [("policy", "orders"), ("function", "f"), ("region", "us-east-1"), ("ran", "no"), ("aws_request_id", "r-1")]
        {
            assert_eq!(info.metadata[key], value, "{key}");
        }
        assert!(!format!("{status:?}").contains("the operator's"));
    }

    #[test]
    fn no_pause_is_longer_than_clients_can_read() {
        let error = Error::new(Kind::FunctionThrottled, "busy").with_retry_after(Some(Duration::MAX));
        let status = status(&error);
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "2147483647");
        let delay = status.get_error_details().retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(Duration::from_millis(2_147_483_647)));
    }

    #[test]
    fn a_wrong_field_is_a_violation() {
        let status = status(&Error::field("json", "is not JSON"));
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "json");
        assert!(details.retry_info().is_none());
    }
}
