//! Floods and bombs against the real binary: others are answered in time, its memory stays bounded, and who floods is
//! told to stop.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lambda_policy::{
    local::Lambda,
    pb::{ExecutePolicyRequest, policy_service_client::PolicyServiceClient},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use crate::{
    binary::Process,
    support::{self, Directory, eventually},
};

/// How long a call of somebody else may take meanwhile: a debug build on two busy cores.
const IN_TIME: Duration = Duration::from_secs(3);
const MIB: usize = 1 << 20;

/// The binary, and what it was seen to do.
struct Service {
    process: Process,
    address: String,
    client: PolicyServiceClient<Channel>,
    _lambda: Lambda,
    _directory: Directory,
}

impl Service {
    async fn start(server: &str) -> Self {
        let (lambda, directory) = (support::lambda().await, Directory::new());
        let policies = "  echo: {function: echo}\n  web: {function: answer, event: http-api}\n  url: {function: echo, event: function-url}\n";
        let config = directory.write("policies.yaml", &support::config(&lambda, server, policies));
        let process = Process::serve(&config, &[("LAMBDA_POLICY_LOG", "info")]);
        let address = eventually("an address", async || process.address("grpc")).await;
        let client = support::client(&address).await;
        let service = Self { process, address, client, _lambda: lambda, _directory: directory };
        service.call().await;
        service
    }

    /// A call of somebody else.
    async fn call(&self) {
        let began = Instant::now();
        let answer = timeout(IN_TIME, support::execute(&self.client, support::request("echo", "{}"))).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer within {IN_TIME:?}"));
        assert!(answer.is_ok(), "after {:?}: {answer:?}", began.elapsed());
    }

    /// Memory that is really used.
    fn memory(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Somebody else calls for as long as this takes; then memory has grown by so much at the most.
    async fn unharmed<T>(&self, most: usize, flood: impl Future<Output = T>) -> T {
        let before = self.memory();
        let done = AtomicBool::new(false);
        let calls = async {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                self.call().await;
                peak = peak.max(self.memory());
                sleep(Duration::from_millis(20)).await;
            }
            peak
        };
        let flood = async {
            let result = timeout(Duration::from_secs(20), flood).await.expect("a flood has an end");
            done.store(true, Ordering::Relaxed);
            result
        };
        let (peak, result) = tokio::join!(calls, flood);
        self.call().await;
        let grown = peak.max(self.memory()).saturating_sub(before);
        assert!(grown < most, "memory grew by {} MiB", grown / MIB);
        result
    }
}

/// What the other side of a connection said.
#[derive(Debug, Default)]
struct Heard {
    /// Code and words.
    goaway: Option<(u32, String)>,
    resets: HashSet<u32>,
    answers: usize,
    closed: bool,
}

/// HTTP/2 spoken by hand, as no library would.
struct Raw {
    writer: OwnedWriteHalf,
    heard: Arc<Mutex<Heard>>,
    reading: JoinHandle<()>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

const CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header as HPACK has it without compressing anything (RFC 7541, 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.extend(length(text.len()));
        field.extend(text.as_bytes());
    }
    field
}

