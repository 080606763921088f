//! Tyk and Apigee by their own protocols: the function's answer, and what their clients are told when there is none.

use std::collections::HashMap;

use bytes::Bytes;
use http_body_util::BodyExt;
use lambda_policy::{
    local::Lambda,
    pb::{
        apigee::{
            self, FlowVariable, MessageContext, Strings, external_callout_service_client::ExternalCalloutServiceClient,
            flow_variable::Value,
        },
        tyk::{Event, HookType, MiniRequestObject, Object, ReturnOverrides, dispatcher_client::DispatcherClient},
    },
};
use serde_json::{Value as Json, json};
use tonic::{Code, transport::Channel};

use crate::support::{Failed, Service, channel, config, lambda, raw};

const POLICIES: &str = "  greet: {function: greet, event: http-api}
  echo: {function: echo, event: http-api, output: {path: /rawPath, request: /requestContext}}
  own: {function: answer, event: rest-api}
  fail: {function: fail, event: http-api}
  slow: {function: slow, event: http-api, timeout: 100ms}
  patient: {function: slow, event: http-api}
  queued: {function: greet, event: http-api, invocation: event}
  dry: {function: greet, event: http-api, invocation: dry-run}
routes:
  - {host: api.example.com, path: '/greet/*', policy: greet}
";

/// Kinds of failures of Lambda, with the status and the reason of the answer.
const FAILURES: [(&str, i32, &str); 4] = [
    ("throttle:3", 429, "FUNCTION_THROTTLED"),
    ("deny", 502, "FUNCTION_ACCESS_DENIED"),
    ("not-ready", 503, "FUNCTION_NOT_READY"),
    ("cut", 502, "LAMBDA_FAILED"),
];

async fn start(lambda: &Lambda, server: &str) -> Service {
    Service::start_with(&config(lambda, server, POLICIES), None).await
}

