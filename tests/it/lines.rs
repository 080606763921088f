//! What the access log and the span of the server say of calls that ended early, came slowly, or could not be read.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use lambda_policy::{
    local::Lambda,
    pb::{
        ExecutePolicyRequest, HttpRequest,
        envoy::{
            config::core::v3::{HeaderMap, HeaderValue},
            extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
            service::ext_proc::v3::{
                HttpBody, HttpHeaders, ProcessingRequest, ProtocolConfiguration,
                external_processor_client::ExternalProcessorClient, processing_request::Request as Message,
                processing_response::Response as Answer,
            },
        },
        execute_policy_request::Input,
    },
};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::sleep,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Request;

use crate::{
    binary::Process,
    support::{
        Directory, admin, channel, client,
        collector::{Collector, attribute},
        config, eventually, execute, lambda, request,
    },
};

const POLICIES: &str = "  echo: {function: echo}\n  slow: {function: slow, max_in_flight: 1, timeout: 20s}\n  \
                        greet: {function: greet, event: http-api}\n";
/// So long a gateway takes for a body.
const LATE: Duration = Duration::from_millis(300);

/// A service of its own, whose lines are read, with a collector for its spans.
struct Told {
    lambda: Lambda,
    process: Process,
    collector: Collector,
    address: String,
    _directory: Directory,
}

impl Told {
    async fn start() -> Self {
        let lambda = lambda().await;
        let (collector, telemetry) = Collector::start("{ratio: 1}").await;
        let directory = Directory::new();
        let file = directory.write("f.yaml", &(telemetry + &config(&lambda, "", POLICIES)));
        let process = Process::serve(&file, &[("LAMBDA_POLICY_LOG", "info")]);
        let address = eventually("the service", async || process.address("grpc")).await;
        Self { lambda, process, collector, address, _directory: directory }
    }

    /// The first line of a call of which this is so.
    async fn line(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || self.lines().into_iter().find(&is)).await
    }

    fn lines(&self) -> Vec<Value> {
        let said = self.process.said();
        let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == "call").collect()
    }

    /// The server's span of the line's call.
    async fn span(&self, line: &Value) -> Span {
        let trace = line["trace_id"].as_str().unwrap();
        eventually("the span", async || {
            let is = |span: &Span| {
                let id: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
                id == trace && span.kind() == SpanKind::Server
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

#[tokio::test]
async fn ext_procs_span_begins_with_the_stream_and_its_figures_with_the_call() {
    let told = Told::start().await;
    let header = |(key, value): (&str, &str)| HeaderValue {
        key: key.to_owned(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
        ..HeaderValue::default()
    };
    let headers = [(":method", "POST"), (":path", "/"), (":authority", "api.test")].map(header).into();
    let (send, messages) = mpsc::unbounded_channel();
    let message = |message: Message| {
        let protocol = ProtocolConfiguration {
            request_body_mode: BodySendMode::Buffered.into(),
            ..ProtocolConfiguration::default()
        };
        let (request, protocol_config) = (Some(message), Some(protocol));
        send.send(ProcessingRequest { request, protocol_config, ..ProcessingRequest::default() }).unwrap();
    };
    let mut stream = Request::new(UnboundedReceiverStream::new(messages));
    stream.metadata_mut().insert("x-lambda-policy", "greet".parse().unwrap());
    let mut answers =
        ExternalProcessorClient::new(channel(&told.address).await).process(stream).await.unwrap().into_inner();
    let headers = HttpHeaders { headers: Some(HeaderMap { headers }), end_of_stream: false };
    message(Message::RequestHeaders(headers));
    let first = answers.message().await.unwrap().unwrap().response;
    assert!(matches!(first, Some(Answer::RequestHeaders(_))), "{first:?}");
    sleep(LATE).await;
    message(Message::RequestBody(HttpBody { body: "{}".into(), end_of_stream: true, ..HttpBody::default() }));
    let answer = answers.message().await.unwrap().unwrap().response;
    assert!(matches!(answer, Some(Answer::ImmediateResponse(_))), "{answer:?}");

    let line = told.line("the call", |line| line["rpc"] == "ext_proc").await;
    let (receive, total) = (micros(&line, "receive_us"), micros(&line, "total_us"));
    assert!(receive > 250_000 && total > receive, "{line}");
    let span = told.span(&line).await;
    assert!(span.end_time_unix_nano - span.start_time_unix_nano > 250_000_000, "{span:?}");
    assert!(lasted(&span, "lambda_policy.received").is_some_and(|took| took > 0.25), "{span:?}");
    let (_, _, text) = admin(&told.process.address("admin").unwrap(), "GET", "/metrics", "*/*", "").await;
    let sum = "lambda_policy_call_duration_seconds_sum{outcome=\"ok\",policy=\"greet\"} ";
    let took: f64 = text.lines().find_map(|line| line.strip_prefix(sum)).unwrap().parse().unwrap();
    assert!(took < (total - receive) as f64 / 1e6 + 0.05, "{took} s of {line}");
}

#[tokio::test]
async fn a_message_that_is_none_of_the_contract_has_the_line_of_its_call() {
    let told = Told::start().await;
    let h2 = Client::builder(TokioExecutor::new()).timer(TokioTimer::new()).http2_only(true).build_http();
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    for (kind, path, request_id) in [
        ("application/grpc", "lambdapolicy.v1.PolicyService/ExecutePolicy", "native"),
        ("application/grpc-web", "lambdapolicy.v1.PolicyService/ExecutePolicyStream", "web"),
        ("application/grpc", "coprocess.Dispatcher/Dispatch", "tyk"),
    ] {
        let asked = http::Request::post(format!("http://{}/{path}", told.address))
            .header("content-type", kind)
            .header("te", "trailers")
            .header("traceparent", format!("00-{id}-00f067aa0ba902b7-01"))
            .header("x-request-id", request_id)
            .body(Full::new(Bytes::from_static(b"\0\0\0\0\x03\xff\xff\xff")))
            .unwrap();
        h2.request(asked).await.unwrap();
        let line = told.line(request_id, |line| line["request_id"] == request_id).await;
        for (field, value) in [
            ("rpc", path.rsplit('/').next().unwrap()),
            ("policy", "-"),
            ("outcome", "error"),
            ("reason", "INVALID_REQUEST"),
            ("ran", "no"),
            ("trace_id", id),
            ("level", "INFO"),
        ] {
            assert_eq!(line[field], value, "{field}: {line}");
        }
    }
    let (_, _, text) = admin(&told.process.address("admin").unwrap(), "GET", "/metrics", "*/*", "").await;
    let counted = "lambda_policy_calls_total{outcome=\"error\",policy=\"_unknown\",reason=\"INVALID_REQUEST\"} 3";
    assert!(text.contains(counted), "{text}");
    eventually("the spans", async || {
        let spans = told.collector.spans();
        let refused = |span: &&Span| attribute(&span.attributes, "lambda_policy.reason") == "INVALID_REQUEST";
        (spans.iter().filter(refused).count() == 3).then_some(())
    })
    .await;
}