fn length(length: usize) -> Vec<u8> {
    let Some(mut rest) = length.checked_sub(127) else { return vec![u8::try_from(length).unwrap()] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// The head of a call.
fn head() -> Vec<u8> {
    [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", "/lambdapolicy.v1.PolicyService/ExecutePolicy"),
        header(":authority", "x"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ]
    .concat()
}

impl Raw {
    async fn open(address: &str) -> Self {
        let (reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        writer.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let reading = tokio::spawn(listen(reader, Arc::clone(&heard)));
        Self { writer, heard, reading }
    }

    /// Whether it could be sent.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        self.writer.write_all(bytes).await.is_ok()
    }

    /// Sends the same again and again, until that is no longer possible.
    async fn flood(&mut self, times: usize, bytes: &[u8]) {
        for _ in 0..times {
            if !self.send(bytes).await {
                break;
            }
        }
    }

    /// Until so many streams are.
    async fn refused(&self, streams: usize) {
        let found = async || {
            let heard = self.heard.lock().unwrap();
            (heard.resets.len() >= streams || heard.closed).then_some((heard.resets.len(), heard.answers))
        };
        assert_eq!(eventually("refused streams", found).await, (streams, 0));
    }

    /// Until the connection is closed.
    async fn ended(self) -> Heard {
        let Self { writer, heard, reading } = self;
        timeout(IN_TIME, reading).await.expect("the connection is closed").unwrap();
        drop(writer);
        std::mem::take(&mut heard.lock().unwrap())
    }
}

async fn listen(mut reader: OwnedReadHalf, heard: Arc<Mutex<Heard>>) {
    let mut head = [0; 9];
    while reader.read_exact(&mut head).await.is_ok() {
        let [a, b, c, kind, _, rest @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if reader.read_exact(&mut payload).await.is_err() {
            break;
        }
        let stream = u32::from_be_bytes(rest);
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let mut heard = heard.lock().unwrap();
        match kind {
            GOAWAY => heard.goaway = Some((number(4), String::from_utf8_lossy(&payload[8..]).into_owned())),
            RST_STREAM => _ = heard.resets.insert(stream),
            HEADERS => heard.answers += 1,
            _ => {}
        }
    }
    heard.lock().unwrap().closed = true;
}

#[track_caller]
fn calmed(heard: &Heard, why: &str) {
    assert_eq!(heard.goaway, Some((CALM, why.to_owned())), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let service = Service::start("").await;
    let heard = service
        .unharmed(32 * MIB, async {
            let mut raw = Raw::open(&service.address).await;
            let mut burst = Vec::new();
            for stream in (1..4000).step_by(2) {
                burst.extend(frame(HEADERS, END_HEADERS, stream, &head()));
                burst.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
            }
            raw.send(&burst).await;
            raw.ended().await
        })
        .await;
    calmed(&heard, "too_many_resets");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_break_the_protocol_end_the_connection() {
    let service = Service::start("").await;
    let heard = service
        .unharmed(32 * MIB, async {
            let mut raw = Raw::open(&service.address).await;
            // A window beyond what there may be is an error of the stream, which the service has to reset (CVE-2025-8671).
            for stream in (1..8001).step_by(2) {
                let mut wrong = frame(HEADERS, END_HEADERS, stream, &head());
                wrong.extend(frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes()));
                if !raw.send(&wrong).await {
                    break;
                }
            }
            raw.ended().await
        })
        .await;
    calmed(&heard, "too_many_internal_resets");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_an_end_end_the_connection() {
    let service = Service::start("").await;
    service
        .unharmed(32 * MIB, async {
            let mut raw = Raw::open(&service.address).await;
            raw.send(&frame(HEADERS, 0, 1, &head())).await;
            raw.flood(10_000, &frame(CONTINUATION, 0, 1, &header("x", "y"))).await;
            calmed(&raw.ended().await, "too_many_continuations");

            // 4 KiB that are kept, and then meant 16,000 times, with a byte each (RFC 7541, 6.1: index 62).
            let mut raw = Raw::open(&service.address).await;
            let mut kept = header("x", &"y".repeat(4000));
            kept[0] = 0x40;
            let mut flood = frame(HEADERS, 0, 1, &[head(), kept].concat());
            flood.extend(frame(CONTINUATION, END_HEADERS, 1, &[0x80 | 62; 16_000]));
            raw.send(&flood).await;
            let heard = timeout(IN_TIME, async {
                while raw.heard.lock().unwrap().answers == 0 && !raw.heard.lock().unwrap().closed {
                    sleep(Duration::from_millis(10)).await;
                }
            });
            heard.await.expect("it is refused, or the connection is");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_with_nothing_in_them_end_the_connection_and_others_wait_for_their_answers() {
    let service = Service::start("").await;
    service
        .unharmed(32 * MIB, async {
            let mut raw = Raw::open(&service.address).await;
            raw.send(&frame(HEADERS, END_HEADERS, 1, &head())).await;
            raw.flood(10_000, &frame(DATA, 0, 1, &[])).await;
            calmed(&raw.ended().await, "too_many_data_frames");

            // One byte of eight million at a time.
            let mut raw = Raw::open(&service.address).await;
            raw.send(&frame(HEADERS, END_HEADERS, 1, &head())).await;
            raw.send(&frame(DATA, 0, 1, &[0, 0, 0x7a, 0x12, 0])).await;
            raw.flood(20, &frame(DATA, 0, 1, b"x").repeat(10_000)).await;
            calmed(&raw.ended().await, "too_many_data_frames");

            for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[0, 3, 0, 0, 0, 9])] {
                let mut raw = Raw::open(&service.address).await;
                raw.flood(100, &frame(kind, 0, 0, payload).repeat(200)).await;
            }

            // Who does not read gets no answers, and is not read.
            let stream = TcpStream::connect(&service.address).await.unwrap();
            let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            begin.extend(frame(SETTINGS, 0, 0, &[]));
            let pings = frame(PING, 0, 0, &[0; 8]).repeat(1000);
            let blocked = timeout(Duration::from_secs(1), async {
                let mut stream = stream;
                stream.write_all(&begin).await?;
                for _ in 0..2000 {
                    stream.write_all(&pings).await?;
                }
                std::io::Result::Ok(())
            });
            assert!(!blocked.await.is_ok_and(|sent| sent.is_ok()), "34 MB of pings were taken");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_never_come_whole_take_little_and_no_more_than_their_room() {
    let service = Service::start("max_mib_in_flight: 128").await;
    // 64 MiB of room, of which each connection may have half: 2048 calls of 16 KiB.
    let mut begun = Vec::new();
    for stream in (1..4801).step_by(2) {
        begun.extend(frame(HEADERS, END_HEADERS, stream, &head()));
        // A message of 8,000,000 bytes, of which nothing comes.
        begun.extend(frame(DATA, 0, stream, &[0, 0, 0x7a, 0x12, 0]));
    }
    let mut first = Raw::open(&service.address).await;
    service
        .unharmed(96 * MIB, async {
            first.send(&begun).await;
            first.refused(2400 - 2048).await;
        })
        .await;
    assert!(!first.heard.lock().unwrap().closed);

    let mut second = Raw::open(&service.address).await;
    second.send(&begun).await;
    second.refused(2400 - 2048).await;
    let crowded = support::execute(&service.client, support::request("echo", "{}")).await.unwrap_err();
    assert_eq!((crowded.reason.as_str(), crowded.ran.as_str()), ("OVERLOADED", "no"));
    let lines = |what: &str| service.process.said().lines().filter(|line| line.contains(what)).count();
    eventually("its line", async || (lines("OVERLOADED") == 1).then_some(())).await;
    drop((first, second));
    eventually("their room is given back", async || {
        support::execute(&service.client, support::request("echo", "{}")).await.ok()
    })
    .await;
    eventually("a line of each that was given up", async || (lines("cancelled") >= 4096).then_some(())).await;
    assert_eq!((lines("cancelled"), lines("OVERLOADED")), (4096, 1), "and no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_closed_at_once() {
    let service = Service::start("max_connections: 20").await;
    let mut open = Vec::new();
    service
        .unharmed(16 * MIB, async {
            for _ in 0..60 {
                open.push(TcpStream::connect(&service.address).await.unwrap());
            }
            let mut closed = 0;
            for stream in &mut open {
                closed += usize::from(timeout(Duration::from_millis(10), stream.read(&mut [0])).await.is_ok());
            }
            // The client of the others has one.
            assert_eq!(closed, 60 - 19);
        })
        .await;
    let said = service.process.said();
    assert_eq!(said.matches("connections are refused: server.max_connections").count(), 1, "{said}");
    let (_, _, metrics) =
        support::admin(&service.process.address("admin").unwrap(), "GET", "/metrics", "*/*", "").await;
    for expected in [
        "lambda_policy_server_connections_refused_total{reason=\"full\"} 41.0\n",
        "lambda_policy_server_connections_limit 20.0\n",
        "lambda_policy_server_connections_open 20.0\n",
    ] {
        assert!(metrics.contains(expected), "{expected}{metrics}");
    }
    drop(open);
    eventually("a place", async || {
        let another = support::client(&service.address).await;
        support::execute(&another, support::request("echo", "{}")).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_request_keeps_nobody_out() {
    let service = Service::start("").await;
    let mut open = Vec::new();
    service
        .unharmed(32 * MIB, async {
            for number in 0..400 {
                let mut stream = TcpStream::connect(&service.address).await.unwrap();
                let begun: &[u8] = match number % 5 {
                    0 => b"",
                    1 => b"PRI * HTTP/2.0\r\n",
                    2 => b"GET /v1/policies HTTP/1.1\r\nx: ",
                    3 => b"POST /v1/policies/web/http/ HTTP/1.1\r\nhost: x\r\ncontent-length: 6000000\r\n\r\n{",
                    _ => b"\x16\x03\x01\x02\x00\x01",
                };
                stream.write_all(begun).await.unwrap();
                open.push(stream);
            }
        })
        .await;
}

#[tokio::test]
async fn a_compressed_message_is_refused() {
    let service = Service::start("").await;
    let message = support::request("echo", "{}").encode_to_vec();
    for (encoding, flag, code) in
        [("gzip", 1, "12"), ("zstd", 1, "12"), ("gzip", 0, "12"), ("identity", 1, "3"), ("identity", 0, "")]
    {
        let mut body = vec![flag];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(&message);
        let response = grpc(&service.address, &[("grpc-encoding", encoding)], body).await;
        let status = response.headers().get("grpc-status").map_or("", |code| code.to_str().unwrap());
        assert_eq!(status, code, "{encoding} {flag}");
        if code == "12" {
            assert_eq!(response.headers()["grpc-accept-encoding"], "identity");
        }
    }
}

/// A call with headers of one's own.
async fn grpc(address: &str, headers: &[(&str, &str)], body: Vec<u8>) -> http::Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let mut call = http::Request::post(format!("http://{address}/lambdapolicy.v1.PolicyService/ExecutePolicy"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    let body = http_body_util::Full::new(bytes::Bytes::from(body));
    timeout(IN_TIME, sender.send_request(call.body(body).unwrap())).await.unwrap().unwrap()
}

#[tokio::test]
async fn metadata_has_16_kib_and_strange_values_do_no_harm() {
    let service = Service::start("").await;
    let message = support::request("echo", "{}").encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(&message);
    let large = "x".repeat(17 * 1024);
    for (name, value, status) in [
        ("x", &*large, 431),
        ("grpc-timeout", "99999999H", 200),
        ("grpc-timeout", "999999999999999999999999H", 200),
        ("grpc-timeout", "-1S", 200),
        ("x-bin", "no base64 at all", 200),
    ] {
        let response = grpc(&service.address, &[(name, value)], body.clone()).await;
        assert_eq!(response.status().as_u16(), status, "{name}: {}", &value[..value.len().min(20)]);
    }
    service.call().await;
}

/// What HTTP/1 is answered with, word for word, and whether the connection was closed then.
async fn http_1(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // Until nothing more comes: some connections stay open.
    let mut buffer = [0; 4096];
    while let Ok(Ok(read @ 1..)) = timeout(Duration::from_millis(300), stream.read(&mut buffer)).await {
        answer.extend(&buffer[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_or_read_in_the_standards_way() {
    let service = Service::start("").await;
    let target = "/v1/policies/url/http/";
    for (what, rest, status) in [
        ("two lengths", "content-length: 3\r\ncontent-length: 5\r\n\r\nabcde", "400"),
        ("two lengths in one", "content-length: 3, 5\r\n\r\nabcde", "400"),
        ("no number", "content-length: +3\r\n\r\nabc", "400"),
        ("chunks that are not last", "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400"),
        ("another coding", "transfer-encoding: gzip\r\n\r\nabc", "400"),
        ("a folded line", "x: a\r\n b: c\r\n\r\n", "400"),
        ("a space before the colon", "content-length : 3\r\n\r\nabc", "400"),
        ("a line end in a value", "x: a\rb\r\n\r\n", "400"),
        ("a byte that is none", "x: \0\r\n\r\n", "400"),
        ("101 headers", &format!("{}\r\n", "x: y\r\n".repeat(101)), "431"),
    ] {
        let answer = http_1(&service.address, format!("POST {target} HTTP/1.1\r\nhost: x\r\n{rest}").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{what}: {answer}");
    }
    let old = format!("POST {target} HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    assert!(http_1(&service.address, old.as_bytes()).await.contains(" 400 "));

    // A length beside chunks: chunks alone count (RFC 9112, 6.3), for the body and for what the function is told.
    for lengths in
        ["content-length: 3\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 3"]
    {
        let both = format!("POST {target} HTTP/1.1\r\nhost: x\r\n{lengths}\r\n\r\n5\r\nabcde\r\n0\r\n\r\n");
        let both = format!("{both}GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = http_1(&service.address, both.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""body":"YWJjZGU=""#), "{answer}");
        assert!(!answer.contains(r#""content-length":"3""#), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 2").count(), 1, "nothing behind it is read: {answer}");
    }

    let long = format!("GET {target}{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(70_000));
    assert!(http_1(&service.address, long.as_bytes()).await.starts_with("HTTP/1.1 414"));
    let strange = format!("GET {target}%ff%00%2e%2e/%zz?%ff HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(http_1(&service.address, strange.as_bytes()).await.starts_with("HTTP/1.1 200"));
    let bomb =
        format!("POST {target} HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x08a");
    assert!(http_1(&service.address, bomb.as_bytes()).await.contains("gzip"), "it is passed on as it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_and_long_input_gets_an_answer() {
    let service = Service::start("inline_policies: allow").await;
    let deep = "[".repeat(200_000);
    let closed = format!("{deep}{}", "]".repeat(200_000));
    let long = "x".repeat(1 << 20);
    let wide = format!("{}¤{}", long, long);
    let request = |change: &dyn Fn(&mut ExecutePolicyRequest)| {
        let mut request = support::request("echo", "{}");
        change(&mut request);
        request
    };
    use lambda_policy::pb::{Header, HttpRequest, LambdaPolicy, execute_policy_request::Input};
    let http = |http: HttpRequest| Some(Input::Http(HttpRequest { method: "GET".into(), ..http }));
    type Change<'a> = &'a dyn Fn(&mut ExecutePolicyRequest);
    let rows: [(&str, Change<'_>, &str); 13] = [
        ("deep JSON", &|r| r.input = Some(Input::Json(closed.clone())), ""),
        ("deep JSON that is none", &|r| r.input = Some(Input::Json(deep.clone())), "INVALID_REQUEST"),
        ("a deep payload", &|r| r.input = Some(Input::Payload(closed.clone().into())), ""),
        ("a deep context", &|r| r.context = format!("{{\"custom\":{closed}}}"), "INVALID_REQUEST"),
        (
            "a deep authorizer that is JSON",
            &|r| {
                r.policy = "url".into();
                r.input = http(HttpRequest { authorizer: closed.clone(), ..Default::default() });
            },
            "",
        ),
        (
            "a deep authorizer",
            &|r| r.input = http(HttpRequest { authorizer: deep.clone(), ..Default::default() }),
            "INVALID_REQUEST",
        ),
        ("a long name", &|r| r.policy = wide.clone(), "POLICY_NOT_FOUND"),
        ("a long qualifier", &|r| r.qualifier = wide.clone(), "INVALID_REQUEST"),
        ("a long tenant", &|r| r.tenant = wide.clone(), "INVALID_REQUEST"),
        (
            "a long function",
            &|r| {
                r.policy.clear();
                r.lambda = Some(LambdaPolicy { function: wide.clone(), region: wide.clone(), ..Default::default() });
            },
            "INVALID_REQUEST",
        ),
        (
            "a long method",
            &|r| {
                r.policy = "url".into();
                r.input =
                    Some(Input::Http(HttpRequest { method: long.clone(), path: long.clone(), ..Default::default() }));
            },
            "",
        ),
        (
            "many parameters",
            &|r| {
                r.policy = "url".into();
                let many = (0..20_000).map(|n| (n.to_string(), "v".to_owned())).collect();
                r.input = http(HttpRequest { path_parameters: many, ..Default::default() });
            },
            "",
        ),
        (
            "many headers",
            &|r| {
                r.policy = "url".into();
                let headers = (0..20_000).map(|n| Header { name: format!("x-{n}"), value: "v".into() }).collect();
                r.input = http(HttpRequest { headers, ..Default::default() });
            },
            "",
        ),
    ];
    service
        .unharmed(128 * MIB, async {
            for (what, change, reason) in rows {
                let answer = timeout(IN_TIME, support::execute(&service.client, request(change))).await;
                let answer = answer.unwrap_or_else(|_| panic!("{what}: no answer"));
                let found = answer.as_ref().map_or_else(|failed| failed.reason.as_str(), |_| "");
                assert_eq!(found, reason, "{what}");
            }
            let json = |body: &str| {
                format!(
                    "POST /v1/policies/echo:execute HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
            };
            for body in
                [&deep, &closed, &format!(r#"{{"http":{{"headers":{closed}}}}}"#), &r#"{"http":"#.repeat(50_000)]
            {
                let answer = http_1(&service.address, json(body).as_bytes()).await;
                assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            }
        })
        .await;
}

#[tokio::test]
async fn more_headers_than_http_has_names_for_do_no_harm() {
    let service = Service::start("").await;
    let headers: serde_json::Map<_, _> = (0..40_000).map(|n| (format!("x-{n}"), "v".into())).collect();
    let body = serde_json::json!({"statusCode": 200, "headers": headers}).to_string();
    let request =
        format!("POST /v1/policies/web/http/ HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = http_1(&service.address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..answer.len().min(200)]);
    assert!(!service.process.said().contains("panicked"));
}

#[tokio::test]
async fn the_admin_port_answers_whatever_else_is_open() {
    let service = Service::start("").await;
    let admin = service.process.address("admin").unwrap();
    let mut open = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(&admin).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nx: ").await.unwrap();
        open.push(stream);
    }
    assert!(http_1(&admin, b"GET /readyz HTTP/1.1\r\n\r\n").await.ends_with("ready\n"));
    assert!(http_1(&admin, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.is_empty());
}

#[test]
fn the_table_of_limits_has_the_numbers_of_the_source() {
    let read = |file: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let table = read("SECURITY.md");
    for (file, source, row) in [
        ("src/config/server.rs", "\"max_connections\").unwrap_or(4096)", "`server.max_connections`, 4096"),
        (
            "src/grpc/handshake.rs",
            "HANDSHAKE: Duration = Duration::from_secs(10)",
            "| a handshake of TLS | 10 seconds |",
        ),
        (
            "src/grpc/stream.rs",
            "BEGINNING: Duration = Duration::from_secs(10)",
            "first 24 bytes of a connection | 10 seconds |",
        ),
        ("src/grpc/stream.rs", "ENOUGH: usize = 24", "the first 24 bytes"),
        ("src/grpc/limits.rs", "MAX_HEADERS: u32 = 16 * 1024", "in HTTP/2 | 16 KiB |"),
        ("src/grpc/limits.rs", "MAX_RESETS: usize = 20", "| 20 at once |"),
        ("src/grpc/limits.rs", "MAX_ERRORS: usize = 1024", "| 1024 in a connection's life |"),
        ("src/grpc/limits.rs", "(Duration::from_secs(60), Duration::from_secs(20))", "| 60 + 20 seconds |"),
        ("src/app/mod.rs", "MIN_STREAMS: u32 = 2048", "at least 2048"),
        ("src/grpc/reception.rs", "WHOLE: Duration = Duration::from_secs(60)", "| 60 seconds; of ext_proc"),
        ("src/admission/bodies.rs", "HEAD: usize = 16 * 1024", "16 KiB each"),
        ("src/admission/bodies.rs", "SMALL: usize = 64 * 1024", "up to 64 KiB"),
        ("src/grpc/mod.rs", "MAX_MESSAGE: usize = 8 * 1024 * 1024", "| 8 MiB, of Tyk 16 MiB;"),
        (
            "src/config/content.rs",
            "CONFIGURATION: Self = Self(64 << 20)",
            "| 64 MiB, and 1 MiB for each file that it names;",
        ),
        ("src/config/content.rs", "NAMED: Self = Self(1 << 20)", "| 64 MiB, and 1 MiB for each file that it names;"),
        ("src/app/reads.rs", "LONGEST: Duration = Duration::from_secs(30)", "that it names; 30 seconds |"),
        ("src/app/watch.rs", "RESTLESS: Duration = Duration::from_secs(3)", "| 3 seconds |"),
        ("src/error.rs", "MAX_MESSAGE: usize = 1024", "| 1 KiB, and 16 violations |"),
        ("src/http/keys.rs", "MOST_FETCHES: usize = 3", "| 3 within 30 seconds,"),
        ("src/http/keys.rs", "WINDOW: Duration = Duration::from_secs(30)", "| 3 within 30 seconds,"),
        ("src/grpc/renewal.rs", "MOST: Duration = Duration::from_secs(3)", "| a token waits 3 seconds"),
        ("src/http/small.rs", "CONNECTIONS: usize = 64", "| 64, each for 60 seconds;"),
    ] {
        assert!(read(file).contains(source), "{file}: {source}");
        assert!(table.contains(row), "{row}");
    }
}
