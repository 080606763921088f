//! HTTP APIs of API Gateway with payload format 1.0.

use bytes::Bytes;

use super::{
    Malformed, Reply,
    body::{Body, is_text},
    call::{Call, or},
    envelope::{Envelope, Output},
    fields::{Fields, Spelling},
    forwarded,
    head::{Head, Merge, Values},
    http_api, output_body, query, v1,
};

/// Both the stage that needs no name and the route that takes every call.
const DEFAULT: &str = "$default";

/// How names are spelled that came in lower case. Not the ones of a REST API: live events have
/// `Content-Type` here, and `authorization`.
const TITLED: [&str; 7] = [
    "Content-Length",
    "Content-Type",
    "Host",
    "User-Agent",
    "X-Amzn-Trace-Id",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
];

/// The HTTP call as an event. As a REST API's, but: the version is `1.0`, path parameters and the
/// context's path are decoded, a named stage is part of both paths, `Content-Length` stays, and what is not text by its type is base64.
pub(super) fn encode(call: &Call) -> Bytes {
    let mut fields = Fields::of(call, Spelling::AsSentBut(&TITLED)).with_host(call);
    forwarded::add(&mut fields, call);
    let body = (!call.body.is_empty()).then(|| Body::new(&call.body, is_text(fields.get("content-type"))));
    let api = v1::Api {
        version: Some("1.0"),
        fields,
        resource: or(call.route_path(), DEFAULT),
        resource_id: call.route_key(),
        deployment_id: None,
        stage: or(&call.stage, DEFAULT),
        path: call.staged_path(),
        context_path: http_api::decoded_path(call),
        path_parameters: call
            .path_parameters
            .iter()
            .map(|(name, value)| (name.as_str(), query::path_decode(value)))
            .collect(),
        body,
    };
    v1::encode(call, api)
}

/// The function's output as a reply: an object with a status; `headers` before `multiValueHeaders`.
/// Other keys are ignored, unlike in REST APIs.
pub(super) fn decode(output: &Bytes) -> Result<Reply, Malformed> {
    let envelope = Output::read(output)?.object()?;
    let body = output_body::text(output, &envelope)?;
    Ok(head(envelope.status()?, &envelope)?.reply(body, "text/plain; charset=utf-8"))
}

pub(super) fn head(status: u16, envelope: &Envelope<'_>) -> Result<Head, Malformed> {
    let mut merge = Merge::new(Values::ScalarOrNull);
    merge.single_values(envelope.headers)?;
    merge.multi_values(envelope.multi_value_headers)?;
    merge.into_head(status)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::call::sample, *};
    use crate::event::testing::{decoded, malformed, value};
    use serde_json::json;

    #[test]
    fn the_captured_request() {
        let mut call = sample::captured();
        call.stage = String::new();
        let event = value(&encode(&call));
        assert_eq!(event["version"], "1.0");
        assert_eq!(event["path"], "/capture/space%20value");
        assert_eq!(event["requestContext"]["path"], "/capture/space value");
        assert_eq!(event["pathParameters"], json!({"item": "space value"}));
        assert_eq!(event["resource"], "/capture/{item}");
        assert_eq!(event["requestContext"]["resourceId"], "POST /capture/{item}");
        assert_eq!(event["requestContext"]["stage"], "$default");
        assert_eq!(event["headers"]["Cookie"], "session=abc123; theme=dark");
        assert_eq!(event["headers"]["Content-Length"], "12");
        assert_eq!(event["headers"]["X-Probe"], "second");
        assert_eq!(event["multiValueHeaders"]["X-Probe"], json!(["first", "second"]));
        assert_eq!(event["queryStringParameters"]["repeat"], "two");
        assert_eq!(event["requestContext"]["identity"].get("cognitoAmr"), Some(&json!(null)));
        assert_eq!(event["stageVariables"], json!(null));
        assert!(event.get("cookies").is_none());
    }

    #[test]
    fn a_named_stage_is_in_both_paths() {
        let event = value(&encode(&sample::captured()));
        assert_eq!(event["path"], "/live/capture/space%20value");
        assert_eq!(event["requestContext"]["path"], "/live/capture/space value");
        assert_eq!(event["requestContext"]["stage"], "live");
        assert_eq!(event["resource"], "/capture/{item}");
        assert_eq!(event["requestContext"]["resourcePath"], "/capture/{item}");
        assert_eq!(event["pathParameters"], json!({"item": "space value"}));
    }

    #[test]
    fn names_in_lower_case_are_spelled_as_an_http_api_spells_them() {
        let mut call = sample::bare("POST", "/");
        let names = ["accept", "authorization", "content-length", "content-type", "host", "origin", "user-agent"];
        call.headers = names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        let event = value(&encode(&call));
        let kept: Vec<_> =
            event["headers"].as_object().unwrap().keys().filter(|name| !name.starts_with("X-")).collect();
        assert_eq!(kept, ["Content-Length", "Content-Type", "Host", "User-Agent", "accept", "authorization", "origin"]);
    }

    #[test]
    fn without_a_route_it_is_the_default_route() {
        let event = value(&encode(&sample::bare("GET", "/a")));
        assert_eq!(event["resource"], "$default");
        assert_eq!(event["requestContext"]["resourceId"], "$default");
        assert_eq!(event["requestContext"]["resourcePath"], "$default");
        assert_eq!(event["requestContext"]["identity"]["userAgent"], "", "what is missing is empty");
        assert_eq!(event["requestContext"].get("deploymentId"), None);
    }

    #[test]
    fn bodies_are_text_by_their_type() {
        for (content_type, body, encoded) in [
            ("application/json", "{}", false),
            ("application/octet-stream", "e30=", true),
            ("application/x-www-form-urlencoded", "e30=", true),
        ] {
            let mut call = sample::bare("POST", "/");
            call.headers.push(("content-type".into(), content_type.into()));
            call.body = Bytes::from_static(b"{}");
            let event = value(&encode(&call));
            assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(body), &json!(encoded)), "{content_type}");
        }
    }

    #[test]
    fn outputs() {
        decoded(
            decode,
            r#"{"statusCode":200,"multiValueHeaders":{"b":["3","2"]},"headers":{"a":"1","b":"2"},"extra":1,"body":"x"}"#,
            200,
            &[
                ("a", "1"),
                ("b", "2"),
                ("b", "3"),
                ("content-type", "text/plain; charset=utf-8"),
                ("content-length", "1"),
            ],
            b"x",
            "single values first, other keys ignored",
        );
        malformed(decode, r#"{"body":"x"}"#, Malformed::StatusMissing, "the status is required");
        malformed(decode, r#"{"statusCode":0}"#, Malformed::StatusInvalid, "status 0");
        malformed(decode, r#""text""#, Malformed::NotObject, "nothing is inferred");
    }
}