/// What the function `answer` is asked to answer with.
fn own_answer(body: &str, base64: bool) -> String {
    json!({
        "statusCode": 404,
        "headers": {"content-type": "text/plain; charset=utf-8"},
        "multiValueHeaders": {"X-List": ["a", "b"], "Set-Cookie": ["a=1", "b=2"]},
        "body": body,
        "isBase64Encoded": base64,
    })
    .to_string()
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn tyk(service: &Service) -> DispatcherClient<Channel> {
    let client = DispatcherClient::new(channel(&service.address).await);
    client.max_decoding_message_size(32 << 20).max_encoding_message_size(32 << 20)
}

/// An object as Tyk makes it of a call.
fn object(config_data: &str, method: &str, uri: &str, body: &str) -> Object {
    let headers = [
        ("Host", "api.example.com"),
        ("Content-Type", "application/json"),
        ("X-Request-Id", "r-1"),
        ("X-Forwarded-For", "203.0.113.7, 10.0.0.1"),
    ];
    let request = MiniRequestObject {
        headers: map(&headers),
        body: body.into(),
        url: uri.into(),
        return_overrides: Some(ReturnOverrides { response_code: -1, ..Default::default() }),
        method: method.into(),
        request_uri: uri.into(),
        scheme: "https".into(),
        raw_body: Bytes::from(body.to_owned()),
        ..Default::default()
    };
    Object {
        hook_type: HookType::Pre.into(),
        hook_name: "lambda".into(),
        request: Some(request),
        // A field that no version of Tyk has today: number 1000, a varint.
        session: Some(Bytes::from_static(&[0xc0, 0x3e, 0x07])),
        metadata: map(&[("token", "t-1")]),
        spec: map(&[("APIID", "api-1"), ("OrgID", "org-1"), ("config_data", config_data)]),
        // An empty message is not none.
        response: Some(Bytes::new()),
    }
}

fn named(policy: &str) -> String {
    json!({ "policy": policy }).to_string()
}

/// Dispatches an object and returns its overrides, after a look at whether all the rest came back.
async fn dispatch(client: &DispatcherClient<Channel>, object: Object) -> ReturnOverrides {
    let mut back = client.clone().dispatch(object.clone()).await.unwrap().into_inner();
    let overrides = back.request.as_mut().unwrap().return_overrides.take().unwrap();
    let mut sent = object;
    sent.request.as_mut().unwrap().return_overrides = None;
    assert!(back == sent, "the rest of the object is untouched");
    overrides
}

fn body(overrides: &ReturnOverrides) -> Json {
    serde_json::from_str(&overrides.response_body).unwrap()
}

#[tokio::test]
async fn tyks_request_hooks_answer_the_client() {
    let lambda = lambda().await;
    let service = start(&lambda, "").await;
    let client = tyk(&service).await;
    for hook in [HookType::Pre, HookType::Post, HookType::PostKeyAuth] {
        let call = Object { hook_type: hook.into(), ..object(&named("greet"), "GET", "/hello?name=Ada", "") };
        let overrides = dispatch(&client, call).await;
        assert_eq!((overrides.response_code, overrides.override_error), (200, true), "{hook:?}");
        assert_eq!(overrides.headers["content-type"], "application/json");
        assert_eq!(body(&overrides), json!({"message": "hello, Ada"}));
    }

    let overrides = dispatch(&client, object(&named("echo"), "POST", "/a%20b?x=1&x=2", r#"{"n":1}"#)).await;
    let event = body(&overrides);
    assert_eq!((&event["rawPath"], &event["rawQueryString"]), (&json!("/a b"), &json!("x=1&x=2")));
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(r#"{"n":1}"#), &json!(false)));
    let context = &event["requestContext"];
    assert_eq!((&context["requestId"], &context["apiId"]), (&json!("r-1"), &json!("api-1")));
    assert_eq!((&context["http"]["method"], &context["http"]["sourceIp"]), (&json!("POST"), &json!("10.0.0.1")));
    assert_eq!(event["headers"]["x-forwarded-proto"], "https");

    let mut binary = object(&named("echo"), "PUT", "/f", "");
    binary.request.as_mut().unwrap().raw_body = Bytes::from_static(b"\xff\x00\xfe");
    let event = body(&dispatch(&client, binary).await);
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("/wD+"), &json!(true)));
}

#[tokio::test]
async fn tyks_client_gets_the_functions_own_status_and_never_a_bent_body() {
    let lambda = lambda().await;
    let service = start(&lambda, "").await;
    let client = tyk(&service).await;
    let overrides = dispatch(&client, object(&named("own"), "POST", "/", &own_answer("nothing höre", false))).await;
    assert_eq!((overrides.response_code, overrides.response_body.as_str()), (404, "nothing höre"));
    assert!(overrides.override_error);
    assert_eq!((overrides.headers["x-list"].as_str(), overrides.headers["set-cookie"].as_str()), ("a, b", "b=2"));

    let overrides = dispatch(&client, object(&named("own"), "POST", "/", &own_answer("/wD+", true))).await;
    assert_eq!((overrides.response_code, &body(&overrides)["reason"]), (502, &json!("MALFORMED_OUTPUT")));
    assert!(!overrides.headers.contains_key("x-list"));

    let overrides = dispatch(&client, object(&named("fail"), "GET", "/", "")).await;
    assert_eq!((overrides.response_code, body(&overrides)), (500, json!({"message": "Internal Server Error"})));

    for (policy, status) in [("queued", 202), ("dry", 204)] {
        let overrides = dispatch(&client, object(&named(policy), "GET", "/", "")).await;
        assert_eq!((overrides.response_code, overrides.response_body.as_str()), (status, ""), "{policy}");
        assert!(!overrides.headers["x-amzn-requestid"].is_empty() && overrides.override_error);
    }
}

#[tokio::test]
async fn tyks_client_is_told_why_there_is_no_answer() {
    let lambda = lambda().await;
    let service = start(&lambda, "").await;
    let client = tyk(&service).await;
    for (fault, status, reason) in FAILURES {
        lambda.clear_faults();
        lambda.add_fault(format!("greet={fault}").parse().unwrap());
        let overrides = dispatch(&client, object(&named("greet"), "GET", "/", "")).await;
        let problem = body(&overrides);
        assert_eq!((overrides.response_code, &problem["reason"]), (status, &json!(reason)), "{fault}");
        assert_eq!((&problem["requestId"], overrides.override_error), (&json!("r-1"), true));
        assert_eq!(overrides.headers.get("retry-after").map(String::as_str), (status == 429).then_some("3"));
    }
    lambda.clear_faults();
    for (config, uri, status, reason) in [
        (named("nobody"), "/", 404, "POLICY_NOT_FOUND"),
        (named("nobody"), "/greet/x", 404, "POLICY_NOT_FOUND"),
        ("{}".to_owned(), "/other", 404, "POLICY_NOT_FOUND"),
        ("{}".to_owned(), "/greet/../other", 404, "POLICY_NOT_FOUND"),
        (named("slow"), "/", 504, "TIMEOUT"),
    ] {
        let overrides = dispatch(&client, object(&config, "GET", uri, "")).await;
        let told = (overrides.response_code, body(&overrides)["reason"].clone());
        assert_eq!(told, (status, json!(reason)), "{config} {uri}");
    }
    // Tyk sends a body that is text twice; the largest that Lambda takes comes through.
    let large = "x".repeat(5 << 20);
    assert_eq!(dispatch(&client, object(&named("greet"), "POST", "/", &large)).await.response_code, 200);
    let too_large = "x".repeat(7 << 20);
    let overrides = dispatch(&client, object(&named("greet"), "POST", "/", &too_large)).await;
    assert_eq!((overrides.response_code, &body(&overrides)["reason"]), (413, &json!("PAYLOAD_TOO_LARGE")));
}

#[tokio::test]
async fn tyk_without_a_policys_name_goes_by_the_routes() {
    let lambda = lambda().await;
    let denying = start(&lambda, "").await;
    let overrides = dispatch(&tyk(&denying).await, object("{}", "GET", "/greet/x?name=Ada", "")).await;
    assert_eq!((overrides.response_code, body(&overrides)), (200, json!({"message": "hello, Ada"})));

    let passing = start(&lambda, "unmatched: pass").await;
    let client = tyk(&passing).await;
    assert_eq!(dispatch(&client, object("{}", "GET", "/greet/x", "")).await.response_code, 200);
    let sent = object("{}", "GET", "/other", "body");
    let back = client.clone().dispatch(sent.clone()).await.unwrap().into_inner();
    assert!(back == sent, "tyk goes on to the upstream");
    let overrides = dispatch(&client, object(&named("nobody"), "GET", "/greet/x", "")).await;
    assert_eq!(overrides.response_code, 404, "a policy that is named and not there is no reason to go on");
}

#[tokio::test]
async fn tyks_other_hooks_and_events_change_nothing() {
    let lambda = lambda().await;
    let service = start(&lambda, "").await;
    let mut client = tyk(&service).await;
    for hook in [HookType::CustomKeyCheck, HookType::Response] {
        let response = Some(Bytes::from_static(&[0x08, 0xc8, 0x01]));
        let sent = Object { hook_type: hook.into(), response, ..object(&named("greet"), "GET", "/", "") };
        let back = client.dispatch(sent.clone()).await.unwrap().into_inner();
        assert!(back == sent, "{hook:?}");
    }
    client.dispatch_event(Event { payload: "{}".into() }).await.unwrap();

    for (what, call) in [
        ("hook_type", Object { hook_type: 0, ..object(&named("greet"), "GET", "/", "") }),
        ("hook_type", Object { hook_type: 9, ..object(&named("greet"), "GET", "/", "") }),
        ("request", Object { request: None, ..object(&named("greet"), "GET", "/", "") }),
    ] {
        let failed = Failed::from(client.dispatch(call).await.unwrap_err());
        assert_eq!((failed.code, failed.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
        assert!(failed.status.message().starts_with(what), "{}", failed.status.message());
    }
    assert!(lambda.requests().is_empty());
}

async fn apigee(service: &Service) -> ExternalCalloutServiceClient<Channel> {
    let client = ExternalCalloutServiceClient::new(channel(&service.address).await);
    client.max_decoding_message_size(32 << 20).max_encoding_message_size(32 << 20)
}

/// A context as Apigee makes it of a call.
fn context(policy: &str, verb: &str, uri: &str, content: &str) -> MessageContext {
    let strings = |values: &[&str]| Strings { strings: values.iter().map(|value| (*value).to_owned()).collect() };
    let headers = [
        ("Host", &["api.example.com"][..]),
        ("Content-Type", &["application/json"]),
        ("X-Probe", &["first", "second"]),
        ("X-Request-Id", &["r-1"]),
    ];
    let request = apigee::Request {
        uri: uri.into(),
        verb: verb.into(),
        http_version: "1.1".into(),
        headers: headers.map(|(name, values)| (name.to_owned(), strings(values))).into(),
        content: content.into(),
        ..Default::default()
    };
    let mut variables = HashMap::from([("flow.other".to_owned(), FlowVariable { value: Some(Value::Double(0.5)) })]);
    if !policy.is_empty() {
        variables.insert("lambda.policy".into(), FlowVariable { value: Some(Value::String(policy.into())) });
    }
    MessageContext {
        request: Some(request),
        client: Some(apigee::Client { ip: "10.0.0.1".into(), scheme: "https".into(), ..Default::default() }),
        proxy: Some(apigee::Proxy { client_ip: "203.0.113.7".into(), ..Default::default() }),
        // A field that no version of Apigee has today: number 1000, a varint.
        target: Some(Bytes::from_static(&[0xc0, 0x3e, 0x07])),
        error: Some(Bytes::new()),
        message_id: "m-1".into(),
        additional_flow_variables: variables,
        ..Default::default()
    }
}

/// What a context came back with.
struct Told {
    fault: Option<(String, String)>,
    variables: HashMap<String, Value>,
}

impl Told {
    fn text(&self, name: &str) -> &str {
        match self.variables.get(name) {
            Some(Value::String(text)) => text,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn status(&self) -> i32 {
        match self.variables.get("lambda.status") {
            Some(Value::Int32(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn fault(&self) -> &str {
        self.fault.as_ref().map(|(name, _)| name.as_str()).unwrap_or_default()
    }
}

/// Has a context processed, and looks whether all that is not an answer came back.
async fn process(client: &ExternalCalloutServiceClient<Channel>, context: MessageContext) -> Told {
    let mut back = client.clone().process_message(context.clone()).await.unwrap().into_inner();
    let fault = back.fault.take().map(|fault| (fault.name, fault.fault_string));
    let mut variables = HashMap::new();
    back.additional_flow_variables.retain(|name, variable| {
        let given = context.additional_flow_variables.get(name) == Some(&*variable);
        if !given {
            variables.insert(name.clone(), variable.value.clone().unwrap());
        }
        given
    });
    assert!(back == context, "the rest of the context is untouched");
    Told { fault, variables }
}

#[tokio::test]
async fn apigee_gets_the_answer_in_flow_variables() {
    let lambda = lambda().await;
    let service = start(&lambda, "").await;
    let client = apigee(&service).await;
    let told = process(&client, context("greet", "GET", "/hello?name=Ada", "")).await;
    assert_eq!((told.status(), told.fault()), (200, ""));
    assert_eq!(told.text("lambda.body"), r#"{"message":"hello, Ada"}"#);
    assert_eq!(told.text("lambda.headers.content-type"), "application/json");
    assert!(!told.text("lambda.request").is_empty() && !told.variables.contains_key("lambda.error.kind"));

    let told = process(&client, context("echo", "POST", "/a%20b?x=1&x=2", r#"{"n":1}"#)).await;
    let event: Json = serde_json::from_str(told.text("lambda.body")).unwrap();
    assert_eq!((&event["rawPath"], &event["rawQueryString"]), (&json!("/a b"), &json!("x=1&x=2")));
    assert_eq!((&event["body"], &event["headers"]["x-probe"]), (&json!(r#"{"n":1}"#), &json!("first,second")));
    let about = &event["requestContext"];
    assert_eq!((&about["requestId"], &about["http"]["sourceIp"]), (&json!("r-1"), &json!("203.0.113.7")));
    assert_eq!(told.text("lambda.variables.path"), "/a b");
    assert!(told.text("lambda.variables.request").starts_with('{'));

    let told = process(&client, context("own", "POST", "/", &own_answer("nothing höre", false))).await;
    assert_eq!((told.status(), told.text("lambda.body")), (404, "nothing höre"));
    assert_eq!((told.text("lambda.headers.x-list"), told.text("lambda.headers.set-cookie")), ("a, b", "b=2"));

    for (policy, status) in [("queued", 202), ("dry", 204)] {
        let told = process(&client, context(policy, "GET", "/", "")).await;
        assert_eq!((told.status(), told.text("lambda.body"), told.fault()), (status, "", ""), "{policy}");
    }
}

#[tokio::test]
async fn apigee_hears_of_a_functions_failure_beside_the_answer() {
    let lambda = lambda().await;
    let service = start(&lambda, "").await;
    let client = apigee(&service).await;
    let told = process(&client, context("fail", "GET", "/", "")).await;
    assert_eq!((told.status(), told.fault()), (500, ""));
    assert_eq!(told.text("lambda.body"), r#"{"message":"Internal Server Error"}"#);
    for (name, text) in [("kind", "unhandled"), ("type", "OrderError"), ("message", "the order cannot be placed")] {
        assert_eq!(told.text(&format!("lambda.error.{name}")), text);
    }

    let told = process(&client, context("own", "POST", "/", &own_answer("/wD+", true))).await;
    assert_eq!((told.status(), told.text("lambda.error.kind")), (502, "malformed"));
    assert!(told.text("lambda.body").contains("MALFORMED_OUTPUT"));
}

#[tokio::test]
async fn apigee_raises_a_fault_where_there_is_no_answer() {
    let lambda = lambda().await;
    let service = start(&lambda, "").await;
    let client = apigee(&service).await;
    for (fault, _, reason) in FAILURES {
        lambda.clear_faults();
        lambda.add_fault(format!("greet={fault}").parse().unwrap());
        let told = process(&client, context("greet", "GET", "/", "")).await;
        assert_eq!(told.fault(), reason, "{fault}");
        assert!(!told.variables.contains_key("lambda.status"));
        let (_, message) = told.fault.unwrap();
        assert!(!message.is_empty() && !message.contains("127.0.0.1") && !message.contains("123456789012"));
    }
    lambda.clear_faults();
    let too_large = "x".repeat(7 << 20);
    for (context, reason) in [
        (context("nobody", "GET", "/", ""), "POLICY_NOT_FOUND"),
        (context("", "GET", "/other", ""), "POLICY_NOT_FOUND"),
        (context("slow", "GET", "/", ""), "TIMEOUT"),
        (context("greet", "POST", "/", &too_large), "PAYLOAD_TOO_LARGE"),
        (MessageContext { request: None, ..context("greet", "GET", "/", "") }, "INVALID_REQUEST"),
        (context("greet", "", "/", ""), "INVALID_REQUEST"),
    ] {
        assert_eq!(process(&client, context).await.fault(), reason);
    }
}

#[tokio::test]
async fn apigee_without_a_policys_name_goes_by_the_routes() {
    let lambda = lambda().await;
    let service = start(&lambda, "unmatched: pass").await;
    let client = apigee(&service).await;
    let told = process(&client, context("", "GET", "/greet/x?name=Ada", "")).await;
    assert_eq!((told.status(), told.text("lambda.body")), (200, r#"{"message":"hello, Ada"}"#));
    let told = process(&client, context("", "GET", "/other", "")).await;
    assert!(told.fault.is_none() && told.variables.is_empty(), "the flow goes on");
}

#[tokio::test]
async fn the_gateways_deadline_bounds_the_call() {
    let lambda = lambda().await;
    let service = start(&lambda, "").await;
    let call = object(&named("patient"), "POST", "/", r#"{"ms": 60000}"#);
    let response = raw(&service.address, "coprocess.Dispatcher/Dispatch", "200m", &call).await;
    let message = response.into_body().collect().await.unwrap().to_bytes();
    let back: Object = prost::Message::decode(&message[5..]).unwrap();
    let overrides = back.request.unwrap().return_overrides.unwrap();
    assert_eq!((overrides.response_code, &body(&overrides)["reason"]), (504, &json!("TIMEOUT")));

    let call = context("patient", "POST", "/", r#"{"ms": 60000}"#);
    let response = raw(&service.address, "apigee.ExternalCalloutService/ProcessMessage", "200m", &call).await;
    let message = response.into_body().collect().await.unwrap().to_bytes();
    let back: MessageContext = prost::Message::decode(&message[5..]).unwrap();
    assert_eq!(back.fault.unwrap().name, "TIMEOUT");
}

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_answer() {
    let lambda = lambda().await;
    let service = start(&lambda, "").await;
    let (tyk, apigee) = (tyk(&service).await, apigee(&service).await);
    let calls = (0..100).map(async |n| {
        let uri = format!("/hello?name=n{n}");
        let expected = format!(r#"{{"message":"hello, n{n}"}}"#);
        let overrides = dispatch(&tyk, object(&named("greet"), "GET", &uri, "")).await;
        assert_eq!((overrides.response_code, &overrides.response_body), (200, &expected));
        let told = process(&apigee, context("greet", "GET", &uri, "")).await;
        assert_eq!((told.status(), told.text("lambda.body")), (200, expected.as_str()));
    });
    futures::future::join_all(calls).await;
    assert_eq!(lambda.runs("greet"), 200);
}
