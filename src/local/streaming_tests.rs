//! The SDK's own client reads streams of the embedded Lambda, from built-in functions and from real processes.

#![allow(clippy::unwrap_used)]

use std::{
    fmt, fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use aws_sdk_lambda::{
    Client,
    config::{
        BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::ProvideErrorMetadata,
    primitives::Blob,
    types::{
        InvokeWithResponseStreamCompleteEvent as Complete, InvokeWithResponseStreamResponseEvent as Event, LogType,
        ResponseStreamingInvocationType,
    },
};
use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use hyper_util::{
    client::legacy::{self, connect},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use super::*;

/// HTTP without TLS.
#[derive(Clone)]
struct Plain(legacy::Client<connect::HttpConnector, SdkBody>);

impl HttpConnector for Plain {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let response = client.request(request).await.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

impl HttpClient for Plain {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain")
    }
}

fn sdk(lambda: &Lambda) -> Client {
    let config = aws_sdk_lambda::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(Lambda::KEY_ID, Lambda::SECRET, None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(Plain(legacy::Client::builder(TokioExecutor::new()).build_http()))
        .endpoint_url(lambda.url());
    Client::from_conf(config.build())
}

async fn start(options: Options) -> (Lambda, Client) {
    let lambda = Lambda::start(TcpListener::bind(("127.0.0.1", 0)).await.unwrap(), options).unwrap();
    let client = sdk(&lambda);
    (lambda, client)
}

/// What a client has seen when a stream is over.
#[derive(Debug, Default)]
struct Seen {
    output: Vec<u8>,
    chunks: usize,
    complete: Option<Complete>,
    error: Option<String>,
}

impl Seen {
    fn code(&self) -> Option<&str> {
        self.complete.as_ref()?.error_code()
    }

    fn details(&self) -> &str {
        self.complete.as_ref().and_then(Complete::error_details).unwrap_or_default()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.output).unwrap()
    }
}

/// Reads a stream to its end, or refuses with the code of the error.
async fn read(client: &Client, function: &str, event: Value) -> Result<Seen, String> {
    let sent = client
        .invoke_with_response_stream()
        .function_name(function)
        .payload(Blob::new(event.to_string()))
        .log_type(if event["tail"] == json!(true) { LogType::Tail } else { LogType::None })
        .send()
        .await;
    let mut answer = sent.map_err(|error| error.code().unwrap_or("no code").to_owned())?;
    assert_eq!((answer.status_code, answer.executed_version.as_deref()), (200, Some("$LATEST")));
    let mut seen = Seen::default();
    loop {
        match answer.event_stream.recv().await {
            Ok(Some(Event::PayloadChunk(chunk))) => {
                assert!(seen.complete.is_none(), "nothing comes after the end");
                seen.chunks += 1;
                seen.output.extend(chunk.payload.unwrap().into_inner());
            }
            Ok(Some(Event::InvokeComplete(complete))) => seen.complete = Some(complete),
            Ok(Some(other)) => panic!("{other:?}"),
            Ok(None) => return Ok(seen),
            Err(error) => {
                seen.error = Some(format!("{error:?}"));
                return Ok(seen);
            }
        }
    }
}

/// Waits for what will be so, for a quarter of a minute.
async fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(15), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a number does not grow any more.
async fn settled(number: impl Fn() -> u64) -> u64 {
    loop {
        let before = number();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if number() == before {
            return before;
        }
    }
}

#[tokio::test]
async fn the_sdk_reads_what_built_in_functions_write() {
    let (lambda, client) = start(Options::default()).await;
    let quick = json!({"chunks": 3, "every": 1});
    let seen = read(&client, "stream", quick.clone()).await.unwrap();
    assert_eq!((seen.text(), seen.chunks, seen.code()), ("chunk 1\nchunk 2\nchunk 3\n", 3, None));
    assert!(seen.complete.unwrap().log_result().is_none(), "nobody asked for the log");

    let seen = read(&client, "stream", json!({"chunks": 3, "every": 1, "fail_after": 2, "tail": true})).await.unwrap();
    assert_eq!((seen.text(), seen.code()), ("chunk 1\nchunk 2\n", Some("StreamError")));
    assert!(seen.details().contains("the stream broke off after 2 chunks"));
    assert!(seen.complete.unwrap().log_result().is_some());

    let seen = read(&client, "echo", json!({"one": "chunk"})).await.unwrap();
    assert_eq!((seen.text(), seen.chunks, seen.code()), (r#"{"one":"chunk"}"#, 1, None));
    let seen = read(&client, "fail", json!({})).await.unwrap();
    assert_eq!((seen.chunks, seen.code()), (0, Some("Unhandled")));
    assert!(seen.details().contains("OrderError"));
    let seen = read(&client, "large", json!({"bytes": 7 << 20})).await.unwrap();
    assert!(seen.details().contains("Function.ResponseSizeTooLarge"), "an output that is not streamed");
    let seen = read(&client, "stream", json!({"chunks": 20, "bytes": 1 << 20, "every": 0})).await.unwrap();
    assert_eq!((seen.output.len(), seen.code()), (20 << 20, None), "one that is");

    let whole = client.invoke().function_name("stream").payload(Blob::new(quick.to_string())).send().await.unwrap();
    assert_eq!(whole.payload.unwrap().into_inner(), b"chunk 1\nchunk 2\nchunk 3\n");
    assert_eq!((lambda.streams_open(), lambda.streams_abandoned(), lambda.runs("stream")), (0, 0, 4));
}

#[tokio::test]
async fn a_call_that_is_refused_is_refused_as_by_invoke() {
    let (lambda, client) = start(Options::default()).await;
    assert_eq!(read(&client, "nobody", json!({})).await.unwrap_err(), "ResourceNotFoundException");
    for (fault, code) in [
        ("throttle", "TooManyRequestsException"),
        ("deny", "AccessDeniedException"),
        ("error", "ServiceException"),
        ("not-ready", "ResourceNotReadyException"),
        ("cut", "no code"),
        ("cut-after", "no code"),
    ] {
        lambda.add_fault(format!("stream={fault}*1").parse().unwrap());
        assert_eq!(read(&client, "stream", json!({"chunks": 1})).await.unwrap_err(), code, "{fault}");
    }
    let call = || client.invoke_with_response_stream().function_name("stream");
    let dry = call().invocation_type(ResponseStreamingInvocationType::DryRun).send().await.unwrap();
    assert_eq!((dry.status_code, lambda.runs("stream")), (204, 1), "only what was cut after it ran has run");
    let event = call().invocation_type("Event".into()).send().await.unwrap_err();
    assert_eq!(event.code(), Some("InvalidParameterValueException"));
}

#[tokio::test]
async fn what_goes_wrong_in_a_stream_is_seen_by_the_sdk() {
    let (lambda, client) = start(Options::default()).await;
    for (fault, chunks, completes, error) in [
        ("cut-mid", 0, false, true),
        ("cut-stream:60", 0, false, true),
        ("cut-stream:115", 1, false, true),
        ("garbage", 1, false, true),
        ("exception", 1, false, true),
        ("no-complete", 3, false, false),
        ("stall:100ms", 3, true, false),
        ("slow-answer:100ms", 3, true, false),
    ] {
        lambda.add_fault(format!("stream={fault}*1").parse().unwrap());
        let begun = Instant::now();
        let seen = read(&client, "stream", json!({"chunks": 3, "every": 1})).await.unwrap();
        assert_eq!((seen.chunks, seen.complete.is_some(), seen.error.is_some()), (chunks, completes, error), "{fault}");
        assert!(!fault.ends_with("100ms") || begun.elapsed() >= Duration::from_millis(100), "{fault}");
        if fault == "exception" {
            let error = seen.error.unwrap();
            assert!(error.contains("Service error."), "{error}");
        }
    }
}

#[tokio::test]
async fn a_built_in_function_writes_no_faster_than_it_is_read_and_stops_with_its_client() {
    let (lambda, client) = start(Options::default()).await;
    let event = json!({"chunks": 190, "bytes": 1 << 20, "every": 0}).to_string();
    let mut answer =
        client.invoke_with_response_stream().function_name("stream").payload(Blob::new(event)).send().await.unwrap();
    answer.event_stream.recv().await.unwrap().unwrap();
    let written = settled(|| lambda.written("stream")).await;
    assert!(written < 32 << 20, "what sockets hold, and not {written} bytes");
    assert_eq!(lambda.streams_open(), 1);
    drop(answer);
    wait_for("the stream ends", || lambda.streams_open() == 0).await;
    assert_eq!(lambda.streams_abandoned(), 1);

    let mut silent = client
        .invoke_with_response_stream()
        .function_name("stream")
        .payload(Blob::new(json!({"every": 3_600_000}).to_string()))
        .send()
        .await
        .unwrap();
    silent.event_stream.recv().await.unwrap().unwrap();
    drop(silent);
    wait_for("a stream that is silent ends too", || lambda.streams_open() == 0).await;
}

/// This test binary once more, as the process of a function: one of the ignored tests below.
fn process(name: &str, timeout: Duration) -> Options {
    let program = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let test = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let command = [&program, "--ignored", "--exact", &test, "--nocapture"].map(str::to_owned).to_vec();
    Options { functions: vec![Function::process("process", command)], timeout, ..Options::default() }
}

#[tokio::test]
async fn a_process_streams_and_says_behind_its_answer_what_broke_it() {
    let (lambda, client) = start(process("a_process_that_streams", Duration::from_secs(20))).await;
    let seen = read(&client, "process", json!({"chunks": 2, "tail": true})).await.unwrap();
    assert_eq!((seen.text(), seen.code()), ("run 1\nrun 1\n", None));
    assert!(seen.complete.unwrap().log_result().is_some());
    let seen = read(&client, "process", json!({"chunks": 1, "end": "trailers"})).await.unwrap();
    assert_eq!((seen.text(), seen.code()), ("run 2\n", Some("Odd.Error")), "in the same process");
    assert_eq!(seen.details(), r#"{"errorType":"Odd.Error","errorMessage":"no more"}"#);

    let whole = |event: Value| client.invoke().function_name("process").payload(Blob::new(event.to_string())).send();
    let answer = whole(json!({"chunks": 2})).await.unwrap();
    assert_eq!((answer.payload.unwrap().into_inner(), answer.function_error), (b"run 3\nrun 3\n".to_vec(), None));
    let answer = whole(json!({"chunks": 1, "end": "trailers"})).await.unwrap();
    assert_eq!(answer.function_error.as_deref(), Some("Unhandled"));
    let answer = whole(json!({"chunks": 120, "bytes": 1 << 16})).await.unwrap();
    assert!(answer.payload.unwrap().into_inner().starts_with(br#"{"errorMessage":"Response payload size exceeded"#));

    let seen = read(&client, "process", json!({"chunks": 120, "bytes": 1 << 16})).await.unwrap();
    assert_eq!((seen.output.len(), seen.code()), (120 << 16, None), "more than is allowed without streaming");
    assert_eq!((lambda.streams_open(), lambda.streams_abandoned()), (0, 0));
}

#[tokio::test]
async fn a_process_that_does_not_end_its_answer_fails_in_the_middle() {
    let (_lambda, client) = start(process("a_process_that_streams", Duration::from_secs(5))).await;
    for (end, code) in
        [("break", "Runtime.TruncatedResponse"), ("exit", "Runtime.ExitError"), ("hang", "Sandbox.Timedout")]
    {
        let seen = read(&client, "process", json!({"chunks": 1, "end": end})).await.unwrap();
        assert_eq!((seen.text(), seen.code()), ("run 1\n", Some(code)), "{end}: each time in a new process");
        let details: Value = serde_json::from_str(seen.details()).unwrap();
        assert_eq!(details["errorType"], code);
    }
}

#[tokio::test]
async fn a_process_waits_for_its_reader_and_goes_on_when_that_is_gone() {
    let (lambda, client) = start(process("a_process_that_streams", Duration::from_secs(60))).await;
    let marker = std::env::temp_dir().join(format!("lambda-policy-{}", uuid::Uuid::new_v4()));
    let event = json!({"chunks": 64, "bytes": 1 << 20, "marker": marker.to_str().unwrap()}).to_string();
    let mut answer =
        client.invoke_with_response_stream().function_name("process").payload(Blob::new(event)).send().await.unwrap();
    answer.event_stream.recv().await.unwrap().unwrap();
    let written = settled(|| lambda.written("process")).await;
    assert!(written < 32 << 20, "what sockets hold, and not {written} bytes");
    assert!(!marker.exists(), "the process waits");
    drop(answer);
    wait_for("the process comes to its end", || marker.exists()).await;
    fs::remove_file(&marker).unwrap();
    assert_eq!((lambda.streams_open(), lambda.streams_abandoned()), (0, 1));
}

#[tokio::test]
async fn a_function_written_with_the_runtime_of_aws_streams() {
    let (_lambda, client) = start(process("a_process_with_the_runtime_of_aws", Duration::from_secs(20))).await;
    let seen = read(&client, "process", json!({"name": "Ada"})).await.unwrap();
    let at = seen.output.windows(8).position(|window| window == [0; 8]).unwrap();
    let prelude: Value = serde_json::from_slice(&seen.output[..at]).unwrap();
    assert_eq!(prelude["statusCode"], 201);
    assert_eq!((&seen.output[at + 8..], seen.code()), (&b"hello, Ada"[..], None));
}

#[test]
#[ignore = "no test of its own: a function of the tests above"]
fn a_process_that_streams() {
    let Ok(api) = std::env::var("AWS_LAMBDA_RUNTIME_API") else { return };
    for run in 1.. {
        let next =
            exchange(&api, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let (head, event) = next.split_once("\r\n\r\n").unwrap();
        let id = head.lines().find_map(|line| line.strip_prefix("lambda-runtime-aws-request-id: ")).unwrap();
        answer(&api, id, &serde_json::from_str(event).unwrap(), run);
    }
}

/// Writes the answer by hand, as a runtime that streams does.
fn answer(api: &str, id: &str, event: &Value, run: u32) {
    let mut connection = TcpStream::connect(api).unwrap();
    write!(
        connection,
        "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         lambda-runtime-function-response-mode: streaming\r\ntransfer-encoding: chunked\r\n\
         trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n"
    )
    .unwrap();
    let mut chunk = format!("run {run}").into_bytes();
    chunk.resize(
        chunk.len().max(usize::try_from(event["bytes"].as_u64().unwrap_or(0)).unwrap().saturating_sub(1)),
        b'.',
    );
    chunk.push(b'\n');
    for _ in 0..event["chunks"].as_u64().unwrap() {
        write!(connection, "{:x}\r\n", chunk.len()).unwrap();
        connection.write_all(&chunk).unwrap();
        connection.write_all(b"\r\n").unwrap();
    }
    let trailers = match event["end"].as_str() {
        None => "",
        Some("trailers") => {
            // {"errorType":"Odd.Error","errorMessage":"no more"}
            "Lambda-Runtime-Function-Error-Type: Odd.Error\r\nLambda-Runtime-Function-Error-Body: \
             eyJlcnJvclR5cGUiOiJPZGQuRXJyb3IiLCJlcnJvck1lc3NhZ2UiOiJubyBtb3JlIn0=\r\n"
        }
        Some("break") => return,
        Some("exit") => std::process::exit(3),
        Some(_) => loop {
            std::thread::park();
        },
    };
    write!(connection, "0\r\n{trailers}\r\n").unwrap();
    let mut said = String::new();
    connection.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 202"), "{said}");
    if let Some(marker) = event["marker"].as_str() {
        fs::write(Path::new(marker), "").unwrap();
    }
}

fn exchange(api: &str, request: &str) -> String {
    let mut connection = TcpStream::connect(api).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
#[ignore = "no test of its own: a function of the tests above"]
fn a_process_with_the_runtime_of_aws() {
    use lambda_http::{
        Error,
        lambda_runtime::{self, LambdaEvent, MetadataPrelude, StreamResponse},
        service_fn,
    };
    if std::env::var("AWS_LAMBDA_RUNTIME_API").is_err() {
        return;
    }
    let function = service_fn(async |event: LambdaEvent<Value>| {
        let name = event.payload["name"].as_str().unwrap_or("nobody").to_owned();
        let stream = futures_util::stream::iter([Ok::<_, Error>("hello, ".to_owned()), Ok(name)]);
        let metadata_prelude = MetadataPrelude { status_code: StatusCode::CREATED, ..MetadataPrelude::default() };
        Ok::<_, Error>(StreamResponse { metadata_prelude, stream })
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(lambda_runtime::run(function)).unwrap();
}
