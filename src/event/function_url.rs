//! Function URLs of Lambda.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;

use super::{
    Head, Malformed, Marks, Reply,
    authorizer::Authorizer,
    call::Call,
    envelope::{Envelope, Output, share},
    fields::{Fields, Spelling},
    forwarded, output_body, query, v2,
};

/// The HTTP call as an event. As an HTTP API's, but: `rawPath` stays encoded, the cookie header stays,
/// and there are no routes, stages or path parameters. The account is
/// `anonymous` unless the caller has signed.
pub(super) fn encode(call: &Call) -> Bytes {
    let mut fields = Fields::of(call, Spelling::Lower).with_host(call);
    forwarded::add(&mut fields, call);
    let cookie = fields.get("cookie").map(|cookie| Cow::Owned(cookie.to_owned()));
    let authorizer = Authorizer::of(call.authorizer.as_deref());
    let door = v2::FrontDoor {
        fields,
        cookie,
        path: query::path_decode(call.path()),
        raw_path: Some(call.path()),
        route_key: Cow::Borrowed("$default"),
        stage: "$default",
        account_id: if matches!(authorizer, Some(Authorizer::Iam(_))) { call.account() } else { "anonymous" },
        authorizer,
        path_parameters: BTreeMap::new(),
        stage_variables: None,
    };
    v2::encode(call, door)
}

/// The function's output as a reply. Without a status the whole output is the body, a string without its
/// quotes: AWS's documentation keeps them, AWS itself does not (LocalStack's snapshots of November 2025 have `hello`
/// with a length of 5). The type is JSON unless the function says otherwise, which was captured as well, and a
/// body that is not text is sent as its JSON, which is what emulators that are tested against AWS do.
pub(super) fn decode(output: &Bytes) -> Result<Reply, Malformed> {
    match v2::read(output) {
        Some(Output::Object(envelope)) if envelope.status.is_some() => {
            let body = output_body::text_or_json(output, &envelope)?;
            Ok(head(envelope.status()?, &envelope)?.reply(body, "application/json"))
        }
        Some(Output::Text(text)) => Ok(v2::inferred(share(output, text))),
        Some(Output::Object(_) | Output::Other) | None => Ok(v2::inferred(output.clone())),
    }
}

/// What has been seen to pass as `x-amzn-Remapped-…`.
const REMAPPED: [&str; 2] = ["server", "www-authenticate"];

pub(super) fn head(status: u16, envelope: &Envelope<'_>) -> Result<Head, Malformed> {
    v2::head(status, envelope, &REMAPPED)
}

/// The ids in every reply.
pub(super) fn marks(call: &Call) -> Marks {
    Marks(vec![("x-amzn-RequestId", call.request_id.clone()), ("X-Amzn-Trace-Id", forwarded::trace(call))])
}

/// What a function URL answers itself, as LocalStack's tests against AWS have seen it.
pub(super) fn refusal(request_id: &str) -> Reply {
    Reply::own(502, "application/json", "Internal Server Error").with("x-amzn-RequestId", request_id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::call::sample, *};
    use crate::event::testing::{decoded, malformed, value};
    use serde_json::json;

    #[test]
    fn the_captured_request() {
        let event = value(&encode(&sample::captured()));
        assert_eq!(event["rawPath"], "/capture/space%20value");
        assert_eq!(event["requestContext"]["http"]["path"], "/capture/space value");
        assert_eq!(event["cookies"], json!(["session=abc123", "theme=dark"]));
        assert_eq!(event["headers"]["cookie"], "session=abc123; theme=dark");
        assert_eq!(event["headers"]["x-probe"], "first,second");
        assert_eq!(event["headers"]["content-length"], "12");
        assert_eq!(event["queryStringParameters"]["repeat"], "one,two");
        assert_eq!(event["routeKey"], "$default");
        assert_eq!(event["requestContext"]["routeKey"], "$default");
        assert_eq!(event["requestContext"]["stage"], "$default");
        assert_eq!(event["requestContext"]["accountId"], "anonymous");
        assert!(event.get("pathParameters").is_none());
        assert!(event.get("stageVariables").is_none());
    }

    #[test]
    fn a_signed_call_is_of_an_account() {
        let mut call = sample::captured();
        for (given, account) in [(r#"{"iam":{"userId":"AIDA"}}"#, "123456789012"), (r#"{"lambda":{}}"#, "anonymous")] {
            call.authorizer = serde_json::from_str(given).ok();
            let context = &value(&encode(&call))["requestContext"];
            assert_eq!(context["accountId"], account);
            assert_eq!(context["authorizer"], serde_json::from_str::<serde_json::Value>(given).unwrap());
        }
    }

    #[test]
    fn outputs() {
        for (output, body, why) in [
            (r#"{"statusCode": 200, "body": "body123"}"#, "body123", "text"),
            (r#"{"statusCode":200,"body":{"a": [1]}}"#, r#"{"a": [1]}"#, "JSON where text belongs"),
            (r#"{"statusCode":200,"body":null}"#, "", "no body"),
            (r#""hello""#, "hello", "a string loses its quotes"),
            ("true", "true", "a bool"),
        ] {
            let length = body.len().to_string();
            let headers = [("content-type", "application/json"), ("content-length", length.as_str())];
            decoded(decode, output, 200, &headers, body.as_bytes(), why);
        }
        let headers = [
            ("x-amzn-Remapped-WWW-Authenticate", "Bearer"),
            ("Date", "now"),
            ("content-type", "application/json"),
            ("content-length", "0"),
        ];
        let output = r#"{"statusCode":401,"headers":{"WWW-Authenticate":"Bearer","Date":"now"}}"#;
        decoded(decode, output, 401, &headers, b"", "a challenge under another name");
        malformed(decode, r#"{"statusCode":"x"}"#, Malformed::StatusInvalid, "a status that is none");
    }

    #[test]
    fn its_own_answers() {
        let reply = refusal("id-1");
        assert_eq!((reply.status, &reply.body[..]), (502, &b"Internal Server Error"[..]));
        assert_eq!(reply.header("content-length"), Some("21"));
    }
}
