//! What the access log and the span of the server say of calls that ended early, came slowly, or could not be read.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use lambda_policy::{
    local::Lambda,
    pb::{
        ExecutePolicyRequest, HttpRequest, LambdaPolicy,
        apigee::{MessageContext, external_callout_service_client::ExternalCalloutServiceClient},
        envoy::{
            config::core::v3::{HeaderMap, HeaderValue},
            extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
            service::{
                auth::v3::{
                    AttributeContext, CheckRequest, attribute_context, authorization_client::AuthorizationClient,
                    check_response::HttpResponse,
                },
                ext_proc::v3::{
                    HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse, ProtocolConfiguration,
                    external_processor_client::ExternalProcessorClient, processing_request::Request as Message,
                    processing_response::Response as Answer,
                },
            },
        },
        execute_policy_request::Input,
        tyk::{MiniRequestObject, Object, dispatcher_client::DispatcherClient},
    },
};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message as _;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::sleep,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Streaming};

use crate::{
    binary::Process,
    support::{
        Directory, admin, channel, client,
        collector::{Collector, attribute},
        config, eventually, execute, lambda, request,
    },
};

const POLICIES: &str = "  echo: {function: echo}\n  slow: {function: slow, max_in_flight: 1, timeout: 20s}\n  \
                        greet: {function: greet, event: http-api}\n  \
                        versions: {function: context, qualifier: live, qualifiers: ['3']}\n  \
                        queued: {function: echo, invocation: event}\n  \
                        guard: {function: authorize, authorizer: {identity: [header.x-user]}}\n";
/// So long a gateway takes for a body.
const LATE: Duration = Duration::from_millis(300);

/// A service of its own, whose lines are read, with a collector for its spans.
pub(crate) struct Told {
    pub(crate) lambda: Lambda,
    pub(crate) process: Process,
    collector: Collector,
    pub(crate) address: String,
    _directory: Directory,
}

impl Told {
    async fn start() -> Self {
        Self::with(POLICIES).await
    }

    pub(crate) async fn with(policies: &str) -> Self {
        let lambda = lambda().await;
        let (collector, telemetry) = Collector::start("{ratio: 1}").await;
        let directory = Directory::new();
        // With one worker the lines come in the order of their calls.
        let file =
            directory.write("f.yaml", &(telemetry + &config(&lambda, "workers: 1, inline_policies: allow", policies)));
        let process = Process::serve(&file, &[("LAMBDA_POLICY_LOG", "info")]);
        let address = eventually("the service", async || process.address("grpc")).await;
        Self { lambda, process, collector, address, _directory: directory }
    }

    /// The first line of a call of which this is so.
    pub(crate) async fn line(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || self.lines().into_iter().find(&is)).await
    }

    /// The lines of the calls with this id of their gateway's, once another call has its line.
    pub(crate) async fn lines_of(&self, id: &str) -> Vec<Value> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let last = format!("behind-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut call = Request::new(request("echo", "{}"));
        call.metadata_mut().insert("x-request-id", last.parse().unwrap());
        execute(&client(&self.address).await, call).await.unwrap();
        self.line("another call", |line| line["request_id"] == *last).await;
        self.lines().into_iter().filter(|line| line["request_id"] == *id).collect()
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> String {
        admin(&self.process.address("admin").unwrap(), "GET", "/metrics", "*/*", "").await.2
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.process.lines("call")
    }

    /// The last errors that `/status` has.
    async fn last_errors(&self) -> Vec<Value> {
        let (_, _, status) = admin(&self.process.address("admin").unwrap(), "GET", "/status", "*/*", "").await;
        let status: Value = serde_json::from_str(&status).unwrap();
        status["calls"]["last_errors"].as_array().unwrap().clone()
    }

    /// The server's span of the line's call.
    pub(crate) async fn span(&self, line: &Value) -> Span {
        self.span_of(SpanKind::Server, line).await
    }

    pub(crate) async fn span_of(&self, kind: SpanKind, line: &Value) -> Span {
        let trace = line["trace_id"].as_str().unwrap();
        eventually("the span", async || {
            let is = |span: &Span| {
                let id: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
                id == trace && span.kind() == kind
            };
            self.collector.spans().into_iter().find(is)
        })
        .await
    }
}

fn micros(line: &Value, field: &str) -> u64 {
    line[field].as_u64().unwrap_or_else(|| panic!("{field}: {line}"))
}

