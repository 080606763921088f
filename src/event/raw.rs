//! No envelope: the request's body is the event and the function's output is the reply's body.

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::{Failure, Reply, Unencodable, call::Call, head::Head, problem};

/// The body as the event. Lambda takes nothing but JSON, so an empty body is an empty object.
pub(super) fn encode(call: &Call) -> Result<Bytes, Unencodable> {
    if call.body.is_empty() {
        Ok(Bytes::from_static(b"{}"))
    } else if is_json(&call.body) {
        Ok(call.body.clone())
    } else {
        Err(Unencodable::NotJson)
    }
}

/// The output as the body of a 200; its type says whether it is JSON.
pub(super) fn decode(output: Bytes) -> Reply {
    let content_type = if is_json(&output) { "application/json" } else { "application/octet-stream" };
    Head::new(200).reply(output, content_type)
}

fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// No front door stands here, so the service answers in its own form.
pub(super) fn refusal(failure: Failure, request_id: &str) -> Reply {
    let (reason, message) = match failure {
        Failure::Function => ("FUNCTION_FAILED", "the function failed"),
        Failure::Malformed => ("MALFORMED_OUTPUT", "the function's output is no reply"),
    };
    problem(502, reason, message, request_id, None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::call::sample, *};

    #[test]
    fn only_json_is_an_event() {
        for (body, event, why) in [
            (&b""[..], Ok(&b"{}"[..]), "nothing is an empty object"),
            (b"{\"a\": 1}", Ok(b"{\"a\": 1}"), "an object, untouched"),
            (b" [1]\n", Ok(b" [1]\n"), "white space too"),
            (b"\"text\"", Ok(b"\"text\""), "any JSON is an event"),
            (b"hello", Err(Unencodable::NotJson), "text"),
            (b"{} {}", Err(Unencodable::NotJson), "two values"),
            (b"\"\xff\"", Err(Unencodable::NotJson), "not UTF-8"),
            (b"   ", Err(Unencodable::NotJson), "only white space"),
        ] {
            let mut call = sample::bare("POST", "/");
            call.body = Bytes::from_static(body);
            assert_eq!(encode(&call).as_deref(), event.as_deref(), "{why}");
        }
    }

    #[test]
    fn the_body_is_not_copied() {
        let mut call = sample::bare("POST", "/");
        call.body = Bytes::from(vec![b'1'; 100]);
        assert_eq!(encode(&call).unwrap().as_ptr(), call.body.as_ptr());
        assert_eq!(decode(call.body.clone()).body.as_ptr(), call.body.as_ptr());
    }

    #[test]
    fn the_type_says_whether_it_is_json() {
        for (output, content_type) in [
            (&b"{\"statusCode\":500}"[..], "application/json"),
            (b"null", "application/json"),
            (b"hello", "application/octet-stream"),
            (b"\xff", "application/octet-stream"),
            (b"", "application/octet-stream"),
        ] {
            let reply = decode(Bytes::from_static(output));
            assert_eq!((reply.status, &reply.body[..]), (200, output));
            assert_eq!(reply.header("content-type"), Some(content_type));
            assert_eq!(reply.header("content-length"), Some(&*output.len().to_string()));
        }
    }
}
