//! The envelope of Kong's `aws-lambda` plugin with all four `forward_request_*` settings on.
//!
//! Source: the plugin's documentation and the behaviour of its code (Kong 3). Not taken over: its limits
//! of 100 headers and 100 parameters, and its reading of multipart forms, whose body goes along as it is.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{
    Malformed, Reply,
    body::Body,
    call::Call,
    envelope::{Envelope, Output, is_null},
    fields::{Fields, Spelling},
    head::{Head, Merge, Values},
    json,
    multimap::{Multimap, OneOrAll},
    output_body, query,
};

#[derive(Serialize)]
struct Event<'e, 'a> {
    request_method: &'e str,
    request_uri: Cow<'e, str>,
    request_uri_args: OneOrAll<'e, 'a, Argument<'a>>,
    request_headers: OneOrAll<'e, 'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_body: Option<Body<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_body_args: Option<Form<'e, 'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    request_body_base64: bool,
}

/// A parameter's value; one without an equals sign is `true`.
#[derive(Debug)]
pub(super) enum Argument<'a> {
    Text(Cow<'a, str>),
    Flag,
}

impl Serialize for Argument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Flag => serializer.serialize_bool(true),
        }
    }
}

/// A query, or a form, as Kong's tables.
pub(super) fn arguments(query: &str) -> Multimap<'_, Argument<'_>> {
    Multimap::exact(
        query::split(query)
            .map(|(name, value)| {
                let value = value.map_or(Argument::Flag, |value| Argument::Text(query::form_decode(value)));
                (query::form_decode(name), value)
            })
            .collect(),
    )
}

