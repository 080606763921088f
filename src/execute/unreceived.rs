//! Why a call's body did not come.

use http_body_util::LengthLimitError;

use crate::error::Error;

/// Why a body was not received: the service's own reason, or that it is too large. Nothing if its caller went away, which
/// is no failure of the call: its line is dropped, and nobody reads an answer.
pub fn unreceived(error: &(dyn std::error::Error + 'static), too_large: impl FnOnce() -> Error) -> Option<Error> {
    let is_limit = |cause: &(dyn std::error::Error + 'static)| cause.is::<LengthLimitError>();
    let limited = || std::iter::successors(Some(error), |cause| cause.source()).any(is_limit);
    Error::among(error).map(Error::again).or_else(|| limited().then(too_large))
}

/// What is answered in case somebody reads it after all.
pub fn broken_off() -> Error {
    Error::field("body", "broke off")
}
