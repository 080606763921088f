//! REST APIs of API Gateway (Lambda proxy integration).

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    Malformed, Marks, Reply,
    body::Body,
    call::{Call, or},
    envelope::{Envelope, Output},
    fields::{Fields, Spelling},
    forwarded,
    head::{Head, Merge, Values},
    output_body, v1,
};

/// The stage of a call that names none: what most APIs call theirs, and what the console suggests.
const STAGE: &str = "prod";

/// Headers that a REST API keeps for itself, besides those of the connection: "Amazon API Gateway important
/// notes" and LocalStack, whose list is validated against AWS, agree on them.
const DROPPED: [&str; 6] = ["content-length", "content-md5", "expect", "max-forwards", "server", "www-authenticate"];

/// How names are spelled that came in lower case, as over HTTP/2 and from gateways that know no other case: these were
/// seen so in the events of browsers, in which `accept`, `content-type`, `origin` and all others stay as they came.
const TITLED: [&str; 6] =
    ["Authorization", "Host", "User-Agent", "X-Amzn-Trace-Id", "X-Forwarded-Port", "X-Forwarded-Proto"];

/// The HTTP call as an event. Path and path parameters stay encoded, the query is decoded, header names
/// are spelled as sent or in title case, a handful of headers is dropped; missing maps and an empty body are `null`.
///
/// A body is text unless it is not UTF-8: that is what an API without binary media types does.
pub(super) fn encode(call: &Call) -> Bytes {
    let mut fields = Fields::of(call, Spelling::AsSentBut(&TITLED)).with_host(call);
    fields.remove(&DROPPED);
    forwarded::add(&mut fields, call);
    let stage = or(&call.stage, STAGE);
    let body = (!call.body.is_empty()).then(|| Body::new(&call.body, true));
    let api = v1::Api {
        version: None,
        fields,
        // An API whose resources are spelled out has the path itself as its resource.
        resource: or(call.route_path(), call.path()),
        resource_id: Cow::Owned(id(&[call.api(), or(call.route_path(), call.path())])),
        deployment_id: Some(id(&[call.api(), stage, "deployment"])),
        stage,
        path: Cow::Borrowed(call.path()),
        context_path: Cow::Owned(format!("/{stage}{}", call.path())),
        path_parameters: call
            .path_parameters
            .iter()
            .map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str())))
            .collect(),
        body,
    };
    v1::encode(call, api)
}

/// An id such as resources and deployments have, six characters of digits and letters: made up, but the same for
/// the same names.
fn id(names: &[&str]) -> String {
    const CHARACTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rest = forwarded::fingerprint(names.join("\n").as_bytes());
    let mut id = String::with_capacity(6);
    for _ in 0..6 {
        id.extend(CHARACTERS.get((rest % 36) as usize).map(|character| char::from(*character)));
        rest /= 36;
    }
    id
}

/// The function's output as a reply: an object that has no other key than the five documented ones
/// (anything else was seen to be refused), `multiValueHeaders` before `headers`. None of the five is
/// required: the documentation asks for a status, but what AWS does without one is 200.
pub(super) fn decode(output: &Bytes) -> Result<Reply, Malformed> {
    let envelope = Output::read(output)?.object()?;
    if envelope.unknown || envelope.cookies.is_some() {
        return Err(Malformed::UnknownField);
    }
    let body = output_body::text(output, &envelope)?;
    let status = match envelope.status {
        None => 200,
        Some(_) => envelope.status()?,
    };
    Ok(head(status, &envelope)?.reply(body, "application/json"))
}

/// What a REST API passes on as `x-amzn-Remapped-…`: LocalStack's list, which is validated against AWS, and
/// `WWW-Authenticate`, which many have seen so.
const REMAPPED: [&str; 5] = ["connection", "content-length", "date", "server", "www-authenticate"];

/// Cookies come from a streamed response's prelude only.
pub(super) fn head(status: u16, envelope: &Envelope<'_>) -> Result<Head, Malformed> {
    let mut merge = Merge::new(Values::ScalarOrNull).remapping(&REMAPPED);
    merge.multi_values(envelope.multi_value_headers)?;
    merge.single_values(envelope.headers)?;
    merge.cookies(envelope.cookies)?;
    merge.into_head(status)
}