/// What Kong reads out of a body.
#[derive(Serialize)]
#[serde(untagged)]
enum Form<'e, 'a> {
    Json(&'e RawValue),
    Arguments(OneOrAll<'e, 'a, Argument<'a>>),
}

/// The HTTP call as an event. A body of a type that Kong neither reads nor knows as text is base64.
pub(super) fn encode(call: &Call) -> Bytes {
    let content_type = call.header("content-type").map(str::trim);
    let kind = content_type.unwrap_or_default().to_ascii_lowercase();
    let is_form = kind.starts_with("application/x-www-form-urlencoded");
    let is_json = kind.starts_with("application/json");
    let is_read = is_form || is_json || kind.starts_with("multipart/form-data");

    let utf8 = std::str::from_utf8(&call.body).unwrap_or_default();
    let form = arguments(if is_form { utf8 } else { "" });
    let request_body_args = if is_json {
        let json: Option<&RawValue> = serde_json::from_str(utf8).ok();
        // Lua's tables are what a body's arguments can be: a JSON string or number is no body to Kong.
        json.filter(|json| json.get().starts_with(['{', '['])).map(Form::Json)
    } else {
        Some(Form::Arguments(OneOrAll(&form)))
    };
    let text = is_read || content_type.is_some_and(is_text);
    // A missing body of a type that is read stays missing; of any other it is base64 of nothing.
    let body = (!(text && call.body.is_empty())).then(|| Body::new(&call.body, text));

    let headers = Fields::of(call, Spelling::Lower).with_host(call).into_map();
    let parameters = arguments(&call.query);
    let event = Event {
        request_method: &call.method,
        request_uri: call.target(),
        request_uri_args: OneOrAll(&parameters),
        request_headers: OneOrAll(&headers),
        request_body: body,
        request_body_args,
        request_body_base64: body.is_some_and(|body| body.is_base64()),
    };
    json::write(call, body, &event)
}

/// The types that Kong sends as text; it compares them with their parameters.
fn is_text(content_type: &str) -> bool {
    ["text/plain", "text/html", "application/xml", "text/xml", "application/soap+xml"].contains(&content_type)
}

/// The function's output as a reply, as Kong reads it with `is_proxy_integration`: the status may be in
/// quotes, and `multiValueHeaders` replace headers of the same name. What is null is there and of no type that
/// Kong takes. Used by both of Kong's formats.
pub(super) fn decode(output: &Bytes) -> Result<Reply, Malformed> {
    let envelope = Output::read(output)?.object()?;
    if is_null(envelope.is_base64_encoded) {
        return Err(Malformed::Base64Flag);
    }
    let body = output_body::text_not_null(output, &envelope)?;
    Ok(head(envelope.status()?, &envelope)?.reply(body, "application/json"))
}

pub(super) fn head(status: u16, envelope: &Envelope<'_>) -> Result<Head, Malformed> {
    for (map, field) in [(envelope.headers, "headers"), (envelope.multi_value_headers, "multiValueHeaders")] {
        if is_null(map) {
            return Err(Malformed::HeadersType(field));
        }
    }
    let mut merge = Merge::new(Values::Scalar);
    merge.single_values(envelope.headers)?;
    merge.replacing_values(envelope.multi_value_headers)?;
    merge.into_head(status)
}

/// What Kong answers itself: any failure is a bad gateway.
pub(super) fn refusal() -> Reply {
    Reply::own(
        502,
        "application/json; charset=utf-8",
        r#"{"message":"Bad Gateway","error":"could not JSON decode Lambda function response"}"#,
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::call::sample, *};
    use crate::event::testing::{decoded, malformed, value};
    use serde_json::{Value, json};

    #[test]
    fn the_captured_request() {
        let mut call = sample::captured();
        call.query.push_str("&flag");
        let expected = json!({
            "request_method": "POST",
            "request_uri": format!("/capture/space%20value?{}", call.query),
            "request_uri_args": {
                "repeat": ["one", "two"],
                "redirect": "https://example.com/a/b",
                "literalPlus": "a b",
                "encodedPlus": "a+b",
                "empty": "",
                "flag": true,
            },
            "request_headers": {
                "content-length": "12",
                "content-type": "application/json",
                "cookie": "session=abc123; theme=dark",
                "host": "abc123.execute-api.eu-central-1.amazonaws.com",
                "user-agent": "probe/1.0",
                "x-probe": ["first", "second"],
            },
            "request_body": "{\"a\": \"ä\"}",
            "request_body_args": {"a": "ä"},
        });
        assert_eq!(value(&encode(&call)), expected);
    }

    #[test]
    fn bodies_by_their_type() {
        for (content_type, body, expected, args, encoded, why) in [
            (Some("application/json"), &b"{\"a\":1}"[..], json!("{\"a\":1}"), json!({"a": 1}), false, "JSON is read"),
            (Some("application/json"), b"{", json!("{"), Value::Null, false, "JSON that is none has no arguments"),
            (Some("application/json"), b"3", json!("3"), Value::Null, false, "nor has a number"),
            (
                Some("application/x-www-form-urlencoded; charset=utf-8"),
                b"a=1&a=x+y&b",
                json!("a=1&a=x+y&b"),
                json!({"a": ["1", "x y"], "b": true}),
                false,
                "a form is read",
            ),
            (Some("text/plain"), b"hi", json!("hi"), json!({}), false, "text"),
            (
                Some("text/plain; charset=utf-8"),
                b"hi",
                json!("aGk="),
                json!({}),
                true,
                "text with parameters is unknown to Kong",
            ),
            (Some("image/png"), b"\xff", json!("/w=="), json!({}), true, "unknown"),
            (None, b"", json!(""), json!({}), true, "no type and no body"),
            (Some("application/json"), b"", Value::Null, Value::Null, false, "no body to read"),
            (Some("text/plain"), b"\xff", json!("/w=="), json!({}), true, "not UTF-8"),
        ] {
            let mut call = sample::bare("POST", "/");
            call.headers = content_type.iter().map(|t| ("Content-Type".to_owned(), (*t).to_owned())).collect();
            call.body = Bytes::from_static(body);
            let event = value(&encode(&call));
            assert_eq!(event["request_body"], expected, "{why}");
            assert_eq!(event["request_body_args"], args, "{why}");
            assert_eq!(event.get("request_body_base64"), encoded.then_some(&json!(true)), "{why}");
        }
    }

    #[test]
    fn outputs_that_are_replies() {
        for (output, status, headers, body, why) in [
            (
                r#"{"statusCode":"201","headers":{"A":"1","b":"2"},"multiValueHeaders":{"a":["3","4"]},"body":"x"}"#,
                201,
                &[("b", "2"), ("a", "3"), ("a", "4"), ("content-type", "application/json"), ("content-length", "1")][..],
                &b"x"[..],
                "multi values replace single ones",
            ),
            (
                r#"{"statusCode":599,"headers":{"Content-Type":"text/plain","Content-Length":"7"},"multiValueHeaders":{"c":"d"},"body":"aGk=","isBase64Encoded":true,"x":1}"#,
                599,
                &[("Content-Type", "text/plain"), ("c", "d"), ("content-length", "2")],
                b"hi",
                "base64, a value without a list, other keys",
            ),
        ] {
            decoded(decode, output, status, headers, body, why);
        }
    }

    #[test]
    fn outputs_that_are_malformed() {
        for (output, expected, why) in [
            (r#"{"body":"x"}"#, Malformed::StatusMissing, "no status"),
            (r#"{"statusCode":"abc"}"#, Malformed::StatusInvalid, "a word"),
            (r#"{"statusCode":99}"#, Malformed::StatusInvalid, "too small"),
            (r#"{"statusCode":600}"#, Malformed::StatusInvalid, "too large"),
            (r#"{"statusCode":200,"headers":"x"}"#, Malformed::HeadersType("headers"), "headers that are none"),
            (r#"{"statusCode":200,"headers":null}"#, Malformed::HeadersType("headers"), "null is no table"),
            (
                r#"{"statusCode":200,"multiValueHeaders":null}"#,
                Malformed::HeadersType("multiValueHeaders"),
                "nor is it one of lists",
            ),
            (r#"{"statusCode":200,"body":3}"#, Malformed::BodyType, "a body that is not text"),
            (r#"{"statusCode":200,"body":null}"#, Malformed::BodyType, "nor is null"),
            (r#"{"statusCode":200,"isBase64Encoded":null}"#, Malformed::Base64Flag, "a flag that is null"),
            (r#"{"statusCode":200,"isBase64Encoded":"true"}"#, Malformed::Base64Flag, "a flag in quotes"),
            (
                r#"{"statusCode":200,"multiValueHeaders":{"a":{}}}"#,
                Malformed::HeadersType("multiValueHeaders"),
                "an object",
            ),
        ] {
            malformed(decode, output, expected, why);
        }
    }

    #[test]
    fn its_own_answers() {
        assert_eq!(refusal().status, 502);
    }
}
