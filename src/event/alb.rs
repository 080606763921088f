//! Application Load Balancers with a Lambda function as target, with and without multi-value headers.
//!
//! Source: "Use Lambda functions as targets of an Application Load Balancer" and "Troubleshoot your Application
//! Load Balancers" (ELB user guide), captures, and reports of what it refuses.
//!
//! Its limits of 1 MB for a request's body and for a function's output hold here as well, although Lambda takes
//! six times as much: a function behind a load balancer has never seen more, and its clients know the 502.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::{
    Front, Malformed, Reply, Unencodable,
    body::{Body, is_text},
    call::{Call, or},
    envelope::{Envelope, Output, is_null},
    fields::{Fields, Spelling},
    forwarded,
    head::{Head, Merge, Values},
    json,
    multimap::{All, Last},
    output_body, query,
};

/// The most that a request's body and a function's output may have, in bytes.
pub(super) const MOST: usize = 1 << 20;

/// Whether the target group has multi-value headers enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// `headers` and `queryStringParameters`: the last value of each name.
    Single,
    /// `multiValueHeaders` and `multiValueQueryStringParameters`: lists.
    Multi,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'e, 'a> {
    request_context: Context<'e>,
    http_method: &'e str,
    path: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<Last<'e, 'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_query_string_parameters: Option<All<'e, 'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Last<'e, 'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<All<'e, 'a>>,
    body: Body<'e>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
struct Context<'e> {
    elb: Elb<'e>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Elb<'e> {
    target_group_arn: &'e str,
}

/// The HTTP call as an event: nothing is decoded, header names are in lower case, maps may be empty and
/// so may the body. A body with a content encoding is base64 whatever its type.
pub(super) fn encode(call: &Call, front: Front<'_>, mode: Mode) -> Result<Bytes, Unencodable> {
    if call.body.len() > MOST {
        return Err(Unencodable::TooLarge { most: MOST });
    }
    let mut fields = Fields::of(call, Spelling::Lower).with_host(call);
    forwarded::add(&mut fields, call);
    let text = fields.get("content-encoding").is_none() && is_text(fields.get("content-type"));
    let body = Body::new(&call.body, text || call.body.is_empty());
    let headers = fields.into_map();
    let parameters = query::undecoded(&call.query);
    let multi = mode == Mode::Multi;
    let event = Event {
        request_context: Context { elb: Elb { target_group_arn: &target_group(call, front) } },
        http_method: &call.method,
        path: call.path(),
        query_string_parameters: (!multi).then_some(Last(&parameters)),
        multi_value_query_string_parameters: multi.then_some(All(&parameters)),
        headers: (!multi).then_some(Last(&headers)),
        multi_value_headers: multi.then_some(All(&headers)),
        body,
        is_base64_encoded: body.is_base64(),
    };
    Ok(json::write(call, Some(body), &event))
}

/// The target group that the front names, or one made from region, account and API: the same for every
/// call of an API, so that functions may tell APIs apart by it.
fn target_group<'a>(call: &Call, front: Front<'a>) -> Cow<'a, str> {
    if let Some(arn) = front.target_group_arn {
        return Cow::Borrowed(arn);
    }
    let region = or(front.region, "us-east-1");
    let name = or(call.api(), "lambda");
    let id = forwarded::fingerprint(name.as_bytes()) & u128::from(u64::MAX);
    Cow::Owned(format!(
        "arn:{}:elasticloadbalancing:{region}:{}:targetgroup/{name}/{id:016x}",
        partition(region),
        call.account(),
    ))
}

/// The partition of a region, by the prefixes that AWS gives them.
fn partition(region: &str) -> &'static str {
    const PREFIXES: [(&str, &str); 8] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eu-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ];
    PREFIXES.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, partition)| partition)
}

/// The function's output as a reply. Only the header map of the mode counts, which may be missing but not
/// null; the other may be anything, as what libraries in Go fill it with is null. Values are text, numbers and
/// bools are not, and a body may be missing but not null. Without a content type it is `application/octet-stream`.
pub(super) fn decode(output: &Bytes, mode: Mode) -> Result<Reply, Malformed> {
    if output.len() > MOST {
        return Err(Malformed::TooLarge);
    }
    let envelope = Output::read(output)?.object()?;
    let body = output_body::text_not_null(output, &envelope)?;
    Ok(head(envelope.status()?, &envelope, mode)?.reply(body, "application/octet-stream"))
}

