//! Lambda's answers read: a whole body, what it says of a run, and what a refusal says.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use serde::Deserialize;
use tower::BoxError;

use super::{connector::MAX_ANSWER, invoke::Answer};
use crate::event::fault::Fault;

/// The longest pause that is believed: who says more means never.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The whole body: a short one is the connection's own buffer, a long one is copied once into one of its size.
pub(super) async fn read(body: Incoming) -> Result<Bytes, BoxError> {
    let mut body = Limited::new(body, MAX_ANSWER);
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or_default();
    let Some(first) = data(&mut body).await? else { return Ok(Bytes::new()) };
    if body.is_end_stream() {
        return Ok(first);
    }
    // What a peer claims is not believed beyond what is read at all.
    let mut whole = BytesMut::with_capacity(expected.clamp(first.len(), MAX_ANSWER));
    whole.extend_from_slice(&first);
    drop(first);
    while let Some(next) = data(&mut body).await? {
        whole.extend_from_slice(&next);
    }
    Ok(whole.freeze())
}

/// The next piece of a body; trailers are passed over.
async fn data(body: &mut Limited<Incoming>) -> Result<Option<Bytes>, BoxError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Whole seconds, as `Retry-After` has them; its other form, a date, is nothing that Lambda sends.
pub(super) fn pause(seconds: &str) -> Option<Duration> {
    let seconds = seconds.trim();
    let digits = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than a number has are a pause all the same.
    digits.then(|| seconds.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs).min(MAX_RETRY_AFTER))
}

/// What stands in a refusal. Lambda names its code in a header; others of AWS's name it in the body.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub code: String,
    pub message: String,
    /// When to try again, if the body says so; the header comes first.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn read(response: &Response<Bytes>) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            #[serde(alias = "__type")]
            code: Option<String>,
            message: Option<String>,
            #[serde(rename = "Message")]
            capital_message: Option<String>,
            #[serde(rename = "retryAfterSeconds")]
            retry_after: serde_json::Value,
        }
        let body: Body = serde_json::from_slice(response.body()).unwrap_or_default();
        let code = text(response.headers(), "x-amzn-errortype").map(str::to_owned).or(body.code).unwrap_or_default();
        // `namespace#Code:documentation` (Smithy, AWS REST-JSON 1.1, operation error serialization).
        let code = code.split(':').next().unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or_default();
        let retry_after = match &body.retry_after {
            serde_json::Value::String(seconds) => pause(seconds),
            seconds => seconds.as_u64().map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
        };
        let message = body.message.or(body.capital_message).unwrap_or_default();
        Self { code: code.to_owned(), message, retry_after }
    }
}

/// The answer as the engine has it.
pub(super) fn answer(response: Response<Bytes>) -> Answer {
    let (head, payload) = response.into_parts();
    Answer {
        status: head.status.as_u16(),
        fault: text(&head.headers, "x-amz-function-error").map(|reported| Fault::new(reported, &payload)),
        version: version(&head.headers).to_owned(),
        request_id: request_id(&head.headers).unwrap_or_default().to_owned(),
        log: text(&head.headers, "x-amz-log-result").map(decode_log).unwrap_or_default(),
        payload,
        room: None,
    }
}

/// The tail is cut at 4 KB wherever that is, so its first character may be broken.
pub(super) fn decode_log(tail: &str) -> String {
    let decoded = BASE64_STANDARD.decode(tail).unwrap_or_default();
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Lambda's id of the invocation.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    text(headers, "x-amzn-requestid").map(short)
}

/// The version of the function that ran.
pub(super) fn version(headers: &HeaderMap) -> &str {
    text(headers, "x-amz-executed-version").map(short).unwrap_or_default()
}

/// AWS's own are shorter; but they are told in each line and in the caller's trailers, and what answers in AWS's place may
/// send anything.
fn short(text: &str) -> &str {
    text.get(..128).unwrap_or(text)
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_cut_within_a_character_is_readable() {
        assert_eq!(decode_log("SGVsbG8="), "Hello");
        assert_eq!(decode_log(&BASE64_STANDARD.encode(b"\xa9 caf\xc3\xa9")), "\u{fffd} caf\u{e9}");
        assert_eq!(decode_log("not base64"), "");
    }

    #[test]
    fn what_answers_in_awss_place_fills_no_line_and_no_trailer() {
        let long = "x".repeat(10_000);
        let response = Response::builder()
            .header("x-amzn-requestid", &long)
            .header("x-amz-executed-version", &long)
            .body(Bytes::new());
        let answer = answer(response.unwrap());
        assert_eq!((answer.request_id.len(), answer.version.len()), (128, 128));
    }
}
