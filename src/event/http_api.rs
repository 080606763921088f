//! HTTP APIs of API Gateway with payload format 2.0, their default.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    Malformed, Marks, Reply,
    authorizer::Authorizer,
    call::{Call, or},
    envelope::{Output, share},
    fields::{Fields, Spelling},
    forwarded, output_body, query, v2,
};

/// The HTTP call as an event: everything decoded but `rawQueryString`, header names in lower case,
/// repeats joined by commas, cookies in a list of their own and no longer in the headers. A named stage is
/// part of the path, but of neither route nor parameters. What is missing has no key.
pub(super) fn encode(call: &Call) -> Bytes {
    let mut fields = Fields::of(call, Spelling::Lower).with_host(call);
    forwarded::add(&mut fields, call);
    let cookie = fields.take("cookie");
    let door = v2::FrontDoor {
        fields,
        cookie,
        path: decoded_path(call),
        raw_path: None,
        route_key: call.route_key(),
        stage: or(&call.stage, "$default"),
        account_id: call.account(),
        authorizer: Authorizer::of(call.authorizer.as_deref()),
        path_parameters: call
            .path_parameters
            .iter()
            .map(|(name, value)| (name.as_str(), query::path_decode(value)))
            .collect(),
        stage_variables: (!call.stage_variables.is_empty()).then_some(&call.stage_variables),
    };
    v2::encode(call, door)
}

/// The path with its stage, decoded; both payload formats have it in the context.
pub(super) fn decoded_path(call: &Call) -> Cow<'_, str> {
    match call.staged_path() {
        Cow::Borrowed(path) => query::path_decode(path),
        Cow::Owned(path) => Cow::Owned(query::path_decode(&path).into_owned()),
    }
}

/// The function's output as a reply. With a status it is explicit; without one the whole output is the body,
/// as JSON, a JSON string without its quotes, and what is not JSON as it is. An object with `errorMessage` in
/// the place of a status AWS takes for a failure, even if the function returned it of its own accord.
pub(super) fn decode(output: &Bytes) -> Result<Reply, Malformed> {
    let body = match v2::read(output) {
        Some(Output::Object(envelope)) if envelope.status.is_some() => {
            let body = output_body::text(output, &envelope)?;
            return Ok(v2::head(envelope.status()?, &envelope, &[])?.reply(body, "text/plain"));
        }
        Some(Output::Object(envelope)) if envelope.error_message => return Err(Malformed::ErrorReturned),
        Some(Output::Text(text)) => share(output, text),
        Some(Output::Object(_) | Output::Other) | None => output.clone(),
    };
    Ok(v2::inferred(body))
}

/// The id in every reply, whatever the payload format.
pub(super) fn marks(call: &Call) -> Marks {
    Marks(vec![("apigw-requestid", call.request_id.clone())])
}

