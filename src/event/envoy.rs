//! The envelope of Envoy's `aws_lambda` filter without payload passthrough.
//!
//! Source: Envoy's documentation of the filter and the behaviour of its code. Its messages are proto3
//! JSON, so zero and missing are one, and both spellings of a key are read.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::{
    Malformed, Reply,
    body::Body,
    call::Call,
    envelope::{Envelope, Output, is_null},
    fields::{Fields, Spelling},
    head::{Head, Merge, Values},
    json,
    multimap::{First, Joined},
    output_body, query,
};

#[derive(Serialize)]
struct Event<'e, 'a> {
    raw_path: Cow<'e, str>,
    method: &'e str,
    headers: Joined<'e, 'a>,
    query_string_parameters: First<'e, 'a>,
    body: Body<'e>,
    is_base64_encoded: bool,
}

/// The HTTP call as an event: the path with the query, repeated headers joined by commas, the first of
/// repeated parameters, undecoded.
pub(super) fn encode(call: &Call) -> Bytes {
    let text = call.body.is_empty() || is_text(call);
    let body = Body::new(&call.body, text);
    let headers = Fields::of(call, Spelling::Lower).into_map();
    let parameters = query::undecoded(&call.query);
    let event = Event {
        raw_path: call.target(),
        method: &call.method,
        headers: Joined(&headers),
        query_string_parameters: First(&parameters),
        body,
        is_base64_encoded: body.is_base64(),
    };
    json::write(call, Some(body), &event)
}

/// Envoy's own notion of text: the type must be spelled without parameters, and a body that came in
/// chunks is none.
fn is_text(call: &Call) -> bool {
    if call.header("transfer-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return false;
    }
    let content_type = call.header("content-type").unwrap_or_default().to_ascii_lowercase();
    content_type.starts_with("text/")
        || ["application/json", "application/javascript", "application/xml"].contains(&&*content_type)
}

/// The function's output as a reply. Without a status it is 200, which is the status of Lambda's own
/// response; a status of 0 is nonsense nevertheless and never becomes 200 here.
pub(super) fn decode(output: &Bytes) -> Result<Reply, Malformed> {
    let envelope = Output::read_proto(output)?.object()?;
    let body = output_body::text(output, &envelope)?;
    Ok(head(status(&envelope)?, &envelope)?.reply(body, "application/json"))
}

/// The status, where null is none: to proto3 it says that a value is not set.
pub(super) fn status(envelope: &Envelope<'_>) -> Result<u16, Malformed> {
    if envelope.status.is_none() || is_null(envelope.status) { Ok(200) } else { envelope.status() }
}

pub(super) fn head(status: u16, envelope: &Envelope<'_>) -> Result<Head, Malformed> {
    let mut merge = Merge::new(Values::Scalar);
    merge.single_values(envelope.headers)?;
    merge.without_pseudo_headers();
    merge.cookies(envelope.cookies)?;
    merge.into_head(status)
}

/// What Envoy answers itself: 500 without a body where it cannot read an output. A function's error it
/// would hand on with status 200; here that is 500 as well.
pub(super) fn refusal() -> Reply {
    Reply::own(500, "application/json", "")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::call::sample, *};
    use crate::event::testing::{decoded, malformed, value};
    use serde_json::json;

    #[test]
    fn the_captured_request() {
        let call = sample::captured();
        let expected = json!({
            "raw_path": format!("/capture/space%20value?{}", call.query),
            "method": "POST",
            "headers": {
                "content-length": "12",
                "content-type": "application/json",
                "cookie": "session=abc123; theme=dark",
                "host": "abc123.execute-api.eu-central-1.amazonaws.com",
                "user-agent": "probe/1.0",
                "x-probe": "first,second",
            },
            "query_string_parameters": {
                "repeat": "one",
                "redirect": "https%3A%2F%2Fexample.com%2Fa%2Fb",
                "literalPlus": "a+b",
                "encodedPlus": "a%2Bb",
                "empty": "",
            },
            "body": "{\"a\": \"ä\"}",
            "is_base64_encoded": false,
        });
        assert_eq!(value(&encode(&call)), expected);
    }

    #[test]
    fn what_is_missing_is_empty() {
        let expected = json!({
            "raw_path": "/", "method": "GET", "headers": {}, "query_string_parameters": {},
            "body": "", "is_base64_encoded": false,
        });
        assert_eq!(value(&encode(&sample::bare("GET", "/"))), expected);
    }

    #[test]
    fn bodies_are_text_by_the_exact_type() {
        for (headers, encoded) in [
            (&[("content-type", "application/json")][..], false),
            (&[("content-type", "Application/JSON")], false),
            (&[("content-type", "text/plain; charset=utf-8")], false),
            (&[("content-type", "application/json; charset=utf-8")], true),
            (&[("content-type", "application/json"), ("transfer-encoding", "chunked")], true),
            (&[], true),
        ] {
            let mut call = sample::bare("POST", "/");
            call.headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            call.body = Bytes::from_static(b"{}");
            assert_eq!(value(&encode(&call))["is_base64_encoded"], encoded, "{headers:?}");
        }
    }

    #[test]
    fn outputs_that_are_replies() {
        for (output, status, headers, body, why) in [
            (
                r#"{"status_code":201,"headers":{"a":"1",":path":"/"},"cookies":["b=2"],"body":"aGk=","is_base64_encoded":true}"#,
                201,
                &[("a", "1"), ("set-cookie", "b=2"), ("content-type", "application/json"), ("content-length", "2")][..],
                &b"hi"[..],
                "everything",
            ),
            (
                r#"{"statusCode":202,"body":"aGk=","isBase64Encoded":true}"#,
                202,
                &[("content-type", "application/json"), ("content-length", "2")],
                b"hi",
                "the other spelling",
            ),
            (
                r#"{"other":1}"#,
                200,
                &[("content-type", "application/json"), ("content-length", "0")],
                b"",
                "without a status it is 200",
            ),
            (
                r#"{"status_code":null,"headers":null,"cookies":null,"body":null,"is_base64_encoded":null}"#,
                200,
                &[("content-type", "application/json"), ("content-length", "0")],
                b"",
                "null is not set",
            ),
        ] {
            decoded(decode, output, status, headers, body, why);
        }
    }

    #[test]
    fn outputs_that_are_malformed() {
        for (output, expected, why) in [
            ("hello", Malformed::NotJson, "not JSON"),
            ("[]", Malformed::NotObject, "a list"),
            (r#"{"status_code":0}"#, Malformed::StatusInvalid, "status 0"),
            (r#"{"status_code":200,"headers":{"a":null}}"#, Malformed::HeadersType("headers"), "null is no value"),
        ] {
            malformed(decode, output, expected, why);
        }
    }

    #[test]
    fn its_own_answers() {
        let reply = refusal();
        assert_eq!((reply.status, reply.body.len()), (500, 0));
    }
}