/// The ids in every reply; the second is what the event calls the extended one.
pub(super) fn marks(call: &Call) -> Marks {
    let id = || call.request_id.clone();
    Marks(vec![("x-amzn-RequestId", id()), ("x-amz-apigw-id", id()), ("X-Amzn-Trace-Id", forwarded::trace(call))])
}

/// What a REST API answers itself.
pub(super) fn refusal(request_id: &str) -> Reply {
    Reply::own(502, "application/json", r#"{"message": "Internal server error"}"#)
        .with("x-amzn-RequestId", request_id)
        .with("x-amz-apigw-id", request_id)
        .with("x-amzn-ErrorType", "InternalServerErrorException")
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
            "resource": "/capture/{item}",
            "path": "/capture/space%20value",
            "httpMethod": "POST",
            "headers": {
                "Content-Type": "application/json",
                "Cookie": "session=abc123; theme=dark",
                "Host": "abc123.execute-api.eu-central-1.amazonaws.com",
                "User-Agent": "probe/1.0",
                "X-Amzn-Trace-Id": forwarded::trace_id(&call),
                "X-Forwarded-For": "192.0.2.7",
                "X-Forwarded-Port": "443",
                "X-Forwarded-Proto": "https",
                "X-Probe": "second",
            },
            "multiValueHeaders": {
                "Content-Type": ["application/json"],
                "Cookie": ["session=abc123; theme=dark"],
                "Host": ["abc123.execute-api.eu-central-1.amazonaws.com"],
                "User-Agent": ["probe/1.0"],
                "X-Amzn-Trace-Id": [forwarded::trace_id(&call)],
                "X-Forwarded-For": ["192.0.2.7"],
                "X-Forwarded-Port": ["443"],
                "X-Forwarded-Proto": ["https"],
                "X-Probe": ["first", "second"],
            },
            "queryStringParameters": {
                "repeat": "two",
                "redirect": "https://example.com/a/b",
                "literalPlus": "a b",
                "encodedPlus": "a+b",
                "empty": "",
            },
            "multiValueQueryStringParameters": {
                "repeat": ["one", "two"],
                "redirect": ["https://example.com/a/b"],
                "literalPlus": ["a b"],
                "encodedPlus": ["a+b"],
                "empty": [""],
            },
            "pathParameters": {"item": "space%20value"},
            "stageVariables": null,
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "abc123",
                "deploymentId": id(&["abc123", "live", "deployment"]),
                "domainName": "abc123.execute-api.eu-central-1.amazonaws.com",
                "domainPrefix": "abc123",
                "extendedRequestId": call.request_id,
                "httpMethod": "POST",
                "identity": {
                    "accessKey": null,
                    "accountId": null,
                    "caller": null,
                    "cognitoAuthenticationProvider": null,
                    "cognitoAuthenticationType": null,
                    "cognitoIdentityId": null,
                    "cognitoIdentityPoolId": null,
                    "principalOrgId": null,
                    "sourceIp": "192.0.2.7",
                    "user": null,
                    "userAgent": "probe/1.0",
                    "userArn": null,
                },
                "path": "/live/capture/space%20value",
                "protocol": "HTTP/1.1",
                "requestId": call.request_id,
                "requestTime": "04/Mar/2020:19:03:58 +0000",
                "requestTimeEpoch": 1_583_348_638_390_u64,
                "resourceId": id(&["abc123", "/capture/{item}"]),
                "resourcePath": "/capture/{item}",
                "stage": "live",
            },
            "body": "{\"a\": \"ä\"}",
            "isBase64Encoded": false,
        });
        assert_eq!(value(&encode(&call)), expected);
    }

    #[test]
    fn some_headers_stay_with_the_api() {
        let mut call = sample::bare("GET", "/");
        call.scheme = "https".into();
        let names = [
            "Expect",
            "content-md5",
            "Max-Forwards",
            "SERVER",
            "WWW-Authenticate",
            "Content-Length",
            "TE",
            "Trailer",
            "Upgrade",
            "Transfer-Encoding",
            "Proxy-Authenticate",
            "Via",
            "Date",
            "Range",
        ];
        call.headers = names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        let event = value(&encode(&call));
        let kept: Vec<_> =
            event["headers"].as_object().unwrap().keys().filter(|name| !name.starts_with("X-")).collect();
        assert_eq!(kept, ["Date", "Range", "Via"]);
    }

    #[test]
    fn names_in_lower_case_are_spelled_as_a_rest_api_spells_them() {
        let mut call = sample::bare("GET", "/");
        let names =
            ["accept", "authorization", "content-type", "host", "origin", "user-agent", "x-amzn-trace-id", "x-own"];
        call.headers = names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        call.headers.push(("REFERER".to_owned(), "x".to_owned()));
        let event = value(&encode(&call));
        for map in ["headers", "multiValueHeaders"] {
            let kept: Vec<_> =
                event[map].as_object().unwrap().keys().filter(|name| !name.starts_with("X-Forwarded-")).collect();
            let expected = [
                "Authorization",
                "Host",
                "REFERER",
                "User-Agent",
                "X-Amzn-Trace-Id",
                "accept",
                "content-type",
                "origin",
                "x-own",
            ];
            assert_eq!(kept, expected);
        }
    }

    #[test]
    fn ids_are_made_up_but_stay() {
        let ids = |route: &str, stage: &str| {
            let mut call = sample::captured();
            call.route = route.into();
            call.stage = stage.into();
            let context = &value(&encode(&call))["requestContext"];
            let id = |key: &str| context[key].as_str().unwrap().to_owned();
            (id("resourceId"), id("deploymentId"))
        };
        let (resource, deployment) = ids("GET /a", "live");
        for id in [&resource, &deployment] {
            assert!(id.len() == 6 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()), "{id}");
        }
        assert_eq!(ids("POST /a", "live"), (resource.clone(), deployment.clone()), "methods of one resource");
        let (other, same) = ids("GET /b", "live");
        assert!(other != resource && same == deployment);
        let (same, other) = ids("GET /a", "dev");
        assert!(same == resource && other != deployment);
    }

    #[test]
    fn what_is_missing_is_null() {
        let event = value(&encode(&sample::bare("GET", "")));
        for key in
            ["queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "stageVariables", "body"]
        {
            assert_eq!(event.get(key), Some(&json!(null)), "{key}");
        }
        assert_eq!(event["path"], "/");
        assert_eq!(event["resource"], "/");
        assert_eq!(event["requestContext"]["stage"], "prod");
        assert_eq!(event["requestContext"]["path"], "/prod/");
        assert_eq!(event["requestContext"]["protocol"], "HTTP/1.1");
        assert_eq!(event["requestContext"]["accountId"], "000000000000");
        assert_eq!(event["requestContext"]["identity"]["userAgent"], json!(null));
        assert!(event["requestContext"].get("authorizer").is_none());
        assert!(event.get("version").is_none());
    }

    #[test]
    fn an_authorizer_and_stage_variables_come_along() {
        let mut call = sample::bare("GET", "/");
        call.authorizer = serde_json::from_str(r#"{"principalId":"me","n":1.50}"#).ok();
        call.stage_variables = [("table".to_owned(), "orders".to_owned())].into();
        let event = encode(&call);
        assert!(std::str::from_utf8(&event).unwrap().contains(r#""authorizer":{"principalId":"me","n":1.50}"#));
        assert_eq!(value(&event)["stageVariables"], json!({"table": "orders"}));
    }

    #[test]
    fn a_signature_is_an_identity_and_a_token_its_claims() {
        let mut call = sample::bare("GET", "/");
        let iam = r#"{"accessKey":"AKIA","accountId":"111122223333","callerId":"AIDA:c","cognitoIdentity":
            {"amr":["x"],"identityId":"i","identityPoolId":"p"},"principalOrgId":"o-1","userArn":"arn:u","userId":"AIDA"}"#;
        call.authorizer = serde_json::from_str(&format!(r#"{{"iam":{iam}}}"#)).ok();
        let context = &value(&encode(&call))["requestContext"];
        assert_eq!(context.get("authorizer"), None);
        for (key, expected) in [
            ("accessKey", json!("AKIA")),
            ("accountId", json!("111122223333")),
            ("caller", json!("AIDA:c")),
            ("cognitoIdentityId", json!("i")),
            ("cognitoIdentityPoolId", json!("p")),
            ("cognitoAuthenticationType", json!(null)),
            ("principalOrgId", json!("o-1")),
            ("user", json!("AIDA")),
            ("userArn", json!("arn:u")),
        ] {
            assert_eq!(context["identity"][key], expected, "{key}");
        }
        for given in [r#"{"iam":null}"#, r#"{"iam":{"cognitoIdentity":null}}"#, r#"{"iam":3}"#] {
            call.authorizer = serde_json::from_str(given).ok();
            assert_eq!(value(&encode(&call))["requestContext"]["identity"]["caller"], json!(null), "{given}");
        }
        call.authorizer = serde_json::from_str(r#"{"jwt":{"claims":{"sub":"1"},"scopes":null}}"#).ok();
        let authorizer = &value(&encode(&call))["requestContext"]["authorizer"];
        assert_eq!(authorizer, &json!({"claims": {"sub": "1"}, "scopes": null}));
    }

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        let mut call = sample::captured();
        call.body = Bytes::from_static(b"\xff\x00");
        let event = value(&encode(&call));
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("/wA="), &json!(true)));
    }

    #[test]
    fn outputs_that_are_replies() {
        for (output, status, headers, body, why) in [
            (
                r#"{"statusCode":200,"body":"hi"}"#,
                200,
                &[("content-type", "application/json"), ("content-length", "2")][..],
                &b"hi"[..],
                "the default type is JSON",
            ),
            (
                r#"{"statusCode":"201"}"#,
                201,
                &[("content-type", "application/json"), ("content-length", "0")],
                b"",
                "a status in quotes",
            ),
            (
                r#"{"statusCode":200,"headers":{"a":"1","b":"2"},"multiValueHeaders":{"b":["3","2"]},"body":null}"#,
                200,
                &[("b", "3"), ("b", "2"), ("a", "1"), ("content-type", "application/json"), ("content-length", "0")],
                b"",
                "multi values first, an identical pair once",
            ),
            (
                r#"{"statusCode":200,"headers":{"X":true,"N":1.50,"Z":null,"Content-Type":"text/html"},"body":"<p>"}"#,
                200,
                &[("X", "true"), ("N", "1.50"), ("Content-Type", "text/html"), ("content-length", "3")],
                b"<p>",
                "scalars become text, null no header",
            ),
            (
                r#"{"statusCode":200,"headers":null,"multiValueHeaders":null,"isBase64Encoded":true,"body":"//4="}"#,
                200,
                &[("content-type", "application/json"), ("content-length", "2")],
                b"\xff\xfe",
                "base64 and null maps",
            ),
            (
                r#"{"headers":{"test-header":"value"}}"#,
                200,
                &[("test-header", "value"), ("content-type", "application/json"), ("content-length", "0")],
                b"",
                "without a status it is 200",
            ),
            ("{}", 200, &[("content-type", "application/json"), ("content-length", "0")], b"", "nothing is 200 too"),
            (r#"{"statusCode":204,"body":"ignored"}"#, 204, &[], b"", "204 has no body"),
            (
                r#"{"statusCode":200,"headers":{"Content-Length":"99","Connection":"x-hop","X-Hop":"1","Transfer-Encoding":"chunked","Keep-Alive":"1"},"body":"é\n"}"#,
                200,
                &[
                    ("x-amzn-Remapped-Content-Length", "99"),
                    ("x-amzn-Remapped-Connection", "x-hop"),
                    ("content-type", "application/json"),
                    ("content-length", "3"),
                ],
                "é\n".as_bytes(),
                "the length is computed and hop-by-hop headers stop here",
            ),
            (
                r#"{"statusCode":401,"headers":{"WWW-Authenticate":"Basic","date":"now"},"multiValueHeaders":{"Server":["a","b"]}}"#,
                401,
                &[
                    ("x-amzn-Remapped-Server", "a"),
                    ("x-amzn-Remapped-Server", "b"),
                    ("x-amzn-Remapped-WWW-Authenticate", "Basic"),
                    ("x-amzn-Remapped-date", "now"),
                    ("content-type", "application/json"),
                    ("content-length", "0"),
                ],
                b"",
                "what the API says itself passes under another name",
            ),
        ] {
            decoded(decode, output, status, headers, body, why);
        }
    }

    #[test]
    fn outputs_that_are_none() {
        for (output, expected, why) in [
            ("", Malformed::NotJson, "nothing"),
            ("hello", Malformed::NotJson, "not JSON"),
            (r#""justAString""#, Malformed::NotObject, "a string"),
            ("null", Malformed::NotObject, "null"),
            ("[1]", Malformed::NotObject, "a list"),
            (r#"{"statusCode":0}"#, Malformed::StatusInvalid, "status 0"),
            (r#"{"statusCode":null}"#, Malformed::StatusInvalid, "status null"),
            (r#"{"statusCode":"test"}"#, Malformed::StatusInvalid, "a word"),
            (r#"{"statusCode":100}"#, Malformed::StatusInvalid, "not a final status"),
            (r#"{"statusCode":600}"#, Malformed::StatusInvalid, "beyond HTTP"),
            (r#"{"statusCode":200.5}"#, Malformed::StatusInvalid, "a fraction"),
            (r#"{"statusCode":-200}"#, Malformed::StatusInvalid, "negative"),
            (r#"{"statusCode":200,"wrongValue":"value"}"#, Malformed::UnknownField, "a key that is not documented"),
            (r#"{"errorMessage":"x","errorType":"X"}"#, Malformed::UnknownField, "an error without a status"),
            (r#"{"statusCode":200,"body":{"a":1}}"#, Malformed::BodyType, "a body that is not text"),
            (r#"{"statusCode":200,"headers":[]}"#, Malformed::HeadersType("headers"), "headers in a list"),
            (r#"{"statusCode":200,"headers":{"a":["b"]}}"#, Malformed::HeadersType("headers"), "a list as a value"),
            (
                r#"{"statusCode":200,"multiValueHeaders":{"a":"b"}}"#,
                Malformed::HeadersType("multiValueHeaders"),
                "a value where a list belongs",
            ),
            (r#"{"statusCode":200,"headers":{"a":"b\r\nc: d"}}"#, Malformed::HeaderValue, "a split response"),
            (r#"{"statusCode":200,"headers":{"a\r\nb":"c"}}"#, Malformed::HeaderName, "a split name"),
            (r#"{"statusCode":200,"headers":{"":"c"}}"#, Malformed::HeaderName, "no name"),
            (r#"{"statusCode":200,"headers":{"a":"\u0000"}}"#, Malformed::HeaderValue, "NUL"),
            (r#"{"statusCode":200,"body":"*","isBase64Encoded":true}"#, Malformed::Base64, "not base64"),
            (r#"{"statusCode":200,"isBase64Encoded":"yes"}"#, Malformed::Base64Flag, "a flag that is none"),
            (r#"{"statusCode":200} x"#, Malformed::NotJson, "something behind"),
        ] {
            malformed(decode, output, expected, why);
        }
        assert_eq!(decode(&Bytes::from_static(b"{\"statusCode\":200,\"body\":\"\xff\"}")), Err(Malformed::NotUtf8));
    }

    #[test]
    fn its_own_answers() {
        let reply = refusal("id-1");
        assert_eq!((reply.status, &reply.body[..]), (502, &br#"{"message": "Internal server error"}"#[..]));
        assert_eq!(reply.header("x-amzn-errortype"), Some("InternalServerErrorException"));
        assert_eq!(reply.header("x-amzn-requestid"), Some("id-1"));
        assert_eq!(reply.header("x-amz-apigw-id"), Some("id-1"));
        assert_eq!(reply.header("content-length"), Some("36"));
    }
}
