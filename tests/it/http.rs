//! HTTP calls through the façade and through gRPC: events, answers, and what a client is told when there is none.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lambda_policy::pb::{
    ExecutePolicyRequest, Header, HttpRequest, execute_policy_request::Input, execute_policy_response::Output,
    function_error::Kind,
};
use serde_json::{Value, json};

use crate::support::{Service, lambda};

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

async fn send(
    service: &Service,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(format!("http://{}{path}", service.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

fn over_grpc(policy: &str, http: HttpRequest) -> ExecutePolicyRequest {
    ExecutePolicyRequest { policy: policy.into(), input: Some(Input::Http(http)), ..Default::default() }
}

#[tokio::test]
async fn a_function_for_an_http_api_answers_a_plain_http_call() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  greet: {function: greet, event: http-api}\n").await;
    let answer = send(&service, Method::GET, "/v1/policies/greet/http/hello?name=Ada", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json(), json!({"message": "hello, Ada"}));
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
}

#[tokio::test]
async fn the_event_is_made_of_the_call_behind_the_policys_path() {
    let lambda = lambda().await;
    // The event has no status, so an HTTP API and a function URL give it back as the body.
    let service = Service::start(
        &lambda,
        "  api: {function: echo, event: http-api}\n  url: {function: echo, event: function-url}\n",
    )
    .await;
    let headers = [
        ("x-request-id", "r-1"),
        ("x-probe", "first"),
        ("x-probe", "second"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-forwarded-for", "203.0.113.7, 10.0.0.1"),
        ("cookie", "a=1; b=2"),
        ("content-type", "application/json"),
    ];
    let path = "/http/space%20value/x?repeat=one&repeat=two&plus=a+b";
    for (policy, raw_path) in [("api", "/space value/x"), ("url", "/space%20value/x")] {
        let path = format!("/v1/policies/{policy}{path}");
        let event = send(&service, Method::POST, &path, &headers, r#"{"n":1}"#).await.json();
        assert_eq!(event["rawPath"], raw_path, "{policy}");
        assert_eq!(event["rawQueryString"], "repeat=one&repeat=two&plus=a+b");
        assert_eq!(event["queryStringParameters"]["repeat"], "one,two");
        assert_eq!(event["headers"]["x-probe"], "first,second");
        assert_eq!(event["headers"].get("x-hop"), None, "what `connection` names ends at the gateway");
        assert_eq!(event["cookies"], json!(["a=1", "b=2"]));
        assert_eq!(event["requestContext"]["requestId"], "r-1");
        assert_eq!(event["requestContext"]["http"]["sourceIp"], "10.0.0.1");
        assert_eq!(event["headers"]["x-forwarded-for"], "203.0.113.7, 10.0.0.1", "nothing is appended twice");
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(r#"{"n":1}"#), &json!(false)));
    }
    for path in ["/v1/policies/url/http", "/v1/policies/url/http/"] {
        assert_eq!(send(&service, Method::GET, path, &[], "").await.json()["rawPath"], "/", "{path}");
    }
}

#[tokio::test]
async fn the_source_is_whom_the_gateway_saw_and_not_what_the_client_claims() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  url: {function: echo, event: function-url}\n").await;
    for (lines, source, chain, why) in [
        (&["203.0.113.7"][..], "203.0.113.7", "203.0.113.7", "the gateway says whom it saw"),
        (&["1.2.3.4, 203.0.113.7"], "203.0.113.7", "1.2.3.4, 203.0.113.7", "the client claimed another"),
        (&["1.2.3.4", "203.0.113.7"], "203.0.113.7", "1.2.3.4, 203.0.113.7", "in a line of its own"),
        (&["203.0.113.7:4711"], "203.0.113.7", "203.0.113.7:4711", "a port is none of the address"),
        (&["2001:db8::1"], "2001:db8::1", "2001:db8::1", "IPv6"),
        (&["unknown"], "127.0.0.1", "unknown, 127.0.0.1", "no address: the connection's"),
        (&[], "127.0.0.1", "127.0.0.1", "nothing said: the connection's"),
    ] {
        let headers: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let event = send(&service, Method::GET, "/v1/policies/url/http/", &headers, "").await.json();
        assert_eq!(event["requestContext"]["http"]["sourceIp"], source, "{why}");
        assert_eq!(event["headers"]["x-forwarded-for"], chain, "{why}");
    }
}

#[tokio::test]
async fn header_bytes_that_are_no_text_survive() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  url: {function: echo, event: function-url}\n").await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    for (bytes, expected) in [(&b"caf\xc3\xa9"[..], "café"), (b"caf\xe9 \xff", "caf\u{e9} \u{ff}")] {
        let value = HeaderValue::from_bytes(bytes).unwrap();
        let request = Request::get(format!("http://{}/v1/policies/url/http/", service.address)).header("x-name", value);
        let response = client.request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
        let event: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(event["headers"]["x-name"], expected);
    }
}

#[tokio::test]
async fn replies_bear_the_ids_that_the_front_door_gives() {
    let lambda = lambda().await;
    let formats = ["rest-api", "http-api-v1", "http-api", "function-url", "alb", "kong-gateway"];
    let policies: String =
        formats.iter().map(|format| format!("  {format}: {{function: greet, event: {format}}}\n")).collect();
    let service = Service::start(&lambda, &policies).await;
    let trace = "Root=1-5e5ffb9e-0123456789abcdef01234567";
    let headers = [("x-request-id", "r-7"), ("x-amzn-trace-id", trace)];
    for (format, expected) in [
        ("rest-api", &[("x-amzn-requestid", "r-7"), ("x-amz-apigw-id", "r-7"), ("x-amzn-trace-id", trace)][..]),
        ("http-api-v1", &[("apigw-requestid", "r-7")]),
        ("http-api", &[("apigw-requestid", "r-7")]),
        ("function-url", &[("x-amzn-requestid", "r-7"), ("x-amzn-trace-id", trace)]),
        ("alb", &[]),
        ("kong-gateway", &[]),
    ] {
        let answer = send(&service, Method::GET, &format!("/v1/policies/{format}/http/"), &headers, "").await;
        assert_eq!(answer.status.as_u16(), 200, "{format}");
        for name in ["x-amzn-requestid", "x-amz-apigw-id", "x-amzn-trace-id", "apigw-requestid"] {
            let value = expected.iter().find(|(given, _)| *given == name).map_or("", |(_, value)| value);
            assert_eq!(answer.header(name), value, "{format}: {name}");
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_survive() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  url: {function: echo, event: function-url}\n").await;
    let answer = send(&service, Method::PUT, "/v1/policies/url/http/f", &[], vec![0xff, 0x00, 0xfe]).await;
    let event = answer.json();
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("/wD+"), &json!(true)));
}

#[tokio::test]
async fn a_failing_function_gets_what_its_front_door_says_and_its_payload_stays_inside() {
    let lambda = lambda().await;
    let formats = [
        ("rest-api", 502, r#"{"message": "Internal server error"}"#),
        ("http-api-v1", 500, r#"{"message":"Internal Server Error"}"#),
        ("http-api", 500, r#"{"message":"Internal Server Error"}"#),
        ("function-url", 502, "Internal Server Error"),
        ("alb", 502, "502 Bad Gateway"),
        ("kong", 502, ""),
    ];
    let policies: String =
        formats.iter().map(|(format, ..)| format!("  {format}: {{function: fail, event: {format}}}\n")).collect();
    let service = Service::start(&lambda, &policies).await;
    for (format, status, body) in formats {
        let answer = send(&service, Method::GET, &format!("/v1/policies/{format}/http/x"), &[], "").await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(answer.status.as_u16(), status, "{format}: {text}");
        assert!(text.contains(body), "{format}: {text}");
        assert!(!text.contains("OrderError") && !text.contains("cannot be placed"), "{format}: {text}");
    }
}

#[tokio::test]
async fn rules_choose_what_a_client_is_told_of_a_failure() {
    let lambda = lambda().await;
    let policies = "  ruled:
    function: fail
    event: http-api
    on_function_error:
      - {kind: handled, status: 409, json: {why: sold out}, headers: {x-why: stock}}
      - {type: 'Order*', message: 'cannot be (placed|made)', status: 418, body: payload}
      - {status: 504}
";
    let service = Service::start(&lambda, policies).await;
    let call = async |body: &str| {
        let http = HttpRequest { method: "POST".into(), body: Bytes::from(body.to_owned()), ..Default::default() };
        let response = service.call(over_grpc("ruled", http)).await.unwrap();
        let Some(Output::Http(reply)) = response.output else { panic!("an HTTP answer") };
        (reply, response.error.unwrap())
    };
    let (reply, error) = call("{}").await;
    assert_eq!((reply.status, error.kind()), (418, Kind::Unhandled));
    assert!(reply.body.starts_with(b"{\"errorMessage\""), "the payload, as the rule says");
    assert_eq!(error.r#type, "OrderError");
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_to_the_caller_and_hidden_from_the_client() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  rest: {function: echo, event: rest-api}\n").await;
    let http = HttpRequest {
        method: "GET".into(),
        path: "/x".into(),
        headers: vec![Header { name: "x-secret".into(), value: "hunter2".into() }],
        ..Default::default()
    };
    let response = service.call(over_grpc("rest", http)).await.unwrap();
    let error = response.error.unwrap();
    assert_eq!(error.kind(), Kind::Malformed);
    assert!(!error.message.is_empty() && !error.message.contains("hunter2"), "{}", error.message);
    let Some(Output::Http(reply)) = response.output else { panic!("an HTTP answer") };
    assert_eq!((reply.status, &reply.body[..]), (502, &br#"{"message": "Internal server error"}"#[..]));
}

#[tokio::test]
async fn what_lambda_itself_says_keeps_its_meaning() {
    let lambda = lambda().await;
    let policies = "  greet: {function: greet, event: http-api}\n  slow: {function: slow, event: http-api, timeout: 100ms}\n  \
                    queued: {function: echo, event: http-api, invocation: event}\n  raw: {function: echo}\n  \
                    balanced: {function: greet, event: alb}\n";
    let service = Service::start(&lambda, policies).await;
    for (fault, status, reason) in [
        ("greet=throttle:3", 429, "FUNCTION_THROTTLED"),
        ("greet=deny", 502, "FUNCTION_ACCESS_DENIED"),
        ("greet=not-ready", 503, "FUNCTION_NOT_READY"),
        ("greet=cut", 502, "LAMBDA_FAILED"),
    ] {
        lambda.clear_faults();
        lambda.add_fault(fault.parse().unwrap());
        let answer = send(&service, Method::GET, "/v1/policies/greet/http/", &[("x-request-id", "r-9")], "").await;
        let body = answer.json();
        assert_eq!((answer.status.as_u16(), &body["reason"]), (status, &json!(reason)), "{fault}");
        assert_eq!(body["requestId"], "r-9");
        assert_eq!(answer.header("retry-after"), if status == 429 { "3" } else { "" });
        assert!(!body.to_string().contains("123456789012"), "{body}");
    }
    lambda.clear_faults();
    let get = async |path: &str| send(&service, Method::GET, path, &[], "").await;
    assert_eq!(get("/v1/policies/slow/http/").await.status.as_u16(), 504);
    assert_eq!(get("/v1/policies/nobody/http/").await.status.as_u16(), 404);
    assert_eq!(get("/v1/policies/queued/http/").await.status.as_u16(), 202);
    let too_large = send(&service, Method::POST, "/v1/policies/greet/http/", &[], vec![b'x'; 7 << 20]).await;
    assert_eq!((too_large.status.as_u16(), &too_large.json()["reason"]), (413, &json!("PAYLOAD_TOO_LARGE")));
    // It fits as it is, but not in base64.
    let inflated = send(&service, Method::POST, "/v1/policies/greet/http/", &[], vec![0xff; 5 << 20]).await;
    assert_eq!(inflated.status.as_u16(), 413);
    let balanced = send(&service, Method::POST, "/v1/policies/balanced/http/", &[], vec![b'x'; (1 << 20) + 1]).await;
    assert_eq!((balanced.status.as_u16(), &balanced.json()["reason"]), (413, &json!("PAYLOAD_TOO_LARGE")));
    let no_json = send(&service, Method::POST, "/v1/policies/raw/http/", &[], "not json").await;
    assert_eq!((no_json.status.as_u16(), &no_json.json()["reason"]), (400, &json!("INVALID_REQUEST")));
}

#[tokio::test]
async fn a_policy_picks_variables_for_the_gateway() {
    let lambda = lambda().await;
    let policies = "  echo: {function: echo, output: {order: /order/id, all: '', big: /big, missing: /nothing}}\n";
    let service = Service::start(&lambda, policies).await;
    let response = service.json("echo", r#"{"order": {"id": "o-1"}, "big": 12345678901234567890123}"#).await.unwrap();
    assert_eq!(response.variables["order"], r#""o-1""#);
    assert_eq!(response.variables["big"], "12345678901234567890123");
    assert!(response.variables["all"].starts_with('{'));
    assert!(!response.variables.contains_key("missing"));
}