/// What an HTTP API answers itself, whatever the payload format.
pub(super) fn refusal(request_id: &str) -> Reply {
    Reply::own(500, "application/json", r#"{"message":"Internal Server Error"}"#).with("apigw-requestid", request_id)
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
            "version": "2.0",
            "routeKey": "POST /capture/{item}",
            "rawPath": "/live/capture/space value",
            "rawQueryString": call.query,
            "cookies": ["session=abc123", "theme=dark"],
            "headers": {
                "content-length": "12",
                "content-type": "application/json",
                "host": "abc123.execute-api.eu-central-1.amazonaws.com",
                "user-agent": "probe/1.0",
                "x-amzn-trace-id": forwarded::trace_id(&call),
                "x-forwarded-for": "192.0.2.7",
                "x-forwarded-port": "443",
                "x-forwarded-proto": "https",
                "x-probe": "first,second",
            },
            "queryStringParameters": {
                "repeat": "one,two",
                "redirect": "https://example.com/a/b",
                "literalPlus": "a b",
                "encodedPlus": "a+b",
                "empty": "",
            },
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "abc123",
                "domainName": "abc123.execute-api.eu-central-1.amazonaws.com",
                "domainPrefix": "abc123",
                "http": {
                    "method": "POST",
                    "path": "/live/capture/space value",
                    "protocol": "HTTP/1.1",
                    "sourceIp": "192.0.2.7",
                    "userAgent": "probe/1.0",
                },
                "requestId": call.request_id,
                "routeKey": "POST /capture/{item}",
                "stage": "live",
                "time": "04/Mar/2020:19:03:58 +0000",
                "timeEpoch": 1_583_348_638_390_u64,
            },
            "body": "{\"a\": \"ä\"}",
            "pathParameters": {"item": "space value"},
            "isBase64Encoded": false,
        });
        assert_eq!(value(&encode(&call)), expected);
    }

    #[test]
    fn what_is_missing_has_no_key() {
        let event = value(&encode(&sample::bare("GET", "/")));
        for key in ["cookies", "queryStringParameters", "pathParameters", "stageVariables", "body"] {
            assert!(event.get(key).is_none(), "{key}");
        }
        assert!(event["requestContext"].get("authorizer").is_none());
        assert_eq!(event["routeKey"], "$default");
        assert_eq!(event["requestContext"]["stage"], "$default");
        assert_eq!(event["rawQueryString"], "");
        assert_eq!(event["isBase64Encoded"], false);
    }

    #[test]
    fn only_a_named_stage_is_in_the_path() {
        for (stage, path) in [("$default", "/pets/1"), ("", "/pets/1"), ("dev", "/dev/pets/1")] {
            let mut call = sample::bare("GET", "/pets/1");
            call.route = "GET /pets/{id}".into();
            call.stage = stage.into();
            call.path_parameters = [("id".to_owned(), "1".to_owned())].into();
            let event = value(&encode(&call));
            assert_eq!((&event["rawPath"], &event["requestContext"]["http"]["path"]), (&json!(path), &json!(path)));
            assert_eq!(event["routeKey"], "GET /pets/{id}", "{stage}");
            assert_eq!(event["pathParameters"], json!({"id": "1"}), "{stage}");
        }
    }

    #[test]
    fn authorizers_stand_under_their_kind() {
        for (given, expected) in [
            (
                r#"{"jwt":{"claims":{"sub":"1"},"scopes":null}}"#,
                json!({"jwt": {"claims": {"sub": "1"}, "scopes": null}}),
            ),
            (r#"{"lambda":{"a":1}}"#, json!({"lambda": {"a": 1}})),
            (r#"{"claims":{"sub":"1"},"scopes":["a"]}"#, json!({"jwt": {"claims": {"sub": "1"}, "scopes": ["a"]}})),
            (r#"{"sub":"1"}"#, json!({"lambda": {"sub": "1"}})),
        ] {
            let mut call = sample::bare("GET", "/");
            call.authorizer = serde_json::from_str(given).ok();
            assert_eq!(value(&encode(&call))["requestContext"]["authorizer"], expected, "{given}");
        }
        let mut call = sample::bare("GET", "/");
        call.authorizer = serde_json::from_str("null").ok();
        assert_eq!(value(&encode(&call))["requestContext"].get("authorizer"), None, "null is none");
    }

    #[test]
    fn bodies_are_text_by_their_type() {
        for (content_type, body, expected, encoded) in [
            (Some("text/plain"), &b"a"[..], "a", false),
            (Some("application/octet-stream"), b"a", "YQ==", true),
            (None, b"a", "YQ==", true),
            (Some("text/plain"), b"\xff", "/w==", true),
        ] {
            let mut call = sample::bare("POST", "/");
            call.headers = content_type.iter().map(|t| ("Content-Type".to_owned(), (*t).to_owned())).collect();
            call.body = Bytes::from_static(body);
            let event = value(&encode(&call));
            assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(expected), &json!(encoded)));
        }
    }

    #[test]
    fn outputs_with_a_status() {
        for (output, status, headers, body, why) in [
            (
                r#"{"statusCode":201,"headers":{"A":"1"},"cookies":["a=1; Path=/","b=2"],"body":"x"}"#,
                201,
                &[
                    ("A", "1"),
                    ("set-cookie", "a=1; Path=/"),
                    ("set-cookie", "b=2"),
                    ("content-type", "text/plain"),
                    ("content-length", "1"),
                ][..],
                &b"x"[..],
                "each cookie is a header",
            ),
            (
                r#"{"statusCode":200,"multiValueHeaders":{"a":["1"]},"other":{},"body":"aGk","isBase64Encoded":true}"#,
                200,
                &[("content-type", "text/plain"), ("content-length", "2")],
                b"hi",
                "format 2.0 has no multi-value headers; other keys are ignored",
            ),
            (
                r#"{"statusCode":409,"errorMessage":"x"}"#,
                409,
                &[("content-type", "text/plain"), ("content-length", "0")],
                b"",
                "a response may have that key",
            ),
            (r#"{"statusCode":304,"headers":{"ETag":"x"}}"#, 304, &[("ETag", "x")], b"", "304 has no body"),
            (
                r#"{"statusCode":500,"statusCode":200}"#,
                200,
                &[("content-type", "text/plain"), ("content-length", "0")],
                b"",
                "the last of a repeated key counts",
            ),
        ] {
            decoded(decode, output, status, headers, body, why);
        }
    }

    #[test]
    fn outputs_without_a_status_are_the_body() {
        for (output, body, why) in [
            (r#"{"hello": "world"}"#, r#"{"hello": "world"}"#, "an object"),
            (r#"{"body":"x","headers":3}"#, r#"{"body":"x","headers":3}"#, "an object that looks like a response"),
            (r#"["hello",3,true]"#, r#"["hello",3,true]"#, "a list"),
            (r#""he\"llo""#, "he\"llo", "a string loses its quotes"),
            ("3.1", "3.1", "a number"),
            (r#""errorMessage""#, "errorMessage", "a string is no error"),
            (r#"{"error":{"errorMessage":"x"}}"#, r#"{"error":{"errorMessage":"x"}}"#, "nor is what stands deeper"),
            ("null", "null", "null"),
            ("", "", "nothing"),
            ("<p>hi</p>", "<p>hi</p>", "what is not JSON passes"),
        ] {
            let length = body.len().to_string();
            let headers = [("content-type", "application/json"), ("content-length", length.as_str())];
            decoded(decode, output, 200, &headers, body.as_bytes(), why);
        }
    }

    #[test]
    fn outputs_that_are_malformed() {
        for (output, expected, why) in [
            (r#"{"statusCode":0}"#, Malformed::StatusInvalid, "status 0"),
            (r#"{"statusCode":200.5}"#, Malformed::StatusInvalid, "a fraction"),
            (r#"{"statusCode":null,"body":"x"}"#, Malformed::StatusInvalid, "null is no status"),
            (r#"{"statusCode":true}"#, Malformed::StatusInvalid, "a bool"),
            (r#"{"statusCode":200,"body":{}}"#, Malformed::BodyType, "a body that is not text"),
            (
                r#"{"errorMessage":"x","errorType":"X"}"#,
                Malformed::ErrorReturned,
                "an error in the place of a response",
            ),
            (r#"{"errorMessage":"x"}"#, Malformed::ErrorReturned, "an error without a type"),
            (r#"{"statusCode":200,"cookies":"a=1"}"#, Malformed::CookiesType, "cookies that are no list"),
            (r#"{"statusCode":200,"cookies":["a\nb"]}"#, Malformed::HeaderValue, "a split cookie"),
        ] {
            malformed(decode, output, expected, why);
        }
    }

    #[test]
    fn its_own_answers() {
        let reply = refusal("id-1");
        assert_eq!((reply.status, &reply.body[..]), (500, &br#"{"message":"Internal Server Error"}"#[..]));
        assert_eq!(reply.header("Apigw-Requestid"), Some("id-1"));
    }
}
