//! Answers that come as the function writes them: through gRPC, the façade and Envoy, whole, broken off and not read.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lambda_policy::pb::{
    ExecutePolicyRequest, ExecutePolicyStreamResponse, Header, HttpRequest, InvocationType, StreamEnd, StreamStart,
    execute_policy_request::Input, execute_policy_stream_response::Part, function_error::Kind,
};
use tonic::{Code, Streaming};

use crate::support::{
    Failed, Service, config,
    envoy::{Application, Envoy},
    eventually, lambda, request,
};

const POLICIES: &str = "  stream: {function: stream}
  http: {function: stream, event: function-url, stream: true}
  echo: {function: echo}
  greet: {function: greet, event: http-api, stream: true}
  fail: {function: fail, event: http-api, stream: true}
  answer: {function: answer, event: function-url, stream: true}
  impatient: {function: stream, idle_timeout: 300ms}
  short: {function: stream, timeout: 700ms}
";

/// What came of a stream.
#[derive(Debug, Default)]
struct Heard {
    start: Option<StreamStart>,
    body: Vec<u8>,
    chunks: Vec<Duration>,
    end: Option<StreamEnd>,
    broken: Option<Failed>,
}

impl Heard {
    /// Reads to the end, and holds the stream to its form.
    async fn of(mut stream: Streaming<ExecutePolicyStreamResponse>) -> Self {
        let (asked, mut heard) = (Instant::now(), Self::default());
        loop {
            let part = match stream.message().await {
                Ok(Some(message)) => message.part.unwrap(),
                Ok(None) => break,
                Err(status) => {
                    heard.broken = Some(Failed::from(status));
                    break;
                }
            };
            assert!(heard.end.is_none(), "nothing follows the end");
            match part {
                Part::Start(start) => assert!(heard.start.replace(start).is_none() && heard.body.is_empty()),
                Part::Chunk(chunk) => {
                    assert!(heard.start.is_some() && (1..=65536).contains(&chunk.len()));
                    heard.body.extend_from_slice(&chunk);
                    heard.chunks.push(asked.elapsed());
                }
                Part::End(end) => heard.end = Some(end),
            }
        }
        assert!(heard.end.is_some() != heard.broken.is_some(), "an end or an error: {heard:?}");
        heard
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn broken(&self) -> (Code, &str, &str) {
        let broken = self.broken.as_ref().unwrap();
        (broken.code, broken.reason.as_str(), broken.ran.as_str())
    }
}

async fn open(
    service: &Service,
    request: ExecutePolicyRequest,
) -> Result<Streaming<ExecutePolicyStreamResponse>, Failed> {
    let answer = service.client.clone().execute_policy_stream(request).await;
    answer.map(tonic::Response::into_inner).map_err(Failed::from)
}

async fn stream(service: &Service, request: ExecutePolicyRequest) -> Heard {
    Heard::of(open(service, request).await.unwrap()).await
}

fn over_http(policy: &str, query: &str) -> ExecutePolicyRequest {
    let http = HttpRequest { method: "GET".into(), path: "/x".into(), query: query.into(), ..HttpRequest::default() };
    ExecutePolicyRequest { policy: policy.into(), input: Some(Input::Http(http)), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_come_as_the_function_writes_them() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let heard = stream(&service, request("stream", r#"{"chunks": 4, "every": 200}"#)).await;
    assert_eq!(heard.text(), "chunk 1\nchunk 2\nchunk 3\nchunk 4\n");
    let start = heard.start.as_ref().unwrap();
    assert_eq!((start.status, start.version.as_str(), &start.http), (200, "$LATEST", &None));
    assert!(!start.request.is_empty());
    let end = heard.end.as_ref().unwrap();
    assert!(end.error.is_none() && end.timing.unwrap().total_us >= 600_000, "{end:?}");
    let (first, last) = (heard.chunks[0], *heard.chunks.last().unwrap());
    assert!(heard.chunks.len() == 4 && last - first >= Duration::from_millis(550), "{:?}", heard.chunks);
    assert_eq!(lambda.runs("stream"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_answer_has_its_status_and_headers_first() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    for split in ["", "&split=1", "&split=7", "&split=1000"] {
        let query = format!("chunks=3&every=10&status=201{split}");
        let heard = stream(&service, over_http("http", &query)).await;
        let http = heard.start.as_ref().unwrap().http.as_ref().unwrap();
        let typed = Header { name: "content-type".into(), value: "text/plain".into() };
        assert_eq!((http.status, http.headers.contains(&typed), http.body.len()), (201, true, 0), "{split}");
        assert!(http.headers.iter().any(|h| h.name == "x-amzn-RequestId"), "the front door's marks: {http:?}");
        assert!(!http.headers.iter().any(|h| h.name.eq_ignore_ascii_case("content-length")), "{http:?}");
        assert_eq!(heard.text(), "chunk 1\nchunk 2\nchunk 3\n", "{split}");
        assert!(heard.end.unwrap().error.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_does_not_stream_is_answered_in_the_same_form() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let heard = stream(&service, request("echo", r#"{"a": 1}"#)).await;
    assert_eq!((heard.text(), heard.chunks.len()), (r#"{"a": 1}"#, 1));

    let heard = stream(&service, over_http("greet", "name=Ada")).await;
    assert_eq!(heard.text(), r#"{"message":"hello, Ada"}"#);
    assert_eq!(heard.start.unwrap().http.unwrap().status, 200);

    let large = stream(&service, request("echo", &format!("\"{}\"", "x".repeat(1 << 20)))).await;
    assert_eq!((large.body.len(), large.chunks.len()), ((1 << 20) + 2, 17), "no client must read more than 64 KiB");

    for (invocation, status) in [(InvocationType::Event, 202), (InvocationType::DryRun, 204)] {
        let call = ExecutePolicyRequest { invocation: invocation.into(), ..request("echo", "{}") };
        let heard = stream(&service, call).await;
        assert_eq!((heard.start.unwrap().status, heard.body.len()), (status, 0), "{invocation:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_functions_own_failure_is_in_the_end() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let heard = stream(&service, request("stream", r#"{"chunks": 5, "every": 10, "fail_after": 2}"#)).await;
    assert_eq!(heard.text(), "chunk 1\nchunk 2\n");
    let error = heard.end.unwrap().error.unwrap();
    assert_eq!((error.kind(), error.r#type.as_str()), (Kind::Unhandled, "StreamError"));

    // It failed before it began, so its client gets what the front door says of that.
    for (policy, query) in [("fail", ""), ("http", "fail_after=0")] {
        let heard = stream(&service, over_http(policy, query)).await;
        assert!(heard.start.unwrap().http.unwrap().status >= 500, "{policy}");
        assert!(heard.end.unwrap().error.is_some() && !heard.body.is_empty(), "{policy}");
    }
    let mut call = over_http("answer", "");
    if let Some(Input::Http(http)) = &mut call.input {
        http.headers = vec![Header { name: "content-type".into(), value: "text/plain".into() }];
        http.body = "{\"statusCode\": 99}\0\0\0\0\0\0\0\0x".into();
    }
    let heard = stream(&service, call).await;
    assert_eq!(heard.start.unwrap().http.unwrap().status, 502);
    assert_eq!(heard.end.unwrap().error.unwrap().kind(), Kind::Malformed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_ends_in_an_error_and_never_in_an_end() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    for fault in ["cut-stream:150", "cut-stream:300", "garbage", "exception", "no-complete", "cut-mid"] {
        lambda.clear_faults();
        lambda.add_fault(format!("stream={fault}").parse().unwrap());
        let heard = stream(&service, request("stream", r#"{"chunks": 5, "every": 5}"#)).await;
        assert_eq!(heard.broken(), (Code::Internal, "LAMBDA_FAILED", "maybe"), "{fault}");
        assert!(heard.chunks.len() < 6, "{fault}");
    }
    // Its five chunks have more than 540 bytes with their frames: wherever they are cut, nothing but what was written comes, and never an end.
    let whole = "chunk 1\nchunk 2\nchunk 3\nchunk 4\nchunk 5\n";
    for bytes in (1..540).step_by(29) {
        lambda.clear_faults();
        lambda.add_fault(format!("stream=cut-stream:{bytes}").parse().unwrap());
        let heard = stream(&service, request("stream", r#"{"chunks": 5, "every": 0}"#)).await;
        assert_eq!(heard.broken(), (Code::Internal, "LAMBDA_FAILED", "maybe"), "{bytes}");
        assert!(whole.starts_with(heard.text()), "{bytes}");
        let target = "/v1/policies/http/http/x?chunks=5&every=0";
        let (head, frames, complete) = http(&service.address, bytes % 2 == 0, target).await;
        assert!(!complete || head.status == 502, "{bytes}: {head:?}");
        assert!(head.status == 502 || whole.starts_with(&joined(&frames)), "{bytes}");
    }
    for (policy, said) in [
        ("impatient", "the function wrote nothing for as long as the policy's `idle_timeout` allows"),
        ("short", "the policy's `timeout` of 700ms passed before the answer was complete"),
    ] {
        let (reason, code) = ("TIMEOUT", Code::DeadlineExceeded);
        lambda.clear_faults();
        lambda.add_fault("stream=stall:5s".parse().unwrap());
        let asked = Instant::now();
        let heard = stream(&service, request(policy, r#"{"chunks": 3, "every": 5}"#)).await;
        assert_eq!(heard.broken(), (code, reason, "maybe"), "{policy}");
        assert!(heard.broken.as_ref().unwrap().status.message().starts_with(said), "{policy}: {:?}", heard.broken);
        assert!(asked.elapsed() < Duration::from_secs(4) && !heard.body.is_empty(), "{policy}");
    }
    // Until it begins, a call fails as any other.
    for (fault, reason, ran) in [
        ("throttle:2", "FUNCTION_THROTTLED", "no"),
        ("deny", "FUNCTION_ACCESS_DENIED", "no"),
        ("error", "LAMBDA_FAILED", "maybe"),
    ] {
        lambda.clear_faults();
        lambda.add_fault(format!("stream={fault}").parse().unwrap());
        let failed = open(&service, request("stream", "{}")).await.unwrap_err();
        assert_eq!((failed.reason.as_str(), failed.ran.as_str()), (reason, ran), "{fault}");
    }
    let unknown = open(&service, request("nobody", "{}")).await.unwrap_err();
    assert_eq!(unknown.reason, "POLICY_NOT_FOUND");
    eventually("no stream is left", async || (lambda.streams_open() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_ends_the_call_upstream() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let mut answer = open(&service, request("stream", r#"{"chunks": 1000, "every": 20}"#)).await.unwrap();
    answer.message().await.unwrap().unwrap();
    assert_eq!(lambda.streams_open(), 1);
    drop(answer);
    eventually("the stream is closed", async || (lambda.streams_abandoned() == 1).then_some(())).await;
    assert_eq!(lambda.streams_open(), 0);
    assert!(lambda.written("stream") < 10_000, "{}", lambda.written("stream"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_the_function_back_and_not_beyond_its_time() {
    const MORE: u64 = 100 << 20;
    let lambda = lambda().await;
    let service =
        Service::start_with(&config(&lambda, "max_in_flight: 1", "  stream: {function: stream, timeout: 2s}\n"), None)
            .await;
    let event = format!(r#"{{"chunks": {}, "bytes": 1048576, "every": 0}}"#, MORE >> 20);
    let mut answer = open(&service, request("stream", &event)).await.unwrap();
    let asked = Instant::now();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let held = lambda.written("stream");
    assert!(held < MORE / 2, "{held} bytes were written and not read");
    eventually("the time is up", async || (lambda.streams_open() == 0).then_some(())).await;
    assert!(asked.elapsed() >= Duration::from_millis(900) && lambda.written("stream") < MORE / 2);
    // Its place is free though it has not read the error yet.
    service.json("stream", r#"{"chunks": 1}"#).await.unwrap();
    let broken = loop {
        match answer.message().await {
            Ok(Some(message)) => assert!(!matches!(message.part, Some(Part::End(_)))),
            Ok(None) => panic!("it ended in order"),
            Err(status) => break Failed::from(status),
        }
    };
    assert_eq!((broken.code, broken.reason.as_str()), (Code::DeadlineExceeded, "TIMEOUT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_streams_and_then_cuts_them() {
    let lambda = lambda().await;
    let server = "drain_timeout: 400ms";
    let mut service = Service::start_with(&config(&lambda, server, POLICIES), None).await;
    let short = open(&service, request("stream", r#"{"chunks": 3, "every": 50}"#)).await.unwrap();
    let long = open(&service, request("stream", r#"{"chunks": 100, "every": 50}"#)).await.unwrap();
    let (short, long, ()) = tokio::join!(Heard::of(short), Heard::of(long), service.stop());
    assert!(short.end.is_some(), "{short:?}");
    assert_eq!(long.broken(), (Code::Internal, "LAMBDA_FAILED", "maybe"));
    assert!(long.text().starts_with("chunk 1\n"));
}

/// A call of the façade, its body frame by frame.
async fn http(
    address: &str,
    http2: bool,
    target: &str,
) -> (http::response::Parts, Vec<(Duration, bytes::Bytes)>, bool) {
    let tcp = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let call = Request::get(format!("http://{address}{target}")).header("host", "a");
    let call = call.body(Full::<bytes::Bytes>::default()).unwrap();
    let response = if http2 {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), tcp).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(call).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(tcp).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(call).await.unwrap()
    };
    let (head, mut body) = response.into_parts();
    let (asked, mut frames) = (Instant::now(), Vec::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => frames.extend(frame.into_data().ok().map(|data| (asked.elapsed(), data))),
            Err(_) => return (head, frames, false),
        }
    }
    (head, frames, true)
}

fn joined(frames: &[(Duration, bytes::Bytes)]) -> String {
    String::from_utf8(frames.iter().flat_map(|(_, data)| data.to_vec()).collect()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_facade_streams_and_tells_whole_from_broken() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    for http2 in [false, true] {
        let (head, frames, whole) =
            http(&service.address, http2, "/v1/policies/http/http/x?chunks=3&every=200&sse=true").await;
        assert_eq!((head.status.as_u16(), head.headers["content-type"].to_str().unwrap()), (200, "text/event-stream"));
        assert!(whole && joined(&frames).matches("data: ").count() == 3, "{frames:?}");
        assert!(frames[2].0 - frames[0].0 >= Duration::from_millis(350), "each event by itself: {frames:?}");
        assert!(!head.headers.contains_key("content-length"));

        let (head, frames, whole) =
            http(&service.address, http2, "/v1/policies/http/http/x?chunks=9&every=5&fail_after=2").await;
        assert_eq!((head.status.as_u16(), whole), (200, false), "a body that broke off is not taken for whole");
        assert_eq!(joined(&frames), "chunk 1\nchunk 2\n");

        let (head, frames, whole) = http(&service.address, http2, "/v1/policies/greet/http/x?name=Ada").await;
        assert_eq!((head.status.as_u16(), whole), (200, true));
        assert_eq!(joined(&frames), r#"{"message":"hello, Ada"}"#);

        let (head, _, whole) = http(&service.address, http2, "/v1/policies/fail/http/x").await;
        assert_eq!((head.status.as_u16(), whole), (500, true), "what the front door says is whole");
        lambda.add_fault("greet=throttle:2*1".parse().unwrap());
        let (head, ..) = http(&service.address, http2, "/v1/policies/greet/http/x").await;
        assert_eq!((head.status.as_u16(), head.headers["retry-after"].to_str().unwrap()), (429, "2"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_streams_where_its_body_mode_allows_it() {
    let lambda = lambda().await;
    let policies = "  orders: {function: stream, event: function-url, stream: true}\n  \
                    greet: {function: stream, event: function-url, stream: true}\n";
    let service = Service::start(&lambda, policies).await;
    let application = Application::start().await;
    let envoy = Envoy::start("ext_proc.yaml", &service.address, &application, &[]).await;
    let through = envoy.address.to_string();
    // No body is sent; in pieces both ways; buffered.
    for (target, streams) in [("/greet", true), ("/uploads/7", true), ("/orders", false)] {
        let (head, frames, whole) = http(&through, false, &format!("{target}?chunks=4&every=200&status=202")).await;
        assert_eq!((head.status.as_u16(), whole), (202, true), "{target}");
        assert_eq!(joined(&frames), "chunk 1\nchunk 2\nchunk 3\nchunk 4\n", "{target}");
        let spread = frames.last().unwrap().0 - frames[0].0;
        assert_eq!(spread >= Duration::from_millis(550), streams, "{target}: {frames:?}");

        let (head, frames, whole) = http(&through, false, &format!("{target}?chunks=9&every=100&fail_after=3")).await;
        if streams {
            assert_eq!((head.status.as_u16(), whole), (200, false), "{target}: {frames:?}");
        } else {
            assert_eq!((head.status.as_u16(), whole), (502, true), "{target}: {frames:?}");
        }
        let (head, frames, whole) = http(&through, false, &format!("{target}?chunks=2&every=5&status=204")).await;
        assert_eq!((head.status.as_u16(), joined(&frames).as_str(), whole), (204, "", true), "{target}");
        assert!(!head.headers.contains_key("transfer-encoding"), "{target}: {head:?}");

        let large = http(&through, false, &format!("{target}?chunks=5&bytes=1000000&every=0")).await;
        assert_eq!((large.0.status.as_u16(), joined(&large.1).len(), large.2), (200, 5_000_000, true), "{target}");
    }
    assert_eq!(application.reached().len(), 0);
    eventually("no stream is left", async || (lambda.streams_open() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_envoy_that_goes_away_ends_the_call_upstream() {
    let lambda = lambda().await;
    let policies = "  orders: {function: stream, event: function-url}\n  greet: {function: stream, event: function-url, stream: true}\n";
    let service = Service::start(&lambda, policies).await;
    let application = Application::start().await;
    let envoy = Envoy::start("ext_proc.yaml", &service.address, &application, &[]).await;
    let call = http_head(&envoy, "/greet?chunks=1000&every=20").await;
    assert_eq!(lambda.streams_open(), 1);
    drop(call);
    eventually("the stream is closed", async || (lambda.streams_abandoned() == 1).then_some(())).await;
}

/// A call whose head has been read, and not its body.
async fn http_head(envoy: &Envoy, target: &str) -> tokio::net::TcpStream {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut tcp = tokio::net::TcpStream::connect(envoy.address).await.unwrap();
    tcp.write_all(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = [0; 15];
    tcp.read_exact(&mut head).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    tcp
}