fn lasted(span: &Span, event: &str) -> Option<f64> {
    let event = span.events.iter().find(|found| found.name == event)?;
    attribute(&event.attributes, "lambda_policy.duration").parse().ok()
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_says_how_far_it_came_and_whether_its_function_ran() {
    let told = Told::start().await;
    let caller = client(&told.address).await;
    let call = || {
        let caller = caller.clone();
        tokio::spawn(async move { execute(&caller, request("slow", r#"{"ms": 9000}"#)).await })
    };
    let sent = call();
    eventually("the call in flight", async || (told.lambda.runs("slow") == 1).then_some(())).await;
    // None waits for longer than 250 ms, so one may come too late for a machine that is busy.
    let line = eventually("the line of a call that waited", async || {
        let waiting = call();
        sleep(Duration::from_millis(60)).await;
        waiting.abort();
        told.lines().into_iter().find(|line| line["outcome"] == "cancelled" && line["queue_us"].is_u64())
    })
    .await;
    assert_eq!((&line["ran"], &line["function"], &line["event_bytes"]), (&"no".into(), &"slow".into(), &12.into()));
    assert!(micros(&line, "queue_us") > 0 && micros(&line, "queue_us") <= micros(&line, "total_us"), "{line}");
    assert!(line["credentials_us"].is_null() && line["lambda_us"].is_null(), "{line}");
    let span = told.span(&line).await;
    assert_eq!(attribute(&span.attributes, "lambda_policy.ran"), "no");

    sent.abort();
    let line = told.line("the line of the call that was sent", |line| line["ran"] == "maybe").await;
    assert_eq!((&line["outcome"], &line["region"]), (&"cancelled".into(), &"us-east-1".into()));
    assert!(line["queue_us"].is_u64() && line["credentials_us"].is_u64(), "{line}");
    assert!(micros(&line, "lambda_us") > 0 && micros(&line, "lambda_us") <= micros(&line, "total_us"), "{line}");
    let span = told.span(&line).await;
    assert_eq!(attribute(&span.attributes, "lambda_policy.ran"), "maybe");
}

/// A call with this id of its gateway's.
fn identified(id: &str, asked: ExecutePolicyRequest) -> Request<ExecutePolicyRequest> {
    let mut asked = Request::new(asked);
    asked.metadata_mut().insert("x-request-id", id.parse().unwrap());
    asked
}

#[tokio::test]
async fn a_line_says_which_function_was_invoked_in_which_version_and_where() {
    let told = Told::start().await;
    let caller = client(&told.address).await;
    let chosen_of = |asked, qualifier: &str| ExecutePolicyRequest { qualifier: qualifier.to_owned(), ..asked };
    let chosen = |policy: &str, qualifier: &str| chosen_of(request(policy, "{}"), qualifier);
    let brought = |function: &str| ExecutePolicyRequest {
        lambda: Some(LambdaPolicy {
            function: function.to_owned(),
            qualifier: "7".to_owned(),
            region: "eu-west-1".to_owned(),
            aws_access_key_id: Lambda::KEY_ID.to_owned(),
            aws_secret_access_key: Lambda::SECRET.to_owned(),
            ..LambdaPolicy::default()
        }),
        ..request("", "{}")
    };
    for (id, asked, outcome, expected) in [
        ("the policy's", request("versions", "{}"), "ok", ["context", "live", "us-east-1"]),
        ("the call's", chosen("versions", "3"), "ok", ["context", "3", "us-east-1"]),
        ("none", request("echo", "{}"), "ok", ["echo", "", "us-east-1"]),
        ("not allowed", chosen("versions", "4"), "error", ["context", "", "us-east-1"]),
        ("brought", brought("context"), "ok", ["context", "7", "eu-west-1"]),
        ("not brought", chosen_of(brought("context"), "4"), "error", ["context", "", "eu-west-1"]),
        ("brought in vain", brought("missing"), "error", ["missing", "7", "eu-west-1"]),
        ("unknown", request("nobody", "{}"), "error", ["", "", ""]),
    ] {
        let streamed = identified(&format!("{id}, streamed"), asked.clone());
        if let Ok(answer) = caller.clone().execute_policy_stream(streamed).await {
            let mut parts = answer.into_inner();
            while parts.message().await.unwrap().is_some() {}
        }
        let _ = execute(&caller, identified(id, asked)).await;
        for id in [id, &format!("{id}, streamed")] {
            let line = told.line(id, |line| line["request_id"] == *id).await;
            assert_eq!(line["outcome"], outcome, "{line}");
            let said = ["function", "qualifier", "region"].map(|field| line[field].as_str().unwrap_or_default());
            assert_eq!(said, expected, "{line}");
        }
    }
}

#[tokio::test]
async fn an_event_that_is_too_large_says_how_large_it_was() {
    let told = Told::start().await;
    let json = format!("\"{}\"", "x".repeat(1 << 20));
    let asked = identified("large", request("queued", &json));
    execute(&client(&told.address).await, asked).await.unwrap_err();
    let line = told.line("large", |line| line["request_id"] == "large").await;
    assert_eq!((&line["reason"], &line["event_bytes"]), (&"PAYLOAD_TOO_LARGE".into(), &json.len().into()), "{line}");
    assert!(line["queue_us"].is_null(), "it did not come to ask for a place: {line}");
    assert!(!told.metrics().await.contains("lambda_policy_call_queue_duration_seconds_count{policy=\"queued\"} 1"));
}

#[tokio::test]
async fn a_verdict_that_holds_has_its_line_its_span_and_its_count_though_nothing_runs() {
    let told = Told::start().await;
    let mut authz = AuthorizationClient::new(channel(&told.address).await);
    for (user, verdict) in [("ada", "allowed"), ("nobody", "refused")] {
        for held in [false, true] {
            let id = format!("{user}, {}", if held { "held" } else { "asked" });
            let headers = [("x-user", user.to_owned()), ("authorization", format!("Bearer {user}"))];
            let http = attribute_context::HttpRequest {
                method: "GET".into(),
                id: id.clone(),
                headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
                ..Default::default()
            };
            let request = attribute_context::Request { http: Some(http), ..Default::default() };
            let attributes = AttributeContext { request: Some(request), ..Default::default() };
            let mut asked = Request::new(CheckRequest { attributes: Some(attributes) });
            asked.metadata_mut().insert("x-lambda-policy", "guard".parse().unwrap());
            let answer = authz.check(asked).await.unwrap().into_inner();
            let passes = matches!(answer.http_response, Some(HttpResponse::OkResponse(_)));
            assert_eq!(passes, verdict == "allowed", "{id}");

            let lines = told.lines_of(&id).await;
            let [line] = lines.as_slice() else { panic!("{id}: {lines:?}") };
            let ran = if held { "no" } else { "yes" };
            for (field, value) in [
                ("rpc", "ext_authz"),
                ("policy", "guard"),
                ("outcome", "ok"),
                ("verdict", verdict),
                ("ran", ran),
                ("function", "authorize"),
                ("region", "us-east-1"),
            ] {
                assert_eq!(line[field], value, "{field}: {line}");
            }
            assert_eq!((line["held"] == true, line["lambda_us"].is_u64()), (held, !held), "{line}");
            assert!(line["total_us"].is_u64(), "{line}");
            let span = told.span(line).await;
            assert_eq!(attribute(&span.attributes, "lambda_policy.verdict"), verdict);
            assert_eq!(attribute(&span.attributes, "lambda_policy.ran"), ran);
            let below = told.collector.spans().iter().filter(|other| other.parent_span_id == span.span_id).count();
            assert_eq!(below, usize::from(!held), "{id}: only what is invoked has a span of that");
        }
    }
    assert_eq!(told.lambda.runs("authorize"), 2);
    let metrics = told.metrics().await;
    assert!(metrics.contains("lambda_policy_calls_total{outcome=\"ok\",policy=\"guard\"} 4.0\n"), "{metrics}");
    let is = |line: &&str| line.starts_with("rpc_client_call_duration_seconds_count{") && line.contains("\"guard\"");
    let invoked = metrics.lines().find(is).unwrap();
    assert!(invoked.ends_with(" 2"), "{invoked}");
}

#[tokio::test]
async fn the_gateways_id_is_that_of_the_rpc_where_the_call_has_none() {
    let told = Told::start().await;
    let with = |id: &str, own: Option<&str>| {
        let input = own.map(|own| {
            Input::Http(HttpRequest { method: "GET".into(), request_id: own.to_owned(), ..HttpRequest::default() })
        });
        let asked = match input {
            Some(input) => ExecutePolicyRequest { policy: "greet".into(), input: Some(input), ..Default::default() },
            None => request("echo", "{}"),
        };
        let mut asked = Request::new(asked);
        asked.metadata_mut().insert("x-request-id", id.parse().unwrap());
        asked
    };
    let mut caller = client(&told.address).await;
    caller.execute_policy(with("of-a-payload", None)).await.unwrap();
    caller.execute_policy(with("of-the-rpc", Some(""))).await.unwrap();
    caller.execute_policy(with("of-envoy", Some("of-the-call"))).await.unwrap();
    caller.execute_policy(with(&"x".repeat(300), None)).await.unwrap();
    let mut parts = caller.execute_policy_stream(with("of-a-stream", None)).await.unwrap().into_inner();
    while parts.message().await.unwrap().is_some() {}
    for id in ["of-a-payload", "of-the-rpc", "of-the-call", "of-a-stream", &"x".repeat(128)] {
        told.line(id, |line| line["request_id"] == id).await;
    }
    assert!(!told.process.said().contains("of-envoy"), "the call's own counts");
}

/// A POST whose body comes late, over a connection of its own.
async fn late(address: &str, path: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all(head.as_bytes()).await.unwrap();
    sleep(LATE).await;
    connection.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_time_that_a_body_took_is_no_wait_for_a_place() {
    let told = Told::start().await;
    for (rpc, path, body) in [
        ("http", "/v1/policies/greet/http/", "{}"),
        ("ExecutePolicy (JSON)", "/v1/policies/echo:execute", r#"{"json": "{}"}"#),
    ] {
        let answer = late(&told.address, path, body).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let line = told.line(rpc, |line| line["rpc"] == rpc).await;
        let [receive, queue, total] = ["receive_us", "queue_us", "total_us"].map(|field| micros(&line, field));
        assert!(receive > 250_000 && queue < 250_000 && receive + queue <= total, "{line}");
        let span = told.span(&line).await;
        assert!(lasted(&span, "lambda_policy.received").is_some_and(|took| took > 0.25), "{span:?}");
        assert!(lasted(&span, "lambda_policy.admitted").is_none_or(|took| took < 0.25), "{span:?}");
    }
    execute(&client(&told.address).await, request("echo", "{}")).await.unwrap();
    let line = told.line("a call that came at once", |line| line["rpc"] == "ExecutePolicy").await;
    assert!(line["receive_us"].is_null(), "{line}");
}

/// Envoy's end of a stream of ext_proc.
pub(crate) struct Gateway {
    send: mpsc::UnboundedSender<ProcessingRequest>,
    answers: Streaming<ProcessingResponse>,
    mode: BodySendMode,
}

impl Gateway {
    pub(crate) async fn open(told: &Told, policy: &str, id: &str, mode: BodySendMode) -> Self {
        let (send, messages) = mpsc::unbounded_channel();
        let mut stream = Request::new(UnboundedReceiverStream::new(messages));
        stream.metadata_mut().insert("x-lambda-policy", policy.parse().unwrap());
        stream.metadata_mut().insert("x-request-id", id.parse().unwrap());
        let mut client = ExternalProcessorClient::new(channel(&told.address).await);
        let answers = client.process(stream).await.unwrap().into_inner();
        Self { send, answers, mode }
    }

    fn message(message: impl Into<Option<Message>>, mode: BodySendMode) -> ProcessingRequest {
        let protocol = ProtocolConfiguration { request_body_mode: mode.into(), ..Default::default() };
        let (request, protocol_config) = (message.into(), Some(protocol));
        ProcessingRequest { request, protocol_config, ..ProcessingRequest::default() }
    }

    pub(crate) fn say(&self, message: impl Into<Option<Message>>) {
        self.send.send(Self::message(message, self.mode)).unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Answer {
        self.answers.message().await.unwrap().unwrap().response.unwrap()
    }

    /// The status of the answer that stands for the upstream's.
    pub(crate) async fn status(&mut self) -> u32 {
        match self.hear().await {
            Answer::ImmediateResponse(answer) => answer.status.unwrap().code,
            other => panic!("{other:?}"),
        }
    }
}

/// The headers of a request whose body follows.
pub(crate) fn headers(id: &str) -> Message {
    let header = |(key, value): (&str, &str)| HeaderValue {
        key: key.to_owned(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
        ..HeaderValue::default()
    };
    let headers =
        [(":method", "POST"), (":path", "/"), (":authority", "api.test"), ("x-request-id", id)].map(header).into();
    Message::RequestHeaders(HttpHeaders { headers: Some(HeaderMap { headers }), end_of_stream: false })
}

pub(crate) fn body(text: &'static str) -> Message {
    Message::RequestBody(HttpBody { body: text.into(), end_of_stream: true, ..HttpBody::default() })
}

#[tokio::test]
async fn ext_procs_span_begins_with_the_stream_and_its_figures_with_the_call() {
    let told = Told::start().await;
    let mut gateway = Gateway::open(&told, "greet", "slowly", BodySendMode::Buffered).await;
    gateway.say(headers("slowly"));
    let first = gateway.hear().await;
    assert!(matches!(first, Answer::RequestHeaders(_)), "{first:?}");
    sleep(LATE).await;
    gateway.say(body("{}"));
    let answer = gateway.hear().await;
    assert!(matches!(answer, Answer::ImmediateResponse(_)), "{answer:?}");

    let line = told.line("the call", |line| line["rpc"] == "ext_proc").await;
    let (receive, total) = (micros(&line, "receive_us"), micros(&line, "total_us"));
    assert!(receive > 250_000 && total > receive, "{line}");
    let span = told.span(&line).await;
    assert!(span.end_time_unix_nano - span.start_time_unix_nano > 250_000_000, "{span:?}");
    assert!(lasted(&span, "lambda_policy.received").is_some_and(|took| took > 0.25), "{span:?}");
    let text = told.metrics().await;
    let sum = "lambda_policy_call_duration_seconds_sum{outcome=\"ok\",policy=\"greet\"} ";
    let took: f64 = text.lines().find_map(|line| line.strip_prefix(sum)).unwrap().parse().unwrap();
    assert!(took < (total - receive) as f64 / 1e6 + 0.05, "{took} s of {line}");
}

type Sent = BoxBody<Bytes, Infallible>;

fn h2() -> Client<HttpConnector, Sent> {
    Client::builder(TokioExecutor::new()).timer(TokioTimer::new()).http2_only(true).build_http()
}

/// A body of which this comes, and perhaps no end.
fn sent(bytes: impl Into<Bytes>, ends: bool) -> Sent {
    let first = Some(bytes.into()).filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes)));
    let rest = if ends { stream::empty().left_stream() } else { stream::pending().right_stream() };
    BodyExt::boxed(StreamBody::new(stream::iter(first).chain(rest)))
}

/// Bytes that are no message, the beginning of one, and one that is too large for every front.
const NONE: &[u8] = b"\0\0\0\0\x03\xff\xff\xff";
const BEGINNING: &[u8] = b"\0\0\0\0\x0a{";
const LARGE: &[u8] = b"\0\x02\0\0\0{";

#[tokio::test]
async fn a_request_that_no_service_reads_has_one_line_whichever_front_it_came_to() {
    let told = Told::start().await;
    let h2 = h2();
    let fronts = [
        ("application/grpc", "lambdapolicy.v1.PolicyService/ExecutePolicy", "ExecutePolicy", "-"),
        ("application/grpc-web", "lambdapolicy.v1.PolicyService/ExecutePolicyStream", "ExecutePolicyStream", "-"),
        ("application/grpc", "coprocess.Dispatcher/Dispatch", "Dispatch", "-"),
        ("application/grpc", "apigee.ExternalCalloutService/ProcessMessage", "ProcessMessage", "-"),
        ("application/grpc", "envoy.service.auth.v3.Authorization/Check", "ext_authz", "greet"),
        ("application/grpc", "envoy.service.ext_proc.v3.ExternalProcessor/Process", "ext_proc", "greet"),
    ];
    let wrongs = [
        ("none", ("x", "y"), NONE, true, "INVALID_REQUEST", "INFO"),
        ("compressed", ("grpc-encoding", "gzip"), NONE, true, "INVALID_REQUEST", "INFO"),
        ("large", ("x", "y"), LARGE, false, "PAYLOAD_TOO_LARGE", "INFO"),
        ("late", ("grpc-timeout", "300m"), b"", false, "TIMEOUT", "WARN"),
        ("slow", ("grpc-timeout", "300m"), BEGINNING, false, "TIMEOUT", "WARN"),
    ];
    let mut calls = Vec::new();
    for (kind, path, rpc, policy) in fronts {
        for (what, (name, value), bytes, ends, reason, level) in wrongs {
            let (id, trace) = (format!("{rpc}-{what}"), format!("{:032x}", calls.len() + 1));
            let asked = http::Request::post(format!("http://{}/{path}", told.address))
                .header("content-type", kind)
                .header("te", "trailers")
                .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
                .header("x-request-id", &id)
                .header("x-lambda-policy", "greet")
                .header(name, value)
                .body(sent(bytes, ends))
                .unwrap();
            // It is answered, and not left to whoever waits.
            h2.request(asked).await.unwrap().into_body().frame().await;
            calls.push((id, trace, rpc, policy, reason, level));
        }
    }
    for (id, trace, rpc, policy, reason, level) in &calls {
        let lines = told.lines_of(id).await;
        let [line] = lines.as_slice() else { panic!("{id}: {lines:?}") };
        for (field, value) in [
            ("rpc", *rpc),
            ("policy", *policy),
            ("outcome", "error"),
            ("reason", *reason),
            ("ran", "no"),
            ("trace_id", trace),
            ("level", *level),
        ] {
            assert_eq!(line[field], value, "{id}, {field}: {line}");
        }
        assert!(line["error"].is_string(), "{line}");
        assert_eq!(line["peer"].is_string(), *reason != "TIMEOUT", "by whose fault it is: {line}");
        assert!(*reason != "TIMEOUT" || micros(line, "receive_us") > 250_000, "{line}");
        let span = told.span(line).await;
        assert_eq!(attribute(&span.attributes, "lambda_policy.reason"), *reason);
        assert_eq!(attribute(&span.attributes, "lambda_policy.policy"), "_unknown");
        let code = match *reason {
            // ext_proc is answered in its own words once its stream has begun.
            _ if *rpc == "ext_proc" && !id.ends_with("compressed") => "OK",
            "TIMEOUT" => "DEADLINE_EXCEEDED",
            _ => "INVALID_ARGUMENT",
        };
        assert_eq!(attribute(&span.attributes, "rpc.response.status_code"), code, "{id}");
    }
    let metrics = told.metrics().await;
    for (reason, count) in [("INVALID_REQUEST", 12), ("PAYLOAD_TOO_LARGE", 6), ("TIMEOUT", 12)] {
        let counted = unknown(reason, count);
        assert!(metrics.contains(&counted), "{counted}{metrics}");
    }
    assert_eq!(own_reasons(&metrics), None, "who names a policy changes none of its figures");
    let last = told.last_errors().await;
    let detail = |id: &str| &last.iter().find(|last| last["request_id"] == id).unwrap()["detail"];
    assert_eq!(detail("ProcessMessage-slow"), &Value::Null, "{last:?}");
    assert_eq!(detail("ext_proc-slow"), "the call names `greet`", "{last:?}");
    assert_eq!(detail("ext_proc-large"), "the call names `greet`", "and not how large it is: {last:?}");

    let path = "lambdapolicy.v1.PolicyService/ListPolicies";
    let asked =
        http::Request::post(format!("http://{}/{path}", told.address)).header("content-type", "application/grpc");
    h2.request(asked.body(sent(NONE, true)).unwrap()).await.unwrap();
    let line = eventually("the list", async || told.process.lines("a request that is no call was refused").pop()).await;
    for (field, value) in
        [("method", "ListPolicies"), ("reason", "INVALID_REQUEST"), ("peer", "127.0.0.1"), ("level", "INFO")]
    {
        assert_eq!(line[field], value, "{line}");
    }
}

/// The series of calls whose policy is not known.
fn unknown(reason: &str, count: usize) -> String {
    format!("lambda_policy_calls_total{{outcome=\"error\",policy=\"_unknown\",reason=\"{reason}\"}} {count}.0\n")
}

/// A reason why a call of a policy has failed.
fn own_reasons(metrics: &str) -> Option<&str> {
    let of_calls = |line: &&str| line.starts_with("lambda_policy_calls_total{") && line.contains("reason=");
    metrics.lines().filter(of_calls).find(|line| !line.contains("policy=\"_unknown\""))
}

#[tokio::test]
async fn a_body_that_is_not_received_is_none_of_its_policys_figures() {
    let told = Told::start().await;
    let h2 = h2();
    for (path, rpc, policy) in [
        ("greet/http/", "http", "greet"),
        ("echo:execute", "ExecutePolicy (JSON)", "echo"),
        ("-:execute", "ExecutePolicy (JSON)", "inline"),
    ] {
        for (what, bytes, ends, reason, status) in [
            ("slow", Bytes::from_static(b"{"), false, "TIMEOUT", 504),
            ("large", vec![b' '; 12 << 20].into(), true, "PAYLOAD_TOO_LARGE", 413),
        ] {
            let id = format!("{path}-{what}");
            let asked = http::Request::post(format!("http://{}/v1/policies/{path}", told.address))
                .header("x-request-id", &id)
                .header("grpc-timeout", if what == "slow" { "300m" } else { "20S" });
            let answer = h2.request(asked.body(sent(bytes, ends)).unwrap()).await.unwrap();
            assert_eq!(answer.status(), status, "{id}");
            let lines = told.lines_of(&id).await;
            let [line] = lines.as_slice() else { panic!("{id}: {lines:?}") };
            for (field, value) in
                [("rpc", rpc), ("policy", policy), ("outcome", "error"), ("reason", reason), ("ran", "no")]
            {
                assert_eq!(line[field], value, "{line}");
            }
        }
    }
    let metrics = told.metrics().await;
    for reason in ["TIMEOUT", "PAYLOAD_TOO_LARGE"] {
        assert!(metrics.contains(&unknown(reason, 3)), "{metrics}");
    }
    assert_eq!(own_reasons(&metrics), None);
    let last = told.last_errors().await;
    for policy in ["greet", "echo", "inline"] {
        assert!(last.iter().any(|last| last["detail"] == format!("the call names `{policy}`")), "{policy}: {last:?}");
    }
}

#[tokio::test]
async fn a_request_that_its_caller_breaks_off_is_a_cancelled_call() {
    let told = Told::start().await;
    for (path, id, policy) in
        [("/v1/policies/greet/http/", "http", "greet"), ("/v1/policies/echo:execute", "ExecutePolicy (JSON)", "echo")]
    {
        let mut connection = TcpStream::connect(&told.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nx-request-id: {id}\r\ncontent-length: 9\r\n\r\n{{");
        connection.write_all(head.as_bytes()).await.unwrap();
        drop(connection);
        let line = told.line(id, |line| line["request_id"] == id).await;
        assert_eq!((&line["rpc"], &line["policy"]), (&id.into(), &policy.into()), "{line}");
        assert_eq!((&line["outcome"], &line["ran"]), (&"cancelled".into(), &"no".into()), "{line}");
    }
    let mut headers = Gateway::message(headers("never whole"), BodySendMode::Buffered).encode_to_vec();
    let length = u32::try_from(headers.len()).unwrap().to_be_bytes();
    headers.splice(0..0, [0].into_iter().chain(length));
    let process = "envoy.service.ext_proc.v3.ExternalProcessor/Process";
    for (path, id, rpc, policy, bytes) in [
        ("lambdapolicy.v1.PolicyService/ExecutePolicy", "native", "ExecutePolicy", "-", BEGINNING.to_vec()),
        ("envoy.service.auth.v3.Authorization/Check", "authz", "ext_authz", "greet", BEGINNING.to_vec()),
        (process, "proc", "ext_proc", "greet", BEGINNING.to_vec()),
        (process, "never whole", "ext_proc", "greet", headers),
    ] {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut wire = TcpStream::connect(&told.address).await.unwrap();
        let wire = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut far, &mut wire).await });
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near));
        let (mut connection, running) = handshake.await.unwrap();
        tokio::spawn(running);
        let asked = http::Request::post(format!("http://{}/{path}", told.address))
            .header("content-type", "application/grpc")
            .header("x-request-id", id)
            .header("x-lambda-policy", "greet")
            .body(sent(bytes, false))
            .unwrap();
        let mut answer = Box::pin(connection.send_request(asked));
        let _ = tokio::time::timeout(LATE, &mut answer).await;
        sleep(LATE).await;
        wire.abort();
        let line = told.line(id, |line| line["request_id"] == id).await;
        assert_eq!((&line["rpc"], &line["policy"]), (&rpc.into(), &policy.into()), "{line}");
        assert_eq!((&line["outcome"], &line["ran"]), (&"cancelled".into(), &"no".into()), "{line}");
        assert!(micros(&line, "receive_us") > 250_000, "{line}");
        assert_eq!(told.lines_of(id).await.len(), 1);
    }
    let metrics = told.metrics().await;
    let errors = metrics.lines().find(|line| line.contains("outcome=\"error\"") && !line.ends_with(" 0.0"));
    assert_eq!(errors, None, "nobody has done anything wrong");

    let mut connection = TcpStream::connect(&told.address).await.unwrap();
    let chunks = "POST /v1/policies/greet/http/ HTTP/1.1\r\nhost: a\r\nx-request-id: chunks\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    connection.write_all(chunks.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let line = told.line("chunks", |line| line["request_id"] == "chunks").await;
    assert_eq!((&line["outcome"], &line["reason"]), (&"error".into(), &"INVALID_REQUEST".into()), "{line}");
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("size")), "what is wrong with them: {line}");
}

#[tokio::test]
async fn what_was_meant_as_a_call_by_http_has_a_line() {
    let told = Told::start().await;
    for (method, path, status, rpc, policy) in [
        ("GET", "/v1/policies/greet/htp/x", 404, "http", "greet"),
        ("GET", "/v1/policies/greet/", 404, "http", "greet"),
        ("GET", "/v1/policies/", 404, "http", "-"),
        ("POST", "/v1/policies/echo:execute/", 404, "http", "echo"),
        ("GET", "/v1/policies/a/b/http/x", 404, "http", "a"),
        ("GET", "/v1/policies/%ff/http/", 404, "http", "\u{fffd}"),
        ("GET", "/v1/policies/echo:execute", 405, "ExecutePolicy (JSON)", "echo"),
        ("POST", "/v1/policies", 405, "ExecutePolicy (JSON)", "-"),
        ("POST", "/v1/policies/%ff:execute", 400, "ExecutePolicy (JSON)", "\u{fffd}"),
    ] {
        let id = format!("{method} {path}");
        let mut connection = TcpStream::connect(&told.address).await.unwrap();
        let head = format!("{id} HTTP/1.1\r\nhost: a\r\nx-request-id: {id}\r\nconnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{id}: {answer}");
        let line = told.line(&id, |line| line["request_id"] == *id).await;
        assert_eq!(
            (&line["rpc"], &line["policy"], &line["ran"]),
            (&rpc.into(), &policy.into(), &"no".into()),
            "{line}"
        );
        assert!(answer.contains(&format!("\"reason\":{}", line["reason"])), "{answer} {line}");
        assert_eq!(line["peer"], "127.0.0.1", "{line}");
    }
    let (before, _, _) = admin(&told.address, "GET", "/favicon.ico", "*/*", "").await;
    assert_eq!(before, 404);
    assert!(told.lines().iter().all(|line| line["request_id"] != Value::Null), "which was no call");
}

#[tokio::test]
async fn a_call_that_a_gateways_protocol_ends_has_one_line() {
    let told = Told::start().await;
    let one = async |id: &str| {
        let lines = told.lines_of(id).await;
        let [line] = lines.as_slice() else { panic!("{id}: {lines:?}") };
        assert_eq!((&line["outcome"], &line["ran"]), (&"error".into(), &"no".into()), "{line}");
        assert_eq!(line["peer"], "127.0.0.1", "{line}");
        let text = |field: &str| line[field].as_str().unwrap().to_owned();
        [text("rpc"), text("policy"), text("reason")]
    };
    for (id, policy, mode, messages, status, reason) in [
        ("out of order", "greet", BodySendMode::Buffered, vec![Some(body("{}"))], 500, "INVALID_REQUEST"),
        ("unfit", "greet", BodySendMode::Grpc, vec![Some(headers("unfit"))], 500, "INVALID_REQUEST"),
        ("of no use", "greet", BodySendMode::Buffered, vec![None], 500, "INVALID_REQUEST"),
        ("for nobody", "nobody", BodySendMode::Buffered, vec![None], 404, "POLICY_NOT_FOUND"),
    ] {
        let mut gateway = Gateway::open(&told, policy, id, mode).await;
        messages.into_iter().for_each(|message| gateway.say(message));
        assert_eq!(gateway.status().await, status, "{id}");
        // Without its headers a request has the stream's id.
        assert_eq!(one(id).await, ["ext_proc", policy, reason], "{id}");
    }
    let mut gateway = Gateway::open(&told, "slow", "too soon", BodySendMode::None).await;
    gateway.say(headers("too soon"));
    eventually("the call in flight", async || (told.lambda.runs("slow") == 1).then_some(())).await;
    gateway.say(body("{}"));
    assert_eq!(gateway.status().await, 500);
    let lines = told.lines_of("too soon").await;
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    for (field, value) in [
        ("policy", "slow"),
        ("function", "slow"),
        ("outcome", "error"),
        ("reason", "INVALID_REQUEST"),
        ("ran", "maybe"),
        ("error", "a message of the gateway is out of order"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert!(line["lambda_us"].is_u64() && line["event_bytes"].is_u64(), "{line}");
    assert_eq!(attribute(&told.span(line).await.attributes, "error.type"), "500");
    assert_eq!(told.lines().iter().filter(|line| line["rpc"] == "ext_proc").count(), 5, "and no others");

    let mut authz = AuthorizationClient::new(channel(&told.address).await);
    for (id, policy, status, reason) in [
        ("nobody's", None, 404, "POLICY_NOT_FOUND"),
        ("anonymous", Some("guard"), 401, "INVALID_REQUEST"),
        ("no authorizer's", Some("greet"), 400, "INVALID_REQUEST"),
    ] {
        let http = attribute_context::HttpRequest { method: "GET".into(), id: id.into(), ..Default::default() };
        let request = attribute_context::Request { http: Some(http), ..Default::default() };
        let attributes = AttributeContext { request: Some(request), ..Default::default() };
        let mut asked = Request::new(CheckRequest { attributes: Some(attributes) });
        if let Some(policy) = policy {
            asked.metadata_mut().insert("x-lambda-policy", policy.parse().unwrap());
        }
        let Some(HttpResponse::DeniedResponse(denied)) = authz.check(asked).await.unwrap().into_inner().http_response
        else {
            panic!("{id} passes")
        };
        assert_eq!(denied.status.unwrap().code, status, "{id}");
        assert_eq!(one(id).await, ["ext_authz", policy.unwrap_or("-"), reason]);
    }

    let headers = [("X-Request-Id".to_owned(), "a hook".to_owned())].into();
    let object = Object { request: Some(MiniRequestObject { headers, ..Default::default() }), ..Default::default() };
    DispatcherClient::new(channel(&told.address).await).dispatch(object).await.unwrap_err();
    assert_eq!(one("a hook").await, ["Dispatch", "-", "INVALID_REQUEST"]);
    let context = MessageContext { message_id: "a flow".into(), ..Default::default() };
    ExternalCalloutServiceClient::new(channel(&told.address).await).process_message(context).await.unwrap();
    assert_eq!(one("a flow").await, ["ProcessMessage", "-", "INVALID_REQUEST"]);

    let named = |id: &str| {
        let mut asked = Request::new(request("nobody", "{}"));
        asked.metadata_mut().insert("x-request-id", id.parse().unwrap());
        asked
    };
    let mut native = client(&told.address).await;
    native.execute_policy(named("native")).await.unwrap_err();
    native.execute_policy_stream(named("streamed")).await.unwrap_err();
    assert_eq!(one("native").await, ["ExecutePolicy", "nobody", "POLICY_NOT_FOUND"]);
    assert_eq!(one("streamed").await, ["ExecutePolicyStream", "nobody", "POLICY_NOT_FOUND"]);
}
