//! Messages that tonic refuses before the service sees them get the contract's errors too.
//!
//! tonic answers a message above the size limit with OUT_OF_RANGE and one that is no protobuf with INTERNAL, both
//! without details; the service's own errors always have details.

use http::Response;
use tonic::{Code, Status};

use super::status::status;
use crate::error::{Error, Kind};

const DETAILS: &str = "grpc-status-details-bin";

/// The response as it is, or the contract's error in the place of tonic's.
pub(super) fn answer<B: Default>(response: Response<B>) -> Response<B> {
    let Some(refused) = Status::from_header_map(response.headers()) else { return response };
    if response.headers().contains_key(DETAILS) {
        return response;
    }
    let error = match refused.code() {
        Code::OutOfRange => Error::new(Kind::PayloadTooLarge, "the message is larger than any that lambda takes"),
        Code::Internal => Error::field("request", "is not a message of the contract").with_detail(refused.message()),
        _ => return response,
    };
    tracing::warn!(reason = error.kind().reason(), detail = refused.message(), "a message was refused unread");
    status(&error).into_http()
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn only_tonics_own_refusals_are_replaced() {
        for (status, reason) in [
            (Status::out_of_range("too large"), Some("PAYLOAD_TOO_LARGE")),
            (Status::internal("buffer underflow"), Some("INVALID_REQUEST")),
            (Status::unimplemented("no such method"), None),
            (status(&Error::new(Kind::LambdaFailed, "x")), Some("LAMBDA_FAILED")),
        ] {
            let answered = answer::<String>(status.into_http());
            let found = Status::from_header_map(answered.headers())
                .and_then(|s| s.get_details_error_info().map(|info| info.reason));
            assert_eq!(found.as_deref(), reason);
        }
    }
}
