//! The envelope of Kong's `aws-lambda` plugin with `awsgateway_compatible`: payload format 1.0 as Kong
//! understands it. Outputs and Kong's own answers are those of `kong`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::{
    body::Body,
    call::{Call, or},
    fields::{Fields, Spelling},
    json, kong,
    moment::Moment,
    multimap::{All, First},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'e, 'a> {
    version: &'static str,
    resource: &'e str,
    path: &'e str,
    http_method: &'e str,
    headers: First<'e, 'a>,
    multi_value_headers: All<'e, 'a>,
    path_parameters: &'e BTreeMap<String, String>,
    query_string_parameters: First<'e, 'a, kong::Argument<'a>>,
    multi_value_query_string_parameters: All<'e, 'a, kong::Argument<'a>>,
    body: Body<'e>,
    is_base64_encoded: bool,
    request_context: Context<'e>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'e> {
    path: &'e str,
    protocol: &'e str,
    http_method: &'e str,
    domain_name: &'e str,
    domain_prefix: &'e str,
    identity: Identity<'e>,
    request_id: &'e str,
    request_time: String,
    request_time_epoch: u64,
    resource_path: &'e str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'e> {
    source_ip: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'e str>,
}

/// The HTTP call as an event: first values in the single-valued maps, `{}` for maps without entries, the
/// body always in base64, the path as it came.
pub(super) fn encode(call: &Call) -> Bytes {
    let body = Body::Base64(&call.body);
    let headers = Fields::of(call, Spelling::Lower).with_host(call).into_map();
    let parameters = kong::arguments(&call.query);
    let moment = Moment::of(call.received);
    let event = Event {
        version: "1.0",
        resource: or(call.route_path(), call.path()),
        path: call.path(),
        http_method: &call.method,
        headers: First(&headers),
        multi_value_headers: All(&headers),
        path_parameters: &call.path_parameters,
        query_string_parameters: First(&parameters),
        multi_value_query_string_parameters: All(&parameters),
        body,
        is_base64_encoded: true,
        request_context: Context {
            path: call.path(),
            protocol: call.protocol(),
            http_method: &call.method,
            domain_name: call.domain(),
            domain_prefix: call.domain_prefix(),
            identity: Identity { source_ip: &call.source_ip, user_agent: call.header("user-agent") },
            request_id: &call.request_id,
            request_time: moment.to_string(),
            request_time_epoch: moment.millis(),
            resource_path: call.path(),
        },
    };
    json::write(call, Some(body), &event)
}

#[cfg(test)]
mod tests {
    use super::{super::call::sample, *};
    use crate::event::testing::value;
    use serde_json::json;

    #[test]
    fn the_captured_request() {
        let call = sample::captured();
        let single = json!({
            "content-length": "12",
            "content-type": "application/json",
            "cookie": "session=abc123; theme=dark",
            "host": "abc123.execute-api.eu-central-1.amazonaws.com",
            "user-agent": "probe/1.0",
            "x-probe": "first",
        });
        let event = value(&encode(&call));
        assert_eq!(event["version"], "1.0");
        assert_eq!(event["resource"], "/capture/{item}");
        assert_eq!(event["path"], "/capture/space%20value");
        assert_eq!(event["headers"], single);
        assert_eq!(event["multiValueHeaders"]["x-probe"], json!(["first", "second"]));
        assert_eq!(event["queryStringParameters"]["repeat"], "one");
        assert_eq!(event["multiValueQueryStringParameters"]["repeat"], json!(["one", "two"]));
        assert_eq!(event["pathParameters"], json!({"item": "space%20value"}));
        assert_eq!(event["body"], "eyJhIjogIsOkIn0=");
        assert_eq!(event["isBase64Encoded"], true);
        assert_eq!(
            event["requestContext"],
            json!({
                "path": "/capture/space%20value",
                "protocol": "HTTP/1.1",
                "httpMethod": "POST",
                "domainName": "abc123.execute-api.eu-central-1.amazonaws.com",
                "domainPrefix": "abc123",
                "identity": {"sourceIp": "192.0.2.7", "userAgent": "probe/1.0"},
                "requestId": call.request_id,
                "requestTime": "04/Mar/2020:19:03:58 +0000",
                "requestTimeEpoch": 1_583_348_638_390_u64,
                "resourcePath": "/capture/space%20value",
            })
        );
    }

    #[test]
    fn what_is_missing_is_empty() {
        let event = value(&encode(&sample::bare("GET", "/a")));
        for key in [
            "headers",
            "multiValueHeaders",
            "pathParameters",
            "queryStringParameters",
            "multiValueQueryStringParameters",
        ] {
            assert_eq!(event[key], json!({}), "{key}");
        }
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(""), &json!(true)));
        assert_eq!(event["resource"], "/a");
    }
}