pub(super) fn head(status: u16, envelope: &Envelope<'_>, mode: Mode) -> Result<Head, Malformed> {
    let (map, field) = match mode {
        Mode::Single => (envelope.headers, "headers"),
        Mode::Multi => (envelope.multi_value_headers, "multiValueHeaders"),
    };
    if is_null(map) {
        return Err(Malformed::HeadersType(field));
    }
    let mut merge = Merge::new(Values::Text);
    match mode {
        Mode::Single => merge.single_values(map)?,
        Mode::Multi => merge.multi_values(map)?,
    }
    merge.into_head(status)
}

/// What a load balancer answers itself.
pub(super) fn refusal() -> Reply {
    const PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
                        <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
    Reply::own(502, "text/html", PAGE).with("server", "awselb/2.0")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::call::sample, *};
    use crate::event::testing::{decoded, malformed, value};
    use serde_json::json;

    const FRONT: Front<'_> = Front {
        region: "eu-central-1",
        target_group_arn: Some(
            "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/orders/0123456789abcdef",
        ),
    };

    fn encoded(call: &Call, front: Front<'_>, mode: Mode) -> Bytes {
        encode(call, front, mode).unwrap()
    }

    #[test]
    fn the_captured_request() {
        let mut call = sample::captured();
        call.scheme = "http".into();
        let expected = json!({
            "requestContext": {"elb": {"targetGroupArn": FRONT.target_group_arn}},
            "httpMethod": "POST",
            "path": "/capture/space%20value",
            "queryStringParameters": {
                "repeat": "two",
                "redirect": "https%3A%2F%2Fexample.com%2Fa%2Fb",
                "literalPlus": "a+b",
                "encodedPlus": "a%2Bb",
                "empty": "",
            },
            "headers": {
                "content-length": "12",
                "content-type": "application/json",
                "cookie": "session=abc123; theme=dark",
                "host": "abc123.execute-api.eu-central-1.amazonaws.com",
                "user-agent": "probe/1.0",
                "x-amzn-trace-id": forwarded::trace_id(&call),
                "x-forwarded-for": "192.0.2.7",
                "x-forwarded-port": "80",
                "x-forwarded-proto": "http",
                "x-probe": "second",
            },
            "body": "{\"a\": \"ä\"}",
            "isBase64Encoded": false,
        });
        assert_eq!(value(&encoded(&call, FRONT, Mode::Single)), expected);

        let event = value(&encoded(&call, FRONT, Mode::Multi));
        assert_eq!(event["multiValueHeaders"]["x-probe"], json!(["first", "second"]));
        assert_eq!(event["multiValueHeaders"]["x-forwarded-proto"], json!(["http"]));
        assert_eq!(event["multiValueQueryStringParameters"]["repeat"], json!(["one", "two"]));
        assert_eq!(event["multiValueQueryStringParameters"]["encodedPlus"], json!(["a%2Bb"]));
        assert!(event.get("headers").is_none() && event.get("queryStringParameters").is_none());
    }

    #[test]
    fn what_is_missing_is_empty() {
        let event = value(&encoded(&sample::bare("GET", "/"), FRONT, Mode::Single));
        assert_eq!(event["queryStringParameters"], json!({}));
        assert_eq!(event["body"], "");
        assert_eq!(event["isBase64Encoded"], false);
    }

    #[test]
    fn bodies_are_text_by_type_and_encoding() {
        for (headers, is_base64, why) in [
            (&[("content-type", "application/json")][..], false, "JSON"),
            (&[("content-type", "application/json"), ("content-encoding", "gzip")], true, "an encoding"),
            (&[("content-type", "image/png")], true, "no text"),
            (&[], true, "no type"),
        ] {
            let mut call = sample::bare("POST", "/");
            call.headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            call.body = Bytes::from_static(b"{}");
            let event = value(&encoded(&call, FRONT, Mode::Single));
            assert_eq!(event["isBase64Encoded"], is_base64, "{why}");
            assert_eq!(event["body"], if is_base64 { "e30=" } else { "{}" }, "{why}");
        }
    }

    #[test]
    fn a_target_group_is_made_where_none_is_named() {
        for (region, start) in [
            ("eu-central-1", "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/abc123/"),
            ("cn-north-1", "arn:aws-cn:elasticloadbalancing:cn-north-1:"),
            ("us-gov-west-1", "arn:aws-us-gov:"),
            ("us-isob-east-1", "arn:aws-iso-b:"),
            ("", "arn:aws:elasticloadbalancing:us-east-1:"),
        ] {
            let front = Front { region, target_group_arn: None };
            let arn = target_group(&sample::captured(), front);
            assert!(arn.starts_with(start), "{arn}");
            assert_eq!(arn.rsplit('/').next().map(str::len), Some(16), "{arn}");
        }
    }

    #[test]
    fn outputs_that_are_replies() {
        let single = |output: &Bytes| decode(output, Mode::Single);
        let multi = |output: &Bytes| decode(output, Mode::Multi);
        let octets = ("content-type", "application/octet-stream");
        decoded(single, r#"{"statusCode":200}"#, 200, &[octets, ("content-length", "0")], b"", "only a status");
        let both = r#"{"statusCode":200,"statusDescription":"200 OK","headers":{"Content-Type":"text/html"},"multiValueHeaders":{"a":["1","2"]},"body":"x"}"#;
        decoded(
            single,
            both,
            200,
            &[("Content-Type", "text/html"), ("content-length", "1")],
            b"x",
            "single values only",
        );
        decoded(
            multi,
            both,
            200,
            &[("a", "1"), ("a", "2"), octets, ("content-length", "1")],
            b"x",
            "multi values only",
        );
        let go = r#"{"statusCode":200,"statusDescription":"200 OK","headers":{"a":"1"},"multiValueHeaders":null,"body":"hi","isBase64Encoded":false}"#;
        decoded(single, go, 200, &[("a", "1"), octets, ("content-length", "2")], b"hi", "as libraries in Go answer");
        let go =
            r#"{"statusCode":200,"statusDescription":null,"headers":null,"multiValueHeaders":{"a":["1"]},"body":"hi"}"#;
        decoded(multi, go, 200, &[("a", "1"), octets, ("content-length", "2")], b"hi", "and with multi values");
    }

    #[test]
    fn outputs_that_are_malformed() {
        let single = |output: &Bytes| decode(output, Mode::Single);
        for (output, expected, why) in [
            (r#"{"body":"x"}"#, Malformed::StatusMissing, "no status"),
            (r#"{"statusCode":200,"headers":null}"#, Malformed::HeadersType("headers"), "null is no map"),
            (r#"{"statusCode":200,"headers":{"a":null}}"#, Malformed::HeadersType("headers"), "null is no value"),
            (r#"{"statusCode":200,"headers":{"a":true}}"#, Malformed::HeadersType("headers"), "nor is a bool"),
            (r#"{"statusCode":200,"headers":{"a":12}}"#, Malformed::HeadersType("headers"), "nor a number"),
            (r#"{"statusCode":200,"body":null}"#, Malformed::BodyType, "a body that is null"),
            (r#"{"statusCode":200,"isBase64Encoded":true,"body":"YWJj\r\n"}"#, Malformed::Base64, "base64 of a mail"),
            (r#"{"errorMessage":"x"}"#, Malformed::StatusMissing, "an error"),
        ] {
            malformed(single, output, expected, why);
        }
        let nulls = r#"{"statusCode":200,"headers":{"a":"1"},"multiValueHeaders":null}"#;
        let multi = |output: &Bytes| decode(output, Mode::Multi);
        malformed(multi, nulls, Malformed::HeadersType("multiValueHeaders"), "null is no map of lists");
    }

    #[test]
    fn a_megabyte_goes_each_way_and_no_more() {
        let output = |size: usize| {
            let frame = r#"{"statusCode":200,"body":""}"#.len();
            Bytes::from(format!(r#"{{"statusCode":200,"body":"{}"}}"#, "a".repeat(size - frame)))
        };
        assert!(decode(&output(MOST), Mode::Single).is_ok());
        assert_eq!(decode(&output(MOST + 1), Mode::Single), Err(Malformed::TooLarge));

        let mut call = sample::bare("POST", "/");
        call.body = vec![0xff; MOST].into();
        let event = value(&encoded(&call, FRONT, Mode::Multi));
        assert_eq!(event["body"].as_str().map(str::len), Some(MOST.div_ceil(3) * 4), "base64 does not count");
        call.body = vec![0xff; MOST + 1].into();
        assert_eq!(encode(&call, FRONT, Mode::Multi), Err(Unencodable::TooLarge { most: MOST }));
    }

    #[test]
    fn its_own_answers() {
        let reply = refusal();
        assert_eq!(reply.status, 502);
        assert!(std::str::from_utf8(&reply.body).unwrap().contains("<h1>502 Bad Gateway</h1>"));
        assert_eq!(reply.header("Server"), Some("awselb/2.0"));
        assert_eq!(reply.header("content-type"), Some("text/html"));
    }
}
