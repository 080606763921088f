//! The trace of a call, from its gateway's headers through the spans of a collector into the function.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lambda_policy::pb::{
    ExecutePolicyRequest, Header, HttpRequest,
    envoy::{
        config::core::v3::{HeaderMap, HeaderValue},
        service::{
            auth::v3::{AttributeContext, CheckRequest, attribute_context, authorization_client::AuthorizationClient},
            ext_proc::v3::{
                HttpHeaders, ProcessingRequest, external_processor_client::ExternalProcessorClient,
                processing_request::Request as Message, processing_response::Response as Answer,
            },
        },
    },
    execute_policy_request::Input,
};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tonic::Request;

use crate::support::{
    Service, admin, channel,
    collector::{Collector, attribute, telemetry},
    config, eventually, execute, full, lambda, output, request,
};

const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ROOT: &str = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736";
const CALLERS: &str = "00f067aa0ba902b7";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const POLICIES: &str = "  context: {function: context}\n  http: {function: context, event: http-api}\n  \
                        event: {function: echo, event: http-api}\n";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with(request: ExecutePolicyRequest, metadata: &[(&'static str, &str)]) -> Request<ExecutePolicyRequest> {
    let mut request = Request::new(request);
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    request
}

/// The trace as the function saw it.
async fn seen(service: &Service, metadata: &[(&'static str, &str)]) -> String {
    let answer = execute(&service.client, with(request("context", "{}"), metadata)).await.unwrap();
    output(&answer)["traceId"].as_str().unwrap_or_default().to_owned()
}

/// The one server span and its client span, of a service that has stopped.
async fn pair(service: &mut Service, collector: &Collector) -> (Span, Span) {
    service.stop().await;
    let spans = collector.spans();
    let one = |kind: SpanKind| {
        let found: Vec<_> = spans.iter().filter(|span| span.kind() == kind).collect();
        assert_eq!(found.len(), 1, "{spans:#?}");
        found[0].clone()
    };
    let (server, client) = (one(SpanKind::Server), one(SpanKind::Client));
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(client.trace_id, server.trace_id);
    assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    (server, client)
}

fn status(span: &Span) -> StatusCode {
    span.status.clone().unwrap_or_default().code()
}

#[tokio::test]
async fn a_trace_goes_from_the_gateways_metadata_through_two_spans_into_the_function() {
    let lambda = lambda().await;
    let (collector, telemetry) = Collector::start("{ratio: 0}").await;
    let mut service = Service::start_with(&(telemetry + &config(&lambda, "", POLICIES)), None).await;
    let metadata = [("traceparent", SAMPLED), ("tracestate", "congo=t61rcWkgMzE"), ("tracestate", "rojo=1")];
    let answer = execute(&service.client, with(request("context", "{}"), &metadata)).await.unwrap();
    let (server, client) = pair(&mut service, &collector).await;

    let header = format!("{ROOT};Parent={};Sampled=1", hex(&client.span_id));
    assert_eq!(output(&answer)["traceId"], header, "the function goes on from the span that invoked it");
    assert_eq!((hex(&server.trace_id).as_str(), hex(&server.parent_span_id).as_str()), (ID, CALLERS));
    assert_eq!(server.trace_state, "congo=t61rcWkgMzE,rojo=1");
    assert_eq!(server.name, "lambdapolicy.v1.PolicyService/ExecutePolicy");
    for (name, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "lambdapolicy.v1.PolicyService/ExecutePolicy"),
        ("rpc.response.status_code", "OK"),
        ("lambda_policy.policy", "context"),
        ("lambda_policy.outcome", "ok"),
        ("lambda_policy.ran", "yes"),
        ("error.type", ""),
    ] {
        assert_eq!(attribute(&server.attributes, name), value, "{name}");
    }
    assert_eq!(client.name, "Lambda.Invoke");
    let url = lambda.url();
    let port = url.rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    for (name, value) in [
        ("rpc.system.name", "aws-api"),
        ("rpc.method", "Lambda/Invoke"),
        ("aws.request_id", answer.request.as_str()),
        ("server.address", "127.0.0.1"),
        ("server.port", port.as_str()),
        ("faas.invoked_name", "context"),
        ("faas.invoked_provider", "aws"),
        ("faas.invoked_region", "us-east-1"),
        ("cloud.region", "us-east-1"),
        ("http.response.status_code", "200"),
        ("http.request.resend_count", ""),
        ("error.type", ""),
    ] {
        assert_eq!(attribute(&client.attributes, name), value, "{name}");
    }
    let events: Vec<_> = client.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(events, ["lambda_policy.connected"]);
    for event in &client.events {
        assert!((client.start_time_unix_nano..=client.end_time_unix_nano).contains(&event.time_unix_nano));
        assert!(attribute(&event.attributes, "lambda_policy.duration").parse::<f64>().unwrap() < 5.0);
    }
    assert_eq!((status(&server), status(&client)), (StatusCode::Unset, StatusCode::Unset));
    let resource = collector.resource();
    assert_eq!(attribute(&resource, "service.name"), "lambda-policy");
    assert_eq!(attribute(&resource, "service.version"), env!("CARGO_PKG_VERSION"));
    assert!(!attribute(&resource, "service.instance.id").is_empty());
}

async fn get(service: &Service, path: &str, headers: &[(&str, &str)]) -> Value {
    let mut request = http::Request::builder().method("GET").uri(format!("http://{}{path}", service.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn the_same_goes_through_the_facade() {
    let lambda = lambda().await;
    let (collector, telemetry) = Collector::start("{ratio: 0}").await;
    let mut service = Service::start_with(&(telemetry + &config(&lambda, "", POLICIES)), None).await;
    let headers = [("traceparent", SAMPLED), ("x-forwarded-proto", "https")];
    let answer = get(&service, "/v1/policies/http/http/a/b?c=d", &headers).await;
    let (server, client) = pair(&mut service, &collector).await;
    assert_eq!(answer["traceId"], format!("{ROOT};Parent={};Sampled=1", hex(&client.span_id)));
    assert_eq!(hex(&server.parent_span_id), CALLERS);
    assert_eq!(server.name, "GET /v1/policies/{policy}/http/{*path}");
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.request.method_original", ""),
        ("url.scheme", "https"),
        ("network.protocol.version", "1.1"),
        ("error.type", ""),
        ("url.path", ""),
        ("url.query", ""),
        ("http.route", "/v1/policies/{policy}/http/{*path}"),
        ("http.response.status_code", "200"),
        ("rpc.system.name", ""),
        ("lambda_policy.policy", "http"),
    ] {
        assert_eq!(attribute(&server.attributes, name), value, "{name}");
    }
}

#[tokio::test]
async fn where_the_gateway_has_no_trace_of_its_own_the_http_calls_goes_on() {
    let lambda = lambda().await;
    let (collector, telemetry) = Collector::start("{ratio: 0}").await;
    let text = telemetry + &config(&lambda, "", POLICIES) + "  guard: {function: authorize, authorizer: {}}\n";
    let mut service = Service::start_with(&text, None).await;
    let header = |(key, value): (&str, &str)| HeaderValue {
        key: key.to_owned(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
        ..HeaderValue::default()
    };
    let headers = [(":method", "GET"), (":path", "/"), (":authority", "api.test"), ("traceparent", SAMPLED)];
    let headers = HttpHeaders { headers: Some(HeaderMap { headers: headers.map(header).into() }), end_of_stream: true };
    let message = ProcessingRequest { request: Some(Message::RequestHeaders(headers)), ..ProcessingRequest::default() };
    let mut ext_proc = ExternalProcessorClient::new(channel(&service.address).await);
    let mut stream = Request::new(tokio_stream::iter([message]));
    stream.metadata_mut().insert("x-lambda-policy", "http".parse().unwrap());
    let mut answers = ext_proc.process(stream).await.unwrap().into_inner();
    let Some(Answer::ImmediateResponse(answer)) = answers.message().await.unwrap().unwrap().response else { panic!() };
    let processed: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(answers.message().await.unwrap().is_none());

    let call = HttpRequest {
        method: "GET".into(),
        headers: vec![Header { name: "Traceparent".into(), value: SAMPLED.into() }],
        ..HttpRequest::default()
    };
    let native = ExecutePolicyRequest { policy: "http".into(), input: Some(Input::Http(call)), ..Default::default() };
    execute(&service.client, native).await.unwrap();

    let http = attribute_context::HttpRequest {
        method: "GET".into(),
        path: "/".into(),
        headers: [("traceparent".to_owned(), SAMPLED.to_owned())].into(),
        ..Default::default()
    };
    let request = attribute_context::Request { http: Some(http), ..Default::default() };
    let attributes = AttributeContext {
        request: Some(request),
        context_extensions: [("policy".to_owned(), "guard".to_owned())].into(),
        ..Default::default()
    };
    let mut ext_authz = AuthorizationClient::new(channel(&service.address).await);
    ext_authz.check(CheckRequest { attributes: Some(attributes) }).await.unwrap();

    service.stop().await;
    let spans = collector.spans();
    let mut names: Vec<_> = Vec::new();
    for server in spans.iter().filter(|span| span.kind() == SpanKind::Server) {
        assert_eq!((hex(&server.trace_id).as_str(), hex(&server.parent_span_id).as_str()), (ID, CALLERS));
        assert_eq!(attribute(&server.attributes, "rpc.response.status_code"), "OK");
        let client = spans.iter().find(|span| span.parent_span_id == server.span_id).unwrap();
        if server.name.contains("ext_proc") {
            assert_eq!(processed["traceId"], format!("{ROOT};Parent={};Sampled=1", hex(&client.span_id)));
        }
        names.push(server.name.as_str());
    }
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "envoy.service.auth.v3.Authorization/Check",
            "envoy.service.ext_proc.v3.ExternalProcessor/Process",
            "lambdapolicy.v1.PolicyService/ExecutePolicy",
        ]
    );
}

#[tokio::test]
async fn nobodys_decision_is_overruled_and_without_a_trace_lambda_is_told_nothing() {
    let lambda = lambda().await;
    let (collector, telemetry) = Collector::start("{ratio: 1}").await;
    let mut service = Service::start_with(&(telemetry + &config(&lambda, "", POLICIES)), None).await;
    let unsampled = format!("{ROOT};Parent={CALLERS};Sampled=0");
    assert_eq!(seen(&service, &[("traceparent", UNSAMPLED)]).await, unsampled);
    service.stop().await;
    assert!(collector.spans().is_empty(), "the caller makes no spans");

    for traces in ["off", "none at all"] {
        let (collector, telemetry) = Collector::start("off").await;
        let telemetry = if traces == "off" { telemetry } else { String::new() };
        let mut service = Service::start_with(&(telemetry + &config(&lambda, "", POLICIES)), None).await;
        assert_eq!(seen(&service, &[]).await, "", "{traces}");
        assert_eq!(seen(&service, &[("traceparent", SAMPLED)]).await, format!("{ROOT};Parent={CALLERS};Sampled=1"));
        assert_eq!(seen(&service, &[("traceparent", UNSAMPLED)]).await, unsampled);
        assert_eq!(seen(&service, &[("traceparent", SAMPLED), ("traceparent", SAMPLED)]).await, "", "said twice");
        let balanced =
            [("x-amzn-trace-id", "Self=1-67891234-12456789abcdef012345678;Root=1-4bf92f35-77b34da6a3ce929d0e0e4736")];
        assert_eq!(get(&service, "/v1/policies/http/http/", &balanced).await["traceId"], ROOT, "a load balancer's");
        service.stop().await;
        assert!(collector.spans().is_empty());
    }
}

#[tokio::test]
async fn of_few_calls_there_are_traces_whatever_their_share() {
    let lambda = lambda().await;
    let (collector, telemetry) = Collector::start("{ratio: 0.000000001}").await;
    let mut service = Service::start_with(&(telemetry + &config(&lambda, "", POLICIES)), None).await;
    let began = Instant::now();
    let mut chosen = Vec::new();
    while chosen.iter().filter(|chosen| **chosen).count() < 2 {
        assert!(began.elapsed() < Duration::from_secs(30), "{} calls", chosen.len());
        chosen.push(seen(&service, &[]).await.ends_with(";Sampled=1"));
    }
    assert!(chosen[0] && chosen.contains(&false), "the first one, and not each: {chosen:?}");
    service.stop().await;
    assert_eq!(collector.spans().len(), 4);
}

#[tokio::test]
async fn the_event_tells_of_the_same_trace_as_the_call() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let other = "Root=1-5e5ffb9e-0123456789abcdef01234567";
    for (what, headers, expected) in [
        ("W3C's", vec![("traceparent", SAMPLED)], ROOT),
        ("a load balancer's", vec![("x-amzn-trace-id", other)], other),
        ("W3C's, though there is another", vec![("x-amzn-trace-id", other), ("traceparent", SAMPLED)], ROOT),
    ] {
        let event = get(&service, "/v1/policies/event/http/", &headers).await;
        assert_eq!(event["headers"]["x-amzn-trace-id"], expected, "{what}");
        let seen = get(&service, "/v1/policies/http/http/", &headers).await;
        assert!(seen["traceId"].as_str().unwrap().starts_with(expected), "{what}: {seen}");
    }
}

#[tokio::test]
async fn spans_say_what_went_wrong_and_whose_fault_it_was() {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let lambda = lambda().await;
    let (collector, telemetry) = Collector::start("{ratio: 1}").await;
    let policies = format!(
        "{POLICIES}  fail: {{function: fail}}\n  gone: {{function: echo, endpoint: {{url: 'http://127.0.0.1:{}'}}}}\n",
        closed.port()
    );
    let mut service = Service::start_with(&(telemetry + &config(&lambda, "", &policies)), None).await;
    service.json("fail", "{}").await.unwrap();
    service.json("gone", "{}").await.unwrap_err();
    service.json("nobody", "{}").await.unwrap_err();
    let (_, _, shown) = admin(&service.admin, "GET", "/policies", "*/*", "").await;
    service.stop().await;
    let spans = collector.spans();
    let of = |policy: &str| {
        let is = |span: &&Span| attribute(&span.attributes, "lambda_policy.policy") == policy;
        let server = spans.iter().find(is).unwrap_or_else(|| panic!("{policy}: {spans:#?}"));
        (server, spans.iter().find(|span| span.parent_span_id == server.span_id))
    };
    for (policy, code, error, outcome, reason, ran, faulty) in [
        ("fail", "OK", "", "function_error", "unhandled", "yes", false),
        ("gone", "UNAVAILABLE", "UNAVAILABLE", "error", "LAMBDA_UNREACHABLE", "no", true),
        ("_unknown", "NOT_FOUND", "", "error", "POLICY_NOT_FOUND", "no", false),
    ] {
        let (server, _) = of(policy);
        for (name, value) in [
            ("rpc.response.status_code", code),
            ("error.type", error),
            ("lambda_policy.outcome", outcome),
            ("lambda_policy.reason", reason),
            ("lambda_policy.ran", ran),
        ] {
            assert_eq!(attribute(&server.attributes, name), value, "{policy}: {name}");
        }
        assert_eq!(status(server) == StatusCode::Error, faulty, "{policy}");
        assert!(server.parent_span_id.is_empty(), "{policy}: the trace begins here");
    }
    let (server, client) = of("gone");
    let client = client.unwrap();
    assert_eq!(status(client), StatusCode::Error);
    assert_eq!(attribute(&client.attributes, "error.type"), "LAMBDA_UNREACHABLE");
    assert_eq!(attribute(&client.attributes, "http.request.resend_count"), "2");
    let events: Vec<_> = client.events.iter().map(|event| event.name.as_str()).collect();
    let (refused, again) = ("lambda_policy.not_connected", "lambda_policy.retried");
    assert_eq!(events, [refused, again, refused, again, refused]);
    assert!(of("_unknown").1.is_none(), "nothing was invoked");

    let shown: Value = serde_json::from_str(&shown).unwrap();
    let gone = shown["policies"].as_array().unwrap().iter().find(|policy| policy["name"] == "gone").unwrap();
    assert_eq!(gone["calls"]["last_errors"][0]["trace_id"], hex(&server.trace_id));
}

#[tokio::test]
async fn a_call_that_waited_for_its_place_says_how_long() {
    let lambda = lambda().await;
    let (collector, telemetry) = Collector::start("{ratio: 1}").await;
    let text = telemetry + &config(&lambda, "", "  slow: {function: slow, max_in_flight: 1}\n");
    let mut service = Service::start_with(&text, None).await;
    let call = || service.json("slow", r#"{"ms": 100}"#);
    let (first, second) = tokio::join!(call(), call());
    assert!(first.is_ok() && second.is_ok());
    service.stop().await;
    let spans = collector.spans();
    let servers: Vec<_> = spans.iter().filter(|span| span.kind() == SpanKind::Server).collect();
    let waits: Vec<_> = servers.iter().flat_map(|server| &server.events).collect();
    assert_eq!((servers.len(), waits.len(), waits[0].name.as_str()), (2, 1, "lambda_policy.admitted"));
    let waited: f64 = attribute(&waits[0].attributes, "lambda_policy.duration").parse().unwrap();
    assert!((0.05..5.0).contains(&waited), "{waited}");
    for client in spans.iter().filter(|span| span.kind() == SpanKind::Client) {
        let server = servers.iter().find(|server| server.span_id == client.parent_span_id).unwrap();
        let late = client.start_time_unix_nano - server.start_time_unix_nano;
        assert_eq!(late > 50_000_000, !server.events.is_empty(), "it begins when it has its place");
    }
}

#[tokio::test]
async fn the_span_of_a_streamed_answer_ends_with_it() {
    let lambda = lambda().await;
    let (collector, telemetry) = Collector::start("{ratio: 1}").await;
    let text = telemetry + &config(&lambda, "", "  stream: {function: stream}\n");
    let mut service = Service::start_with(&text, None).await;
    let asked = request("stream", r#"{"chunks": 4, "every": 100}"#);
    let mut answer = service.client.execute_policy_stream(asked).await.unwrap().into_inner();
    while answer.message().await.unwrap().is_some() {}
    let (server, client) = pair(&mut service, &collector).await;
    assert_eq!(server.name, "lambdapolicy.v1.PolicyService/ExecutePolicyStream");
    for span in [server, client] {
        assert!(span.end_time_unix_nano - span.start_time_unix_nano > 250_000_000, "{span:#?}");
    }
}

#[tokio::test]
async fn an_exemplar_has_the_trace_that_was_pushed() {
    let lambda = lambda().await;
    let (collector, telemetry) = Collector::start("{ratio: 0}").await;
    let mut service = Service::start_with(&(telemetry + &config(&lambda, "", POLICIES)), None).await;
    seen(&service, &[]).await;
    seen(&service, &[("traceparent", SAMPLED)]).await;
    let accept = "application/openmetrics-text;version=1.0.0";
    let (_, _, text) = admin(&service.admin, "GET", "/metrics", accept, "").await;
    let (server, _) = pair(&mut service, &collector).await;
    let exemplar = format!("# {{trace_id=\"{ID}\",span_id=\"{}\"}} ", hex(&server.span_id));
    let lines: Vec<_> = text.lines().filter(|line| line.contains(" # {")).collect();
    assert!(lines.len() == 1 && lines[0].contains(&exemplar), "{lines:#?}");
    assert!(lines[0].starts_with("lambda_policy_call_duration_seconds_bucket{"));
    // The call lies within its bucket.
    let bound: f64 = lines[0].split("le=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    let took: f64 = lines[0].split("} ").nth(2).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(took <= bound, "{lines:?}");
}

/// Whether a counter of the service has counted.
async fn counts(service: &Service, series: &str) -> Option<()> {
    let (_, _, text) = admin(&service.admin, "GET", "/metrics", "*/*", "").await;
    let counted =
        |line: &str| line.strip_prefix(series).is_some_and(|value| value.trim().parse::<f64>().unwrap() > 0.0);
    text.lines().any(counted).then_some(())
}

#[tokio::test]
async fn a_collector_that_is_down_costs_counters() {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().to_string();
    let lambda = lambda().await;
    let text = telemetry(&closed, "{ratio: 1}") + &config(&lambda, "", POLICIES);
    let mut service = Service::start_with(&text, None).await;
    let seen = seen(&service, &[]).await;
    assert!(seen.starts_with("Root=1-") && seen.ends_with(";Sampled=1"), "{seen}");
    let (failures, lost) = (
        "lambda_policy_telemetry_export_failures_total{signal=\"traces\"}",
        "lambda_policy_telemetry_spans_dropped_total",
    );
    eventually("a failed push", async || counts(&service, failures).await).await;
    counts(&service, &format!("{lost}{{reason=\"not_taken\"}}")).await.expect("its spans are lost");
    assert!(counts(&service, &format!("{lost}{{reason=\"queue_full\"}}")).await.is_none());
    tokio::time::timeout(Duration::from_secs(8), service.stop()).await.expect("it stops all the same");
}

#[tokio::test]
async fn a_collector_that_says_nothing_keeps_nobody_waiting() {
    let (hanging, _held) = full().await;
    let lambda = lambda().await;
    let text = telemetry(&hanging.to_string(), "{ratio: 1}") + &config(&lambda, "", POLICIES);
    let mut service = Service::start_with(&text, None).await;
    // Two spans each: more than wait and than are being pushed.
    for _ in 0..30 {
        let calls = (0..50).map(|_| service.json("context", "{}"));
        assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
    }
    let lost = "lambda_policy_telemetry_spans_dropped_total{reason=\"queue_full\"}";
    counts(&service, lost).await.expect("there is no room for all of them");
    let (_, _, status) = admin(&service.admin, "GET", "/status", "*/*", "").await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let spans = &status["telemetry"]["dropped"]["spans"];
    assert!(spans["count"].as_u64().is_some_and(|count| count > 0) && spans["last"].is_string(), "{spans}");
    tokio::time::timeout(Duration::from_secs(8), service.stop()).await.expect("it stops within the time for that");
}
