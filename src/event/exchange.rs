//! The event of a callout in the response phase: the request's event, and what the upstream answered.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    body::Body,
    multimap::{All, Last, Multimap},
};

/// An upstream's answer, of which perhaps only the head is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The headers in their order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

#[derive(Serialize)]
struct Event<'e, 'a> {
    request: &'e RawValue,
    response: Response<'e, 'a>,
}

/// As a function itself would answer, with payload format 1.0.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'e, 'a> {
    status_code: u16,
    headers: Last<'e, 'a>,
    multi_value_headers: All<'e, 'a>,
    body: Body<'e>,
    is_base64_encoded: bool,
}

/// Puts an answer beside the event of its request.
///
/// # Panics
/// Never: an event is JSON.
pub fn encode(request: &[u8], answered: &Answered) -> Bytes {
    let encoded = answered.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
    let body = Body::new(&answered.body, !encoded || answered.body.is_empty());
    let pairs = answered.headers.iter().filter(|(name, _)| !name.starts_with(':'));
    let headers = Multimap::ignoring_case(pairs.map(|(name, value)| (name.into(), value.into())).collect());
    // A `raw` event is whatever the caller sent.
    let request = serde_json::from_slice::<&RawValue>(request).unwrap_or(RawValue::NULL);
    let event = Event {
        request,
        response: Response {
            status_code: answered.status,
            headers: Last(&headers),
            multi_value_headers: All(&headers),
            body,
            is_base64_encoded: body.is_base64(),
        },
    };
    Bytes::from(serde_json::to_vec(&event).expect("text keys and values are JSON"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn response(headers: &[(&str, &str)], body: &'static [u8]) -> Value {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answered = Answered { status: 200, headers, body: Bytes::from_static(body) };
        let event: Value = serde_json::from_slice(&encode(br#"{"path": "/x"}"#, &answered)).unwrap();
        assert_eq!(event["request"]["path"], "/x");
        event["response"].clone()
    }

    #[test]
    fn an_answer_stands_beside_its_request() {
        let found = response(
            &[(":status", "200"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("content-type", "application/json")],
            b"{}",
        );
        let expected = json!({
            "statusCode": 200,
            "headers": {"set-cookie": "b=2", "content-type": "application/json"},
            "multiValueHeaders": {"set-cookie": ["a=1", "b=2"], "content-type": ["application/json"]},
            "body": "{}",
            "isBase64Encoded": false,
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_text_is_base64() {
        for (headers, body, expected) in [
            (&[("content-type", "text/plain"), ("content-encoding", "gzip")][..], &b"ab"[..], ("YWI=", true)),
            (&[("content-type", "text/plain")], b"\xff", ("/w==", true)),
            (&[], b"", ("", false)),
        ] {
            let found = response(headers, body);
            assert_eq!((found["body"].as_str().unwrap(), found["isBase64Encoded"].as_bool().unwrap()), expected);
        }
    }
}
